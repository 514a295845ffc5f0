"""Replies: step by step is what was taught, batches and streams change nothing, and what cannot be replied to is said in one line."""

from __future__ import annotations

import pytest
import torch

from melcli.audio.mel_spec import preset
from melcli.data.collate import Item, pack
from melcli.data.utterance import Utterance
from melcli.errors import CheckpointError, UsageError
from melcli.models import checkpoint
from melcli.models.decoding.hypothesis import Hypothesis
from melcli.models.noise import Still
from melcli.models.replier import Replier, split
from melcli.models.speaking import speak
from melcli.models.spoken_layout import Layout
from tests.models.conftest import OUTPUTS, make_model, make_speaker

SPEC = preset("speecht5")
PROMPTS = {"continue": "<|speech|><|continue|><|text|><|speak|>", "answer": "<|speech|><|question|><|text|><|speak|>"}
SPECTROGRAM = {**OUTPUTS["spectrogram"], "dropout": 0.0}


def replier(speaks=True, prompts=None, **more) -> Replier:
    prompts = PROMPTS if prompts is None else prompts
    make, options = (make_speaker, {"output": SPECTROGRAM}) if speaks else (make_model, {})
    model, processor = make(mel=SPEC.model_dump(), prompts=prompts, prompt_seconds=0.5, **options, **more)
    return Replier(model, processor)


@pytest.fixture(scope="module")
def waves() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [0.1 * torch.randn(n, generator=generator) for n in (16000, 9000, 23456)]


def same(one, other):
    assert (one.heard, one.said, one.text_reason) == (other.heard, other.said, other.text_reason)
    assert (one.spoken is None) == (other.spoken is None)
    if one.spoken is not None:
        assert one.spoken.reason == other.spoken.reason
        torch.testing.assert_close(one.spoken.mel_TM, other.spoken.mel_TM, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("task", ["continue", "answer"])
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_a_batch_is_each_alone_and_a_stream_is_the_whole(task, attention, waves):
    one = replier(attention=attention)
    together = one.reply(waves, task, temperature=0, max_seconds=1.0)
    for wave_S, reply in zip(waves, together, strict=True):
        same(reply, one.reply([wave_S], task, temperature=0, max_seconds=1.0)[0])
        events = list(one.stream(wave_S, task, temperature=0, max_seconds=1.0))
        assert [event.kind for event in events][:2] == ["heard", "said"] and {event.kind for event in events[2:]} <= {"mel"}
        assert (events[0].text, events[1].text) == (reply.heard, reply.said)
        same(reply, one.last)
        if reply.spoken is not None:
            torch.testing.assert_close(torch.cat([event.mel_TM for event in events[2:]]), reply.spoken.mel_TM, atol=2e-3, rtol=1e-3)
    assert any(reply.spoken is not None for reply in together)


@pytest.mark.parametrize("task", ["continue", "answer"])
@pytest.mark.parametrize("positions", ["plain", "spread"])
def test_taught_is_step_by_step(task, positions, waves):
    """The text and the patches of a free run, given as teaching gives them, are predicted as they were written and said."""
    one = replier(text_positions=positions)
    draft = one._draft(waves[0], task)
    one._hear([draft], task, 1.0)
    one._answer([draft], task, 1.0)
    if draft.cut is not None:
        draft.cut = 2  # so that it keeps a pace of its own
    prompt = one._prompt(draft, task, 0, 1.0)
    *_, (track,) = speak(one.model, [prompt], 0.0)
    output, said = one.model.speech_output, torch.stack(track.patches)
    mel_TM = output.frames(said)
    encoder = one.processor.encoder(task)
    example = encoder(Utterance("", ()), one.processor.patches(len(draft.features)), draft.ids, steps=len(said), heard=draft.cut)
    assert example.input_ids[: -len(said)] == prompt.example.input_ids
    assert (example.speed != 1) == (task == "continue" and positions == "spread")
    batch = pack([[Item(example, draft.features, mel_TM)]], 0)
    read = ("input_ids", "documents", "position_ids", "speech", "speech_lengths", "spoken", "spoken_lengths")
    with torch.no_grad():
        taught = one.model(**{name: batch[name] for name in read}, noise=Still())
    layout = Layout.of(batch["spoken_lengths"], output.stride)
    again = output.say(taught.states[layout.predicts_P], Still(), 0.0)
    torch.testing.assert_close(again.patch_NX, said, atol=1e-3, rtol=1e-3)
    before = len(one.processor.prompts([len(draft.features)], task)[0])
    taught.logits[..., one.model.place_holders] = -torch.inf
    likeliest = taught.logits[0, before - 1 : before - 1 + len(draft.ids)].argmax(-1).tolist()
    given = one._separator()[0] if task == "answer" else None  # is written where the model would not have
    assert len(draft.ids) > 3 and [(a, b) for a, b in zip(likeliest, draft.ids, strict=True) if a != b and b != given] == []
    if positions == "spread":
        places = before - 1  # the token that asks comes first, then what is heard, written and said lie beside each other
        assert example.positions[: before + 2] == [*range(1, places + 1), 0, 1, 3]  # of 1.5 steps a token
        first = draft.ids.index(given) + 1 if given in draft.ids else draft.cut
        assert example.positions[-len(said)] == 1 + round(encoder.lead if first is None else 1.5 * first)


def test_where_the_speech_begins_is_learnt_as_it_is_replied():
    """Whoever has no CTC head cannot know what it has heard, and is not taught as if it could."""
    utterance = Utterance("a", (), "one two cat", 1.0)
    for weight, first in ((0.0, lambda encoder, ids: round(encoder.lead)), (1.0, lambda encoder, ids: round(1.5 * encoder.count("one")))):
        encoder = replier(text_positions="spread", ctc_weight=weight).processor.encoder("continue")
        ids = encoder.texts([utterance])[0]
        example = encoder(utterance, 4, ids, steps=3)
        assert example.positions[-3] == example.positions[example.input_ids.index(ids[0])] + first(encoder, ids)


@pytest.mark.parametrize(("heard", "cut"), [("", 0), ("one", "one"), ("one two", "one two")])
def test_what_was_heard_of_the_text_is_cut_off(heard, cut, waves, monkeypatch):
    one = replier(text_positions="spread")
    encoder = one.processor.encoder("continue")
    ids = encoder.texts([Utterance("a", (), "one two")])[0]
    draft = one._draft(waves[0], "continue")
    monkeypatch.setattr(one, "_write", lambda drafts, *_: iter([(draft, Hypothesis(ids, "eos", 0.0), heard)]))
    one._hear([draft], "continue", None)
    assert draft.cut == (cut if cut == 0 else encoder.count(cut))
    prompt = one._prompt(draft, "continue", 0, None)
    axis = prompt.example.positions[prompt.example.input_ids.index(ids[0])]
    assert prompt.example.positions[-1] == axis + round(1.5 * draft.cut) - 1


def test_written_text_is_the_likeliest_after_the_prompt(waves):
    """The text is what greedy decoding gives, and after a question comes the separator even where the model would have ended."""
    one = replier()
    reply = one.reply([waves[0]], "answer", speak=False)[0]
    draft = one._draft(waves[0], "answer")
    one._hear([draft], "answer", None)
    between = one._separator()
    assert len(between) == 1 and draft.ids[-1:] == between and draft.heard == reply.heard
    assert reply.spoken is None


def test_only_the_beginning_is_heard_of_what_is_continued(waves):
    one = replier()
    assert one.check(waves[2], "continue") is None
    same(one.reply([waves[2]], "continue", speak=False)[0], one.reply([waves[2][:8000]], "continue", speak=False)[0])


def test_a_mel_is_taken_for_a_wave(waves):
    one = replier()
    mel_TM = one.processor.features([waves[0][:8000]])[0]
    same(one.reply([mel_TM], "continue", speak=False)[0], one.reply([waves[0]], "continue", speak=False)[0])


def test_a_model_without_a_speech_output_replies_in_text(waves):
    one = replier(speaks=False)
    assert not one.speaks and one.tasks == ("continue", "answer")
    assert all(reply.spoken is None for reply in one.reply(waves, "answer"))
    assert [event.kind for event in one.stream(waves[0], "answer")] == ["heard", "said"]


def test_what_cannot_be_replied_to(waves):
    one = replier(prompts={"continue": "<|speech|><|transcribe|>"})
    for wave, task, complaint in (
        (waves[0], "answer", "has not learnt the task 'answer', but continue"),
        (waves[0][:7900], "continue", "0.49 s of speech, and this model goes on after 0.5 s"),
        (torch.zeros(16000), "continue", "nothing but silence"),
        (torch.zeros(100, 20), "continue", "a mel of 20 bins, and the model's has 80"),
    ):
        with pytest.raises(UsageError, match=complaint) as caught:
            one.check(wave, task)
        assert "\n" not in str(caught.value)
        with pytest.raises(UsageError, match=complaint):
            one.reply([wave], task)
    with pytest.raises(UsageError, match=r"a question of 0.06 s"):
        replier().check(waves[0][:1000], "answer")


def test_a_model_that_only_listens_is_refused(tmp_path):
    model, processor = make_model(mel=SPEC.model_dump())
    checkpoint.save(tmp_path, model, processor)
    with pytest.raises(CheckpointError, match=r"--model .*has not learnt to continue or to answer speech; it can transcribe"):
        Replier.load(str(tmp_path), device="cpu")


def test_it_is_the_same_read_from_a_folder(tmp_path, waves):
    one = replier()
    checkpoint.save(tmp_path, one.model, one.processor)
    again = Replier.load(str(tmp_path), device="cpu", dtype="float32")
    assert (again.tasks, again.prompt_seconds, again.speaks, again.spec) == (one.tasks, 0.5, True, SPEC)
    same(one.reply([waves[0]], "answer", max_seconds=0.5)[0], again.reply([waves[0]], "answer", max_seconds=0.5)[0])


@pytest.mark.parametrize(
    ("text", "heard", "expected"),
    [
        ("the cat sat on the mat", "the kat sad", ("the cat sat", "on the mat")),
        ("the cat sat on the mat", "thecatsaton", ("the cat sat on", "the mat")),
        ("the cat sat", "", ("the cat sat", "")),
        ("the cat sat", "the cat sat on", ("the cat sat", "")),
        ("", "the", ("", "")),
    ],
)
def test_a_text_is_cut_where_its_beginning_was_heard(text, heard, expected):
    assert split(text, heard) == expected
