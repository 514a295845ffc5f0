"""A model that speaks, ready for text.

Shapes: T mel frames, M mel bins, P steps.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from melcli.audio.mel_spec import MelSpec
from melcli.data.lexicon import Lexicon
from melcli.data.utterance import Utterance
from melcli.errors import CheckpointError, UsageError
from melcli.models import checkpoint
from melcli.models.decoding.recognise import by_length
from melcli.models.fitting import Fitting
from melcli.models.guards import Guard
from melcli.models.hardware import pick_device, pick_dtype
from melcli.models.noise import seed_of
from melcli.models.processor import SpeechLMProcessor
from melcli.models.speaking import Prompt, Track, speak
from melcli.models.speech_lm import SpeechLM

POSITIONS = 6000  # of the prompts of a batch
VOICE_SECONDS = 0.5  # the least that tells a voice


@dataclass(frozen=True, slots=True)
class VoicePrompt:
    """A voice to go on in: mel_TM by the model's spec, and what is said in it, None where that is unknown."""

    mel_TM: Tensor
    text: str | None = None


@dataclass(slots=True)
class Spoken:
    """What was said. mel_TM in the units of the model's spec, without the voice prompt.

    stop_P: probability of the end before each step, and after the last where it came. std_P: mean deviation of what each step was drawn from, None
    where there is no such thing. reason: why it ended, `stop`, `length`, `silence` or `repetition`.
    """

    mel_TM: Tensor
    stop_P: Tensor
    std_P: Tensor | None
    reason: str


class Speaker:
    """Speaks texts as they were written in training: see `alphabet` for their characters.

    frames_per_step: mel frames of a step. last: what `stream` has said.
    """

    def __init__(self, model: SpeechLM, processor: SpeechLMProcessor) -> None:
        if model.speech_output is None:
            raise CheckpointError("this model only listens: it has no speech output")
        self.model = model.eval()
        self.processor = processor
        self.spec: MelSpec = processor.spec
        self.frames_per_step = model.speech_output.stride
        self.encoder = processor.encoder("tts")
        self.alphabet: str = model.config.spoken_alphabet or ""
        self.temperature: float = model.config.speak_temperature
        self.last: Spoken | None = None
        self.fitting = Fitting("texts")

    @classmethod
    def load(cls, name: str, *, device: str = "auto", dtype: str = "auto", offline: bool = False) -> Speaker:
        """The model of a registered name, folder or hub id. Raises CheckpointError, also for one that only listens, and UsageError."""
        where, _ = pick_device(device)
        kind, _ = pick_dtype(dtype, where)
        model, processor = checkpoint.load(name, dtype=kind, device=where, offline=offline)
        if model.speech_output is None:
            raise CheckpointError(f"--model {name}: this model only listens; it has no speech output")
        return cls(model, processor)

    def pronounce(self, words: Lexicon) -> None:
        """From now on say these words so, whatever the model's own dictionary holds. Raises UsageError where it has none, or never learnt a sound."""
        if self.encoder.lexicon is None:
            raise UsageError("--lexicon: this voice reads letters and not sounds; write the words as they should be read instead")
        tokenizer = self.processor.tokenizer
        for word, sound in words.words.items():
            if tokenizer.unk_token_id in tokenizer(sound, add_special_tokens=False)["input_ids"]:
                raise UsageError(f"--lexicon: {word!r} sounds like {sound!r}, and this voice knows the sounds {self._sounds()}")
        self.encoder.lexicon = self.encoder.lexicon.beneath(words)

    def _sounds(self) -> str:
        return " ".join(sorted(set().union(*self.encoder.lexicon.words.values())))

    def check(self, text: str) -> None:
        """Raises UsageError where there is nothing to say, or something that the voice never learnt."""
        if not any(character.isalnum() for character in text):
            raise UsageError(f"nothing to say in {text[:40]!r}: it holds neither letters nor figures")
        if self.alphabet and (unknown := sorted(set(text) - set(self.alphabet) - {" "})):
            raise UsageError(f"this voice cannot say {' '.join(unknown[:10])}; it knows {''.join(sorted(set(self.alphabet)))!r}")

    def speak(
        self,
        texts: Sequence[str],
        *,
        voice: VoicePrompt | None = None,
        temperature: float = 1.0,
        seed: int = 0,
        max_seconds: float | None = None,
    ) -> list[Spoken]:
        """What is said of each text. temperature scales what is drawn; the same seed and text give the same speech, whatever is said beside it.

        max_seconds: cuts what would be longer. Raises UsageError.
        """
        prompts = [self._prompt(text, voice, seed, max_seconds) for text in texts]
        return speak_all(self.model, prompts, temperature, self.fitting)

    def stream(
        self, text: str, *, voice: VoicePrompt | None = None, temperature: float = 1.0, seed: int = 0, max_seconds: float | None = None
    ) -> Iterator[Tensor]:
        """The mel of one text while it is said, in pieces [t, M] that together are what `speak` gives; what that returns is `last` afterwards.

        Silence is held back until something follows it, as it may be the end.
        """
        self.last = yield from speak_streaming(self.model, self._prompt(text, voice, seed, max_seconds), temperature)

    def _prompt(self, text: str, voice: VoicePrompt | None, seed: int, max_seconds: float | None) -> Prompt:
        self.check(text)
        utterance = Utterance("", (), text=text)
        own = self.encoder.texts([utterance])[0]
        patches = 0 if voice is None else self.check_voice(voice)
        told = Utterance("", (), text=voice.text) if voice is not None and voice.text else None
        example = self.encoder.prompted(utterance, 0, own, patches, told)
        config = self.model.config
        guard = Guard(self.spec, self.frames_per_step, config.spoken_pace * len(own), config.spoken_level, max_seconds)
        return Prompt(example, seed_of(seed, text), guard, None if voice is None else voice.mel_TM.float())

    def check_voice(self, voice: VoicePrompt) -> int:
        """Steps of a voice prompt. Raises UsageError for one that cannot be used."""
        frames, bins = voice.mel_TM.shape
        seconds, most = frames / self.spec.frame_rate, self.model.config.max_seconds
        if bins != self.spec.n_mels:
            raise UsageError(f"--voice: a mel of {bins} bins, and the model's has {self.spec.n_mels}")
        if not VOICE_SECONDS <= seconds <= most:
            raise UsageError(f"--voice: {seconds:.1f} s of it; give between {VOICE_SECONDS:g} and {most:g} s, of clear speech")
        return self.processor.steps(frames)


def speak_all(model: SpeechLM, prompts: Sequence[Prompt], temperature: float, fitting: Fitting | None = None) -> list[Spoken]:
    """What is said after each prompt, in batches of like length. fitting: remembers, from call to call, what memory holds."""
    fitting = fitting or Fitting("texts")

    def say(batch: list[Prompt]) -> list[Spoken]:
        tracks: list[Track] = []
        for tracks in speak(model, batch, _checked(temperature)):  # noqa: B007  the last are whole
            pass
        return [_spoken(model, track) for track in tracks]

    lengths = [len(prompt.example.input_ids) + prompt.guard.most for prompt in prompts]
    found: dict[int, Spoken] = {}
    for batch in by_length(lengths, POSITIONS):
        found |= zip(batch, fitting(say, [prompts[i] for i in batch], [lengths[i] for i in batch]), strict=True)
    return [found[i] for i in range(len(prompts))]


@torch.inference_mode()
def speak_streaming(model: SpeechLM, prompt: Prompt, temperature: float) -> Generator[Tensor, None, Spoken]:
    """The mel of one prompt's speech while it is said, see `Speaker.stream`; returns the whole."""
    output = model.speech_output
    window, given, track = output.stream(), 0, None
    for (track,) in speak(model, [prompt], _checked(temperature)):
        certain = track.guard.frames - track.guard.held
        if certain > given:
            mel_TM = output.frames(torch.stack(track.patches[given // output.stride :]))
            start = given % output.stride
            piece_TM = window.push(mel_TM[start : start + certain - given])
            given = certain
            if len(piece_TM):
                yield piece_TM.cpu()
    assert track is not None
    rest_TM = output.frames(torch.stack(track.patches))[given : track.guard.frames]
    for piece_TM in (window.push(rest_TM), window.flush()):
        if len(piece_TM):
            yield piece_TM.cpu()
    return _spoken(model, track)


@torch.inference_mode()
def _spoken(model: SpeechLM, track: Track) -> Spoken:
    output = model.speech_output
    mel_TM = output.polish(output.frames(torch.stack(track.patches))[: track.guard.frames])
    return Spoken(mel_TM.cpu(), torch.tensor(track.stops), torch.tensor(track.stds) if track.stds else None, track.reason or "length")


def _checked(temperature: float) -> float:
    if not 0 <= temperature <= 10:
        raise UsageError(f"--temperature {temperature:g}: must lie between 0, the mean of all that could be said, and 10")
    return temperature
