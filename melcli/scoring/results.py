"""Result files: one JSON object a line for each scored utterance, in the fields of the OpenASR leaderboard, with raw text on both sides."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResultRow:
    """What a model heard in one utterance.

    audio_filepath: what the utterance is called, unique in its file. duration, time: seconds of audio, and seconds it took. text, pred_text: the
    reference and the hypothesis, both as they came. speaker, parent_id, chunk_index: where known; a call cut into chunks shares its parent_id.
    finish_reason: why decoding stopped (eos, length, repetition, silence), where known.
    """

    audio_filepath: str
    duration: float | None
    time: float | None
    text: str
    pred_text: str
    speaker: str | None = None
    parent_id: str | None = None
    chunk_index: int | None = None
    finish_reason: str | None = None
