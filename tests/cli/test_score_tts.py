"""`melcli score --task tts`: on flite's speech, heard by pocketsphinx once, and for everything else by ears that hear what was to be said."""

from __future__ import annotations

import json
import shutil
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from melcli.data.load import load_part, load_utterance
from melcli.errors import AudioError
from melcli.inputs import AudioInput
from melcli.transcripts import Segment, Transcript
from tests.cli.conftest import Melcli
from tests.cli.test_synthesize import speaker  # noqa: F401  a fixture
from tests.fake_speaker import FakeSpeaker
from tests.models.test_voiceprint import write_voiceprint

pytestmark = pytest.mark.skipif(shutil.which("flite") is None, reason="needs flite")


@dataclass
class Ears:
    """Stand in for melcli.transcribe: hear what was to be said, as long as the audio can be loaded; deaf to some words."""

    deaf_to: str = "nothing"
    loaded: list[dict[str, Any]] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    decisions: dict[str, str] = field(default_factory=lambda: {"model": "ears: two", "device": "cpu: no other", "decoding": "none"})
    folder: Path = Path("nowhere")

    def load(self, model: str, **options: Any) -> Ears:
        self.loaded.append({"model": model, **options})
        return self

    def transcribe(self, items: Iterable[AudioInput]) -> Iterator[Transcript]:
        for item in reversed(list(items)):
            self.heard.append(item.name)
            try:
                seconds = len(load_utterance(item.utterance, 16000)) / 16000
            except AudioError as error:
                yield Transcript(item.name, "", 0.0, "", error=str(error))
                continue
            text = (item.utterance.text or "").replace(self.deaf_to, "")
            yield Transcript(item.name, "", seconds, text, [Segment(0.0, seconds, text, "eos")], None, 0.1)


@pytest.fixture
def ears(monkeypatch: pytest.MonkeyPatch) -> Ears:
    found = Ears()
    module = types.ModuleType("melcli.transcribe")
    module.Transcriber = found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "melcli.transcribe", module)
    return found


TEXTS = ("Where are my keys?", "Close the window.", "Nobody knew the answer.")


@pytest.fixture
def speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with texts.jsonl and what flite's rms says of them in said/."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "said").mkdir()
    with open("texts.jsonl", "w") as file:
        for number, text in enumerate(TEXTS):
            file.write(json.dumps({"id": f"t{number}", "text": text}) + "\n")
            soundfile.write(f"said/t{number}.wav", load_part(f"synth:flite/rms#{text}", 16000).numpy(), 16000)
    return tmp_path


def rows(pattern: str) -> list[dict[str, Any]]:
    (path,) = Path().glob(pattern)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_flite_as_pocketsphinx_hears_it(melcli: Melcli, speech: Path) -> None:
    pytest.importorskip("pocketsphinx", reason="needs pocketsphinx")
    ran = melcli("score", "--task", "tts", "--manifest", "texts.jsonl", "--model", "synth:flite/rms", "--limit", 2, "-f", "json", "-o", "out")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    found = report["sets"]["texts"]
    assert report["model"] == "flite/rms" and (found["wer"], found["words"], found["rtfx"]) == (0.0, 7, None)
    assert found["speech"]["against"] == "text" and 0.5 < found["speech"]["length"] < 1.6
    assert found["speech"]["lead"] == pytest.approx(0.1, abs=0.06) and (found["speech"]["loops"], found["speech"]["cut_off"]) == (0, 0)
    assert [row["pred_text"] for row in rows("out/*.jsonl")] == ["where are my keys", "close the window"]


def test_speech_that_is_there(melcli: Melcli, ears: Ears, speech: Path) -> None:
    ears.deaf_to = "window"
    ran = melcli(
        "score", "--task", "tts", "--manifest", "texts.jsonl", "--spoken", "said", "--reference", "synth:flite/rms", "-f", "json", "-o", "out"
    )
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)["sets"]["texts"]
    assert (found["del"], found["words"], found["utterances"]) == (1, 11, 3) and ears.loaded[0]["model"] == "pocketsphinx"
    assert found["speech"]["mcd"] < 0.1 and found["speech"]["length"] == 1.0 and found["speech"]["against"] == "reference"
    kept = rows("out/MODEL_said_DATASET_texts.jsonl")
    assert [row["audio_filepath"] for row in kept] == ["t0", "t1", "t2"] and kept[0]["text"] == TEXTS[0] and kept[0]["time"] is None
    ears.heard.clear()
    again = melcli(
        "score", "--task", "tts", "--manifest", "texts.jsonl", "--spoken", "said", "--reference", "synth:flite/rms", "-f", "json", "-o", "out"
    )
    assert json.loads(again.out)["sets"]["texts"] == found and ears.heard == []
    from_rows = melcli("score", "--task", "tts", "--hyp", "out", "-f", "json")
    assert json.loads(from_rows.out)["sets"]["texts"] == found and ears.heard == []
    (speech / "said" / "t1.wav").write_bytes((speech / "said" / "t0.wav").read_bytes())
    changed = melcli("score", "--task", "tts", "--manifest", "texts.jsonl", "--spoken", "said", "--reference", "synth:flite/rms", "-o", "out")
    assert changed.code == 2 and "was made otherwise: speech was '3 recordings" in changed.err


def test_two_voices_beside_each_other(melcli: Melcli, ears: Ears, speech: Path) -> None:
    ran = melcli(
        "score",
        "--task",
        "tts",
        "--manifest",
        "texts.jsonl",
        "--spoken",
        "said",
        "--model",
        "synth:flite/slt",
        "--report",
        "page",
        "--csv",
        "rows.csv",
    )
    assert ran.code == 0 and [line.split()[:2] for line in ran.out.splitlines()[1:]] == [["said", "texts"], ["flite/slt", "texts"]]
    assert Path("rows.csv").read_text().splitlines()[0].startswith("model,set,WER %") and len(Path("rows.csv").read_text().splitlines()) == 3
    assert [one["model"] for one in json.loads(Path("page/speech.json").read_text())] == ["said", "flite/slt"]
    assert Path("page/speech.md").read_text().count("\n") == 4 and "said" in Path("page/report.html").read_text()
    files = sorted(str(path) for path in Path("page").glob("MODEL*.jsonl"))
    compared = melcli("score", "--compare", *files)
    assert compared.code == 0 and "flite/slt" in compared.out


def test_recordings_with_their_own_texts(melcli: Melcli, ears: Ears, speech: Path) -> None:
    for number, text in enumerate(TEXTS):
        Path(f"said/t{number}.txt").write_text(text)
    report = json.loads(melcli("score", "--task", "tts", "--spoken", "said", "--limit", 2, "--reference", "synth:flite/rms", "-f", "json").out)
    found = report["sets"]["spoken"]
    assert report["model"] == "said" and found["utterances"] == 2 and found["speech"]["against"] == "reference"


def test_sets_and_manifests_of_one_name(melcli: Melcli, ears: Ears, speech: Path) -> None:
    Path("more").mkdir()
    shutil.copy("texts.jsonl", "more/texts.jsonl")
    options = ["--task", "tts", "--manifest", "texts.jsonl", "--manifest", "more/texts.jsonl", "--spoken", "said", "-f", "json"]
    assert list(json.loads(melcli("score", *options, "-o", "out").out)["sets"]) == ["texts", "more/texts.jsonl"]
    assert len(list(Path("out").glob("*.jsonl"))) == 2


def test_what_was_not_spoken_is_said(melcli: Melcli, ears: Ears, speech: Path) -> None:
    Path("said/t2.wav").write_text("no audio")
    Path("said/t1.wav").unlink()
    with open("texts.jsonl", "a") as file:
        file.write('{"id": "empty", "text": " "}\n')
    ran = melcli("score", "--task", "tts", "--manifest", "texts.jsonl", "--spoken", "said", "-f", "json")
    assert ran.code == 1 and json.loads(ran.out)["sets"]["texts"]["utterances"] == 1 and "3 of 4 failed:" in ran.err
    assert "t1: no speech of it in said" in ran.err and "  empty: no text to speak" in ran.err and "t2.wav: " in ran.err


def test_the_sentences_in_the_package_are_the_default(melcli: Melcli, ears: Ears, speech: Path) -> None:
    ran = melcli("score", "--task", "tts", "--model", "synth:flite/rms", "--limit", 1, "-f", "json")
    assert json.loads(ran.out)["sets"]["unseen-en"]["words"] == 8


@pytest.fixture
def corpus(speech: Path) -> Path:
    """dev.jsonl: two speakers, two sentences each of some 5 s, with the times of words of one."""
    lines = (
        "the old bridge was closed for repairs until the end of a very long and rainy summer",
        "my grandfather kept a few bees and sold honey at the market on the first of every month",
    )
    with open("dev.jsonl", "w") as file:
        for speaker in ("rms", "slt"):
            for number, text in enumerate(lines):
                name = f"{speaker}-{number}"
                wave_S = load_part(f"synth:flite/{speaker}?stretch=1.1#{text}", 16000)
                soundfile.write(f"{name}.wav", wave_S.numpy(), 16000)
                row = {"id": name, "audio": f"{name}.wav", "text": text, "speaker": speaker}
                if number == 0:
                    share = len(wave_S) / 16000 / len(text.split())
                    row["words"] = [[word, i * share, (i + 1) * share] for i, word in enumerate(text.split())]
                file.write(json.dumps(row) + "\n")
    return speech


def test_cross_sentence(melcli: Melcli, ears: Ears, corpus: Path) -> None:
    """The recordings themselves, compared with another one of their speaker: what is printed beside voices as the ground truth."""
    write_voiceprint(corpus / "sv")
    options = ["--task", "tts", "--manifest", "dev.jsonl", "--model", "recordings", "--prompts", "cross-sentence", "--similarity", "sv", "-f", "json"]
    ran = melcli("score", *options, "-o", "out")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    speech = report["sets"]["dev"]["speech"]
    assert report["model"] == "recordings" and speech["utterances"] == 4
    assert speech["sim_reference"] == pytest.approx(1, abs=1e-3) and speech["mcd"] == 0 and -1 <= speech["sim_prompt"] < 1
    kept = {row["audio_filepath"]: row["speech"]["sim_prompt"] for row in rows("out/*.jsonl")}
    assert kept["rms-0"] == pytest.approx(kept["rms-1"], abs=1e-3)  # each is the other's prompt
    alone = json.loads(melcli("score", *options, "--limit", 1).out)["sets"]["dev"]["speech"]
    assert alone["utterances"] == 1 and alone["sim_prompt"] == pytest.approx(kept["rms-0"], abs=1e-3)
    assert "cross-sentence, seed 7" in melcli("score", *options, "--limit", 1, "--seed", 7).err


def test_continuation(melcli: Melcli, ears: Ears, corpus: Path) -> None:
    """The words after some three seconds are left to say; how many there were before is known by their times, or heard."""
    ran = melcli("score", "--task", "tts", "--manifest", "dev.jsonl", "--model", "recordings", "--prompts", "continuation", "-o", "out", "-f", "json")
    kept = {row["audio_filepath"]: row for row in rows("out/*.jsonl")}
    assert ran.code == 0 and set(kept) == {"rms-0", "slt-0"}  # these ears hear the whole text in a prompt of the others
    assert "2 of 4 left out: no words in its first seconds, or none after them" in ran.err
    for name, row in kept.items():
        whole = len(soundfile.read(f"{name}.wav")[0]) / 16000
        assert row["text"].endswith("rainy summer") and not row["text"].startswith("the old")
        assert whole - row["duration"] == pytest.approx(3.0, abs=0.31)
        said = 16 - len(row["text"].split())
        assert said == pytest.approx(16 * (whole - row["duration"]) / whole, abs=1)


def test_a_model_speaks(melcli: Melcli, ears: Ears, speech: Path, speaker: FakeSpeaker) -> None:  # noqa: F811
    """Texts are spoken, kept and gone on with; one that the voice cannot say is listed, one that it never ends counts as a loop."""
    Path("voice").mkdir()
    with open("texts.jsonl", "w") as file:
        file.writelines(json.dumps({"id": f"s/{i}", "text": text}) + "\n" for i, text in enumerate(("It cost $5.", "Runaway.", "你好")))
    options = ["--task", "tts", "--manifest", "texts.jsonl", "--model", "voice", "--temperature", 0.5, "--seed", 3, "--device", "cpu", "-f", "json"]
    ran = melcli("score", *options, "-o", "out")
    assert ran.code == 1 and "2: nothing in the text can be said: the voice does not know 你好" in ran.err, ran.err
    found = json.loads(ran.out)["sets"]["texts"]
    assert (found["utterances"], found["speech"]["loops"], found["wer"]) == (2, 1, 0.0) and found["rtfx"] > 0
    kept = {row["audio_filepath"]: row for row in rows("out/*.jsonl")}
    assert kept["0"]["speech"]["stopped"] == "stop" and kept["1"]["speech"]["stopped"] == "length" and kept["0"]["time"] > 0
    assert (
        kept["0"]["speech"]["audio"] == "MODEL_voice_DATASET_texts/0.wav"
        and soundfile.info(f"out/{kept['0']['speech']['audio']}").samplerate == 16000
    )
    assert speaker.spoken == [["it cost five dollars.", "runaway."]] and json.loads(next(Path("out").glob("*.json")).read_text())["seed"] == "3"
    melcli("score", *options, "-o", "out")
    assert speaker.spoken[1:] == []  # the one that failed has nothing to say the second time either
    other = melcli("score", *options, "--vocoder", "griffin-lim", "-o", "out")
    assert other.code == 2 and "was made otherwise: vocoder was 'hum', now it is 'griffin-lim'" in other.err


def test_a_model_takes_the_voice_of_a_prompt(melcli: Melcli, ears: Ears, corpus: Path, speaker: FakeSpeaker) -> None:  # noqa: F811
    Path("voice").mkdir()
    options = ["--task", "tts", "--manifest", "dev.jsonl", "--model", "voice", "--prompts", "cross-sentence", "--device", "cpu", "-f", "json"]
    ran = melcli("score", *options)
    assert ran.code == 0, ran.err
    assert (
        len(speaker.voices) == 4 and speaker.voices[0].text.startswith("my grandfather kept") and speaker.voices[1].text.startswith("the old bridge")
    )
    assert all(len(voice.mel_TM) > 250 for voice in speaker.voices)
    assert json.loads(ran.out)["sets"]["dev"]["speech"]["against"] == "reference"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--task", "tts"], "--task tts needs --model VOICE or --spoken SOURCE."),
        (["--task", "tts", "--model", "nobody"], "--model nobody: "),
        (["--task", "tts", "--model", "synth:flite/nobody"], "No synthetic voice 'flite/nobody'."),
        (["--task", "tts", "--spoken", "absent"], "absent: neither a file nor a corpus"),
        (["--task", "tts", "--spoken", "texts.jsonl"], "--spoken texts.jsonl: holds no recordings."),
        (["--task", "tts", "--spoken", "said"], "said: its recordings have no texts; give those that were spoken with --manifest TEXTS.jsonl."),
        (["--task", "tts", "--spoken", "said", "--model", "synth:flite/rms"], "--model and --spoken side by side need texts"),
        (["--task", "tts", "--spoken", "said", "--manifest", "other.jsonl"], "said: has speech of none of the 1 texts of other"),
        (["--task", "tts", "--model", "synth:flite/rms", "--prompts", "continuation"], "--prompts continuation: needs recordings by speakers"),
        (
            ["--task", "tts", "--model", "synth:flite/rms", "--manifest", "texts.jsonl", "--prompts", "cross-sentence"],
            "--prompts cross-sentence: texts: no other recording of this speaker of 2 to 20 s, nor for any other of its texts.",
        ),
        (
            ["--task", "tts", "--model", "synth:flite/rms", "--manifest", "texts.jsonl", "--prompts", "continuation"],
            "--prompts continuation: texts: no recording of at least 4.3 s",
        ),
        (["--task", "tts", "--hyp", "x.jsonl", "--model", "synth:flite/rms"], "--hyp scores rows that exist"),
        (["--task", "tts", "--skip-layers", "all", "--model", "x"], "--skip-layers is for --task asr; this is --task tts."),
        (
            ["--manifest", "texts.jsonl", "--spoken", "said", "--seed", "1"],
            "--spoken is for --task tts and answer; --seed is for --task tts, answer and continue; this is --task asr.",
        ),
        (["--task", "tts", "--model", "synth:flite/rms", "--similarity", "absent"], "--similarity absent: no such folder"),
        (["--task", "tts", "--model", "synth:flite/rms", "--csv", "said"], "--csv said: is a folder"),
        (["--task", "speech"], "Invalid value for '--task'"),
    ],
)
def test_mistakes(melcli: Melcli, ears: Ears, speech: Path, arguments: list[str], expected: str) -> None:
    Path("other.jsonl").write_text('{"text": "hello"}\n')
    ran = melcli("score", *arguments)
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert f"error: {expected}" in ran.err and sum(line.startswith("error") for line in ran.err.splitlines()) == 1


def test_silence_is_scored(melcli: Melcli, ears: Ears, speech: Path) -> None:
    """A voice that says nothing has said no word; it does not fall out of the score."""
    ears.deaf_to = TEXTS[0]
    soundfile.write("said/t0.wav", torch.zeros(16000).numpy(), 16000)
    found = json.loads(melcli("score", "--task", "tts", "--manifest", "texts.jsonl", "--spoken", "said", "--limit", 1, "-f", "json").out)["sets"][
        "texts"
    ]
    assert (found["wer"], found["speech"]["silence"], found["speech"]["cut_off"], found["speech"]["length"]) == (100.0, 100.0, 1, 0.0)


def test_opinions(melcli: Melcli, ears: Ears, speech: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    import base64

    from tests.scoring.tts.test_dnsmos import NETWORK

    Path("net.onnx").write_bytes(base64.b64decode(NETWORK))
    options = ["--task", "tts", "--manifest", "texts.jsonl", "--spoken", "said", "--mos", "net.onnx", "-f", "json"]
    assert set(json.loads(melcli("score", *options).out)["sets"]["texts"]["speech"]["mos"]) == {"SIG", "BAK", "OVRL"}


def test_the_recogniser_is_loaded_as_told(melcli: Melcli, ears: Ears, speech: Path) -> None:
    options = [
        "--task",
        "tts",
        "--manifest",
        "texts.jsonl",
        "--spoken",
        "said",
        "--recogniser",
        "openai/whisper-tiny",
        "--beam",
        2,
        "--device",
        "cpu",
    ]
    assert melcli("score", *options).code == 0
    assert ears.loaded[0]["model"] == "openai/whisper-tiny" and (ears.loaded[0]["beam"], ears.loaded[0]["device"]) == (2, "cpu")
