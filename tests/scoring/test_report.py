"""The files of a report: what they must hold, that texts cannot break out of them, and what the page is in a browser."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from melcli.data.utterance import Utterance
from melcli.scoring import clips, report
from melcli.scoring.run import Run
from tests.scoring import browser
from tests.scoring.handmade import PLAIN, row, run

EVIL = "<script>alert('x')</script> | `*_ & \"quoted\" </style>"
VOID = {"meta", "br", "rect", "line"}


class Page(HTMLParser):
    """Checks that elements close in order, and collects addresses and visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.seen: list[str] = []
        self.elements: dict[str, int] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] = self.elements.get(tag, 0) + 1
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.seen.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.seen).split())


def two_systems(folder: Path) -> list[Run]:
    """Two systems on two sets of 20 utterances, one of which can be listened to; nothing in the first set is right."""
    seconds = np.arange(2 * 16000) / 16000
    soundfile.write(folder / "tone.wav", 0.2 * np.sin(2 * np.pi * 300 * seconds) * (seconds % 1 < 0.6) + 0.001, 16000)
    found = []
    for system, heard in (("first", "a x c d e f g h"), ("org/second", "a b c d e f g")):
        about = {"device": "cpu: no accelerator found", "batch": "auto"}
        for set_name in ("dev", "test"):
            rows = [row(f"{i}.wav", f"a b c d e f g h {i}", f"{heard} {i}", speaker="s", finish_reason="eos") for i in range(18)]
            rows.append(row("tone.wav", f"the tone {EVIL}", "thank you for watching " * 3, finish_reason="length"))
            rows.append(row("silence", "", "you" if system == "first" else "", duration=9.0))
            found.append(run(rows, system, set_name, folder=folder, about=about))
    return found


@pytest.fixture
def written(tmp_path: Path) -> Path:
    report.write(tmp_path / "out", two_systems(tmp_path), PLAIN)
    return tmp_path / "out"


def test_summary(written: Path) -> None:
    summary = json.loads((written / "summary.json").read_text())
    assert summary["protocol"] == {"name": "plain", "version": "1", "digest": PLAIN.digest} and summary["versions"]["melcli"]
    first, second = summary["systems"]
    assert (first["name"], second["name"]) == ("first", "org/second") and first["about"]["device"] == "cpu: no accelerator found"
    dev = first["sets"]["dev"]
    low, high = dev["wer_interval"]
    assert low < dev["wer"] < high and dev["cer_interval"][0] < dev["cer"] and (dev["unit"], dev["blocks"]) == ("utterance", 20)
    assert (dev["hallucinated"]["silent"], dev["empty"]) == (1, 0)
    assert dev["finish_reasons"] == {"eos": 18, "length": 1} and dev["rtfx"] == 23.5
    assert first["average"]["wer"] == dev["wer"] and first["average"]["wer_interval"][0] < dev["wer"]
    assert ["b", "x", 36] in first["substitutions"] and ["h", 36] in second["deletions"]
    assert [b["label"] for b in first["bins"]["duration"]] == ["2-5", "5-10"] and len(first["bins"]["snr"]) == 1
    assert [(c["set_name"], c["a"], c["b"]) for c in summary["comparisons"]] == [("dev", "first", "org/second"), ("test", "first", "org/second")]
    worst = summary["worst"][0]
    assert worst["name"] == "tone.wav" and worst["snr"] is not None and [r["system"] for r in worst["readings"]] == ["first", "org/second"]


def test_page(written: Path) -> None:
    text = (written / "report.html").read_text()
    page = Page(text)
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", text)
    assert page.addresses and all(address.startswith("data:audio/mpeg;base64,") for address in page.addresses)
    assert page.elements["script"] == 1 and page.elements["audio"] == 2
    for expected in (
        "first",
        "org/second",
        "95 % interval",
        "no difference between",
        "Hallucinated",
        "stopped by length",
        "intervals by drawing 20 utterances",
    ):
        assert expected in page.text, expected


def test_markdown(written: Path) -> None:
    text = (written / "report.md").read_text()
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.M)
    assert len(tables) >= 5
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
    assert "HYP: " in text and "b → x (36)" in text and "\n\n\n\n" not in text
    assert not [line for line in text.splitlines() if "<script" in line and not line.startswith("    ")]


def test_one_system_that_makes_no_mistake(tmp_path: Path) -> None:
    report.write(tmp_path, [run([row("1", "a b", "a b", duration=None, time=None)])], PLAIN)
    assert "None: every word is right." in Page((tmp_path / "report.html").read_text()).text
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["comparisons"] == summary["worst"] == [] and summary["systems"][0]["sets"]["dev"]["wer_interval"] is None


def test_no_text_breaks_out(tmp_path: Path) -> None:
    evil = row(f"/x/{EVIL}", EVIL, "other", speaker=EVIL, finish_reason=EVIL)
    report.write(tmp_path, [run([evil], EVIL + system, EVIL + "set", about={EVIL: EVIL}) for system in "ab"], PLAIN)
    page = Page((tmp_path / "report.html").read_text())
    assert page.elements["script"] == page.elements["style"] == 1 and page.text.count("<script>alert('x')</script>") > 10
    for line in (tmp_path / "report.md").read_text().splitlines():
        assert not re.search(r"(?<!\\)[<`]", line) or line.startswith(("    ", "Protocol"))


def test_systems_of_different_utterances_are_not_compared(tmp_path: Path) -> None:
    report.write(tmp_path, [run([row("1", "a b", "a c")], "x"), run([row("2", "a b", "a b")], "y"), run([row("3", "c", "")], "y", "other")], PLAIN)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["comparisons"] == [] and [len(s["sets"]) for s in summary["systems"]] == [1, 2]
    Page((tmp_path / "report.html").read_text())


def test_clips_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "CLIP_BYTES", 1000)
    report.write(tmp_path / "out", two_systems(tmp_path), PLAIN)
    assert "<audio" not in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize("name", ["absent.wav", "text.wav", "x" * 5000, "zero\0byte", ".", "longer.wav"])
def test_recordings_that_are_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "longer.wav", np.zeros(16000 * 5), 16000)
    named = row(name, "a", "a")
    assert clips.read_clip(run([named], folder=tmp_path), named) is None


def test_recordings_of_a_set_that_was_read(tmp_path: Path) -> None:
    """Stretches of a recording and strings of several are known by their utterances."""
    path = str(tmp_path / "long.wav")
    soundfile.write(path, np.linspace(-0.5, 0.5, 16000 * 5), 16000)
    utterances = {"cut": Utterance("cut", (path,), start=1.0, end=3.0), "joined": Utterance("joined", (path, path), gap=1.0)}
    made = run([row("cut", "a", "b"), row("joined", "a", "b", duration=11.0)], utterances=utterances)
    found = [clips.read_clip(made, one) for one in made.rows]
    assert [len(wave_S) for wave_S in found if wave_S is not None] == [2 * 16000, 11 * 16000]
    report.write(tmp_path / "out", [made], PLAIN)
    assert Page((tmp_path / "out/report.html").read_text()).elements["audio"] == 2


@pytest.mark.skipif(browser.found() is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [375, 1280])
def test_in_a_browser(written: Path, tmp_path: Path, width: int) -> None:
    opened = browser.Browser()
    try:
        colours = set()
        for dark in (False, True):
            opened.open(written / "report.html", width, 812, dark)
            colours.add(opened.run("getComputedStyle(document.body).backgroundColor"))
            assert opened.run("document.documentElement.scrollWidth") <= width  # nothing sticks out of the page
            assert opened.complaints() == [] and opened.requests() == []
        assert len(colours) == 2
        assert sortable(opened)
        played = "(a => new Promise(done => { a.preload = 'auto'; a.oncanplay = () => done(a.duration); a.onerror = () => done(-1); a.load(); }))"
        assert opened.run(f"{played}(document.querySelector('audio'))") == pytest.approx(2, abs=0.2)
        opened.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 20_000
    finally:
        opened.close()


def sortable(opened: browser.Browser) -> bool:
    """A click on WER sorts the rates from the highest, another one from the lowest."""

    def order() -> list[float]:
        opened.run("document.querySelectorAll('#rates th button')[1].click()")
        values: Any = opened.run("[...document.querySelectorAll('#rates tbody tr')].map(row => Number(row.cells[1].dataset.value))")
        return values

    down, up = order(), order()
    return down == sorted(down, reverse=True) and up == sorted(up) and down != up
