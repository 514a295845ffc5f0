"""One utterance: the row that every corpus, manifest and shard is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MICROPHONE = "mic:"  # what `Utterance.audio` holds in the place of a path


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of speech and, where it is known, its text.

    audio: what is played, in order: absolute paths, or `synth:` addresses which are spoken when they are loaded. Several parts are joined
        with `gap` seconds of silence between them, which is how digit strings are made of single digits.
    start, end: seconds inside the (only) audio file, for manifests that cut utterances out of long recordings.
    duration: seconds, after start and end and all joins; an estimate where the audio is still to be synthesised; None where unknown.
    """

    id: str
    audio: tuple[str, ...]
    text: str | None = None
    duration: float | None = None
    speaker: str | None = None
    start: float | None = None
    end: float | None = None
    gap: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)
