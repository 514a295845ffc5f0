"""The families of transformers' speech recognisers that melcli can run beside its own, one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

from melcli.errors import CheckpointError, nearest
from melcli.models.peers import prompts
from melcli.models.peers.prompts import Inputs

LONGEST = 40.0  # seconds of a piece where the family sets no limit: every utterance of the leaderboard's short sets is whole


@dataclass(frozen=True, slots=True)
class Family:
    """How models of one model_type are loaded and asked.

    auto: the Auto class that builds them. inputs: makes the model's inputs, see `prompts`. max_seconds: the longest piece of audio.
    fixed: features always span max_seconds, so every piece costs as much as the longest.
    blends: padding is not wholly masked and changes the text of shorter utterances, so they are decoded one at a time unless told otherwise.
    parts: only the processor's feature extractor and tokenizer are loaded. adapter: a sub-folder with a LoRA that must be put on for speech.
    needs: modules to import, and the package that brings each. marker: the text begins after it, where it is there.
    told: the prompt says the language, `prompts.LANGUAGE`. bare: `generate` returns the text's tokens alone, without what it was given.
    instructed: `inputs` takes another instruction.
    """

    auto: str
    inputs: Callable[..., Inputs] = prompts.audio_alone
    max_seconds: float = LONGEST
    fixed: bool = False
    blends: bool = False
    parts: bool = False
    adapter: str | None = None
    needs: Mapping[str, str] = field(default_factory=dict)
    marker: str | None = None
    told: bool = False
    instructed: bool = False
    bare: bool = False

    @property
    def ctc(self) -> bool:
        """Whether the text is read off a CTC head instead of generated."""
        return self.auto == "AutoModelForCTC"

    @property
    def transducer(self) -> bool:
        return self.auto in ("AutoModelForTDT", "AutoModelForRNNT")


NATIVE_PHI = "give its native form: microsoft/Phi-4-multimodal-instruct@refs/pr/70"
SEQ2SEQ = "AutoModelForSpeechSeq2Seq"
PROMPTED = "AutoModelForMultimodalLM"

GENERATIVE = {
    "whisper": Family(SEQ2SEQ, prompts.whisper, max_seconds=30, fixed=True, bare=True),
    "moonshine": Family(SEQ2SEQ, blends=True),
    "moonshine_streaming": Family(SEQ2SEQ, prompts.parakeet, blends=True),
    "speech_to_text": Family(SEQ2SEQ, needs={"sentencepiece": "sentencepiece"}),
    "cohere_asr": Family(SEQ2SEQ, prompts.cohere, max_seconds=30, told=True),
    "canary": Family(SEQ2SEQ, prompts.canary, told=True),
    "qwen3_asr": Family(SEQ2SEQ, prompts.qwen3_asr, marker="<asr_text>", told=True),
    "granite_speech": Family(SEQ2SEQ, prompts.granite, blends=True, instructed=True),
    "voxtral": Family(SEQ2SEQ, prompts.voxtral, max_seconds=30, fixed=True, told=True, needs={"mistral_common": "mistral-common[audio]"}),
    "glmasr": Family(PROMPTED, prompts.glmasr, max_seconds=30),
    "phi4_multimodal": Family(PROMPTED, prompts.phi4, parts=True, blends=True, adapter="speech-lora", instructed=True),
    "qwen2_audio": Family(PROMPTED, prompts.qwen2_audio, max_seconds=30, fixed=True, told=True),
    "parakeet_tdt": Family("AutoModelForTDT", prompts.parakeet),
    "parakeet_rnnt": Family("AutoModelForRNNT", prompts.parakeet),
}
CTC = {name: Family("AutoModelForCTC", prompts.parakeet if name.endswith("_ctc") else prompts.audio_alone) for name in MODEL_FOR_CTC_MAPPING_NAMES}
FAMILIES = GENERATIVE | CTC


def family_of(where: str, model_type: object) -> Family:
    """The family of a checkpoint. Raises CheckpointError naming those there are."""
    if isinstance(model_type, str) and model_type in FAMILIES:
        return FAMILIES[model_type]
    if model_type == "phi4mm":
        raise CheckpointError(f"{where}: model_type 'phi4mm' needs code from the hub, which is never run; {NATIVE_PHI}")
    kind = f"model_type {model_type!r}" if model_type else "its config.json names no model_type, which"
    close = nearest(str(model_type), FAMILIES)
    raise CheckpointError(f"{where}: {kind} is no speech recogniser melcli can run.{close} It runs speech_lm, {', '.join(FAMILIES)}")
