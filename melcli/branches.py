"""`melcli branches`: what a model with a unified encoder makes of speech, of its text, and of another's speech; and how near its branches are.

Shapes: T frames or characters, V vectors of an utterance, W width of a vector, U utterances.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melcli import console
from melcli.audio.mel import log_mel
from melcli.data.load import load_utterance
from melcli.data.manifest import read_source
from melcli.data.texts import read_texts
from melcli.data.utterance import Utterance
from melcli.data.vectors import read_vectors, write_vectors
from melcli.data.written import codes_of
from melcli.errors import AudioError, ManifestError, UsageError
from melcli.models import checkpoint, unified_encoder
from melcli.models.decoding.recognise import recognise
from melcli.models.hardware import keep_freed_memory, pick_device, pick_dtype
from melcli.models.processor import SpeechLMProcessor
from melcli.models.speech_lm import SpeechLM
from melcli.models.unified_encoder import UnifiedEncoder, similarity
from melcli.models.unified_input import Unified
from melcli.scoring import normalize
from melcli.scoring import protocol as protocols
from melcli.scoring.protocol import Protocol
from melcli.scoring.tally import cell
from melcli.scoring.wer import ErrorCounts
from melcli.training.unified_loss import recalls

SPEECH, TEXT = "speech", "text"
TOGETHER = 32  # utterances encoded at once


@dataclass(frozen=True)
class Found:
    """Of one source: the errors of what was repeated by what was fed, retrieval in percent, and mean cosines between the branches.

    cosines: `pairs` of vectors that belong together, `others` that do not, after what the model does to them; `means` of the two branches' means
    before it.
    """

    utterances: int
    fed: dict[str, ErrorCounts]
    retrieval: dict[str, float]
    cosines: dict[str, float]


@dataclass
class Branches:
    """What one model made of each source. failures: (utterance, reason) of those that could not be used."""

    model: str
    protocol: Protocol
    sets: dict[str, Found] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The object of `branches -f json`: rates in percent, cosines to four places."""
        sets = {}
        for name, one in self.sets.items():
            fed = {what: {"wer": self.protocol.rounded(c.wer), "cer": self.protocol.rounded(c.cer), "words": c.words} for what, c in one.fed.items()}
            sets[name] = {"utterances": one.utterances, "fed": fed, "retrieval": one.retrieval, "cosines": one.cosines}
        return self.protocol.stamp() | {"model": self.model, "sets": sets}

    def tables(self) -> list[tuple[tuple[str, ...], list[list[str]]]]:
        """Heads and rows of two tables: errors by what was fed, and retrieval; those that there are."""
        said = self.as_dict()["sets"]
        fed = [
            [name, what, cell(c["wer"]), cell(c["cer"]), str(c["words"]), str(one["utterances"])]
            for name, one in said.items()
            for what, c in one["fed"].items()
        ]
        near = []
        for name, one in said.items():
            ways = dict.fromkeys(measure.rpartition(" @")[0] for measure in one["retrieval"])
            near += [[name, way, *(cell(value) for measure, value in one["retrieval"].items() if measure.startswith(way))] for way in ways]
            near += [[name, f"cosine of {what}", f"{value:.3f}", "", ""] for what, value in one["cosines"].items()]
        tables = [(("set", "fed", "WER %", "CER %", "words", "utterances"), fed), (("set", "retrieval %", "@1", "@5", "@10"), near)]
        return [(head, rows) for head, rows in tables if rows]


class Ears:
    """A model with a unified encoder, or such an encoder alone, and what it reads."""

    def __init__(self, name: str, *, device: str, dtype: str, offline: bool) -> None:
        self.device, why_device = pick_device(device)
        kind, why_dtype = pick_dtype(dtype, self.device)
        if self.device == "cpu":
            keep_freed_memory()
        folder = checkpoint.resolve(name, offline=offline)
        self.model: SpeechLM | None = None
        self.processor: SpeechLMProcessor | None = None
        if checkpoint.read_config(folder).get("model_type") == unified_encoder.MODEL_TYPE:
            self.encoder: UnifiedEncoder | None = unified_encoder.load(folder).to(self.device)
            self.input = None
            self.reads, self.spec, self.shape = self.encoder.reads, self.encoder.config.mel, self.encoder.shape
        else:
            self.model, self.processor = checkpoint.load(str(folder), dtype=kind, device=self.device)
            self.input = self.model.speech_input
            if not isinstance(self.input, Unified):
                raise UsageError(f"--model {name}: branches is about models whose speech input is unified, and this one's is another")
            self.encoder = self.input.encoder
            self.reads, self.spec, self.shape = self.input.reads, self.processor.spec, self.input.shape
        what = "a unified encoder" if self.model is None else f"a {self.model.config.text_config.model_type} model behind {self.shape[0]} vectors"
        self.decisions = {
            "device": f"{self.device}: {why_device}",
            "dtype": f"{str(kind).removeprefix('torch.')}: {why_dtype}",
            "model": f"{name}: {what}",
        }

    @property
    def max_seconds(self) -> float | None:
        """The longest speech it takes."""
        return None if self.model is None else self.model.config.max_seconds

    def features(self, wave_S: Tensor) -> Tensor:
        """What the speech branch reads of a waveform."""
        if self.processor is not None:
            return self.processor.features([wave_S])[0]
        wave_S = torch.nn.functional.pad(wave_S, (0, max(0, self.spec.span - len(wave_S))))
        return log_mel(self.spec, wave_S) if self.reads == "mel" else wave_S[:, None]

    def repeated(self, features: Sequence[Tensor]) -> list[str]:
        """What the model writes."""
        return [self.processor.text(h.tokens) for h in recognise(self.model, self.processor, features)]

    @torch.inference_mode()
    def vectors(self, features: Sequence[Tensor], raw: bool = False) -> Tensor:
        """[U, V, W] of features, or of codes of text: as the projector reads them, or raw as they come out of the encoder."""
        parts = []
        for at in range(0, len(features), TOGETHER):
            own = features[at : at + TOGETHER]
            packed, lengths_U = torch.cat(list(own)).to(self.device), torch.tensor([len(one) for one in own], device=self.device)
            parts.append(self._raw(packed, lengths_U) if raw or self.input is None else self.input.latents(packed, lengths_U))
        z_UVW = torch.cat(parts).float().cpu()
        if raw or self.input is not None:
            return z_UVW
        written = not features[0].is_floating_point()
        return z_UVW - (self.encoder.text_mean_VW if written else self.encoder.speech_mean_VW).cpu()

    def _raw(self, packed: Tensor, lengths_U: Tensor) -> Tensor:
        if packed.is_floating_point():
            return self.encoder.speech(packed, lengths_U)
        return self.encoder.text(["".join(map(chr, codes[:, 0].tolist())) for codes in packed.split(lengths_U.tolist())])


def branches(
    sources: Sequence[str],
    model: str,
    *,
    vectors: Mapping[str, Path] | None = None,
    protocol: str = "plain",
    text: str = "plain",
    limit: int | None = None,
    out: Path | None = None,
    root: Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    offline: bool = False,
) -> Branches:
    """Feed a model with speech, with its text and with another utterance's speech, and see what it repeats; and find speech by text and back.

    model: a SpeechLM whose speech input is unified, or a unified encoder alone, of which nothing is repeated. vectors: files of vectors by what they
    are, for a model that reads nothing else. text: normaliser of what the text branch reads. limit: the first so many utterances. out: a folder for
    each source's raw vectors by id, speech and text. Raises UsageError, ManifestError, ConfigError and CheckpointError.
    """
    rules, clean = protocols.get(protocol), normalize.get(text)
    ears = Ears(model, device=device, dtype=dtype, offline=offline)
    console.decided(ears.decisions | {"protocol": f"{rules.name} {rules.version} ({rules.digest})"})
    if (ears.reads == "vectors") != bool(vectors):
        lacks = (
            "reads vectors made elsewhere: give --vectors speech=FILE" if ears.reads == "vectors" else "makes its own vectors: leave out --vectors"
        )
        raise UsageError(f"--model {model}: it {lacks}")
    found = Branches(model, rules)
    for source in sources:
        if ears.reads == "vectors":
            rows = [u for u in read_texts(source, root=root, offline=offline, durations=False) if u.text][:limit]
            ids = [u.id for u in rows]
            fed = {what: list(read_vectors(path, ids, ears.shape, ears.input.centre).values()) for what, path in vectors.items()}
        else:
            rows, heard = _heard(source, ears, found.failures, limit, root, offline)
            fed = {SPEECH: heard, TEXT: [codes_of(clean(u.text or "")) for u in rows]}
        if len(rows) < 2:
            raise ManifestError(f"{source}: fewer than two utterances with a text that can be used")
        found.sets[source] = _measured(ears, rules, rows, fed)
        if out is not None and ears.encoder is not None:
            for what, features in fed.items():
                raw_UVW = ears.vectors(features, raw=True)
                write_vectors(
                    out / f"{Path(source).name.partition('?')[0]}-{what}.safetensors", dict(zip([u.id for u in rows], raw_UVW, strict=True))
                )
    return found


def _heard(
    source: str, ears: Ears, failures: list[tuple[str, str]], limit: int | None, root: Path | None, offline: bool
) -> tuple[list[Utterance], list[Tensor]]:
    """Utterances with a text, and the features of their speech; what cannot be used goes to `failures`."""
    rows, heard = [], []
    for u in [u for u in read_source(source, root=root, offline=offline) if u.text][:limit]:
        if ears.max_seconds is not None and (u.duration or 0.0) > ears.max_seconds:
            failures.append((u.id, f"longer than the {ears.max_seconds:g} s that the model takes"))
            continue
        try:
            heard.append(ears.features(load_utterance(u, ears.spec.rate)))
            rows.append(u)
        except AudioError as error:
            failures.append((u.id, str(error)))
    return rows, heard


def _measured(ears: Ears, rules: Protocol, rows: Sequence[Utterance], fed: Mapping[str, list[Tensor]]) -> Found:
    texts = [u.text or "" for u in rows]
    errors = {}
    if ears.model is not None:
        first = next(iter(fed))
        given = dict(fed) | {f"shuffled {first}": [fed[first][i] for i in others(texts)]}
        for what, features in given.items():
            counts = [c for c in rules.score_each(texts, ears.repeated(features)) if c is not None]
            errors[what] = sum(counts, ErrorCounts())
    if SPEECH not in fed or TEXT not in fed:
        return Found(len(rows), errors, {}, {})
    speech_UVW, text_UVW = ears.vectors(fed[SPEECH]), ears.vectors(fed[TEXT])
    near_UU, count = similarity(speech_UVW, text_UVW), len(rows)
    pairs = float(near_UU.diagonal().mean())
    cosines = {"pairs": pairs, "others": (float(near_UU.sum()) - count * pairs) / (count * (count - 1))}
    if ears.encoder is not None:
        means = [ears.vectors(fed[what], raw=True).mean(0, keepdim=True) for what in (SPEECH, TEXT)]
        cosines["means"] = float(similarity(*means))
    said = [rules.normalise(text) for text in texts]
    return Found(count, errors, recalls(speech_UVW, text_UVW, said), {name: round(value, 4) for name, value in cosines.items()})


def others(texts: Sequence[str], seed: int = 0) -> list[int]:
    """For each text the index of another, of other words where there is one: each index once, but for what repeated texts force."""
    order = list(range(len(texts)))
    random.Random(seed).shuffle(order)
    chosen = [0] * len(order)
    for place, index in enumerate(order):
        following = [order[(place + step) % len(order)] for step in range(1, len(order))]
        chosen[index] = next((other for other in following if texts[other] != texts[index]), following[0])
    return chosen
