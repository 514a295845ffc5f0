"""The recordings behind result rows, where they can be read: to listen to in a report, and to guess how noisy they are.

Shapes: S samples.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np

from melcli.errors import AudioError
from melcli.scoring.results import ResultRow

RATE = 16000
SLACK_SECONDS = 0.5


def read_clip(row: ResultRow, folder: Path | None = None) -> np.ndarray | None:
    """wave_S: float32 at RATE, of the file that a row names, relative to the folder; None where it cannot be read.

    A file that is not as long as the row says is a recording of which the row is a part, and is left alone.
    """
    path = Path(folder or ".", row.audio_filepath)
    try:
        if not path.is_file():
            return None
    except (OSError, ValueError):  # a name too long, or with a zero byte: no path at all
        return None
    from melcli.audio.io import load, probe

    try:
        seconds = probe(path).duration
        if row.duration is not None and seconds is not None and abs(seconds - row.duration) > SLACK_SECONDS:
            return None
        return load(path, RATE).numpy()
    except AudioError:
        return None


def as_data_address(wave_S: np.ndarray, seconds: float) -> str:
    """The first `seconds` as an MP3 inside a data: address, about 4 kB a second. MP3, since every browser plays it, phones included."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, wave_S[: round(seconds * RATE)], RATE, format="MP3", subtype="MPEG_LAYER_III")
    return "data:audio/mpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
