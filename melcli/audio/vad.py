"""Speech told from everything else: silero-vad's network, on our own tensors.

The package `silero-vad` brings the weights as safetensors; its own code is not imported (it sets torch's threads for the whole process and runs one
window at a time). The network is written out here: all windows of a block go through the convolutions at once, and only the LSTM walks through time.
Shapes: S samples, N windows of 32 ms, B windows in a batch, C channels, T frames of 8 ms inside a window.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from melcli.audio.resample import Resampler
from melcli.errors import UsageError

RATE = 16000  # Hz, what the network was trained at
WINDOW = 512  # samples a probability stands for: 32 ms
CONTEXT = 64  # samples before a window that it reads too
WINDOW_SECONDS = WINDOW / RATE
BATCH = 512  # windows in the convolutions at once: 16 s, a few megabytes
PRIMING = 8  # windows of silence that it hears first: without them it takes the first 0.3 s of a recording for less than they are
FILE = "data/silero_vad_16k.safetensors"


class Network(nn.Module):
    """silero-vad 6 at 16 kHz: a short-time Fourier transform as a convolution, four convolutions, an LSTM, a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def encode(self, windows_BS: Tensor) -> Tensor:
        """What each window with its context [B, 576] holds: [B, 128]."""
        waves_B1S = nn.functional.pad(windows_BS, (0, CONTEXT), "reflect")[:, None]
        real_BCT, imaginary_BCT = self.stft_conv(waves_B1S).chunk(2, 1)
        x_BCT = (real_BCT.square() + imaginary_BCT.square()).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x_BCT = layer(x_BCT).relu()
        return x_BCT[..., 0]

    def forward(self, windows_NS: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The probability of speech of each window [N], in order, and the LSTM's state after them."""
        x_NC = torch.cat([self.encode(part) for part in windows_NS.split(BATCH)])
        h_NC, state = self.lstm(x_NC, state)
        return self.final_conv(h_NC.relu().T[None])[0, 0].sigmoid(), state


def load() -> Network:
    """The network with its weights. Raises UsageError where the package is not installed, or not one whose weights are known here."""
    spec = importlib.util.find_spec("silero_vad")
    path = Path(spec.origin).parent / FILE if spec is not None and spec.origin else None
    if path is None:
        raise UsageError("finding speech needs silero-vad: pip install 'silero-vad>=6', or give --no-vad")
    network = Network()
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        renamed = {name.replace("lstm_cell.", "lstm.") + ("_l0" if name.startswith("lstm_cell.") else ""): t for name, t in tensors.items()}
        network.load_state_dict(renamed)
    except (OSError, SafetensorError, RuntimeError):
        raise UsageError(f"{path} is not the network of silero-vad 6: pip install 'silero-vad>=6', or give --no-vad") from None
    return network.eval().requires_grad_(False)


class Listener:
    """Probabilities of speech in one signal that arrives in blocks, whatever its rate. What `push` and the last `finish` return, joined, is that of
    the whole signal: one value for each 32 ms, the last window filled up with zeros."""

    def __init__(self, network: Network, rate: int) -> None:
        self.network = network
        self.resampler = Resampler(rate, RATE)
        self.pending_S = torch.zeros(CONTEXT)
        with torch.inference_mode():
            self.state = network(torch.zeros(PRIMING, CONTEXT + WINDOW))[1]

    def push(self, wave_S: Tensor) -> Tensor:
        """The next samples in; the probabilities of the windows that they complete out."""
        return self._listen(self.resampler.push(wave_S), False)

    def finish(self) -> Tensor:
        """The probabilities of what is left."""
        return self._listen(self.resampler.finish(), True)

    @torch.inference_mode()
    def _listen(self, wave_S: Tensor, last: bool) -> Tensor:
        self.pending_S = torch.cat([self.pending_S, wave_S])
        fresh = len(self.pending_S) - CONTEXT
        if last and fresh % WINDOW:
            self.pending_S = nn.functional.pad(self.pending_S, (0, -fresh % WINDOW))
        if len(self.pending_S) < CONTEXT + WINDOW:
            return torch.empty(0)
        windows_NS = self.pending_S.unfold(0, CONTEXT + WINDOW, WINDOW)
        self.pending_S = self.pending_S[len(windows_NS) * WINDOW :]
        probabilities_N, self.state = self.network(windows_NS, self.state)
        return probabilities_N
