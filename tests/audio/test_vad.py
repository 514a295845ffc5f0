"""The VAD: silero-vad's own program judges the same windows the same way, whatever the blocks and the rate."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from melcli import registry
from melcli.audio import io, vad
from melcli.audio.resample import resample
from melcli.errors import UsageError

CLIPS = sorted((Path(registry.__file__).parent / "assets" / "clips").glob("*.wav"))


@pytest.fixture(scope="module")
def network() -> vad.Network:
    return vad.load()


def heard(network: vad.Network, wave_S: torch.Tensor, rate: int = 16000, block: int = 1 << 30) -> torch.Tensor:
    listener = vad.Listener(network, rate)
    return torch.cat([*(listener.push(part) for part in wave_S.split(block)), listener.finish()])


def test_it_agrees_with_the_packages_own_program(network: vad.Network) -> None:
    """The program in the wheel holds weights of another training of the same network: what both call speech is the same but for a few edges."""
    folder = Path(importlib.util.find_spec("silero_vad").origin).parent
    theirs = torch.jit.load(str(folder / "data" / "silero_vad.jit"), map_location="cpu").eval()
    wave_S = torch.cat([torch.cat([torch.zeros(8192), io.load(clip, 16000), 1e-3 * torch.randn(16000)]) for clip in CLIPS])
    wave_S = wave_S[: len(wave_S) // 512 * 512]
    theirs.reset_states()
    with torch.inference_mode():
        expected = torch.tensor([theirs(window, 16000).item() for window in wave_S.split(512)])
    ours = heard(network, wave_S)
    assert len(ours) == len(expected)
    assert ((ours > 0.5) == (expected > 0.5)).float().mean() > 0.95 and (ours > 0.5).float().mean() > 0.3


def test_windows_are_those_of_the_recursion_written_out(network: vad.Network) -> None:
    """One window at a time, with the LSTM's equations by hand."""
    wave_S = io.load(CLIPS[0], 16000)[:20000]
    padded_S = torch.nn.functional.pad(wave_S, (64, -len(wave_S) % 512))
    lstm = network.lstm
    h, c = torch.zeros(128), torch.zeros(128)
    expected = []
    for window in [torch.zeros(576)] * vad.PRIMING + list(padded_S.unfold(0, 576, 512)):
        gates = lstm.weight_ih_l0 @ network.encode(window[None])[0] + lstm.bias_ih_l0 + lstm.weight_hh_l0 @ h + lstm.bias_hh_l0
        i, f, g, o = gates.chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        expected.append((network.final_conv.weight[0, :, 0] @ h.relu() + network.final_conv.bias[0]).sigmoid())
    assert torch.allclose(heard(network, wave_S), torch.stack(expected[vad.PRIMING :]), atol=1e-4)


def test_blocks_change_nothing(network: vad.Network) -> None:
    wave_S = torch.cat([io.load(clip, 16000) for clip in CLIPS])
    whole = heard(network, wave_S)
    assert len(whole) == -(-len(wave_S) // 512)
    assert torch.allclose(heard(network, wave_S, block=777), whole, atol=1e-5)


def test_other_rates(network: vad.Network) -> None:
    wave_S = io.load(CLIPS[0], 16000)
    at_24k = heard(network, resample(wave_S, 16000, 24000), 24000, block=5000)
    assert ((at_24k > 0.5) == (heard(network, wave_S) > 0.5)[: len(at_24k)]).float().mean() > 0.9


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vad.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install 'silero-vad>=6', or give --no-vad"):
        vad.load()
