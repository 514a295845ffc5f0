"""Texts to waves: batches, streams, pauses and what goes wrong, with a speaker small enough to read."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from melcli.audio.vocoder import load_vocoder
from melcli.data.passages import PAUSES
from melcli.errors import AudioError, UsageError
from melcli.synthesize import WINDOW, Request, Synthesizer, deliver
from tests.fake_speaker import FakeSpeaker, Hum

HOP, RATE = 256, 16000


@pytest.fixture
def synthesizer() -> Synthesizer:
    speaker = FakeSpeaker()
    return Synthesizer(speaker, Hum(speaker.spec), {})


def test_requests_are_spoken_in_order_and_together(synthesizer: Synthesizer) -> None:
    speeches = list(synthesizer.speak([Request("b", "Good bye, my dear."), Request("a", "Hello."), Request("c", "One. Two.")]))
    assert [speech.id for speech in speeches] == ["b", "a", "c"]
    assert synthesizer.speaker.spoken == [["good bye, my dear.", "hello.", "one.", "two."]]
    for speech in speeches[:2]:
        assert len(speech.wave_S) == pytest.approx(len(speech.pieces[0].text) * 4 * HOP, abs=HOP)
        assert speech.reasons == ["stop"] and speech.error is None and float(speech.wave_S.abs().max()) > 0.01


def test_sentences_are_apart(synthesizer: Synthesizer) -> None:
    (speech,) = synthesizer.speak([Request("x", "One. Two.\n\nThree.")])
    parts = [len(synthesizer.vocoder(spoken.mel_TM[None])[0]) for spoken in speech.spoken]
    pauses = [round(PAUSES[end] * RATE) for end in ("sentence", "paragraph")]
    assert len(speech.wave_S) == sum(parts) + sum(pauses)
    assert not speech.wave_S[parts[0] : parts[0] + pauses[0]].any()
    assert not speech.wave_S[-parts[2] - pauses[1] : -parts[2]].any()


def test_the_same_seed_gives_the_same_audio(synthesizer: Synthesizer) -> None:
    def spoken(seed: int, temperature: float, *more: str) -> torch.Tensor:
        synthesizer.seed, synthesizer.temperature = seed, temperature
        return next(synthesizer.speak([Request(text, text) for text in ("hello", *more)])).wave_S

    assert torch.equal(spoken(1, 1.0), spoken(1, 1.0, "and more"))
    assert not torch.equal(spoken(1, 1.0), spoken(2, 1.0))
    assert torch.equal(spoken(1, 0.0), spoken(2, 0.0))


def test_the_model_says_how_freely_it_speaks() -> None:
    speaker = FakeSpeaker(temperature=0.3)
    assert Synthesizer(speaker, Hum(speaker.spec), {}).temperature == 0.3
    assert Synthesizer(speaker, Hum(speaker.spec), {}, temperature=0.0).temperature == 0.0


@pytest.mark.parametrize("vocoder", ["hum", "griffin-lim"])
def test_the_stream_is_the_whole(synthesizer: Synthesizer, vocoder: str) -> None:
    text = "One is. Two.\n\nOh."
    if vocoder == "griffin-lim":
        synthesizer.vocoder = load_vocoder(vocoder, synthesizer.speaker.spec)
    chunks = list(synthesizer.stream(Request("x", text)))
    (whole,) = synthesizer.speak([Request("x", text)])
    assert len(chunks) > 4 and chunks[-1].last
    torch.testing.assert_close(torch.cat([chunk.wave_S for chunk in chunks]), whole.wave_S)
    assert [chunk.spoken.reason for chunk in chunks if chunk.spoken is not None] == whole.reasons


def test_the_first_audio_comes_before_the_text_ends(synthesizer: Synthesizer) -> None:
    asked: list[int] = []

    def lines() -> Iterator[str]:
        for number in itertools.count():
            asked.append(number)
            yield "a sentence that goes on for a while.\n"
            yield "\n"

    chunks = synthesizer.stream(Request("x", lines()))
    while not len(next(chunks).wave_S):
        pass
    assert len(asked) == 1
    several = synthesizer.chunks([Request("x", lines())])
    assert len(next(several).wave_S)


def test_what_goes_wrong_stays_in_its_request(synthesizer: Synthesizer) -> None:
    texts = {
        "fine": "Hello.",
        "emoji": "😀 你好",
        "empty": " ",
        "broken": "All good. This is broken. More.",
        "left": "Go 😀 now.",
        "odd": "a runaway.",
    }
    found = {speech.id: speech for speech in synthesizer.speak(Request(key, text) for key, text in texts.items())}
    assert list(found) == list(texts)
    assert {key for key, speech in found.items() if speech.error} == {"emoji", "empty", "broken"}
    assert found["emoji"].error == "nothing in the text can be said: the voice does not know 😀, 你好."
    assert found["empty"].error == "there is nothing to say in the text."
    assert "NaN" in found["broken"].error and not len(found["broken"].wave_S)
    assert found["left"].left_out == ("😀",) and len(found["left"].wave_S)
    assert found["odd"].reasons == ["length"]


def test_voices_are_kept_apart(synthesizer: Synthesizer) -> None:
    ann, bob = object(), object()
    requests = [Request("1", "one", ann), Request("2", "two"), Request("3", "three", ann), Request("4", "four", bob)]
    assert [speech.id for speech in synthesizer.speak(requests)] == ["1", "2", "3", "4"]
    assert synthesizer.speaker.spoken == [["one.", "three."], ["two."], ["four."]]
    assert synthesizer.speaker.voices == [ann, None, bob]


def test_a_voice_that_cannot_be_takes_only_its_own_rows(synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch) -> None:
    speak = FakeSpeaker.speak

    def refusing(self, texts, *, voice=None, **options):
        if voice == "long":
            raise UsageError("--voice: 90.0 s of it")
        return speak(self, texts, voice=voice, **options)

    monkeypatch.setattr(FakeSpeaker, "speak", refusing)
    found = list(synthesizer.speak([Request("1", "one", "long"), Request("2", "two")]))
    assert [speech.error for speech in found] == ["--voice: 90.0 s of it", None]


class _Writer:
    """Keeps what is written; remembers whether it ended well."""

    def __init__(self) -> None:
        self.samples, self.whole = 0, None

    def write(self, wave_S: torch.Tensor) -> None:
        self.samples += len(wave_S)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.whole = kind is None


def test_deliver(synthesizer: Synthesizer) -> None:
    writer = _Writer()
    found = deliver(synthesizer.chunks([Request("x", "One 😀. A runaway. Three.")]), writer, RATE, keep=0.1)
    assert writer.whole and writer.samples == found.samples and found.passages == 3
    assert found.odd == [("length", "a runaway.")] and list(found.left_out) == ["😀"] and len(found.spoken) == 1
    with pytest.raises(UsageError, match="nothing to say"):
        deliver(synthesizer.chunks([Request("x", "...")]), writer, RATE)
    assert not writer.whole
    with pytest.raises(AudioError, match="NaN"):
        deliver(synthesizer.chunks([Request("x", "One. It is broken.")]), writer, RATE)


def test_memory_does_not_grow_with_the_text(synthesizer: Synthesizer) -> None:
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    words = samples = most = 0
    lines = (f"the long way{' round' * 7}.\n{'' if number % 5 else chr(10)}" for number in range(1000))
    for chunk in synthesizer.chunks([Request("x", lines)]):
        if chunk.spoken is not None:
            alive.add(chunk.spoken.mel_TM)
            words += len(chunk.piece.text.split())
        samples += len(chunk.wave_S)
        most = max(most, len(alive))
        synthesizer.speaker.spoken.clear()
    assert words == 10_000 and samples > 1000 * 4 * HOP * 40
    assert most <= 2 * WINDOW


def test_the_benchmark_says_the_same_without_a_cache(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.voice_maker import save_voice

    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    spec = importlib.util.spec_from_file_location("benchmark", repository / "benchmarks" / "synthesize.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    folder = save_voice(tmp_path / "voice")
    arguments = [
        "--model",
        folder,
        "--vocoder",
        "griffin-lim",
        "--sentences",
        2,
        "--repeats",
        1,
        "--dtype",
        "float32",
        "--json",
        tmp_path / "figures.json",
    ]
    monkeypatch.setattr(sys, "argv", ["synthesize.py", *map(str, arguments)])
    benchmark.main()  # stops where the numbers of frames differ
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["apart"] < 1e-3 and all(factor > 0 for factor in figures["real_time_factors"].values())
