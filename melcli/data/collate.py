"""Examples laid end to end as rows of one tensor.

Shapes: R rows, L positions, T frames of an utterance, F frames of all, M mel bins, U utterances, N target tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from melcli.data.tasks import Example


@dataclass(frozen=True, slots=True)
class Item:
    """A sequence and its speech: heard_TM is read (mel, or samples [S, 1]), spoken_TM is to be said; voice_TM, a voice prompt, is read before that as
    if it had been said."""

    example: Example
    heard_TM: Tensor | None = None
    spoken_TM: Tensor | None = None
    voice_TM: Tensor | None = None


STEP = 16  # positions that widths of rows differ by


def pack(rows: Sequence[Sequence[Item]], pad_id: int, row_tokens: int | None = None) -> dict[str, Tensor]:
    """What `SpeechLM.forward` reads. row_tokens: positions of a row as it was planned; rows are then filled up so that batches differ less in shape
    than in length, which costs a percent and spares kernels (models/steady.py).

    Returns input_ids, labels, position_ids and documents [R, L]; of speech that is heard speech [F, M] and speech_lengths [U] in reading order,
    ctc_targets [N] and ctc_lengths [U], -1 where the text is unknown; of speech that is said spoken, spoken_lengths, spoken_ctc_targets and
    spoken_ctc_lengths likewise; voice [F, M] and voice_lengths [U], of the voice prompt of each that is said, 0 for none. Where no item holds such
    speech, its entries are left out.
    """
    width = max(sum(len(item.example.input_ids) for item in row) for row in rows)
    if row_tokens is not None:
        filled = width + -width % STEP
        width = row_tokens if width <= row_tokens < filled else filled
    shape = (len(rows), width)
    input_ids = torch.full(shape, pad_id)
    labels = torch.full(shape, -100)
    position_ids = torch.zeros(shape, dtype=torch.long)
    documents = torch.zeros(shape, dtype=torch.long)
    for r, row in enumerate(rows):
        at = 0
        for number, item in enumerate(row, 1):
            example = item.example
            here = slice(at, at + len(example.input_ids))
            input_ids[r, here] = torch.tensor(example.input_ids)
            labels[r, here] = torch.tensor(example.labels)
            labels[r, at] = -100  # the first position has nothing before it, least of all the previous document
            position_ids[r, here] = torch.arange(len(example.input_ids)) if example.positions is None else torch.tensor(example.positions)
            documents[r, here] = number
            at = here.stop
    batch = {"input_ids": input_ids, "labels": labels, "position_ids": position_ids, "documents": documents}
    items = [item for row in rows for item in row]
    batch |= _speech("", "speech", [(item.heard_TM, item.example.ctc_ids) for item in items if item.heard_TM is not None])
    batch |= _speech("spoken_", "spoken", [(item.spoken_TM, item.example.spoken_ctc_ids) for item in items if item.spoken_TM is not None])
    voices = [item.voice_TM for item in items if item.spoken_TM is not None]
    if given := [mel_TM.float() for mel_TM in voices if mel_TM is not None]:
        batch |= {"voice": torch.cat(given), "voice_lengths": torch.tensor([0 if mel_TM is None else len(mel_TM) for mel_TM in voices])}
    return batch


def _speech(prefix: str, name: str, found: Sequence[tuple[Tensor, list[int] | None]]) -> dict[str, Tensor]:
    """Speech laid end to end, and its text in CTC's classes."""
    if not found:
        return {}
    return {
        name: torch.cat([mel_TM.float() if mel_TM.is_floating_point() else mel_TM for mel_TM, _ in found]),
        f"{name}_lengths": torch.tensor([len(mel_TM) for mel_TM, _ in found]),
        f"{prefix}ctc_targets": torch.tensor([token for _, ids in found for token in ids or ()], dtype=torch.long),
        f"{prefix}ctc_lengths": torch.tensor([-1 if ids is None else len(ids) for _, ids in found]),
    }
