"""The recordings behind result rows, where they can be read: to listen to in a report, and to guess how noisy they are.

Shapes: S samples.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np

from melcli.errors import MelcliError
from melcli.scoring.results import ResultRow
from melcli.scoring.run import Run

RATE = 16000
SLACK_SECONDS = 0.5


def read_clip(run: Run, row: ResultRow) -> np.ndarray | None:
    """wave_S: float32 at RATE, of the utterance that a row of a run is of, or of the file that it names; None where it cannot be read.

    A file that is not as long as the row says is a recording of which the row is a part, and is left alone.
    """
    from melcli.audio.io import load, probe
    from melcli.data.load import load_utterance

    try:
        if (utterance := run.utterances.get(row.audio_filepath)) is not None:
            return load_utterance(utterance, RATE).numpy()
        path = Path(run.folder or ".", row.audio_filepath)
        if not path.is_file():
            return None
        seconds = probe(path).duration
        if row.duration is not None and seconds is not None and abs(seconds - row.duration) > SLACK_SECONDS:
            return None
        return load(path, RATE).numpy()
    except (MelcliError, OSError, ValueError):  # a name too long, or with a zero byte, is no path at all
        return None


def as_data_address(wave_S: np.ndarray, seconds: float) -> str:
    """The first `seconds` as an MP3 inside a data: address, about 4 kB a second. MP3, since every browser plays it, phones included."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, wave_S[: round(seconds * RATE)], RATE, format="MP3", subtype="MPEG_LAYER_III")
    return "data:audio/mpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
