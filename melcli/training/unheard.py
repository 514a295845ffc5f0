"""Sources of a recipe of which no audio is opened: text for an encoder's text branch, or vectors that were made before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from melcli.data.features import FeatureSource
from melcli.data.texts import read_texts
from melcli.data.vectors import read_vectors
from melcli.data.written import TASKS, VectorFeatures, WrittenFeatures, question_and_answer
from melcli.errors import ConfigError, ManifestError
from melcli.models.speech_input import SpeechInput
from melcli.models.unified_input import Unified
from melcli.recipe import Source


def unheard(
    entry: Source,
    source: str,
    task: str,
    clean: Callable[[str], str],
    front: SpeechInput | None,
    *,
    root: Path,
    offline: bool,
    limit: int | None = None,
    key: str = "data.train",
) -> FeatureSource:
    """The utterances of a source that have a text, for `instruct` an answer too, and what stands for their speech.

    source: of the entry, found. clean: normaliser of texts. limit: so many, spread evenly. key: where the entry stands. Raises ConfigError.
    """
    if not isinstance(front, Unified):
        raise ConfigError(f"{key}: task {task} of {entry.source} is for model.speech_input unified, whose encoder reads text where others hear")
    if front.reads == "vectors" and entry.vectors is None:
        raise ConfigError(f"{key}: {entry.source} needs vectors: FILE, as model.speech_input reads vectors that were made elsewhere")
    if front.reads != "vectors" and entry.vectors is not None:
        raise ConfigError(f"{key}: {entry.source} has vectors, and model.speech_input makes its own: leave them out, or give size and no encoder")
    if task not in (*TASKS, "asr"):
        raise ConfigError(f"{key}: {entry.source} has vectors, and task {task} reads none")
    try:
        found = read_texts(source, root=root, offline=offline, durations=False)
    except ManifestError as error:
        raise ConfigError(f"{key}: {error}") from None
    pairs = [question_and_answer(u) if task == "instruct" else (u.text or "", u.text or "") for u in found]
    rows = [(replace(u, text=clean(said)), clean(heard)) for u, (heard, said) in zip(found, pairs, strict=True)]
    rows = [(u, heard) for u, heard in rows if u.text and heard]
    if not rows:
        raise ConfigError(f"{key}: {entry.source} holds no {'question with its answer' if task == 'instruct' else 'text'}")
    if limit is not None:
        rows = rows[:: max(1, len(rows) // limit)][:limit]
    chosen = [u for u, _ in rows]
    if entry.vectors is None:
        return WrittenFeatures(chosen, [heard for _, heard in rows])
    path = Path(entry.vectors) if Path(entry.vectors).is_absolute() or not (root / entry.vectors).exists() else root / entry.vectors
    try:
        return VectorFeatures(chosen, read_vectors(path, [u.id for u in chosen], front.shape, front.centre, [u.id for u in found]))
    except ManifestError as error:
        raise ConfigError(f"{key}: {error}") from None
