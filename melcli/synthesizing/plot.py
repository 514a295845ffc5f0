"""Pictures of what a model spoke: mel frames, stop probability, standard deviation of the latents; or of a prompt and the speech after it.

Shapes: T mel frames, M mel bins, P steps, S samples.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from melcli.audio.mel_spec import MelSpec
from melcli.errors import UsageError, WriteError
from melcli.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

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


def plot_spoken(path: Path, spoken: Sequence[Spoken], spec: MelSpec, frames_per_step: int, title: str) -> None:
    """Draw passages one after the other, without the silence between them. Raises WriteError where the file cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mel_TM = torch.cat([one.mel_TM for one in spoken]).float().cpu()
    seconds, step = len(mel_TM) / spec.frame_rate, frames_per_step / spec.frame_rate
    figure = Figure(figsize=(max(6.0, min(40.0, 2.2 * seconds)), 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    above.imshow(mel_TM.T.numpy(), origin="lower", aspect="auto", extent=(0, seconds, 0, spec.n_mels), interpolation="nearest")
    above.set_title(title, fontsize=8, loc="left", parse_math=False)
    above.set_ylabel("mel bin", fontsize=8)
    for axes, name in ((middle, "stop probability"), (below, "latent std")):
        axes.set_ylabel(name, fontsize=8)
    if spoken[0].std_P is None:
        below.text(0.5, 0.5, "this model has none", transform=below.transAxes, ha="center", va="center", fontsize=8)
    start = 0.0
    for one in spoken:
        for axes, values_P in ((middle, one.stop_P), (below, one.std_P)):
            axes.axvline(start, color="0.8", linewidth=1)
            if values_P is not None:
                axes.plot([start + number * step for number in range(len(values_P))], values_P.float().cpu().numpy(), color="C0", linewidth=1)
        start += len(one.mel_TM) / spec.frame_rate
    middle.set_ylim(-0.05, 1.05)
    below.set_xlim(0, seconds)
    below.set_xlabel("s", fontsize=8)
    _save(figure, path)


def plot_continued(path: Path, prompt_S: Tensor, said_S: Tensor, rate: int, spec: MelSpec, title: str) -> None:
    """Draw the log-mel and the pitch of a prompt and of the speech after it, a line between the two. Raises WriteError as above.

    rate: of both, which are measured at that of the spec and of audio/timbre.py.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from melcli.audio import timbre
    from melcli.audio.mel import log_mel
    from melcli.audio.pitch import track_many
    from melcli.audio.resample import resample

    whole_S = torch.cat([prompt_S, said_S]).float().cpu()
    before, seconds = len(prompt_S) / rate, len(whole_S) / rate
    mel_TM = log_mel(spec, resample(whole_S, rate, spec.rate))
    pitch_T, voiced_T = track_many([resample(whole_S, rate, timbre.RATE)], timbre.RATE, timbre.HOP, timbre.GRID)[0]
    figure = Figure(figsize=(max(6.0, min(40.0, 2.2 * seconds)), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.imshow(mel_TM.T.numpy(), origin="lower", aspect="auto", extent=(0, seconds, 0, spec.n_mels), interpolation="nearest")
    above.set_title(title, fontsize=8, loc="left", parse_math=False)
    above.set_ylabel("mel bin", fontsize=8)
    at_T = torch.arange(len(pitch_T)) * timbre.HOP / timbre.RATE
    below.plot(at_T[voiced_T].numpy(), pitch_T[voiced_T].numpy(), ".", markersize=2, color="C0")
    below.set_ylabel("F0, Hz", fontsize=8)
    below.set_xlim(0, seconds)
    below.set_xlabel("s", fontsize=8)
    for axes, color in ((above, "white"), (below, "0.5")):
        axes.axvline(before, color=color, linewidth=1)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        try:
            figure.savefig(temporary, dpi=110, format=path.suffix.lower().lstrip("."))
        except ValueError as error:  # too wide for the format
            raise WriteError(f"--plot {path}: cannot be drawn, {str(error).splitlines()[0]}") from None
