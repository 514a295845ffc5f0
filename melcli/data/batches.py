"""The training data set: batch number in, packed tensors out, the same on every machine and after every restart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.data import Dataset

from melcli.data.collate import Item, pack
from melcli.data.features import Joined
from melcli.data.packing import BatchPlan, balanced
from melcli.data.tasks import Encoder
from melcli.data.text_noise import with_noise
from melcli.data.voice_prompts import Voice, VoicePrompts
from melcli.errors import AudioError

AHEAD = 64  # batches whose shards are fetched before they are wanted
SPARE_BATCHES = 20  # that are tried in place of one of which no file can be read


class TrainingBatches(Dataset):
    """Batch number `step` of the whole training. encoders: that of each utterance's task. patches, steps_of: positions that so many frames take
    where they are heard, and where they are said. voices: draws the voice prompts of what is said.

    Rows are as the plan has them, unless augmentation changed lengths: then the batch's utterances are shared out among its rows anew.
    Each utterance draws its augmentation from a generator seeded by (seed, batch, place in the batch), so a batch does not depend on which
    worker makes it or on what was made before, and an utterance that an epoch holds twice is heard differently. One whose audio cannot be
    read is left out of its batch and `on_failure` is told, once by each worker; for a batch of nothing else the next one stands in.
    """

    def __init__(
        self,
        features: Joined,
        text_ids: list[list[int]],
        encoders: Sequence[Encoder],
        plan: BatchPlan,
        *,
        steps: int,
        patches: Callable[[int], int],
        steps_of: Callable[[int], int] = lambda frames: 0,
        pad_id: int,
        seed: int,
        on_failure: Callable[[str], None],
        text_noise: float = 0.0,
        voices: VoicePrompts | None = None,
    ) -> None:
        self.features = features
        self.text_ids = text_ids
        self.encoders = encoders
        self.plan = plan
        self.steps = steps
        self.patches = patches
        self.steps_of = steps_of
        self.pad_id = pad_id
        self.seed = seed
        self.on_failure = on_failure
        self.told: set[str] = set()
        self._seen = 0  # up to which batch it was said what will be wanted
        self.text_noise = text_noise
        self.voices = voices
        self.vocabulary = sorted({token for ids in text_ids for token in ids}) if text_noise else []

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        self._look_ahead(step)
        for following in range(min(SPARE_BATCHES, self.steps)):
            if packed := self._rows((step + following) % self.steps):
                return pack(packed, self.pad_id, self.plan.row_tokens)
        raise AudioError(f"training stops at batch {step}: neither it nor those after it hold any audio that can be read")

    def _rows(self, step: int) -> list[list[Item]]:
        epoch, rows = self.plan.locate(step)
        lengths = self.plan.lengths_of(epoch)
        items: list[Item] = []
        planned: list[list[int]] = []
        place = 0
        as_planned = True
        for row in rows:
            planned.append([])
            for index in row:
                place += 1
                try:
                    item = self._item(index, step, place)
                except AudioError as error:
                    self._failed(str(error))
                    continue
                as_planned &= len(item.example.input_ids) == lengths[index]
                planned[-1].append(len(items))
                items.append(item)
        if not as_planned:  # cut silence or a change of speed changes lengths, which the plan does not know: share them out anew among as many rows
            planned = balanced([len(item.example.input_ids) for item in items], len(rows))
        return [[items[i] for i in row] for row in planned if row]

    def _look_ahead(self, step: int) -> None:
        """Say what the next batches want. This process makes only some of them, but the copies of shards are everybody's on this machine."""
        ahead = getattr(self.features, "ahead", None)
        if ahead is None:
            return
        for coming in range(max(step, self._seen), min(step + AHEAD, self.steps)):
            epoch, rows = self.plan.locate(coming)
            indices = [index for row in rows for index in row]
            ahead(indices if self.voices is None else indices + self.voices.wanted(indices, epoch))
        self._seen = max(self._seen, min(step + AHEAD, self.steps))

    def _failed(self, message: str) -> None:
        if message not in self.told:
            self.told.add(message)
            self.on_failure(message)

    def _item(self, index: int, step: int, place: int) -> Item:
        named = hashlib.blake2b(f"{self.seed}/{step}/{place}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(named, "big") >> 1)
        voice = None if self.voices is None else self.voices.read(self.features, index, self.plan.locate(step)[0], generator)
        item = read_item(self.features, index, self.encoders[index], self.text_ids[index], self.patches, self.steps_of, generator, voice)
        if self.text_noise and item.heard_TM is not None:
            item = replace(item, example=with_noise(item.example, self.text_noise, self.vocabulary, generator))
        return item


def read_item(
    features: Joined,
    index: int,
    encoder: Encoder,
    text_ids: list[int],
    patches: Callable[[int], int],
    steps_of: Callable[[int], int],
    generator: torch.Generator | None = None,
    voice: Voice | None = None,
) -> Item:
    """An utterance as its task has it. generator: draws augmentation, of speech that is heard; what is to be said stays as it is. voice: read before
    what is said."""
    if encoder.replies:
        heard, said = features.pair(index, generator)
        steps = 0 if said is None else steps_of(len(said))
        return Item(encoder(features.utterances[index], patches(len(heard)), text_ids, steps=steps), heard, said)
    mel_TM = features.get(index, None if encoder.speaks else generator) if encoder.reads_speech or encoder.speaks else None
    places = 0 if mel_TM is None else (steps_of if encoder.speaks else patches)(len(mel_TM))
    if voice is not None:
        example = encoder.prompted(features.utterances[index], places, text_ids, steps_of(len(voice.mel_TM)), voice.told)
        return Item(example, None, mel_TM, voice.mel_TM)
    example = encoder(features.utterances[index], places, text_ids)
    return Item(example, None if encoder.speaks else mel_TM, mel_TM if encoder.speaks else None)


def only(batch: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The collate function of a loader whose items are whole batches."""
    return batch[0]
