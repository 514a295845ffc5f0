"""The specification object: counts, comparison, names."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from melcli.audio.mel_spec import PRESETS, MelSpec, preset
from melcli.errors import ConfigError


@pytest.mark.parametrize("name", list(PRESETS))
def test_samples_is_the_inverse_of_frames(name: str):
    spec = PRESETS[name]
    assert spec.samples(0) == 0 and spec.frames(spec.win_length - 1) == 0
    most_at_one_window = spec.frames(spec.win_length)
    for frames in range(most_at_one_window, 300):
        samples = spec.samples(frames)
        assert spec.frames(samples) == frames
        assert frames == most_at_one_window or spec.frames(samples - 1) == frames - 1


def test_frame_rates_are_what_the_papers_say():
    assert PRESETS["phi4mm"].frame_rate == 100
    assert PRESETS["speecht5"].frame_rate / 5 == 12.5
    assert PRESETS["vocos-24k"].frame_rate == 93.75


def test_difference_names_the_fields():
    spec = PRESETS["phi4mm"]
    assert spec.difference(spec) is None
    assert spec.difference(spec.model_copy(update={"hop_length": 256})) == "hop_length 160 is not 256"
    both = spec.difference(PRESETS["whisper-80"])
    assert both and "n_fft 512 is not 400" in both and "log ln is not log10" in both


def test_fingerprints_follow_the_values():
    prints = {spec.fingerprint() for spec in PRESETS.values()}
    assert len(prints) == len(PRESETS)
    copy = MelSpec.model_validate_json(PRESETS["phi4mm"].model_dump_json())
    assert copy == PRESETS["phi4mm"] and copy.fingerprint() == PRESETS["phi4mm"].fingerprint()


def test_unknown_preset_names_the_nearest():
    assert preset("phi4mm") is PRESETS["phi4mm"]
    with pytest.raises(ConfigError, match=r"whisper-128.* Did you mean 'whisper-80'"):
        preset("whisper80")


@pytest.mark.parametrize(
    "change,message",
    [
        ({"win_length": 600}, "win_length 600 is more than n_fft 512"),
        ({"f_max": 9000}, "half the rate"),
        ({"hop_length": 0}, "greater than 0"),
        ({"n_mel": 80}, "[Ee]xtra"),
        ({"mel_scale": "bark"}, "htk"),
    ],
)
def test_impossible_specifications_are_refused(change: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        MelSpec(**{**PRESETS["phi4mm"].model_dump(), **change})
