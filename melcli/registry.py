"""The one table of everything that has a name: inputs, mel presets, tasks, models, recipes, corpora, protocols.

An entry says what a name stands for without importing it, so that listing is instant; `Entry.load()` imports the target when it is wanted.
Other packages add entries through the entry-point group `melcli.plugins`: each entry point is an iterable of `Entry`, or a function that returns one.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melcli.errors import RegistryError, nearest

KINDS = ("speech-input", "speech-output", "mel", "task", "model", "recipe", "corpus", "score-set", "normaliser", "protocol", "recogniser", "vocoder")
FILE_KINDS = ("model", "recipe")
LISTED = 20  # names that an error lists at most
PACKAGE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Entry:
    """What a name stands for.

    target: `package.module:attribute`, with `.key` to go on into an attribute or a mapping; or, for what is a file or folder (models, recipes),
        its path, relative to the melcli package or absolute.
    sha256: of the file itself, or of a model folder's model.safetensors.
    """

    kind: str
    name: str
    target: str
    summary: str
    licence: str | None = None
    sha256: str | None = None

    def load(self) -> Any:
        """Import and return the target; of a file or folder its path. Raises RegistryError where the target is not there."""
        if self.kind in FILE_KINDS:
            return self.path()
        module, _, attributes = self.target.partition(":")
        value = importlib.import_module(module)
        try:
            for step in attributes.split("."):
                value = value[step] if isinstance(value, Mapping) else getattr(value, step)
        except (AttributeError, KeyError):
            raise RegistryError(f"{self.kind} '{self.name}' points at {self.target}, which does not exist.") from None
        return value

    def path(self) -> Path:
        """The file or folder of this entry. Raises RegistryError where it is code, or the file is not there."""
        found = PACKAGE / self.target
        if self.kind not in FILE_KINDS:
            raise RegistryError(f"{self.kind} '{self.name}' is code ({self.target}), not a file.")
        if not found.exists():
            raise RegistryError(f"{self.kind} '{self.name}' is not installed: {found} does not exist.")
        return found


def _mel(name: str, summary: str) -> Entry:
    return Entry("mel", name, f"melcli.audio.mel_spec:PRESETS.{name}", summary)


def _corpus(name: str, summary: str, licence: str) -> Entry:
    return Entry("corpus", name, f"melcli.data.corpora:CORPORA.{name}", summary, licence)


def _set(name: str, summary: str) -> Entry:
    return Entry("score-set", name, f"melcli.scoring.sets:SETS.{name.replace('.', '_')}", summary)


BUILT_IN = (
    Entry("speech-input", "mel-patch", "melcli.models.speech_input:MelPatch", "stack r mel frames, one linear layer"),
    Entry("speech-input", "mel-conv", "melcli.models.speech_input:MelConv", "Phi-4-MM's 8x convolutional stack and projection, without its encoder"),
    Entry("speech-input", "mel-tdnn", "melcli.models.mel_tdnn:MelTdnn", "convolutions and time-delay layers, for small models"),
    Entry("speech-input", "phi4mm-encoder", "melcli.models.conformer:MelConformer", "mel-conv with Phi-4-MM's conformer before the projection"),
    Entry("speech-input", "encoder", "melcli.models.encoder:Encoder", "an audio encoder of transformers (Whisper, HuBERT, ...) and an MLP"),
    Entry("speech-input", "fusion", "melcli.models.fusion:Fusion", "two or more speech inputs, concatenated or added"),
    Entry("speech-input", "unified", "melcli.models.unified_input:Unified", "an encoder of text and speech into one space, n soft tokens (TESU-LLM)"),
    Entry("speech-input", "raw-frame", "melcli.models.speech_input:RawFrame", "40 ms of waveform, RMS-normalised, one linear layer (Gemma 4 style)"),
    Entry("speech-input", "none", "melcli.models.speech_input:NoInput", "hears nothing: for a model that only speaks"),
    Entry("speech-output", "vae", "melcli.models.vae_output:VaeOutput", "next-token variational autoencoder of r mel frames (MELLE, Mel-LLM)"),
    Entry("speech-output", "codebook", "melcli.models.codebook_output:CodebookOutput", "k-means codes of r frames and the end in one softmax (MELD)"),
    Entry("speech-output", "spectrogram", "melcli.models.spectrogram_output:SpectrogramOutput", "r frames by regression, with deltas (Spectron)"),
    Entry(
        "speech-output",
        "diffusion",
        "melcli.models.diffusion_output:DiffusionOutput",
        "latents of r frames, a small diffusion head (LatentLM)",
    ),
    _mel("phi4mm", "Phi-4-multimodal: 16 kHz, 80 bins, 100 frames/s, pre-emphasis, natural log"),
    _mel("whisper-80", "Whisper up to large-v2: 16 kHz, 80 bins, 100 frames/s"),
    _mel("whisper-128", "Whisper large-v3: 16 kHz, 128 bins, 100 frames/s"),
    _mel("speecht5", "SpeechT5 and its HiFi-GAN: 16 kHz, 80 bins, 62.5 frames/s, log10 of magnitude"),
    _mel("vocos-24k", "Vocos: 24 kHz, 100 bins, 93.75 frames/s"),
    _mel("bigvgan-22k", "BigVGAN and HiFi-GAN: 22.05 kHz, 80 bins, 86 frames/s"),
    _mel("bigvgan-24k", "BigVGAN at 24 kHz, and UnivNet: 100 bins, 93.75 frames/s"),
    Entry("task", "asr", "melcli.data.tasks:asr", "speech in, its text out"),
    Entry("task", "tts", "melcli.data.tasks:tts", "text in, its speech out"),
    Entry("task", "repeat", "melcli.data.tasks:repeat", "a text through a unified encoder's text branch in, the text out; hears afterwards"),
    Entry("task", "instruct", "melcli.data.tasks:instruct", "a question through a unified encoder's text branch in, its answer out"),
    Entry("task", "continue", "melcli.data.tasks:continue_", "speech in; its text with what follows, and the speech of what follows, out"),
    Entry("task", "answer", "melcli.data.tasks:answer", "a spoken question in; question and answer in text, and the answer in speech, out"),
    Entry("task", "text", "melcli.data.tasks:text", "text alone: plain language modelling"),
    Entry("model", "tiny-en", "assets/tiny-en", "English read speech and digit strings; ships with melcli, trained by recipe tiny-en", "Apache-2.0"),
    Entry("model", "tiny-voice", "assets/tiny-voice", "a synthetic English voice; ships with melcli, trained by recipe tiny-voice", "Apache-2.0"),
    _corpus("librispeech", "English audio books, 960 h; librispeech:train-clean-100 and so on", "CC BY 4.0"),
    _corpus("digits", "free spoken digit data set; digits:train, digits:test", "CC BY-SA 4.0"),
    _corpus("speechocean762", "English read by Mandarin speakers; speechocean762:train, :dev", "free for any use"),
    _corpus("robotutor", "children's stories and single words; robotutor:stories, :words", "CC BY 4.0"),
    _corpus("libritts", "LibriTTS: audio books at 24 kHz, cut at sentences", "CC BY 4.0"),
    _corpus("ljspeech", "LJ Speech: one speaker, 24 h, 22.05 kHz", "public domain"),
    _corpus("synth", "speech made on the spot by flite, espeak-ng, festival, RHVoice and Pico; synth?hours=2", "the text's own"),
    _corpus("llama-questions", "300 spoken questions with answers, a synthetic voice", "as published"),
    _corpus("web-questions", "2,032 questions with all accepted answers, written", "CC BY 4.0"),
    _set("llama-questions", "300 spoken questions, answers scored (--task answer)"),
    _set("web-questions", "2,032 written questions, spoken by a voice of your choice (--voice), answers scored (--task answer)"),
    _set("openasr", "the OpenASR leaderboard of 2026, seven sets"),
    _set("openasr-classic", "the OpenASR leaderboard until March 2026, eight sets"),
    _set("librispeech", "LibriSpeech test-clean and test-other, the corpus"),
    _set("ami_cleaned", "meetings, corrected references"),
    _set("earnings22_cleaned_aa_chunked", "earnings calls in pieces, each call scored as a whole"),
    _set("gigaspeech_cleaned", "podcasts and videos, corrected references"),
    _set("librispeech_test.clean", "audio books, clear voices, from the leaderboard's repository"),
    _set("librispeech_test.other", "audio books, harder voices, from the leaderboard's repository"),
    _set("spgispeech", "earnings calls, read and spontaneous"),
    _set("voxpopuli_cleaned_aa", "the European Parliament, corrected references"),
    _set("ami", "meetings"),
    _set("earnings22", "earnings calls, cut"),
    _set("gigaspeech", "podcasts and videos"),
    _set("tedlium", "TED talks"),
    _set("voxpopuli", "the European Parliament"),
    Entry("vocoder", "griffin-lim", "melcli.audio.griffin_lim:GriffinLim", "phases found by iteration; any mel, no weights"),
    Entry(
        "vocoder", "tiny-vocoder", "melcli.audio.tiny_vocos:TinyVocos", "ours, small and fast (mel speecht5), trained by recipe vocoder", "Apache-2.0"
    ),
    Entry("vocoder", "speecht5-hifigan", "melcli.audio.vocoder_families:SpeechT5HifiGan", "SpeechT5's HiFi-GAN (mel speecht5), from the hub", "MIT"),
    Entry("vocoder", "univnet", "melcli.audio.vocoder_families:UnivNet", "UnivNet (mel bigvgan-24k), from the hub"),
    Entry("vocoder", "vocos", "melcli.audio.vocoder_families:Vocos", "Vocos (mel vocos-24k), from the hub; needs melcli[vocos]", "MIT"),
    Entry(
        "vocoder",
        "bigvgan",
        "melcli.audio.vocoder_families:BigVGAN",
        "BigVGAN v2 (mel bigvgan-22k or -24k), from the hub; needs melcli[bigvgan]",
        "MIT",
    ),
    Entry("normaliser", "plain", "melcli.scoring.normalize:plain", "lower case, no punctuation but apostrophes, single spaces"),
    Entry("normaliser", "none", "melcli.scoring.normalize:none", "the text as it is, single spaces"),
    Entry("protocol", "openasr-2026", "melcli.scoring.openasr:OPENASR", "OpenASR leaderboard of 2026, English: more rules, compounds may merge"),
    Entry("protocol", "openasr-classic", "melcli.scoring.openasr:CLASSIC", "OpenASR leaderboard up to March 2026, English: Whisper's rules"),
    Entry("protocol", "openasr-ml", "melcli.scoring.openasr:MULTILINGUAL", "OpenASR leaderboard, any language: no signs, compounds may merge"),
    Entry("protocol", "plain", "melcli.scoring.protocol:PLAIN", "normaliser plain, plain WER, no pair left out"),
    Entry(
        "recogniser",
        "pocketsphinx",
        "melcli.models.sphinx:Sphinx",
        "offline, US English, independent of all training here; extra sphinx",
        "BSD-2-Clause",
    ),
    Entry("protocol", "spoken", "melcli.scoring.tts.words:SPOKEN", "English as it is said, figures in words; how speech is compared with its text"),
    Entry("protocol", "none", "melcli.scoring.protocol:NONE", "normaliser none, plain WER, no pair left out"),
)

plugin_errors: list[str] = []
"""One line for each plugin that could not be loaded; `melcli doctor` prints them."""


def register(entry: Entry) -> None:
    """Add an entry. Raises RegistryError for an unknown kind or a name that is taken."""
    _add(_table(), entry)


def get(kind: str, name: str) -> Entry:
    """The entry of a name. Raises RegistryError saying which names exist and which is nearest."""
    known = _table().get(_kind(kind), {})
    if name not in known:
        listing = f"melcli {'recipes ls' if kind == 'recipe' else f'models ls --kind {kind}'}"
        there = f"There is: {', '.join(sorted(known)) or 'none'}." if len(known) <= LISTED else f"`{listing}` lists all {len(known)}."
        raise RegistryError(f"no {kind} is called '{name}'.{nearest(name, known)} {there}")
    return known[name]


def names(kind: str) -> list[str]:
    """The names of a kind, sorted."""
    return sorted(_table().get(_kind(kind), {}))


def entries(kind: str) -> list[Entry]:
    """The entries of a kind, sorted by name."""
    return [get(kind, name) for name in names(kind)]


def recipes_folder() -> Path:
    """Where the shipped recipes are: inside an installed package, or beside the package in a checkout."""
    installed = PACKAGE / "recipes"
    return installed if installed.is_dir() else PACKAGE.parent / "recipes"


def _kind(kind: str) -> str:
    if kind not in KINDS:
        raise RegistryError(f"there is no kind '{kind}'.{nearest(kind, KINDS)} There is: {', '.join(KINDS)}.")
    return kind


def _add(table: dict[str, dict[str, Entry]], entry: Entry) -> None:
    there = table.setdefault(_kind(entry.kind), {})
    if entry.name in there:
        raise RegistryError(f"{entry.kind} '{entry.name}' is registered already, as {there[entry.name].target}.")
    there[entry.name] = entry


@functools.cache
def _table() -> dict[str, dict[str, Entry]]:
    table: dict[str, dict[str, Entry]] = {}
    for entry in (*BUILT_IN, *_recipes(recipes_folder())):
        _add(table, entry)
    for plugin in importlib.metadata.entry_points(group="melcli.plugins"):
        try:
            given = plugin.load()
            for entry in given() if callable(given) else given:
                _add(table, entry)
        except Exception as error:  # somebody else's code must not stop ours
            plugin_errors.append(f"plugin '{plugin.name}' ({plugin.value}) was left out: {type(error).__name__}: {error}")
    return table


def _recipes(folder: Path) -> list[Entry]:
    """One entry a YAML file, called by its path below the folder; the summary is the comment in its first line.

    Names that begin with '_' are only there to be extended.
    """
    found = []
    for path in sorted(folder.rglob("*.yaml")):
        with path.open(encoding="utf-8") as lines:
            first = next(lines, "").strip()
        if not path.stem.startswith("_"):
            found.append(
                Entry("recipe", path.relative_to(folder).with_suffix("").as_posix(), str(path), first.lstrip("# ") if first.startswith("#") else "")
            )
    return found
