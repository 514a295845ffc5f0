"""Speech at both ends: how it lies in a sequence, how an utterance is cut in two, and what a question's row must hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from melcli.audio import io
from melcli.audio.mel import log_mel
from melcli.audio.mel_spec import preset
from melcli.data.batches import read_item
from melcli.data.collate import pack
from melcli.data.features import Joined, WaveFeatures
from melcli.data.manifest import read_source, write_manifest
from melcli.data.replies import Answered, Continued, unfit
from melcli.data.silence import Trim
from melcli.data.synth_qa import qa
from melcli.data.tasks import Encoder, answer, continue_
from melcli.data.utterance import Utterance
from melcli.errors import AudioError, ManifestError, UsageError
from melcli.models.tokenizer import train_tokenizer

SPEC = preset("speecht5")
SPECIAL = ["<|continue|>", "<|question|>", "<|answer|>", "<|speak|>", "<|spoken|>"]
QUESTION = Utterance("q", (), "one two", extra={"answer": "three four"})


def encoder(task, prompt, **more) -> Encoder:
    tokenizer = train_tokenizer(["one two three", "four five six"], 44, SPECIAL)
    return Encoder(tokenizer, task, prompt, [tokenizer.eos_token_id], spoken_id=tokenizer.convert_tokens_to_ids("<|spoken|>"), **more)


def tokens(enc, ids):
    return enc.tokenizer.convert_ids_to_tokens(ids)


def test_continued_speech_lies_behind_the_text_of_all_of_it():
    enc = encoder(continue_, "<|speech|><|continue|><|text|><|speak|>")
    utterance = Utterance("a", (), "one two")
    ids = enc.texts([utterance])[0]
    example = enc(utterance, 3, ids, steps=2)
    found = tokens(enc, example.input_ids)
    assert found[:4] == ["<|speech|>"] * 3 + ["<|continue|>"] and found[-4:] == ["<|end|>", "<|speak|>", "<|spoken|>", "<|spoken|>"]
    assert example.input_ids[4:-4] == ids
    assert example.labels == [-100] * 4 + [*ids, enc.tokenizer.eos_token_id] + [-100] * 3
    assert example.ctc_ids is None is example.spoken_ctc_ids  # nobody says which words are where
    assert enc.length(utterance, 3, ids, 2) == len(example.input_ids)


@pytest.mark.parametrize(
    ("about", "heard"),
    [
        ({"extra": {"words": [["one", 0.2, 0.9], ["two", 1.0, 2.9], ["three", 3.2, 4.0]]}}, "one two"),
        ({"duration": 9.0}, "one"),  # by letters
        ({}, None),
    ],
)
def test_continued_speech_begins_beside_the_first_word_that_was_not_heard(about, heard):
    enc = encoder(continue_, "<|speech|><|continue|><|text|><|speak|>", pace=2.0, lead=7.0, seconds=3.0)
    utterance = Utterance("a", (), "one two three", **about)
    ids = enc.texts([utterance])[0]
    example = enc(utterance, 6, ids, steps=3)
    axis = example.positions[example.input_ids.index(ids[0])]
    start = 7 if heard is None else 2 * len(enc.tokenizer(heard, add_special_tokens=False)["input_ids"])
    assert example.positions[-3] == axis + start
    assert example.positions[:6] == [axis + i for i in range(6)]  # what is heard
    assert enc(utterance, 6, ids, steps=3, heard=1).positions[-3] == axis + 2  # as told
    assert enc.length(utterance, 6, ids, 3) == len(example.input_ids)


TIMED = {"words": [["one", 0.2, 0.9], ["two", 1.0, 2.9], ["three", 3.2, 4.0]]}


@pytest.mark.parametrize(("heard", "speed"), [(None, 1.0), (0, 1.0), (3, 0.6), (5, 1.0), (7, 1.4), (1, 0.5), (19, 2.0), (30, 1.0)])
def test_continued_speech_keeps_the_pace_of_what_was_heard(heard, speed):
    enc = encoder(continue_, "<|speech|><|continue|><|text|><|speak|>", pace=2.0, lead=10.0, seconds=3.0)
    ids = list(range(8, 38))
    example = enc(Utterance("a", ()), 6, ids[:20] if heard == 19 else ids, steps=7, heard=heard)
    assert example.speed == speed
    first = example.positions[-7]
    assert example.positions[-7:] == [first + round(i * speed) for i in range(7)]


def test_what_is_heard_and_what_is_said_are_told_apart_by_the_times_of_words():
    enc = encoder(continue_, "<|speech|><|continue|><|text|><|speak|>", ctc_alphabet="ehnortw ", seconds=3.0)
    utterance = Utterance("a", (), "one two three", extra=TIMED)
    example = enc(utterance, 6, enc.texts([utterance])[0], steps=3)
    assert ["".join("ehnortw "[i] for i in ids) for ids in (example.ctc_ids, example.spoken_ctc_ids)] == ["one two", "three"]
    guessed = enc(Utterance("a", (), "one two three", 9.0), 6, enc.texts([utterance])[0], steps=3)
    assert guessed.ctc_ids is None is guessed.spoken_ctc_ids  # letters do not say it surely enough
    in_tokens = encoder(continue_, "<|speech|><|continue|><|text|><|speak|>", seconds=3.0)
    example = in_tokens(utterance, 6, ids := in_tokens.texts([utterance])[0], steps=3)
    assert [*example.ctc_ids, *example.spoken_ctc_ids] == ids and in_tokens.tokenizer.decode(example.ctc_ids).strip() == "one two"


def test_a_question_and_its_answer_are_written_with_a_token_between():
    enc = encoder(answer, "<|speech|><|question|><|text|><|speak|>", ctc_alphabet="enotw ")
    ids = enc.texts([QUESTION])[0]
    question, said = (enc.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("one two", "three four"))
    assert ids == [*question, enc.tokenizer.convert_tokens_to_ids("<|answer|>"), *said]
    example = enc(QUESTION, 2, ids, steps=1)
    assert example.labels[3:-2] == [*ids, enc.tokenizer.eos_token_id]
    assert example.ctc_ids == ["enotw ".index(c) for c in "one two"] and example.spoken_ctc_ids == ["enotw ".index(c) for c in "tee o"]


def test_what_is_answered_in_text_ends_with_the_text():
    enc = encoder(answer, "<|speech|><|question|><|text|><|speak|>")
    ids = enc.texts([QUESTION])[0]
    example = enc(QUESTION, 2, ids)
    assert tokens(enc, example.input_ids)[-1] == "<|end|>" and "<|speak|>" not in tokens(enc, example.input_ids)
    assert enc.length(QUESTION, 2, ids) == len(example.input_ids)


def test_a_text_that_holds_the_separator_stays_text():
    enc = encoder(answer, "<|speech|><|question|>")
    ids = enc.texts([Utterance("q", (), "one <|answer|> two", extra={"answer": "three"})])[0]
    assert ids.count(enc.tokenizer.convert_tokens_to_ids("<|answer|>")) == 1


# --- features ------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    generator = torch.Generator().manual_seed(1)
    for name, seconds in (("long", 5.0), ("short", 2.0), ("answer", 1.5)):
        io.save(folder / f"{name}.wav", 0.1 * torch.randn(round(16000 * seconds), generator=generator), 16000)
    rows = [{"audio": "long.wav", "text": "one two"}, {"audio": "short.wav", "text": "two"}]
    (folder / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"audio": "long.wav", "question": "one", "answer": "two", "answer_audio": "answer.wav"}, {"audio": "short.wav", "question": "two"}]
    rows[1]["answer"] = "three"
    (folder / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("reads", ["mel", "wave"])
def test_an_utterance_is_cut_before_its_features_are_made(recordings, reads):
    """Nothing of what is said shines through in what is heard: the two halves have windows of their own."""
    utterances = read_source(str(recordings / "talk.jsonl"))
    source = Continued(WaveFeatures(utterances, SPEC, reads=reads), SPEC, 3.0)
    heard, said = source.pair(0, None)
    wave_S = io.load(recordings / "long.wav", 16000)
    torch.testing.assert_close(heard, log_mel(SPEC, wave_S[:48000]) if reads == "mel" else wave_S[:48000, None])
    torch.testing.assert_close(said, log_mel(SPEC, wave_S[48000:]))
    assert source.frames[0] == len(heard) and abs(source.said[0] - len(said)) <= 1
    with pytest.raises(AudioError, match=r"2.00 s, nothing follows the prompt"):
        source.pair(1, None)


def test_what_is_said_is_trimmed_and_not_augmented(recordings):
    utterances = read_source(str(recordings / "talk.jsonl"))

    class Louder:
        def apply(self, wave_S, rate, generator):
            return 3 * wave_S

    plain, louder = (Continued(WaveFeatures(utterances, SPEC, augment=augment), SPEC, 3.0) for augment in (None, Louder()))
    (heard, said), (other, same) = plain.pair(0, None), louder.pair(0, torch.Generator())
    assert torch.equal(said, same) and (other - heard).mean() > 0.3
    trimmed = Continued(WaveFeatures(utterances, SPEC), SPEC, 3.0, trim=Trim(below=0.1, keep=0)).pair(0, None)[1]
    assert 0 < len(trimmed) < len(said)


def test_answers_are_said_where_they_were_recorded(recordings):
    utterances = read_source(str(recordings / "qa.jsonl"))
    source = Answered(WaveFeatures(utterances, SPEC), SPEC)
    assert source.said[0] > 80 and source.said[1] == 0
    heard, said = source.pair(0, None)
    torch.testing.assert_close(said, log_mel(SPEC, io.load(recordings / "answer.wav", 16000)))
    assert len(heard) == source.frames[0] and source.pair(1, None)[1] is None
    assert Answered(WaveFeatures(utterances, SPEC), SPEC, speaks=False).said == [0, 0]


def test_a_batch_of_answers_with_and_without_speech(recordings):
    utterances = read_source(str(recordings / "qa.jsonl"))
    enc, features = encoder(answer, "<|speech|><|question|><|text|><|speak|>"), Joined([Answered(WaveFeatures(utterances, SPEC), SPEC)])
    items = [read_item(features, i, enc, ids, lambda n: -(-n // 8), lambda n: -(-n // 5)) for i, ids in enumerate(enc.texts(utterances))]
    batch = pack([items], 0)
    assert len(batch["speech_lengths"]) == 2 and len(batch["spoken_lengths"]) == 1
    assert int((batch["input_ids"] == enc.spoken_id).sum()) == -(-int(batch["spoken_lengths"][0]) // 5)
    assert int((batch["input_ids"] == enc.speech_id).sum()) == sum(-(-n // 8) for n in batch["speech_lengths"].tolist())


def test_paths_of_answers_are_of_the_manifest_and_come_back(recordings, tmp_path):
    utterances = read_source(str(recordings / "qa.jsonl"))
    assert utterances[0].extra["answer_audio"] == str(recordings / "answer.wav")
    write_manifest(tmp_path / "copy.jsonl", utterances)
    assert read_source(str(tmp_path / "copy.jsonl"))[0].extra == utterances[0].extra
    write_manifest(recordings / "copy.jsonl", utterances)
    assert json.loads((recordings / "copy.jsonl").read_text().splitlines()[0])["answer_audio"] == "answer.wav"
    (tmp_path / "bad.jsonl").write_text('{"audio": "a.wav", "answer_audio": [1]}\n')
    with pytest.raises(ManifestError, match=r"bad.jsonl:1: 'answer_audio' is .* expected a string"):
        read_source(str(tmp_path / "bad.jsonl"))


def test_why_an_utterance_is_unfit():
    assert unfit(Utterance("a", (), "x", duration=3.0), "continue", 3.0) == "no longer than data.prompt_seconds 3"
    assert unfit(Utterance("a", (), "x", duration=3.2), "continue", 3.0) is None
    assert unfit(Utterance("a", (), "x"), "answer", 3.0) == "without an answer"
    assert unfit(QUESTION, "answer", 3.0) is None
    for extra, expected in (
        ({"answer": 0}, None),
        ({"answers": ["seven", "7"]}, None),
        ({"answer": " "}, "without an answer"),
        ({"answers": []}, "without an answer"),
    ):
        assert unfit(Utterance("a", (), "x", extra=extra), "answer", 3.0) == expected


# --- synthetic questions -------------------------------------------------------------------------------------------------------------------


def test_synthetic_questions_keep_out_those_of_tests(shared_data):
    found = qa({"hours": "0.05", "seed": "3", "voices": "flite/slt:1", "answers": "flite/rms"}, shared_data)
    again = qa({"hours": "0.05", "seed": "3", "voices": "flite/slt:1", "answers": "flite/rms"}, shared_data)
    assert found == again and len({u.text for u in found}) == len(found) > 15
    asked = {json.loads(line)["question"].lower().rstrip("?") for line in (shared_data / "llama-questions" / "test.jsonl").read_text().splitlines()}
    for u in found:
        assert u.text not in asked and 1 <= len(u.extra["answer"].split()) <= 5 and u.extra["answer"] not in ("true", "false")
        assert (
            u.audio[0].startswith("synth:flite/slt") and u.extra["answer_audio"].startswith("synth:flite/rms#") and u.extra["answer_duration"] > 0.3
        )
    for options, complaint in (({"mix": "book"}, "Unknown option 'mix'"), ({"answers": "flite/rmz"}, "flite/rms"), ({"text": "x"}, "text=x")):
        with pytest.raises(UsageError, match=complaint):
            qa({"hours": "0.01", **options}, shared_data)
