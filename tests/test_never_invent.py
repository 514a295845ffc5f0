"""Nothing is heard where nothing is said: a hundred clips without speech, through the command's own path."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from melcli.audio import io
from melcli.data.utterance import Utterance
from melcli.inputs import AudioInput
from melcli.models.decoding.hypothesis import Hypothesis
from melcli.transcribe import Transcriber
from tests.non_speech import RATE, clips


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    return Transcriber.load("tiny-en", device="cpu", vad=True)


def test_a_hundred_clips_without_speech(transcriber: Transcriber, tmp_path: Path) -> None:
    items = []
    for name, wave_S in clips():
        io.save(tmp_path / f"{name}.wav", wave_S, RATE)
        items.append(AudioInput(name, Utterance(name, (str(tmp_path / f"{name}.wav"),))))
    found = list(transcriber.transcribe(items))
    assert len(found) == len(items) == 100 and not [t.error for t in found if t.error]
    assert len([(t.name, t.text) for t in found if t.text]) <= 1
    assert all([s.finish_reason for s in t.segments] == ["silence"] for t in found if not t.text)


def test_the_ctc_head_has_a_say(transcriber: Transcriber) -> None:
    """What is written over frames that are all blank is no text."""
    listener = transcriber.recogniser
    alphabet = listener.processor.ctc_alphabet
    logits = torch.zeros(30, len(alphabet) + 1)
    logits[:, -1] = 5
    assert listener._heard_nothing(Hypothesis([5, 6], "eos", 0.0, logits))
    logits[9, alphabet.index("æ")] = 9
    assert not listener._heard_nothing(Hypothesis([5, 6], "eos", 0.0, logits))
