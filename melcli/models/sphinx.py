"""pocketsphinx as a recogniser: offline, small, US English, and independent of everything that is trained here.

It makes many errors on real speech; its use is to compare synthetic voices, which it never saw either. The extra `melcli[sphinx]` brings it with its
model.

Shapes: S samples.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from melcli.errors import UsageError
from melcli.models import sphinx_worker
from melcli.models.hints import NONE, Hints
from melcli.models.recogniser import Recognised

RATE = 16000
MAX_SECONDS = 30.0
EDGE_SECONDS = 0.2  # of silence put at both ends, so that speech never begins with the first sample (docs/scoring-speech.md)
PEAK = 0.5  # what the loudest sample is set to: 16 bits hold little of very quiet speech


class Sphinx:
    """pocketsphinx with its own US English model, an utterance a call, shared out over processes since it holds Python's lock.

    What is heard does not depend on what was heard before, nor on the level.
    """

    rate = RATE
    max_seconds = MAX_SECONDS

    def __init__(self, jobs: int | None = None) -> None:
        """jobs: processes; None for one a core."""
        self.jobs = jobs or _cores()
        self._pool: ProcessPoolExecutor | None = None

    @classmethod
    def load(
        cls,
        folder: str = "",
        *,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
        rows: int | None = None,
        beam: int | None = None,
        ctc_weight: float | None = None,
        hints: Hints = NONE,
    ) -> tuple[Sphinx, dict[str, str]]:
        """The recogniser and what was decided for it. Takes what other recognisers' `load` takes; rows are its processes. Raises UsageError."""
        if importlib.util.find_spec("pocketsphinx") is None:
            raise UsageError("pocketsphinx is not installed: pip install 'melcli[sphinx]', or name another recogniser.")
        hints.refuse(
            "pocketsphinx",
            word_times="gives no times of words here; leave it out, or give --timestamps segment",
            prompt="has no prompt; leave it out",
            hotwords="has a language model of its own; leave them out",
        )
        if beam is not None or ctc_weight is not None:
            raise UsageError("--beam and --ctc-weight: pocketsphinx has a search of its own; leave them out.")
        found = cls(rows)
        decisions = {
            "device": f"cpu: pocketsphinx has nothing else; {found.jobs} process{'es' if found.jobs > 1 else ''}",
            "dtype": "int16: pocketsphinx's own arithmetic",
            "model": f"pocketsphinx {version('pocketsphinx')} with its US English model",
            "decoding": "its default beams and language model; silence of 0.2 s at both ends, peak at half scale",
        }
        return found, decisions

    @staticmethod
    def folder() -> Path:
        """Where its model is."""
        spec = importlib.util.find_spec("pocketsphinx")
        return Path(spec.origin).parent / "model" if spec and spec.origin else Path()

    def recognise(self, waves: Sequence[Tensor]) -> Iterator[dict[int, Recognised]]:
        """What was heard in each wave_S, as it is done."""
        if self.jobs == 1 or len(waves) == 1:
            yield from ({i: Recognised(sphinx_worker.decode(_pcm(wave_S)), "eos")} for i, wave_S in enumerate(waves))
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.jobs, mp_context=multiprocessing.get_context("spawn"))
        order = sorted(range(len(waves)), key=lambda i: -len(waves[i]))  # the longest last would leave the others idle
        asked = {self._pool.submit(sphinx_worker.decode, _pcm(waves[i])): i for i in order}
        for done in as_completed(asked):
            yield {asked[done]: Recognised(done.result(), "eos")}


def _pcm(wave_S: Tensor) -> bytes:
    """16-bit samples at a fixed peak, with silence at both ends."""
    edge = round(EDGE_SECONDS * RATE)
    scaled_S = wave_S * (PEAK / wave_S.abs().max().clamp_min(1e-5))
    return torch.nn.functional.pad((scaled_S * 32767).round().to(torch.int16), (edge, edge)).numpy().tobytes()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
