"""`melcli score --task answer` and `--task continue`: numbers told by hand, rows that are gone on with, and everything that can be wrong."""

from __future__ import annotations

import json
import shutil
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from melcli.inputs import AudioInput
from melcli.transcripts import Segment, Transcript
from tests.cli.conftest import Melcli
from tests.cli.replying import RATE, recording, seconds_of
from tests.fake_replier import FakeReplier
from tests.models.test_voiceprint import write_voiceprint
from tests.training import llm_makers


@dataclass
class Ears:
    """Stand in for melcli.transcribe: hear in a file what was put down for its name."""

    knows: dict[str, str] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    decisions: dict[str, str] = field(default_factory=lambda: {"model": "ears: two", "device": "cpu: no other", "decoding": "none"})
    folder: Path = Path("nowhere")

    def load(self, model: str, **options: Any) -> Ears:
        self.loaded.append(model)
        return self

    def transcribe(self, items: Iterable[AudioInput]) -> Iterator[Transcript]:
        for item in items:
            self.heard.append(item.name)
            seconds, text = seconds_of(item.utterance.audio[0]), self.knows.get(Path(item.name).stem, "")
            yield Transcript(item.name, "", seconds, text, [Segment(0.0, seconds, text, "eos")], None, 0.1)


@pytest.fixture
def ears(monkeypatch: pytest.MonkeyPatch) -> Ears:
    found = Ears()
    module = types.ModuleType("melcli.transcribe")
    module.Transcriber = found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "melcli.transcribe", module)
    return found


QUESTIONS = (
    (2.0, "What is the capital of France?", ["Paris"], "it is paris", "what is the capital of france"),
    (2.5, "Which river is the longest?", ["Amazon", "the Nile"], "nile", "which river is longest"),
    (1.5, "Who was it?", ["Ada Lovelace"], "somebody else", "who was it"),
    (1.2, "How many?", ["7"], "seven", "how money"),
)


@pytest.fixture
def questions(replier: FakeReplier, tmp_path: Path) -> Path:
    """Four questions, three of them answered rightly, two of these in so many words; 2 of 15 words heard wrongly."""
    (tmp_path / "m").mkdir()  # the model's folder, without weights
    with open("questions.jsonl", "w") as file:
        for number, (seconds, text, answers, said, heard) in enumerate(QUESTIONS):
            recording(f"q{number}.wav", seconds)
            replier.knows[seconds] = (heard, said)
            row = {"id": f"q{number}", "audio": f"q{number}.wav", "question": text}
            file.write(json.dumps(row | ({"answer": answers[0]} if len(answers) == 1 else {"answers": answers})) + "\n")
    return tmp_path / "questions.jsonl"


def score(melcli: Melcli, *arguments: object, code: int = 0) -> Any:
    ran = melcli("score", *arguments, "-f", "json")
    assert ran.code == code, ran.err
    return json.loads(ran.out)


def rows(pattern: str) -> list[dict[str, Any]]:
    (path,) = Path().glob(pattern)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_answers(melcli: Melcli, questions: Path, replier: FakeReplier) -> None:
    report = score(melcli, "--task", "answer", "--manifest", "questions.jsonl", "--model", "m")
    found = report["sets"]["questions"]
    assert (report["model"], report["protocol"]) == ("m", "spoken")
    assert (found["answers"]["accuracy"], found["answers"]["exact"], found["answers"]["questions"]) == (75.0, 50.0, 4)
    assert (found["sub"], found["del"], found["words"], found["wer"]) == (1, 1, 16, 12.5) and found["audio_seconds"] == 7.2
    low, high = found["answers"]["accuracy_interval"]
    assert low < 75 < high == 100 and found["wer_interval"][0] < 12.5 < found["wer_interval"][1]
    assert replier.asked == [{"task": "answer", "speak": False, "count": 4, "temperature": 1.0, "seed": 0, "max_seconds": None}]


def test_the_table(melcli: Melcli, questions: Path, replier: FakeReplier) -> None:
    ran = melcli("score", "--task", "answer", "--manifest", "questions.jsonl", "--model", "m", "--csv", "rows.csv", "--limit", 3)
    head, line = ran.out.splitlines()
    assert head.split("  ")[0] == "model" and line.split()[:3] == ["m", "questions", "66.67"]
    assert {line.split()[0]: line for line in ran.err.splitlines()}["questions"].endswith("their recordings")
    assert Path("rows.csv").read_text().splitlines()[1].startswith("m,questions,66.67,")


def test_rows_are_kept_and_gone_on_with(melcli: Melcli, questions: Path, replier: FakeReplier) -> None:
    options = ["--task", "answer", "--manifest", "questions.jsonl", "--model", "m", "-o", "out"]
    first = score(melcli, *options)
    kept = rows("out/MODEL_m_DATASET_questions.jsonl")
    assert kept[1]["reply"] == {"answer": "nile", "accepted": ["Amazon", "the Nile"], "reason": "eos"}
    assert kept[1]["text"] == "Which river is the longest?" and kept[1]["pred_text"] == "which river is longest"
    Path("out/MODEL_m_DATASET_questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept[:3]))
    assert score(melcli, *options)["sets"]["questions"]["answers"] == first["sets"]["questions"]["answers"]
    assert [asked["count"] for asked in replier.asked] == [4, 1]
    again = score(melcli, "--task", "answer", "--hyp", "out")
    assert again["sets"]["questions"] == score(melcli, *options)["sets"]["questions"] and again["model"] == "m" and len(replier.asked) == 2
    assert score(melcli, "--hyp", "out")["sets"]["questions"]["wer"] is not None  # rows of any other score
    Path("plain.jsonl").write_text('{"text": "a", "pred_text": "b"}\n')
    assert "plain.jsonl: holds rows without replies" in melcli("score", "--task", "answer", "--hyp", "plain.jsonl").err


def test_spoken_answers_are_listened_to(melcli: Melcli, questions: Path, replier: FakeReplier, ears: Ears) -> None:
    ears.knows = {"q0": "it is paris", "q1": "mile", "q2": "ada lovelace", "q3": "seven"}
    options = ["--task", "answer", "--manifest", "questions.jsonl", "--model", "m", "--recogniser", "r", "-o", "out"]
    found = score(melcli, *options)["sets"]["questions"]["answers"]
    assert (found["accuracy"], found["spoken_accuracy"], found["spoken_exact"]) == (75.0, 75.0, 50.0) and ears.loaded == ["r"]
    assert replier.asked[0]["speak"] is True and rows("out/*.jsonl")[1]["reply"]["heard_answer"] == "mile"
    assert len(list(Path("out/MODEL_m_DATASET_questions").glob("*.wav"))) == 4


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs flite")
def test_a_voice_asks(melcli: Melcli, replier: FakeReplier, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    Path("text").mkdir()
    Path("text/webquestions-test.jsonl").write_text(
        '{"question": "who are you?", "answers": ["me"]}\n{"question": "why", "answers": ["so it does"]}\n'
    )
    options = ["--set", "web-questions", "--root", ".", "--model", "m", "--offline", "-o", "out", "--voice"]
    report = score(melcli, *options, "synth:flite/slt")
    found = report["sets"]["web-questions"]
    assert (found["answers"]["accuracy"], found["answers"]["questions"]) == (50.0, 2) and found["audio_seconds"] > 0.8
    assert rows("out/*.jsonl")[0]["text"] == "who are you?" and rows("out/*.jsonl")[0]["pred_text"].startswith("it lasts")
    refused = melcli("score", *options, "synth:flite/rms")
    assert refused.code == 2 and "was made otherwise: questions was 'asked by flite/slt', now it is 'asked by flite/rms'" in refused.err


def test_recordings_of_questions_by_their_ids(melcli: Melcli, replier: FakeReplier, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    Path("w.jsonl").write_text('{"id": "a", "question": "who", "answer": "me"}\n{"id": "b", "question": "why", "answer": "so it does"}\n')
    recording("said/b.wav", 1.0)
    ran = melcli("score", "--task", "answer", "--manifest", "w.jsonl", "--model", "m", "--spoken", "said", "-f", "json")
    assert ran.code == 1 and json.loads(ran.out)["sets"]["w"]["answers"]["accuracy"] == 100.0
    assert "a: no recording of it in said" in ran.err
    Path("other").mkdir()
    recording("other/z.wav", 1.0)
    ran = melcli("score", "--task", "answer", "--manifest", "w.jsonl", "--model", "m", "--spoken", "other")
    assert ran.code == 2 and "other: has none of the 2 questions of w; recordings are found by their ids." in ran.err


def test_what_cannot_be_judged_or_heard(melcli: Melcli, questions: Path, replier: FakeReplier) -> None:
    recording("silent.wav", 1.0, level=0.0)
    with questions.open("a") as file:
        file.write(
            '{"id": "no answer", "audio": "q0.wav", "start": 0.1, "question": "who"}\n{"id": "nq", "audio": "q0.wav", "end": 1, "answer": "x"}\n'
        )
        file.write('{"audio": "silent.wav", "question": "who", "answer": "me"}\n{"audio": "gone.wav", "question": "who", "answer": "me"}\n')
    ran = melcli("score", "--task", "answer", "--manifest", "questions.jsonl", "--model", "m", "-f", "json")
    assert ran.code == 1 and json.loads(ran.out)["sets"]["questions"]["answers"]["questions"] == 4
    for expected in (
        "4 of 8 failed:",
        "no answer: no 'answer' (or 'answers') to judge by",
        "nq: no 'question' (or 'text')",
        "is silent: there is no",
    ):
        assert expected in ran.err
    assert sum("gone.wav" in line for line in ran.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "llama-questions", "--set", "openasr"], "--set llama-questions: is scored by its answers, other sets by their words"),
        (["--task", "answer", "--model", "m"], "--task answer needs --set llama-questions, say, or --manifest SOURCE."),
        (["--task", "answer", "--manifest", "questions.jsonl"], "--task answer needs --model MODEL, one that was trained for it."),
        (
            ["--task", "answer", "--manifest", "asr.jsonl", "--model", "m"],
            "asr.jsonl: none of its 1 rows has a question and an 'answer' (or 'answers')",
        ),
        (["--task", "answer", "--manifest", "wrong.jsonl", "--model", "m"], "wrong.jsonl: x: 'answer' is {}, expected a text or a list of texts"),
        (
            ["--task", "answer", "--manifest", "written.jsonl", "--model", "m"],
            "written: its questions are written, not spoken: have a voice ask them",
        ),
        (["--task", "answer", "--manifest", "questions.jsonl", "--model", "listener"], "--model listener: this model transcribes"),
        (
            ["--task", "answer", "--manifest", "questions.jsonl", "--model", "m", "--voice", "synth:flite/nobody"],
            "No synthetic voice 'flite/nobody'.",
        ),
        (
            ["--task", "answer", "--manifest", "questions.jsonl", "--model", "m", "--voice", "synth:flite/slt", "--written", "alone"],
            "--voice, --spoken and --written alone: give one of them",
        ),
        (["--task", "answer", "--manifest", "questions.jsonl", "--model", "m", "--lm", "x"], "--lm is for --task continue; this is --task answer."),
        (["--task", "answer", "--hyp", "out", "--model", "m"], "--hyp scores rows that exist; leave out --model"),
        (["--manifest", "questions.jsonl", "--written", "alone"], "--written is for --task answer; this is --task asr."),
        (["--task", "answer", "--manifest", "questions.jsonl", "--model", "m", "--devices", "2"], "--devices is for --task asr and tts"),
        (["--task", "continue", "--manifest", "questions.jsonl", "--model", "m"], "questions.jsonl: none of its 4 recordings lasts 4 s or longer."),
        (["--task", "continue", "--manifest", "questions.jsonl", "--model", "m", "--lm", "nobody"], "--lm nobody: no such folder"),
    ],
)
def test_usage(melcli: Melcli, questions: Path, ears: Ears, arguments: list[str], expected: str) -> None:
    Path("asr.jsonl").write_text('{"audio": "q0.wav", "text": "who"}\n')
    Path("wrong.jsonl").write_text('{"id": "x", "audio": "q0.wav", "text": "who", "answer": {}}\n')
    Path("written.jsonl").write_text('{"question": "who", "answer": "me"}\n')
    ran = melcli("score", *arguments, "-q")
    assert ran.code == 2 and ran.out == "" and ran.err.startswith(f"error: {expected}") and ran.err.count("\n") == 1, ran.err


@pytest.fixture
def begun(replier: FakeReplier, tmp_path: Path) -> Path:
    """Three recordings to be continued, one too short to be."""
    (tmp_path / "m").mkdir()
    with open("begun.jsonl", "w") as file:
        for name, seconds in (("a", 5.0), ("b", 3.5), ("c", 6.0)):
            recording(f"{name}.wav", seconds)
            file.write(json.dumps({"audio": f"{name}.wav", "text": "whatever was said"}) + "\n")
    replier.knows[3.0] = ("once upon a time", "there was a tone")
    return tmp_path / "begun.jsonl"


def test_continuations(melcli: Melcli, begun: Path, ears: Ears, replier: FakeReplier, tmp_path: Path) -> None:
    ears.knows = {"a": "there was a tone", "c": "there was"}
    lm, sv = llm_makers.llama(tmp_path / "lm"), write_voiceprint(tmp_path / "sv")
    options = ["--task", "continue", "--manifest", "begun.jsonl", "--model", "m"]
    report = score(melcli, *options, "--lm", lm, "--similarity", sv, "-o", "out")
    found, speech = report["sets"]["begun"], report["sets"]["begun"]["continuation"]
    assert (found["del"], found["sub"], found["ins"], found["words"], found["wer"]) == (2, 0, 0, 8, 25.0)
    assert (speech["continuations"], speech["silent"], speech["loops"]) == (2, 0, 0) and -1 <= speech["sim_prompt"] <= 1
    assert speech["seconds"] == pytest.approx(63 * 256 / 16000, abs=0.01) and ears.loaded == ["pocketsphinx"]
    from melcli.models.perplexity import LanguageModel

    nats = LanguageModel.load(str(lm), device="cpu")[0].nats(["there was a tone", "there was"])
    assert speech["log_perplexity"] == pytest.approx(sum(n for n, _ in nats) / sum(t for _, t in nats), abs=1e-3)
    assert speech["per_word"] == pytest.approx(sum(n for n, _ in nats) / 6, abs=1e-3)
    kept = rows("out/MODEL_m_DATASET_begun.jsonl")
    assert kept[0]["text"] == "there was a tone" and kept[0]["reply"]["heard"] == "once upon a time" and "sim_prompt" in kept[1]["reply"]
    ears.heard.clear()
    assert score(melcli, *options, "--similarity", sv, "-o", "out")["sets"]["begun"]["wer"] == 25.0 and ears.heard == []
    again = score(melcli, "--task", "continue", "--hyp", "out", "--lm", lm)["sets"]["begun"]
    assert again["continuation"] == speech
    assert "begun: 1 of 3 left out: shorter than 4 s" in melcli("score", *options).err


def test_silent_continuations_are_counted(melcli: Melcli, begun: Path, ears: Ears, replier: FakeReplier, tmp_path: Path) -> None:
    ears.knows = {"a": "there was a tone"}
    found = score(melcli, "--task", "continue", "--manifest", "begun.jsonl", "--model", "m", "--lm", llm_makers.llama(tmp_path / "lm"))["sets"][
        "begun"
    ]
    assert (found["continuation"]["silent"], found["wer"], found["continuation"]["continuations"]) == (1, 50.0, 2)
    replier.knows[3.0] = ("once upon a time", "nothing aloud")
    nothing = score(melcli, "--task", "continue", "--manifest", "begun.jsonl", "--model", "m")["sets"]["begun"]
    assert nothing["continuation"]["silent"] == 2 and nothing["continuation"]["seconds"] == 0.0 and nothing["continuation"]["log_perplexity"] is None


def test_the_recordings_themselves(melcli: Melcli, begun: Path, ears: Ears, tmp_path: Path) -> None:
    ears.knows = {"a": "what was really said", "c": "and more"}
    sv = write_voiceprint(tmp_path / "sv")
    options = ["--task", "continue", "--manifest", "begun.jsonl", "--model", "recordings", "--model", "m", "--similarity", sv]
    people, model = score(melcli, *options, "-o", "out")
    found = people["sets"]["begun"]
    assert (people["model"], model["model"]) == ("recordings", "m") and found["wer"] is None and found["continuation"]["seconds"] == 2.5
    assert found["continuation"]["sim_prompt"] is not None and found["rtfx"] is None
    assert [row["pred_text"] for row in rows("out/MODEL_recordings_*.jsonl")] == ["what was really said", "and more"]
    assert seconds_of(next(Path("out").rglob("MODEL_recordings*/c.wav"))) == pytest.approx(3.0, abs=0.001)
    table, voices = melcli("score", *options).out.split("voices beside their prompts")
    assert [line.split()[0] for part in (table, voices) for line in part.strip().splitlines()[1:]] == ["recordings", "m"] * 2


def test_voices_are_compared_with_their_prompts_and_with_those_of_others(melcli: Melcli, ears: Ears, replier: FakeReplier, tmp_path: Path) -> None:
    """People go on in their own voice, an octave from the other's; a row whose speaker nobody knows has no other."""
    with open("two.jsonl", "w") as file:
        for name, hertz, more in (("a", 110.0, {"speaker": "low"}), ("b", 220.0, {"speaker": "high"}), ("c", 110.0, {})):
            time = np.arange(5 * RATE) / RATE
            wave = 0.05 * sum(np.cos(2 * np.pi * k * hertz * time) / k for k in range(1, 20)).astype(np.float32)
            soundfile.write(f"{name}.wav", wave, RATE, subtype="FLOAT")
            file.write(json.dumps({"audio": f"{name}.wav", "text": "tone", **more}) + "\n")
    report = score(melcli, "--task", "continue", "--manifest", "two.jsonl", "--model", "recordings", "-o", "out")
    kept = {Path(row["audio_filepath"]).stem: row["reply"] for row in rows("out/*.jsonl")}
    assert abs(kept["a"]["semitones"]) < 0.2 and kept["a"]["semitones_other"] == pytest.approx(-12, abs=0.3) and kept["a"]["ltas"] < 0.5
    assert kept["b"]["semitones_other"] == pytest.approx(12, abs=0.3) and kept["b"]["ltas_other"] > 2 and "ltas_other" not in kept["c"]
    few = score(melcli, "--task", "continue", "--manifest", "two.jsonl", "--model", "recordings", "--limit", "1")
    assert few["sets"]["two"]["continuation"]["voice"]["semitones_other"] == pytest.approx(12, abs=0.3)  # others are there, whatever the limit
    voice = report["sets"]["two"]["continuation"]["voice"]
    assert voice["pitch"] == voice["prompt_pitch"] == pytest.approx(110, abs=1) and voice["voiced"] > 95 and voice["silence"] == 0
    assert voice["semitones"] < 0.2 and voice["semitones_other"] == pytest.approx(12, abs=0.3)
