"""Vocoders: the contract that all share, and Griffin-Lim, which reads any mel."""

from __future__ import annotations

import pytest
import torch

from melcli.audio.io import load
from melcli.audio.mel import log_mel
from melcli.audio.mel_spec import PRESETS, preset
from melcli.audio.vocoder import load_vocoder, samples_of
from melcli.errors import AudioError
from melcli.registry import PACKAGE

CLIP = sorted((PACKAGE / "assets" / "clips").glob("*.wav"))[0]


def streamed(vocoder, mel_TM, sizes):
    """What pieces of these sizes, over and over, give."""
    stream, pieces, at = vocoder.stream(), [], 0
    while at < len(mel_TM):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(stream.push(mel_TM[at : at + size]))
        at += size
    return torch.cat([*pieces, stream.flush()])


@pytest.mark.parametrize("name", PRESETS)
def test_griffin_lim_gives_audio_with_the_same_mel(name):
    spec = PRESETS[name]
    mel_TM = log_mel(spec, load(CLIP, spec.rate))
    wave_BS = load_vocoder("griffin-lim", spec)(mel_TM[None])
    assert wave_BS.shape == (1, samples_of(spec, len(mel_TM)))
    again_TM = log_mel(spec, wave_BS[0])
    assert len(again_TM) == len(mel_TM)
    noise_S = torch.randn(wave_BS.shape[1], generator=torch.Generator().manual_seed(0)) * wave_BS.std()
    error, chance = (float((mel_TM - other_TM).abs().mean() / mel_TM.std()) for other_TM in (again_TM, log_mel(spec, noise_S)))
    assert error < 0.12  # of a standard deviation; 0.02 to 0.09 when this was written
    assert error < chance / 8


def test_what_is_too_loud_is_rounded_off_once():
    spec = preset("speecht5")
    mel_TM = log_mel(spec, load(CLIP, spec.rate)[:8000]) + 0.45  # nearly three times as loud
    vocoder = load_vocoder("griffin-lim", spec)
    vocoder.iterations = 2
    whole_S = vocoder(mel_TM[None])[0]
    assert torch.equal(streamed(vocoder, mel_TM, [7]), whole_S)
    loud_S = whole_S[whole_S.abs() > 0.96]
    assert float(whole_S.abs().max()) <= 1 and len(loud_S.unique()) > 0.5 * len(loud_S) > 10, "not cut"


def test_griffin_lim_streams_to_the_bit(monkeypatch):
    monkeypatch.setattr("melcli.audio.griffin_lim.BLOCK", 24)
    spec = preset("speecht5")
    mel_TM = log_mel(spec, load(CLIP, spec.rate))
    vocoder = load_vocoder("griffin-lim", spec)
    vocoder.iterations = 4
    whole_S = vocoder(mel_TM[None])[0]
    for sizes in ([1], [7, 40, 2], [1000]):
        assert torch.equal(streamed(vocoder, mel_TM, sizes), whole_S)
    stream = vocoder.stream()
    first_S = stream.push(mel_TM[:60])
    assert len(first_S) > 0
    stream.flush()
    with pytest.raises(AudioError, match="was flushed"):
        stream.push(mel_TM[:1])
