"""Commands that reply, with a random model that really hears, writes and speaks: no stand-in between the flags and the audio."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

from melcli import registry
from tests.cli.conftest import Melcli
from tests.cli.replying import seconds_of
from tests.reply_maker import save_replier

CLIPS = Path(registry.__file__).parent / "assets" / "clips"
FAST = ["--vocoder", "griffin-lim", "--device", "cpu", "--dtype", "float32"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_replier(tmp_path_factory.mktemp("replier") / "model")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_answer(melcli: Melcli, model: Path) -> None:
    streamed = melcli("answer", CLIPS / "garden-rms.wav", "--model", model, "-o", "a.wav", "--max-seconds", 0.5, *FAST)
    assert streamed.code == 0, streamed.err
    question, answer, speech = streamed.out.splitlines()
    found = json.loads(melcli("answer", CLIPS, "--model", model, "-o", "out", "--max-seconds", 0.5, "-f", "json", *FAST).out)
    garden = next(row for row in found if row["audio"].endswith("garden-rms.wav"))
    assert (question, answer, speech) == (f"question: {garden['question']}", f"answer: {garden['answer']}", "speech: a.wav")
    assert len(found) == 2 and len({row["question"] for row in found}) == 2
    assert seconds_of("a.wav") == seconds_of("out/garden-rms.wav") and 0 < seconds_of("a.wav") < 0.6
    assert abs(soundfile.read("a.wav")[0]).max() > 0.001


def test_continue(melcli: Melcli, model: Path) -> None:
    ran = melcli("synthesize", "--continue", CLIPS / "garden-rms.wav", "-o", "w.wav", "--model", model, "--max-seconds", 0.5, *FAST)
    assert ran.code == 0 and ran.out.startswith("heard: ") and ran.out.endswith("speech: w.wav\n"), ran.err
    assert 3.0 < seconds_of("w.wav") < 3.6
    short = melcli("synthesize", "--continue", CLIPS / "digits-slt.wav", "-o", "s.wav", "--model", model, "-q", *FAST)
    assert short.code == 1 and "this model goes on after 3 s: give a longer prompt" in short.err and not Path("s.wav").exists()


def test_models_without_the_task(melcli: Melcli, tmp_path: Path) -> None:
    for command in (["answer", CLIPS / "garden-rms.wav"], ["synthesize", "--continue", CLIPS / "garden-rms.wav", "-o", "w.wav"]):
        ran = melcli(*command, "--model", "tiny-en", "-q")
        expected = "error: --model tiny-en: this model has not learnt to continue or to answer speech; it can transcribe\n"
        assert (ran.code, ran.out, ran.err) == (2, "", expected)
    ran = melcli("score", "--set", "llama-questions", "--model", "tiny-en", "-q", "--root", tmp_path, "--offline")
    assert ran.code == 2 and "llama-questions/test.jsonl" in ran.err and ran.err.count("\n") == 1


def test_llama_questions(melcli: Melcli, model: Path, shared_data: Path) -> None:
    options = ["--set", "llama-questions", "--root", shared_data, "--model", model, "--limit", 6, "-f", "json", *FAST[2:]]
    found = {}
    for written in ([], ["--written", "alone"], ["--written", "beside"]):
        ran = melcli("score", *options, *written, "-o", "-".join(["out", *written]))
        assert ran.code == 0, ran.err
        found[" ".join(written)] = json.loads(ran.out)["sets"]["llama-questions"]
    spoken, alone, beside = found.values()
    assert spoken["answers"]["questions"] == 6 and spoken["answers"]["accuracy"] is not None and spoken["wer"] is not None and spoken["rtfx"] > 0
    assert alone["wer"] is beside["wer"] is alone["rtfx"] is None and beside["rtfx"] > 0 and alone["audio_seconds"] == 0
    refused = melcli("score", *options, "--written", "beside", "-o", "out")
    assert refused.code == 2 and "was made otherwise: questions was 'their recordings', now it is 'in writing, beside'" in refused.err
    asr = melcli("score", "--set", "llama-questions", "--root", shared_data, "--model", "tiny-en", "-q", "--limit", 1)
    assert asr.code == 2 and "it can transcribe" in asr.err
    heard = melcli("score", "--set", "llama-questions", "--task", "asr", "--root", shared_data, "--limit", 1, "-f", "json", "-o", "asr")
    assert heard.code == 0 and json.loads(heard.out)["sets"]["llama-questions"]["words"] == 6
