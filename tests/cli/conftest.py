"""Running the command line as a user does, with a recogniser small enough to read in place of a model."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from melcli import cli, console
from melcli.inputs import AudioInput
from melcli.models.recogniser import Word
from melcli.transcripts import Segment, Transcript
from tests.fake_replier import FakeReplier
from tests.fake_speaker import Hum


@dataclass
class Ran:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


Melcli = Callable[..., Ran]


@pytest.fixture
def melcli(capsys: pytest.CaptureFixture[str]) -> Iterator[Melcli]:
    """Run `melcli ARGUMENTS` in this process."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(int(stopped.value.code or 0), captured.out, captured.err)

    yield run
    console.set_level(console.NORMAL)


@dataclass
class FakeTranscriber:
    """Hears what a file's first line says; a file that begins with 'bad' cannot be decoded. Yields the last input first, as sorting by length may."""

    loaded: list[dict[str, Any]] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    decisions: dict[str, str] = field(default_factory=lambda: {"device": "cpu: a fake needs no other"})
    folder: Path = Path("nowhere")

    def load(self, model: str, **options: Any) -> FakeTranscriber:
        self.loaded.append({"model": model, **options})
        self.folder = Path(model)
        return self

    def check(self, model: str, **options: Any) -> None:
        pass

    def transcribe(self, items: Iterable[AudioInput], heard: Callable[[AudioInput, Segment], None] | None = None) -> Iterator[Transcript]:
        for item in reversed(list(items)):
            path = item.utterance.audio[0]
            self.heard.append(item.name)
            text = Path(path).read_text(encoding="utf-8").strip()
            if text.startswith("bad"):
                yield Transcript(item.name, path, 0.0, "", error=f"{path}: is not audio that can be decoded.")
            else:
                segment = Segment(0.0, 1.5, text, "length" if text.startswith("cut") else "eos", self.words(text))
                if heard is not None:
                    heard(item, segment)
                yield Transcript(item.name, path, 1.5, text, [segment], None, 0.1)

    def words(self, text: str) -> tuple[Word, ...] | None:
        """Half a second a word, where times were asked for."""
        if not self.loaded or "hints" not in self.loaded[-1] or not self.loaded[-1]["hints"].word_times:
            return None
        return tuple(Word(word, i / 2, i / 2 + 0.4) for i, word in enumerate(text.split()))


@pytest.fixture
def transcriber(monkeypatch: pytest.MonkeyPatch) -> FakeTranscriber:
    """Stands in for melcli.transcribe."""
    fake = FakeTranscriber()
    module = types.ModuleType("melcli.transcribe")
    module.Transcriber = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "melcli.transcribe", module)
    return fake


@pytest.fixture
def talks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 'recordings' to be in: a.wav, b.wav, deep/c.mp3, notes.txt, .hidden.wav."""
    folder = tmp_path / "talks"
    (folder / "deep").mkdir(parents=True)
    for name, text in (
        ("a.wav", "hello there"),
        ("b.wav", "good bye"),
        ("deep/c.mp3", "so deep"),
        ("notes.txt", "no audio"),
        (".hidden.wav", "unseen"),
    ):
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def replier(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeReplier:
    """Stands in for melcli.models.replier; the test is in a folder of its own."""
    from melcli import reply

    fake = FakeReplier()
    module = types.ModuleType("melcli.models.replier")
    module.Replier = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    loader = reply.load_vocoder
    monkeypatch.setattr(reply, "load_vocoder", lambda name, spec, **o: Hum(spec) if name == "auto" else loader(name, spec, **o))
    monkeypatch.chdir(tmp_path)
    return fake
