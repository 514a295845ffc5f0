"""A picture of a folder of features: a few spectrograms and how long the utterances are."""

from __future__ import annotations

import os
from pathlib import Path

from melcli.data.shards import FeatureShards
from melcli.errors import ShardError, first_line

PICTURES = 4


def plot_features(folder: str | os.PathLike[str], path: str | os.PathLike[str] | None = None, pictures: int = PICTURES) -> list[Path]:
    """Draw `pictures` log-mels spread over the set and the histogram of durations.

    path: .png, .pdf or .svg; features.png in the folder where None. Returns what was written. ShardError for an empty set or another suffix.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shards = FeatureShards.open(folder)
    if not len(shards):
        raise ShardError(f"{folder}: no utterances to draw")
    chosen = sorted({round(index * (len(shards) - 1) / max(1, pictures - 1)) for index in range(pictures)})
    figure = Figure(figsize=(10, 2.2 * (len(chosen) + 1)), layout="constrained")
    FigureCanvasAgg(figure)
    *rows, last = figure.subplots(len(chosen) + 1)
    for axes, index in zip(rows, chosen, strict=True):
        mel_TM, utterance = shards.mel(index).float(), shards.utterances[index]
        seconds = len(mel_TM) / shards.spec.frame_rate
        axes.imshow(mel_TM.T.numpy(), origin="lower", aspect="auto", extent=(0, seconds, 0, shards.spec.n_mels), interpolation="nearest")
        axes.set_title(f"{utterance.id}: {(utterance.text or '')[:90]}", fontsize=8, loc="left", parse_math=False)
        axes.set_ylabel("mel bin", fontsize=8)
        axes.set_xlabel("s", fontsize=8)
    durations = [frames / shards.spec.frame_rate for frames in shards.frames]
    last.hist(durations, bins=40)
    last.set_title(f"{len(durations)} utterances, {sum(durations) / 3600:.2f} h", fontsize=8, loc="left")
    last.set_xlabel("duration in s", fontsize=8)
    path = Path(path) if path is not None else Path(folder) / "features.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(path, dpi=110)
    except (ValueError, OSError) as error:
        raise ShardError(f"--plot {path}: cannot be drawn, {first_line(error)}") from None
    return [path]
