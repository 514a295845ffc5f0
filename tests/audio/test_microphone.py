"""The microphone, with a sound card that plays a clip: what is said is heard while it goes on, and Ctrl-C ends it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from melcli import registry
from melcli.audio import io, microphone
from tests.cli.conftest import Melcli, melcli  # noqa: F401  a fixture

CLIP = Path(registry.__file__).parent / "assets" / "clips" / "digits-slt.wav"


class Card(types.ModuleType):
    """As much of sounddevice as is used; its stream plays a clip and a second of silence, and then somebody presses Ctrl-C."""

    class PortAudioError(Exception): ...

    class InputStream:
        def __init__(self, samplerate: int, channels: int, dtype: str, blocksize: int, callback: Any) -> None:
            assert (channels, dtype) == (1, "float32")
            self.blocks = torch.cat([io.load(CLIP, samplerate), torch.zeros(samplerate)]).split(blocksize)
            self.callback = callback

        def __enter__(self) -> None:
            threading.Thread(target=self.play).start()

        def play(self) -> None:
            for block in self.blocks:
                self.callback(block[:, None].numpy(), len(block), None, None)
            os.kill(os.getpid(), signal.SIGINT)

        def __exit__(self, *_: object) -> None: ...


def test_what_is_said_is_printed(melcli: Melcli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sounddevice", Card("sounddevice"))
    before = signal.getsignal(signal.SIGINT)
    ran = melcli("transcribe", "mic", "--device", "cpu")
    assert (ran.code, ran.out.count("\n")) == (0, 1) and len(ran.out.split()) >= 5 and "listening; Ctrl-C ends it" in ran.err
    assert signal.getsignal(signal.SIGINT) is before


def test_without_a_microphone(melcli: Melcli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    ran = melcli("transcribe", "mic", "--device", "cpu", "-q")
    assert (ran.code, ran.out) == (2, "") and "pip install 'melcli[mic]'" in ran.err and ran.err.count("\n") == 1
    assert microphone.BLOCK_SECONDS < 1
