"""Mel-cepstral distortion: how far the spectral envelopes of two recordings of one text lie apart, in dB, once their timing is made equal.

    MCD = 10 / ln 10 * sqrt(2 * sum_{d=1..13} (c_d - c'_d)^2)      averaged over the steps of the cheapest path

(R. Kubichek, "Mel-cepstral distance measure for objective speech quality assessment", IEEE PacRim 1993.) The cepstra are those of the log
magnitude A(m) of M mel bins, ln A(m) = c_0 + sum_d c_d cos(pi d (m + 1/2) / M), so that the sum is the mean square of a difference of envelopes in dB
over the mel scale. c_0, the level, does not count. The path is dynamic time warping's with steps (1,1), (1,0), (0,1), all of the same weight.
Programs differ in cepstra (WORLD's envelope and SPTK's all-pass warp give other numbers than a mel filter bank) and in what they divide by: values
compare with each other only where one program made them.

Shapes: S samples, T mel frames, M mel bins, D cepstra.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from melcli.audio.mel import log_mel
from melcli.audio.mel_spec import MelSpec
from melcli.scoring.tts.pauses import trimmed

CEPSTRA = 13
DECIBELS = 10 / math.log(10) * math.sqrt(2)
SPEC = MelSpec(
    rate=16000,
    n_fft=512,
    win_length=400,  # 25 ms
    hop_length=160,  # 10 ms
    n_mels=40,
    f_min=50,
    f_max=7600,
    power=1,
    log="ln",
    dynamic_range=60 / 20 * math.log(10),  # 60 dB: what lies deeper below the loudest bin is nobody's voice
    padding="center",
)


def mel_cepstra(wave_S: Tensor) -> np.ndarray:
    """cepstra_TD float64 of a waveform at SPEC.rate, D from 1 to CEPSTRA. Raises AudioError for one shorter than a window."""
    mel_TM = log_mel(SPEC, wave_S).double().numpy()
    bins = np.arange(SPEC.n_mels) + 0.5
    basis_MD = np.cos(np.pi * np.outer(bins, np.arange(1, CEPSTRA + 1)) / SPEC.n_mels)
    return mel_TM @ basis_MD * (2 / SPEC.n_mels)


def warped_distance(a_TD: np.ndarray, b_TD: np.ndarray) -> float:
    """The mean Euclidean distance of the frames that the cheapest warping path lays side by side.

    Cells are filled a diagonal at a time, so memory grows with the length, not with its square; of equally cheap ways the diagonal one is taken.
    """
    n, m = len(a_TD), len(b_TD)
    before, last = (np.full(n + 1, np.inf) for _ in range(2))  # costs on the two diagonals before; [i + 1] is row i, [0] is outside
    steps_before, steps_last = (np.zeros(n + 1) for _ in range(2))
    for k in range(n + m - 1):
        rows = np.arange(max(0, k - m + 1), min(n, k + 1))
        apart = np.sqrt(np.square(a_TD[rows] - b_TD[k - rows]).sum(1))
        ways = np.stack([before[rows], last[rows], last[rows + 1]])
        steps = np.stack([steps_before[rows], steps_last[rows], steps_last[rows + 1]])
        best = ways.argmin(0)
        cost, count = np.full(n + 1, np.inf), np.zeros(n + 1)
        at = np.arange(len(rows))
        cost[rows + 1] = apart + (ways[best, at] if k else 0.0)
        count[rows + 1] = steps[best, at] + 1
        before, last, steps_before, steps_last = last, cost, steps_last, count
    return float(last[n] / steps_last[n])


def mel_cepstral_distortion(spoken_S: Tensor, reference_S: Tensor) -> float | None:
    """MCD in dB of two waveforms at SPEC.rate, silence at their ends left out; None where one holds no sound."""
    pair = [trimmed(wave_S, SPEC.rate) for wave_S in (spoken_S, reference_S)]
    if min(map(len, pair)) < SPEC.win_length:
        return None
    return DECIBELS * warped_distance(*map(mel_cepstra, pair))
