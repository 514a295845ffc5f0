"""What the seconds of a transcript are: features, generation and detokenising, after the warm-up; not the audio's decoding."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from melcli import listening, registry
from melcli.data.utterance import Utterance
from melcli.inputs import AudioInput
from melcli.models import speech_lm_recogniser
from melcli.transcribe import Transcriber

CLIPS = sorted((Path(registry.__file__).parent / "assets" / "clips").glob("*.wav"))
ITEMS = [AudioInput(path.stem, Utterance(path.stem, (str(path),))) for path in CLIPS]


def slowed(function: Any, seconds: float) -> Any:
    def run(*arguments: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return function(*arguments, **options)

    return run


@pytest.mark.parametrize(
    ("module", "where", "counted"),
    [
        (listening, "stream_utterance", False),
        (speech_lm_recogniser.SpeechLMProcessor, "features", True),
        (speech_lm_recogniser, "decode_batch", True),
        (speech_lm_recogniser.SpeechLMProcessor, "text", True),
    ],
    ids=["decoding the file", "features", "generation", "detokenising"],
)
def test_seconds(monkeypatch: pytest.MonkeyPatch, module: Any, where: str, counted: bool) -> None:
    transcriber = Transcriber.load("tiny-en", device="cpu")
    list(transcriber.transcribe(ITEMS))
    monkeypatch.setattr(module, where, slowed(getattr(module, where), 2.0))
    seconds = sum(transcript.seconds for transcript in transcriber.transcribe(ITEMS[:1]))
    assert (seconds >= 2.0) is counted


def test_the_warm_up_is_nobodys_time(monkeypatch: pytest.MonkeyPatch) -> None:
    transcriber = Transcriber.load("tiny-en", device="cpu", batch_size=1, warm_up=2)
    decoded: list[int] = []
    whole = speech_lm_recogniser.decode_batch

    def decode_batch(model: Any, processor: Any, features: Any, *rest: Any, **options: Any) -> Any:
        decoded.append(len(features))
        if len(decoded) <= 2:
            time.sleep(2.0)
        return whole(model, processor, features, *rest, **options)

    monkeypatch.setattr(speech_lm_recogniser, "decode_batch", decode_batch)
    first = list(transcriber.transcribe(ITEMS))
    again = list(transcriber.transcribe(ITEMS))
    assert decoded == [1] * (2 + 2 * len(ITEMS))  # two batches of one before the first window, none before the second
    assert sum(transcript.seconds for transcript in first) < 2.0 and [t.text for t in first] == [t.text for t in again]
