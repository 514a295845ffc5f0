"""The batch plan: pure, complete, dense, even over ranks; and what is packed from it."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch

from melcli.audio.mel_spec import preset
from melcli.data.batches import TrainingBatches
from melcli.data.collate import Item, pack
from melcli.data.features import WaveFeatures
from melcli.data.packing import BatchPlan, balanced
from melcli.data.tasks import Encoder, asr, text
from melcli.data.utterance import Utterance
from melcli.errors import AudioError
from melcli.models.tokenizer import train_tokenizer

LENGTHS = [int(n) for n in np.random.default_rng(0).gamma(4, 30, 3000).clip(10, 500)]


def make(**changes):
    fields = {"fingerprint": "abc", "seed": 3, "tokens_per_batch": 4096, "row_tokens": 512, **changes}
    return BatchPlan(LENGTHS, **fields)


def test_an_epoch_holds_every_utterance_once():
    drawn = [i for batch in make().batches(0) for row in batch for i in row]
    assert sorted(drawn) == list(range(len(LENGTHS)))


def test_the_plan_is_a_pure_function_of_its_inputs():
    one, two = make(), make()
    two.batches(5)
    assert one.batches(1) == two.batches(1)
    assert make(seed=4).batches(0) != one.batches(0)
    assert make(fingerprint="abd").batches(0) != one.batches(0)
    assert make(row_tokens=600).batches(0) != one.batches(0)
    assert one.batches(0) != one.batches(1)


def test_rows_and_batches_stay_within_their_budgets_and_padding_is_small():
    plan = make()
    for batch in plan.batches(0):
        widths = [sum(LENGTHS[i] for i in row) for row in batch]
        assert max(widths) <= 512
        assert len(batch) * max(widths) <= 4096
    assert plan.padding() < 0.03


def test_longer_than_a_row_gets_a_row_of_its_own():
    plan = BatchPlan([50, 2000, 60], fingerprint="x", row_tokens=100, tokens_per_batch=200)
    assert (1,) in [row for batch in plan.batches(0) for row in batch]
    assert plan.largest() == ((1,),)


@pytest.mark.parametrize("world", [2, 3, 8])
def test_every_rank_gets_as_many_batches(world):
    assert len(make(world_size=world).batches(0)) % world == 0


def test_a_step_is_found_without_replaying_those_before():
    plan = make()
    first = len(plan.batches(0))
    assert plan.locate(0) == (0, plan.batches(0)[0])
    assert plan.locate(first) == (1, plan.batches(1)[0])
    assert make().locate(first + 3) == plan.locate(first + 3)
    assert plan.steps(2.0) == first + len(plan.batches(1))


def test_repeats_draw_so_often():
    repeats = [2.0] * 1000 + [0.25] * 2000
    plan = BatchPlan(LENGTHS, fingerprint="x", repeats=repeats, seed=1)
    drawn = np.bincount([i for batch in plan.batches(0) for row in batch for i in row], minlength=3000)
    assert (drawn[:1000] == 2).all()
    assert 420 < drawn[1000:].sum() < 580
    assert set(np.flatnonzero(drawn[1000:])) != set(
        np.flatnonzero(np.bincount([i for batch in plan.batches(1) for row in batch for i in row], minlength=3000)[1000:])
    )


def test_a_curriculum_begins_with_the_early_ones():
    early = [n < 60 for n in LENGTHS]
    plan = make(early=early, early_epochs=2)
    for epoch, allowed in ((0, early), (1, early), (2, [True] * len(LENGTHS))):
        drawn = {i for batch in plan.batches(epoch) for row in batch for i in row}
        assert drawn == {i for i, ok in enumerate(allowed) if ok}


def test_balanced_rows_hold_everything_once_and_differ_little():
    lengths = LENGTHS[:40]
    rows = balanced(lengths, 8)
    assert sorted(i for row in rows for i in row) == list(range(40))
    widths = [sum(lengths[i] for i in row) for row in rows]
    assert 1 - sum(widths) / (len(widths) * max(widths)) < 0.04
    assert balanced([5, 3], 4) == [[0], [1]]


def encoder(task, prompt="<|speech|><|transcribe|>"):
    tokenizer = train_tokenizer(["one two three", "four five six"], 40, ["<|transcribe|>"])
    return Encoder(tokenizer, task, prompt, [tokenizer.eos_token_id])


def test_asr_examples_learn_the_transcript_only():
    enc = encoder(asr)
    utterance = Utterance("a", (), "one two")
    ids = enc.texts([utterance])[0]
    example = enc(utterance, 3, ids)
    assert example.input_ids[:3] == [enc.speech_id] * 3
    assert example.input_ids[3] == enc.tokenizer.convert_tokens_to_ids("<|transcribe|>")
    assert example.input_ids[4:] == [*ids, enc.tokenizer.eos_token_id]
    assert example.labels == [-100] * 4 + example.input_ids[4:]
    assert example.ctc_ids == ids
    assert enc.length(utterance, 3, ids) == len(example.input_ids)


def test_text_examples_learn_everything_after_the_first_token():
    enc = encoder(text)
    utterance = Utterance("a", (), "four five")
    ids = enc.texts([utterance])[0]
    example = enc(utterance, 0, ids)
    assert example.input_ids == [*ids, enc.tokenizer.eos_token_id]
    assert example.labels == [-100, *example.input_ids[1:]]
    assert not example.ctc_ids
    assert not enc.reads_speech


def test_packed_rows():
    enc = encoder(asr)
    items = []
    for count, words in ((3, "one two"), (1, "six"), (5, "")):
        utterance = Utterance("a", (), words)
        items.append(Item(enc(utterance, count, enc.texts([utterance])[0]), torch.full((count * 4, 2), float(count))))
    batch = pack([items[:2], items[2:]], pad_id=0)
    first = len(items[0].example.input_ids)
    assert batch["documents"][0].unique().tolist() == [1, 2]
    assert batch["documents"][1].unique().tolist() == [0, 1]
    assert batch["position_ids"][0, first] == 0
    assert batch["position_ids"][0, :first].tolist() == list(range(first))
    assert batch["labels"][0, first] == -100
    assert batch["speech_lengths"].tolist() == [12, 4, 20]
    assert batch["ctc_lengths"].tolist() == [len(item.example.ctc_ids) for item in items]
    assert batch["speech"].dtype == torch.float32
    speech = batch["input_ids"] == enc.speech_id
    assert int(speech.sum()) == 9


def test_words_survive_the_tokenizer():
    tokenizer = train_tokenizer(["it's a long way", "one two"], 60)
    random.seed(1)
    for words in ("it's a way", "two one", ""):
        assert tokenizer.decode(tokenizer(words)["input_ids"]).strip() == words
    assert tokenizer.unk_token_id in tokenizer("x")["input_ids"]


def test_a_plan_can_be_sent_to_a_worker():
    plan = make()
    plan.batches(1)
    assert pickle.loads(pickle.dumps(plan)).batches(1) == plan.batches(1)


class Tones:
    """Features of four utterances, of which some cannot be read: the number drawn from the generator."""

    def __init__(self, unreadable=()):
        self.utterances = [Utterance(str(i), ("x",), text="a b", duration=0.1) for i in range(4)]
        self.unreadable = unreadable

    def get(self, index, generator):
        if index in self.unreadable:
            raise AudioError(f"{index}: no such file")
        return torch.rand(8, 2, generator=generator)


def batches(tones, failed, repeats=None, budget=64):
    tokenizer = train_tokenizer(["a b"], 32)
    encoder = Encoder(tokenizer, asr, "<|speech|>", [tokenizer.eos_token_id])
    plan = BatchPlan([6] * 4, fingerprint="x", tokens_per_batch=budget, row_tokens=budget, repeats=repeats)
    ids = encoder.texts(tones.utterances)
    return TrainingBatches(tones, ids, [encoder] * 4, plan, steps=8, patches=lambda n: n // 8, pad_id=0, seed=1, on_failure=failed.append)


def test_an_utterance_that_comes_twice_is_augmented_anew():
    data = batches(Tones(), [], repeats=[3, 0, 0, 0])
    first, second, third = data[0]["speech"].split(8)
    assert not torch.equal(first, second) and not torch.equal(second, third)
    assert torch.equal(batches(Tones(), [], repeats=[3, 0, 0, 0])[0]["speech"], data[0]["speech"])
    assert not torch.equal(data[1]["speech"], data[0]["speech"])


def test_what_cannot_be_read_is_left_out_and_named():
    failed = []
    data = batches(Tones(unreadable={2}), failed)
    assert len(data[0]["speech_lengths"]) == 3 and failed == ["2: no such file"]
    alone = batches(Tones(unreadable={2}), failed, budget=6)  # a batch an utterance: the next stands in
    assert all(len(alone[step]["speech_lengths"]) == 1 for step in range(8))
    with pytest.raises(AudioError, match="neither it nor those after it hold any audio"):
        batches(Tones(unreadable=range(4)), failed)[0]


def test_an_unreadable_file_of_unknown_length_does_not_stop_the_reading(tmp_path):
    gone = Utterance("gone", (str(tmp_path / "gone.wav"),), text="a")
    features = WaveFeatures([gone, Utterance("there", ("x",), duration=1.0)], preset("phi4mm"))
    assert features.frames == [1, 98]
    with pytest.raises(AudioError, match="no such file"):
        features.get(0, None)


def test_the_command_says_a_workers_error_in_one_line():
    from melcli.cli import _message

    loader = torch.utils.data.DataLoader(batches(Tones(unreadable=range(4)), []), batch_size=None, num_workers=1)
    with pytest.raises(AudioError) as caught:
        next(iter(loader))
    assert "Traceback" in str(caught.value)
    assert _message(caught.value) == "training stops at batch 0: neither it nor those after it hold any audio that can be read"
    assert _message(AudioError("a.wav: no such file")) == "a.wav: no such file"


SHARDS = [i // 30 for i in range(len(LENGTHS))]


def spans(plan: BatchPlan) -> list[int]:
    """Batches between the first and the last that touches each shard."""
    touched: dict[int, list[int]] = {}
    for number, batch in enumerate(plan.batches(0)):
        for row in batch:
            for i in row:
                touched.setdefault(SHARDS[i], []).append(number)
    return [max(seen) - min(seen) for seen in touched.values()]


def test_shuffled_shards_are_wanted_during_a_stretch_of_the_epoch():
    plan = make(shards=SHARDS)
    drawn = [i for batch in plan.batches(0) for row in batch for i in row]
    assert sorted(drawn) == list(range(len(LENGTHS)))
    assert plan.batches(0) == make(shards=SHARDS).batches(0) != plan.batches(1)
    assert plan.padding() < 0.1
    whole = len(plan.batches(0))
    windows = -(-len(set(SHARDS)) // 16)
    assert max(spans(plan)) < 1.5 * whole / windows < 0.5 * min(spans(make()))
    order = [SHARDS[i] for i in drawn]
    assert order[:16] != sorted(order[:16])
    assert len(make(shards=SHARDS, world_size=8).batches(0)) % 8 == 0


def test_a_shard_drawn_from_twice_comes_twice():
    plan = make(shards=SHARDS, repeats=[2.0] * len(LENGTHS))
    drawn = [i for batch in plan.batches(0) for row in batch for i in row]
    assert sorted(drawn) == sorted([*range(len(LENGTHS))] * 2)
    first = [drawn.index(i) for i in range(len(LENGTHS))]
    second = [len(drawn) - 1 - drawn[::-1].index(i) for i in range(len(LENGTHS))]
    assert np.mean(np.asarray(second) - first) > 0.2 * len(drawn)  # mostly in another window
