"""`melcli score`: of a model, of files of transcripts, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from melcli.scoring.protocol import PLAIN
from tests.cli.conftest import FakeTranscriber, Melcli


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.fixture
def manifest(talks: Path) -> Path:
    rows = [{"audio": "a.wav", "text": "Hello, there!"}, {"audio": "b.wav", "text": "good buy now"}, {"audio": "deep/c.mp3", "text": "so deep"}]
    return write(talks / "dev.jsonl", *(row | {"duration": 1.5, "id": "same"} for row in rows))


def test_json_has_exactly_the_agreed_shape(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path) -> None:
    ran = melcli("score", "--manifest", "dev.jsonl", "-f", "json")
    assert ran.code == 0
    report = json.loads(ran.out)
    rtfx = report["sets"]["dev"].pop("rtfx")
    assert rtfx > 0 and report["average"].pop("rtfx") == rtfx
    counts = {"wer": 28.57, "cer": 17.24, "ins": 0, "del": 1, "sub": 1, "words": 7, "utterances": 3, "audio_seconds": 4.5}
    counts |= {key: report["sets"]["dev"][key] for key in ("cer", "wer_interval")}  # checked in tests/scoring
    stamp = {"protocol": "plain", "protocol_version": PLAIN.version, "protocol_digest": PLAIN.digest}
    assert report == stamp | {"model": "tiny-en", "sets": {"dev": counts}, "average": {"wer": 28.57}}
    assert list(report["sets"]["dev"]) == ["wer", "cer", "ins", "del", "sub", "words", "utterances", "audio_seconds", "wer_interval"]


def test_the_protocol_decides_what_counts(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path) -> None:
    report = json.loads(melcli("score", "--manifest", "dev.jsonl", "-f", "json", "--protocol", "none").out)
    assert report["protocol"] == "none" and report["sets"]["dev"]["sub"] == 3


def test_several_models_and_sets(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path, talks: Path) -> None:
    write(talks / "other.jsonl", {"audio": "a.wav", "text": "hello there"})
    ran = melcli("score", "--manifest", manifest, "--manifest", "other.jsonl", "--model", "one", "--model", "x/two", "-f", "json", "-o", "out")
    reports = json.loads(ran.out)
    assert [(r["model"], list(r["sets"])) for r in reports] == [("one", ["dev", "other"]), ("x/two", ["dev", "other"])]
    assert reports[0]["average"]["wer"] == pytest.approx((28.57 + 0) / 2, abs=0.01)
    files = [f"MODEL_{model}_DATASET_{name}.jsonl" for model in ("one", "x-two") for name in ("dev", "other")]
    assert sorted(p.name for p in talks.glob("out/*.jsonl")) == files


def test_the_table_says_the_same(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path) -> None:
    head, row = melcli("score", "--manifest", "dev.jsonl", "-q").out.splitlines()
    assert head.split()[:4] == ["model", "set", "WER", "%"]
    assert row.split()[:4] == ["tiny-en", "dev", "28.57", "0.00..66.67"] and row.split()[5:11] == ["1", "1", "0", "7", "3", "4.50"]


def test_rows_are_kept_raw_and_can_be_scored_again(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path, talks: Path) -> None:
    melcli("score", "--manifest", "dev.jsonl", "-o", "out")
    file = "out/MODEL_tiny-en_DATASET_dev.jsonl"
    rows = [json.loads(line) for line in (talks / file).read_text().splitlines()]
    expected = {"audio_filepath": str(talks / "a.wav"), "duration": 1.5, "time": 0.1, "text": "Hello, there!", "pred_text": "hello there"}
    expected["finish_reason"] = "eos"
    assert rows[0] == expected and len(rows) == 3
    transcriber.loaded.clear()
    report = json.loads(melcli("score", "--hyp", file, "-f", "json").out)
    assert transcriber.loaded == []
    assert report["model"] == "tiny-en" and report["average"] == {"wer": 28.57, "rtfx": 15.0}
    assert report["sets"]["dev"]["rtfx"] == 15.0 and report["sets"]["dev"]["audio_seconds"] == 4.5


def test_other_peoples_rows(melcli: Melcli, talks: Path) -> None:
    write(talks / "hyp.jsonl", {"text": "a b", "hyp": "a c"}, {"text": "d", "hyp": "d"})
    report = json.loads(melcli("score", "--hyp", "hyp.jsonl", "-f", "json").out)
    assert report["model"] is None and report["average"]["rtfx"] is None
    assert report["sets"]["hyp"]["wer"] == 33.33 and report["sets"]["hyp"]["audio_seconds"] is None
    assert json.loads(melcli("score", "--hyp", "hyp.jsonl", "-f", "json", "--limit", "1").out)["sets"]["hyp"]["wer"] == 50.0


def test_files_from_windows(melcli: Melcli, talks: Path) -> None:
    rows = [{"text": "a b", "pred_text": "a c"}, {"text": "é", "pred_text": "é"}]
    (talks / "hyp.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(row, ensure_ascii=False).encode() for row in rows))
    ran = melcli("score", "--hyp", "hyp.jsonl", "-f", "json")
    assert ran.code == 0 and json.loads(ran.out)["sets"]["hyp"]["words"] == 3


def test_limit(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path) -> None:
    assert json.loads(melcli("score", "--manifest", "dev.jsonl", "--limit", 2, "-f", "json").out)["sets"]["dev"]["utterances"] == 2


def test_failed_utterances_are_listed_and_not_counted(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path, talks: Path) -> None:
    (talks / "b.wav").write_text("bad")
    with manifest.open("a") as file:
        file.write('{"audio": "a.wav", "id": "textless"}\n')
    ran = melcli("score", "--manifest", "dev.jsonl", "-f", "json")
    assert ran.code == 1 and json.loads(ran.out)["sets"]["dev"]["utterances"] == 2
    assert "2 of 4 failed:" in ran.err and "  textless: no text to score against" in ran.err and "is not audio that can be decoded" in ran.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "score needs either --set NAME or --manifest SOURCE (and --model), or --hyp FILE.jsonl (and --set)."),
        (["--manifest", "dev.jsonl", "--hyp", "good.jsonl"], "score needs either"),
        (["--hyp", "good.jsonl", "--model", "x"], "--hyp scores transcripts that exist; leave out --model."),
        (["--hyp", "good.jsonl", "-o", "x"], "-o and --overwrite are about what a model transcribes"),
        (["--hyp", "absent.jsonl"], "absent.jsonl: cannot be read"),
        (["--hyp", "empty.jsonl"], "empty.jsonl: holds no rows."),
        (["--hyp", "broken.jsonl"], "broken.jsonl:2: not JSON"),
        (["--hyp", "lacking.jsonl"], "lacking.jsonl:1: no 'pred_text'; a row holds 'text' and one of: pred_text, hyp."),
        (["--hyp", "textless.jsonl"], "textless.jsonl:1: no 'text'"),
        (["--hyp", "number.jsonl"], "number.jsonl:1: 'text' and 'hyp' must both be strings."),
        (["--manifest", "broken.jsonl"], "broken.jsonl:2: not JSON"),
        (["--manifest", "silent.jsonl"], "silent.jsonl: none of its 1 utterances has a text to score against."),
        (["--hyp", "deep.jsonl"], "deep.jsonl:1: not to be read as JSON, "),
        (["--hyp", "long.jsonl"], "long.jsonl:1: not to be read as JSON, "),
        (["--hyp", "half.jsonl"], "half.jsonl:1: not to be read as JSON, "),
        (["--hyp", "nan.jsonl"], "nan.jsonl:1: 'duration' is NaN, expected seconds"),
        (["--hyp", "null.jsonl"], "null.jsonl:1: 'text' and 'pred_text' must both be strings."),
        (["--manifest", "absent.jsonl"], "absent.jsonl: no such file"),
        (["--set", "openast"], "--set openast: neither a set, nor a corpus, nor a file. Did you mean 'openasr'?"),
        (["--set", "absent/dev.jsonl"], "absent/dev.jsonl: no such file"),
        (["--manifest", "dev.jsonl", "--protocol", "plane"], "no protocol is called 'plane'. Did you mean 'plain'?"),
        (["--manifest", "dev.jsonl", "--limit", "0"], "Invalid value for '--limit'"),
    ],
)
def test_mistakes(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path, talks: Path, arguments: list[str], expected: str) -> None:
    write(talks / "good.jsonl", {"text": "a", "pred_text": "a"})
    write(talks / "empty.jsonl")
    write(talks / "broken.jsonl", {"text": "a", "pred_text": "a", "audio": "a.wav"}, "{")
    write(talks / "lacking.jsonl", {"text": "a"})
    write(talks / "textless.jsonl", {"pred_text": "a"})
    write(talks / "number.jsonl", {"text": "a", "hyp": 3})
    write(talks / "silent.jsonl", {"audio": "a.wav", "duration": 1})
    write(talks / "deep.jsonl", "[" * 100_000)
    write(talks / "long.jsonl", '{"text": "a", "pred_text": "a", "time": ' + "1" * 5000 + "}")
    write(talks / "half.jsonl", r'{"text": "a", "pred_text": "\ud800"}')
    write(talks / "nan.jsonl", '{"text": "a", "pred_text": "a", "duration": NaN}')
    write(talks / "null.jsonl", {"text": None, "pred_text": "a"})
    ran = melcli("score", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {expected}") and ran.err.count("\n") == 1


def test_what_cannot_be_written_is_known_before_decoding(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path, talks: Path) -> None:
    before = manifest.read_text()
    for place in (manifest, "out.jsonl", "a.wav"):
        ran = melcli("score", "--manifest", "dev.jsonl", "-o", place)
        assert ran.code == 2 and "takes a folder" in ran.err
    assert transcriber.heard == [] and manifest.read_text() == before


def test_leaderboard_protocols(melcli: Melcli, talks: Path) -> None:
    write(
        talks / "rows.jsonl",
        {"text": "Uh, Stephen's white paper, OK?", "pred_text": "Steven's whitepaper okay"},
        {"text": "ignore time segment in scoring", "pred_text": "anything"},
        {"text": "twenty dollars", "pred_text": "$20"},
    )
    found = {}
    for name in ("openasr-2026", "openasr-classic", "plain"):
        report = json.loads(melcli("score", "--hyp", "rows.jsonl", "--protocol", name, "-f", "json").out)
        assert report["protocol"] == name
        found[name] = report["sets"]["rows"]
    assert (found["openasr-2026"]["wer"], found["openasr-2026"]["utterances"], found["openasr-2026"]["words"]) == (0.0, 2, 6)
    assert (found["openasr-classic"]["wer"], found["openasr-classic"]["words"]) == (66.67, 6)
    assert (found["plain"]["utterances"], found["plain"]["words"]) == (3, 12)


@pytest.fixture
def two_files(talks: Path) -> Path:
    """old.jsonl and new.jsonl with the same 30 utterances; new.jsonl has half the errors."""
    for name, every in (("old", 2), ("new", 4)):
        rows = [{"audio_filepath": f"{i}.wav", "duration": 2.0, "time": 0.1, "text": "one two three"} for i in range(30)]
        write(talks / f"{name}.jsonl", *(row | {"pred_text": "one two three" if i % every else "one too three"} for i, row in enumerate(rows)))
    return talks


def test_compare(melcli: Melcli, two_files: Path) -> None:
    head, row, verdict = melcli("score", "--compare", "old.jsonl", "new.jsonl").out.splitlines()
    assert head.split()[:2] == ["a", "b"] and row.split()[:5] == ["old", "new", "16.67", "8.89", "-7.78"]
    assert verdict == "new is better than old"
    found = json.loads(melcli("score", "--compare", "new.jsonl", "old.jsonl", "-f", "json").out)
    assert found["difference"] == pytest.approx(7.7778) and found["interval"][0] > 0 and found["p_value"] < 0.05 and found["b_better"] < 0.05


def test_compare_refuses_other_utterances(melcli: Melcli, two_files: Path) -> None:
    write(two_files / "other.jsonl", {"audio_filepath": "1.wav", "text": "one two three", "pred_text": ""})
    ran = melcli("score", "--compare", "old.jsonl", "other.jsonl")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "error: old and other do not hold the same utterances: 29 only in old (0.wav, 2.wav, 3.wav, …).\n"
    for more in (["--hyp", "new.jsonl"], ["--set", "openasr"], ["--csv", "row.csv"], ["--devices", "2"], ["--limit", "3"], ["-o", "out"]):
        ran = melcli("score", "--compare", "old.jsonl", "new.jsonl", *more)
        assert (ran.code, ran.out) == (2, "") and ran.err.count("\n") == 1
        assert ran.err.startswith("error: --compare takes --protocol, --format, --report and --worst only")


def test_compare_joins_recordings_and_takes_models_names(melcli: Melcli, talks: Path) -> None:
    for model, heard in (("one", ["a b", "c d"]), ("x-two", ["a b", "c x"])):
        rows = [
            {"audio_filepath": f"{model}{i}", "text": "a b c d", "pred_text": h, "parent_id": "call", "chunk_index": i} for i, h in enumerate(heard)
        ]
        write(talks / f"MODEL_{model}_DATASET_calls.jsonl", *rows)
        write(talks / f"{model}.jsonl", rows[1])
    files = ["MODEL_one_DATASET_calls.jsonl", "MODEL_x-two_DATASET_calls.jsonl"]
    found = json.loads(melcli("score", "--compare", *files, "-f", "json", "--protocol", "none").out)
    assert (found["a"], found["b"], found["wer_a"], found["wer_b"], found["utterances"]) == ("one", "x-two", 0, 25, 1)
    assert found["protocol"] == "none" and found["protocol_digest"]
    ran = melcli("score", "--compare", "one.jsonl", "x-two.jsonl")
    assert (ran.code, ran.err) == (2, "error: one.jsonl: pieces of 1 recordings are missing (call); only whole ones compare.\n")


def test_report(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path, talks: Path) -> None:
    ran = melcli("score", "--manifest", "dev.jsonl", "--model", "one", "--model", "two", "--report", "out/report", "-f", "json")
    assert ran.code == 0 and len(json.loads(ran.out)) == 2 and "report: out/report/report.html" in ran.err
    summary = json.loads((talks / "out/report/summary.json").read_text())
    assert [s["name"] for s in summary["systems"]] == ["one", "two"] and summary["systems"][0]["about"] == {"device": "cpu: a fake needs no other"}
    assert summary["systems"][0]["sets"]["dev"]["finish_reasons"] == {"eos": 3} and len(summary["comparisons"]) == 1
    assert sorted(path.name for path in (talks / "out/report").iterdir()) == ["report.html", "report.md", "summary.json"]


def test_report_of_files(melcli: Melcli, two_files: Path) -> None:
    assert melcli("score", "--hyp", "old.jsonl", "--hyp", "new.jsonl", "--report", "out").code == 0
    summary = json.loads((two_files / "out/summary.json").read_text())
    assert [s["name"] for s in summary["systems"]] == ["old", "new"] and summary["comparisons"][0]["verdict"] == "new is better than old"
    write(two_files / "other.jsonl", *({"audio_filepath": f"{i}.wav", "text": "another", "hyp": "a"} for i in range(30)))
    melcli("score", "--hyp", "old.jsonl", "--hyp", "other.jsonl", "--report", "out")
    summary = json.loads((two_files / "out/summary.json").read_text())
    assert [(s["name"], list(s["sets"])) for s in summary["systems"]] == [("transcripts", ["old", "other"])]
    melcli("score", "--compare", "old.jsonl", "new.jsonl", "--report", "both")
    assert len(json.loads((two_files / "both/summary.json").read_text())["comparisons"]) == 1


def test_worst(melcli: Melcli, two_files: Path) -> None:
    shown = melcli("score", "--hyp", "old.jsonl", "--worst", 1).out
    assert shown.splitlines()[2:] == [
        "",
        "transcripts, old, 0.wav: 1 replaced, 0 missed, 0 invented of 3 words",
        "REF: one TWO three",
        "HYP: one TOO three",
        "         S",
    ]
    ran = melcli("score", "--hyp", "old.jsonl", "--worst", 1, "-f", "json")
    assert json.loads(ran.out) and "HYP: one TOO three" in ran.err


def test_places_that_cannot_be_written_to(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path, talks: Path) -> None:
    ran = melcli("score", "--manifest", manifest, "--csv", talks)
    assert (ran.code, transcriber.heard) == (2, []) and "is a folder, and --csv takes a file" in ran.err
    ran = melcli("score", "--manifest", manifest, "--report", manifest / "below")
    assert (ran.code, transcriber.heard) == (1, []) and "below: cannot be written: " in ran.err and ran.err.count("\n") == 1


def test_a_report_cannot_take_the_place_of_a_file(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path) -> None:
    ran = melcli("score", "--manifest", "dev.jsonl", "--report", manifest)
    assert ran.code == 2 and "is a file, and --report takes a folder" in ran.err and transcriber.heard == []


def test_an_interrupt_says_what_would_have_kept_the_rows(
    melcli: Melcli, transcriber: FakeTranscriber, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear = FakeTranscriber.transcribe

    def stopping(self, items):
        yield next(hear(self, items))
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeTranscriber, "transcribe", stopping)
    ran = melcli("score", "--manifest", manifest)
    assert ran.code == 130 and ran.err.splitlines()[-2:] == [
        "what was done is not kept; with -o DIR it is, and the same command goes on with it",
        "interrupted",
    ]
    ran = melcli("score", "--manifest", manifest, "-o", "out", "-q")
    assert (ran.code, ran.err) == (130, "interrupted\n") and len(next(Path("out").glob("*.jsonl")).read_text().splitlines()) == 1
    monkeypatch.setattr(FakeTranscriber, "transcribe", hear)
    transcriber.heard.clear()
    assert melcli("score", "--manifest", manifest, "-o", "out", "-q").code == 0 and len(transcriber.heard) == 2
