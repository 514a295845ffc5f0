"""Models to export, and a way to run an export's client that does not start a process."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from pathlib import Path

from melcli.models import checkpoint
from tests.models.conftest import make_model

CONV = {"kind": "mel-conv", "stride": 8, "channels": 16, "hidden": 32, "norm": "utterance"}


def save(folder: Path, backbone: str = "llama", attention: str = "causal", speech_input: dict | None = None, **more) -> Path:
    """A checkpoint of a random model."""
    model, processor = make_model(backbone, attention, speech_input or CONV, **more)
    checkpoint.save(folder, model, processor)
    return folder


def run_here(folder: Path, arguments: list[str]) -> str:
    """What `client.py ARGUMENTS` prints, run in this process."""
    argv, path = sys.argv[:], sys.path[:]
    sys.argv, printed = [str(folder / "client.py"), *arguments], io.StringIO()
    sys.path.insert(0, str(folder))
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        sys.argv, sys.path = argv, path
        for name in ("log_mel", "speech_input"):
            sys.modules.pop(name, None)
    return printed.getvalue()
