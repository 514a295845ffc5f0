"""DNSMOS P.835: a guess at what listeners would say of a recording, from 1 to 5: SIG of the speech, BAK of the background, OVRL of all.

Reddy, Gopal and Cutler, "DNSMOS P.835: a non-intrusive perceptual objective speech quality metric to evaluate noise suppressors", arXiv
2110.01763. It was made for noise suppression and tells little of prosody. The network is Microsoft's file sig_bak_ovr.onnx (DNS-Challenge,
CC BY 4.0), which is not part of melcli; the curves below, which put its raw outputs on the scale of listeners, are those of its published script.

Shapes: S samples at RATE.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from torch import Tensor

from melcli.errors import UsageError

RATE = 16000
WINDOW = 144160  # samples the network reads: 9.01 s
HOP = RATE
CURVES = {  # polynomials, the highest power first
    "SIG": (-0.08397278, 1.22083953, 0.0052439),
    "BAK": (-0.13166888, 1.60915514, -0.39604546),
    "OVRL": (-0.06766283, 1.11546468, 0.04602535),
}


class Dnsmos:
    """The network, ready to rate."""

    def __init__(self, path: Path) -> None:
        """path: sig_bak_ovr.onnx. Raises UsageError where it, or onnxruntime, is not there, or it is another network."""
        if importlib.util.find_spec("onnxruntime") is None:
            raise UsageError("--mos needs onnxruntime: pip install 'melcli[mos]'.")
        if not path.is_file():
            raise UsageError(f"--mos {path}: no such file; it takes sig_bak_ovr.onnx of Microsoft's DNS-Challenge.")
        import onnxruntime

        try:
            self._network = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # whatever onnxruntime makes of a broken file
            raise UsageError(f"--mos {path}: no network that onnxruntime can read: {str(error).strip().splitlines()[0][:200]}") from None
        inputs, outputs = self._network.get_inputs(), self._network.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 2 or len(outputs) != 1 or outputs[0].shape[-1] != len(CURVES):
            raise UsageError(f"--mos {path}: not DNSMOS P.835: that reads samples and gives three numbers.")
        self._input = inputs[0].name

    def rate(self, wave_S: Tensor) -> dict[str, float]:
        """SIG, BAK and OVRL, means over windows a second apart; shorter recordings are repeated until they fill one, as the published script does.

        Nothing for an empty one.
        """
        if not len(wave_S):
            return {}
        samples = wave_S.float().numpy()
        while len(samples) < WINDOW:
            samples = np.concatenate([samples, samples])
        seconds = len(samples) // RATE
        starts = range(0, HOP * (int(seconds - WINDOW / RATE) + 1), HOP)
        windows = [samples[start : start + WINDOW] for start in starts]
        raw_WK = np.stack([self._network.run(None, {self._input: one[None]})[0][0] for one in windows if len(one) == WINDOW])
        return {name: round(float(np.polyval(curve, raw_WK[:, i]).mean()), 4) for i, (name, curve) in enumerate(CURVES.items())}
