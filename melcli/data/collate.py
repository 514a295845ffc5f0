"""Examples laid end to end as rows of one tensor.

Shapes: R rows, L positions, F frames of all utterances, M mel bins, U utterances, N target tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from melcli.data.tasks import Example


def pack(rows: Sequence[Sequence[tuple[Example, Tensor | None]]], pad_id: int) -> dict[str, Tensor]:
    """What `SpeechLM.forward` reads, from rows of (example, mel_TM or None).

    Returns input_ids, labels, position_ids and documents [R, L]; speech [F, M] and speech_lengths [U] in reading order; ctc_targets [N]
    and ctc_lengths [U]. Where no example holds speech, the speech entries are left out.
    """
    width = max(sum(len(example.input_ids) for example, _ in row) for row in rows)
    shape = (len(rows), width)
    input_ids = torch.full(shape, pad_id)
    labels = torch.full(shape, -100)
    position_ids = torch.zeros(shape, dtype=torch.long)
    documents = torch.zeros(shape, dtype=torch.long)
    speech: list[Tensor] = []
    ctc: list[list[int]] = []
    for r, row in enumerate(rows):
        at = 0
        for number, (example, mel_TM) in enumerate(row, 1):
            here = slice(at, at + len(example.input_ids))
            input_ids[r, here] = torch.tensor(example.input_ids)
            labels[r, here] = torch.tensor(example.labels)
            labels[r, at] = -100  # the first position has nothing before it, least of all the previous document
            position_ids[r, here] = torch.arange(len(example.input_ids))
            documents[r, here] = number
            at = here.stop
            if mel_TM is not None:
                speech.append(mel_TM)
                ctc.append(example.ctc_ids)
    batch = {"input_ids": input_ids, "labels": labels, "position_ids": position_ids, "documents": documents}
    if speech:
        batch["speech"] = torch.cat(speech).float()
        batch["speech_lengths"] = torch.tensor([len(mel) for mel in speech])
        batch["ctc_targets"] = torch.tensor([token for ids in ctc for token in ids], dtype=torch.long)
        batch["ctc_lengths"] = torch.tensor([len(ids) for ids in ctc])
    return batch
