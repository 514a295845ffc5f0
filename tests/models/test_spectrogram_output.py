"""Spectron's losses are what they claim: nothing for equal frames, differences within an utterance alone, means over what there is."""

from __future__ import annotations

import pytest
import torch

from melcli.errors import ConfigError
from melcli.models.noise import Still
from melcli.models.speech_output import build_speech_output

BINS, WIDTH = 6, 6


def output(**options):
    torch.manual_seed(1)
    return build_speech_output({"kind": "spectrogram", "norm": "none", "prenet": 4, "hidden": 8, **options}, WIDTH, BINS)


class Echo(torch.nn.Module):
    """Writes the state itself: what is said is what the test hands over."""

    def forward(self, h_ND):
        return h_ND


def losses_of(said, true, frames, **options):
    """Losses of frames said, one a step, of utterances of so many frames; the state after the last frame says nothing."""
    one = output(**options)
    one.write = Echo()
    states = []
    for part in said.split(frames):
        states += [part, torch.zeros(1, BINS)]
    counts = {"frames": sum(frames), "states": sum(frames) + len(frames)}
    return one.losses(torch.cat(states), true, torch.tensor(frames), counts, Still())


def by_hand(said, true, frames, order):
    """Each loss utterance by utterance, as the formula has it: sums over all, divided by how many numbers there are."""

    def distance(pairs):
        gaps = torch.cat([(a - b).flatten() for a, b in pairs])
        return float((gaps.abs() + gaps.square()).mean()) if len(gaps) else 0.0

    pairs = list(zip(said.split(frames), true.split(frames), strict=True))
    feature = distance([(a[:, 1:] - a[:, :-1], b[:, 1:] - b[:, :-1]) for a, b in pairs])
    time = sum(distance([(a[k:] - a[:-k], b[k:] - b[:-k]) for a, b in pairs]) for k in range(1, order + 1))
    return {"mel": distance(pairs), "feature": feature, "time": time}


def test_equal_frames_cost_nothing():
    true = torch.randn(12, BINS)
    found = losses_of(true, true, [7, 5])
    assert all(float(found[name]) == 0 for name in ("mel", "feature", "time"))


def test_a_constant_offset_costs_the_frames_and_no_difference():
    true = torch.randn(12, BINS)
    found = losses_of(true + 0.5, true, [7, 5])
    torch.testing.assert_close(found["mel"], torch.tensor(0.75))
    assert float(found["feature"]) == pytest.approx(0, abs=1e-6) == pytest.approx(float(found["time"]), abs=1e-6)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("frames", [[12], [7, 5], [1, 2, 3, 4], [9, 1]])
def test_losses_are_what_is_written(frames, order):
    said, true = torch.randn(sum(frames), BINS), torch.randn(sum(frames), BINS)
    found = losses_of(said, true, frames, time_deltas=order)
    for name, expected in by_hand(said, true, frames, order).items():
        assert float(found[name]) == pytest.approx(expected, rel=1e-5), name


def test_none_of_the_differences_may_be_wanted():
    said, true = torch.randn(9, BINS), torch.randn(9, BINS)
    found = losses_of(said, true, [9], time_deltas=0, feature_deltas=False)
    assert float(found["time"]) == 0 == float(found["feature"]) and float(found["mel"]) > 0


@pytest.mark.parametrize("frames", [[1], [3], [2, 3, 1]])
def test_utterances_no_longer_than_the_lag_have_no_difference_of_it(frames):
    """No NaN where nothing is left, and no gradient that is not finite."""
    said, true = torch.randn(sum(frames), BINS, requires_grad=True), torch.randn(sum(frames), BINS)
    longer = losses_of(said, true, frames, time_deltas=5)["time"]
    torch.testing.assert_close(longer, losses_of(said, true, frames, time_deltas=max(max(frames) - 1, 0))["time"])
    (longer + 0 * said.sum()).backward()
    assert said.grad.isfinite().all()


def test_what_fills_up_a_patch_costs_nothing():
    """Seven frames in patches of five: what is said after the seventh is not compared with anything."""
    one = output(frames=5)
    h_SD, true, counts = torch.randn(3, WIDTH), torch.randn(7, BINS), {"frames": 7, "states": 3}
    before = one.losses(h_SD, true, torch.tensor([7]), counts, Still())
    one.register_module("write", Spoilt(one.write, 2 * BINS))
    after = one.losses(h_SD, true, torch.tensor([7]), counts, Still())
    for name in ("mel", "feature", "time"):
        torch.testing.assert_close(before[name], after[name])


class Spoilt(torch.nn.Module):
    """The same, but for the numbers of the second patch from here on."""

    def __init__(self, inner, start):
        super().__init__()
        self.inner, self.start = inner, start

    def forward(self, h_ND):
        said = self.inner(h_ND).clone()
        said[1, self.start :] += 100
        return said


def test_means_are_over_a_whole_step():
    """Two batches with the counts of both give what one of both gives."""
    one = output()
    h_SD, true = torch.randn(12 + 2, WIDTH), torch.randn(12, BINS)
    frames_U = torch.tensor([9, 3])
    counts = {"frames": 12, "states": 14, **one.counted(frames_U)}
    assert counts["pairs_3"] == 6 and counts["pairs_1"] == 10
    both = one.losses(h_SD, true, frames_U, counts, Still())
    first = one.losses(h_SD[:10], true[:9], frames_U[:1], counts, Still())
    second = one.losses(h_SD[10:], true[9:], frames_U[1:], counts, Still())
    for name in both:
        torch.testing.assert_close(both[name], first[name] + second[name])


def test_weights_are_one_for_the_spectrogram_and_one_for_the_end():
    assert output(weight=0.1, stop_weight=2.0).weights(None) == {"mel": 0.1, "feature": 0.1, "time": 0.1, "stop": 2.0}


def test_convolutions_are_compared_as_well():
    true = torch.randn(12, BINS)
    found = losses_of(true + 0.5, true, [12], postnet_layers=2, postnet=4)
    torch.testing.assert_close(found["mel"], torch.tensor(1.5))  # they begin as nothing


def test_options_that_cannot_be_are_named():
    for options, complaint in (({"time_deltas": -1}, "time_deltas: -1 is no whole number"), ({"weight": "x"}, "weight: 'x' is no number")):
        with pytest.raises(ConfigError, match=complaint):
            output(**options)
