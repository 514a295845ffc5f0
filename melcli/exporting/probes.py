"""What an export is compared on: pieces of real recordings, and what a model makes of them.

Shapes: S samples, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from melcli import registry
from melcli.audio import io
from melcli.errors import CheckpointError
from melcli.models.decoding.generate import Greedy
from melcli.models.decoding.recognise import recognise
from melcli.models.processor import SpeechLMProcessor
from melcli.models.speaker import Speaker
from melcli.models.speech_lm import SpeechLM

PIECES = 20
TOLERANCE = 1e-4  # of the largest logit: what the order of additions may change, and no lost tensor could
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "the", "garden", "was", "quiet", "and", "green")
SENTENCES, SENTENCE_WORDS, MOST_SECONDS = 5, 3, 4.0
CUTS = [(0.0, 1.0), (0.0, 0.5), (0.5, 1.0), (0.25, 0.75), (0.0, 0.3), (0.1, 0.9), (0.4, 0.8), (0.6, 1.0), (0.0, 0.8), (0.3, 0.95)]


def pieces(rate: int, longest: float) -> list[Tensor]:
    """PIECES parts of the recordings in the package, wave_S at `rate` Hz, of a fraction of a second to all of it; none longer than `longest` s."""
    found = []
    for path in sorted((registry.PACKAGE / "assets" / "clips").glob("*.wav")):
        wave_S = io.load(str(path), rate)
        found += [wave_S[round(low * len(wave_S)) : round(high * len(wave_S))][: int(longest * rate)] for low, high in CUTS]
    return found[:PIECES]


def hears(model: SpeechLM) -> bool:
    """Whether recordings can go into a model."""
    return model.speech_input.reads in ("mel", "wave")


@torch.inference_mode()
def tokens(model: SpeechLM, processor: SpeechLMProcessor, waves: Sequence[Tensor]) -> list[list[int]]:
    """What a model writes of each wave_S, greedily."""
    return [found.tokens for found in recognise(model, processor, processor.features(waves), Greedy())]


@dataclass(frozen=True, slots=True)
class Compared:
    """How many outputs were compared, of what, and how many were the same."""

    what: str
    same: int
    of: int

    def __str__(self) -> str:
        return f"{self.same} of {self.of} {self.what} the same"

    def as_dict(self) -> dict[str, int | str]:
        return {"what": self.what, "same": self.same, "of": self.of}

    def all_or_raise(self, target: str) -> Compared:
        """Itself. Raises CheckpointError where anything differs."""
        if self.same < self.of:
            raise CheckpointError(f"--to {target}: read again, it is not the model that was exported: {self}; nothing was written")
        return self


def compare(what: str, ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> Compared:
    """How many sequences of tokens are equal."""
    return Compared(what, sum(list(a) == list(b) for a, b in zip(ours, theirs, strict=True)), len(ours))


def agreement(before: Sequence[Sequence[int]], after: Sequence[Sequence[int]]) -> str:
    """In words, how much of what was written before is written the same afterwards: 100 % less the token error rate."""
    errors = sum(Levenshtein.distance(list(a), list(b)) for a, b in zip(before, after, strict=True))
    share = 100 * (1 - errors / max(1, sum(map(len, before))))
    return f"{compare('transcripts', before, after)}, {max(0.0, share):.1f} % of their tokens"


def sentences(model: SpeechLM) -> list[str]:
    """Short texts in characters that a voice has learnt."""
    alphabet = model.config.spoken_alphabet or "".join(WORDS)
    words = [word for word in WORDS if set(word) <= set(alphabet)] or [c for c in alphabet if c.isalnum()]
    return [" ".join(words[(i + k) % len(words)] for k in range(SENTENCE_WORDS)) for i in range(0, SENTENCES * SENTENCE_WORDS, SENTENCE_WORDS)]


def said(model: SpeechLM, processor: SpeechLMProcessor, texts: Sequence[str]) -> list[Tensor]:
    """mel_TM that a model says of each text, every distribution at its mean."""
    return [one.mel_TM for one in Speaker(model, processor).speak(texts, temperature=0.0, max_seconds=MOST_SECONDS)]


@torch.inference_mode()
def logits(model: SpeechLM) -> list[Tensor]:
    """logits_LV of sequences of tokens drawn at random, of a model that recordings cannot go into."""
    generator = torch.Generator().manual_seed(0)
    places = model.place_holders
    ids_BL = torch.randint(model.config.vocab_size, (PIECES, 12), generator=generator)
    ids_BL = torch.where(torch.isin(ids_BL, torch.tensor(places)), model.config.stop_token_ids[0], ids_BL)
    return list(model(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL)).logits)


def near(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two tensors are equal but for the order of additions."""
    return ours.shape == theirs.shape and float((ours - theirs).abs().max()) <= TOLERANCE * max(1.0, float(ours.abs().max()))


def compare_models(ours: SpeechLM, processor: SpeechLMProcessor, theirs: SpeechLM, their_processor: SpeechLMProcessor) -> list[Compared]:
    """What two models make of the same recordings, and say of the same texts."""
    found = []
    if hears(ours):
        waves = pieces(processor.spec.rate, ours.config.max_seconds)
        found.append(compare("transcripts", tokens(ours, processor, waves), tokens(theirs, their_processor, waves)))
    else:
        pairs = list(zip(logits(ours), logits(theirs), strict=True))
        found.append(Compared("texts' logits", sum(near(a, b) for a, b in pairs), len(pairs)))
    if ours.speech_output is not None:
        texts = sentences(ours)
        pairs = list(zip(said(ours, processor, texts), said(theirs, their_processor, texts), strict=True))
        found.append(Compared("sentences said", sum(near(a, b) for a, b in pairs), len(pairs)))
    return found
