"""A picture of what a model spoke: mel frames, stop probability, standard deviation of the latents.

Shapes: T mel frames, M mel bins, P steps.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from melcli.audio.mel_spec import MelSpec
from melcli.errors import UsageError, WriteError
from melcli.files import replacing

if TYPE_CHECKING:
    from melcli.models.speaker import Spoken

SUFFIXES = (".png", ".pdf", ".svg")
SECONDS = 60.0
"""What is drawn of a long text."""


def check_plot(path: Path) -> None:
    """Raises UsageError where the picture could not be drawn in the end."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib: pip install 'melcli[plot]'.")
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {path}: the suffix says the format; valid are {', '.join(SUFFIXES)}.")


def plot_spoken(path: Path, spoken: Spoken, spec: MelSpec, frames_per_step: int, title: str) -> None:
    """Draw one stretch of speech. Raises WriteError where the file cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mel_TM = spoken.mel_TM.float().cpu()
    seconds = len(mel_TM) / spec.frame_rate
    figure = Figure(figsize=(max(6.0, min(40.0, 2.2 * seconds)), 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    above.imshow(mel_TM.T.numpy(), origin="lower", aspect="auto", extent=(0, seconds, 0, spec.n_mels), interpolation="nearest")
    above.set_title(title, fontsize=8, loc="left", parse_math=False)
    above.set_ylabel("mel bin", fontsize=8)
    for axes, name, values_P in ((middle, "stop probability", spoken.stop_P), (below, "latent std", spoken.std_P)):
        axes.set_ylabel(name, fontsize=8)
        if values_P is None:
            axes.text(0.5, 0.5, "this model has none", transform=axes.transAxes, ha="center", va="center", fontsize=8)
        else:
            times = [(step + 1) * frames_per_step / spec.frame_rate for step in range(len(values_P))]
            axes.plot(times, values_P.float().cpu().numpy(), linewidth=1)
    middle.set_ylim(-0.05, 1.05)
    below.set_xlabel("s", fontsize=8)
    with replacing(path) as temporary:
        try:
            figure.savefig(temporary, dpi=110, format=path.suffix.lower().lstrip("."))
        except ValueError as error:  # too wide for the format
            raise WriteError(f"--plot {path}: cannot be drawn, {str(error).splitlines()[0]}") from None
