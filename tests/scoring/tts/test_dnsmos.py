"""DNSMOS on a network with its face that gives mean level, highest and lowest sample: windows, repetition, curves. Its real weights are not here."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import torch

from melcli.errors import UsageError
from melcli.scoring.tts import dnsmos
from melcli.scoring.tts.dnsmos import Dnsmos

NETWORK = (
    "CAgSADqfAgoRCgdpbnB1dF8xEgFhIgNBYnMKMAoBYRIBbSIKUmVkdWNlTWVhbioLCgRheGVzQAGgAQcqDwoIa2VlcGRpbXMYAaABAgo1CgdpbnB1dF8xEgFiIglSZWR1Y2VNYXgqCwoEYXhl"
    "c0ABoAEHKg8KCGtlZXBkaW1zGAGgAQIKNQoHaW5wdXRfMRIBYyIJUmVkdWNlTWluKgsKBGF4ZXNAAaABByoPCghrZWVwZGltcxgBoAECCioKAW0KAWIKAWMSCklkZW50aXR5OjAiBkNvbmNh"
    "dCoLCgRheGlzGAGgAQISAWdaHAoHaW5wdXRfMRIRCg8IARILCgMSAW4KBAig5ghiHQoKSWRlbnRpdHk6MBIPCg0IARIJCgMSAW4KAggDQgQKABAN"
)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    (tmp_path / "sig_bak_ovr.onnx").write_bytes(base64.b64decode(NETWORK))
    return tmp_path / "sig_bak_ovr.onnx"


def curve(name: str, raw: float) -> float:
    return sum(factor * raw**power for power, factor in enumerate(reversed(dnsmos.CURVES[name])))


def test_a_short_recording_is_repeated(network: Path) -> None:
    wave_S = torch.linspace(-0.5, 0.25, 16000)
    found = Dnsmos(network).rate(wave_S)
    assert found["BAK"] == pytest.approx(curve("BAK", 0.25), abs=1e-3) and found["OVRL"] == pytest.approx(curve("OVRL", -0.5), abs=1e-3)


def test_windows_are_a_second_apart(network: Path) -> None:
    """Of 12 s there are three windows; a loud sample in the last second that the third reads raises one of three."""
    wave_S = torch.full((16000 * 12,), 0.1)
    wave_S[round(10.5 * 16000)] = 0.9
    found = Dnsmos(network).rate(wave_S)
    assert found["BAK"] == pytest.approx((2 * curve("BAK", 0.1) + curve("BAK", 0.9)) / 3, abs=1e-3)
    assert Dnsmos(network).rate(torch.zeros(0)) == {}


def test_what_is_no_dnsmos(network: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        Dnsmos(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(UsageError, match="no network that onnxruntime can read"):
        Dnsmos(tmp_path / "text.onnx")
    other = base64.b64decode(NETWORK).replace(b"\x08\x03B\x04", b"\x08\x04B\x04")
    (tmp_path / "other.onnx").write_bytes(other)
    with pytest.raises(UsageError, match=r"not DNSMOS P\.835|no network"):
        Dnsmos(tmp_path / "other.onnx")


def test_without_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnsmos.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"--mos needs onnxruntime: pip install 'melcli\[mos\]'"):
        Dnsmos(tmp_path / "x.onnx")
