"""Speech inputs: sizes, packing, normalisation, and agreement with the public Phi-4-multimodal."""

from __future__ import annotations

import pytest
import torch
from transformers import Phi4MultimodalAudioConfig
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import (
    Phi4MultimodalAudioMeanVarianceNormLayer,
    Phi4MultimodalAudioNemoConvSubsampling,
)

from melcli.errors import ConfigError
from melcli.models.mel_norm import GlobalNorm, UtteranceNorm
from melcli.models.speech_input import MelConv, build_speech_input

KINDS = [
    {"kind": "mel-patch", "patch": 5, "norm": "utterance"},
    {"kind": "mel-patch", "patch": 1, "norm": "none"},
    {"kind": "mel-conv", "stride": 2, "channels": 8, "hidden": 16, "norm": "global"},
    {"kind": "mel-conv", "stride": 8, "channels": 8, "hidden": 16, "norm": "utterance"},
    {"kind": "mel-conv", "stride": 16, "channels": 8, "hidden": 16, "norm": "none"},
    {"kind": "mel-tdnn", "stride": 8, "channels": 8, "hidden": 16, "inner": 32, "layers": 5, "norm": "utterance"},
    {"kind": "mel-tdnn", "stride": 16, "channels": 8, "hidden": 16, "inner": 32, "layers": 4, "norm": "none"},
]


def test_phi_sizes_on_the_meta_device():
    with torch.device("meta"):
        front = MelConv(3072, 80)
    assert sum(p.numel() for p in front.parameters()) == 25_205_760


@pytest.mark.parametrize("options", KINDS, ids=lambda o: f"{o['kind']}-{o.get('stride', o.get('patch'))}")
def test_packed_is_the_same_as_one_by_one(options, features):
    torch.manual_seed(1)
    front = build_speech_input(options, 24, 80)
    with torch.no_grad():
        packed, patches = front(torch.cat(features), torch.tensor([len(f) for f in features]))
        single = [front(f, torch.tensor([len(f)]))[0] for f in features]
    assert patches.tolist() == [front.patches(len(f)) for f in features] == [len(s) for s in single]
    torch.testing.assert_close(packed, torch.cat(single), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [KINDS[3], KINDS[5]], ids=lambda o: o["kind"])
def test_a_few_utterances_at_a_time_are_as_all_together(options, features, monkeypatch):
    front = build_speech_input(options, 24, 80)
    lengths = torch.tensor([len(f) for f in features])
    together, patches = front(torch.cat(features), lengths)  # as in training
    seen, embed = [], front._embed
    monkeypatch.setattr(front, "_embed", lambda *given: seen.append(given[0].shape) or embed(*given))
    monkeypatch.setattr("melcli.models.speech_input.AT_ONCE", int(lengths[:2].sum()))
    with torch.no_grad():
        apart, same = front(torch.cat(features), lengths)
    assert len(seen) > 1
    torch.testing.assert_close(apart, together, atol=1e-5, rtol=1e-5)
    assert same.tolist() == patches.tolist()


def test_time_delay_layers_in_bfloat16(features):
    torch.manual_seed(1)
    front = build_speech_input(KINDS[5], 24, 80)
    lengths = torch.tensor([len(f) for f in features])
    with torch.no_grad():
        exact, _ = front(torch.cat(features), lengths)
        rounded, _ = front.to(torch.bfloat16)(torch.cat(features), lengths)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).square().mean().sqrt() < 0.01 * exact.std()


def test_time_delay_layers_see_as_far_as_they_say():
    """Five layers of reaches 1, 2, 3, 4 and 1 see 11 of their frames ahead, which are 44 of the mel's, the convolutions 3 more: patch 44, of frames
    352 to 359, is the first to see frame 400, and only for the layers that look farthest."""
    front = build_speech_input({**KINDS[5], "norm": "none"}, 24, 80)
    mel = torch.randn(800, 80)
    other = mel.clone()
    other[400:] = torch.randn(400, 80)
    with torch.no_grad():
        first, second = (front(x, torch.tensor([800]))[0] for x in (mel, other))
    torch.testing.assert_close(first[:44], second[:44])
    assert not torch.equal(first[44], second[44])


def test_packing_is_seen_to_fail_without_the_gap(features):
    """The test above can fail: a convolution over utterances that touch mixes them."""
    torch.manual_seed(1)
    front = build_speech_input({"kind": "mel-conv", "stride": 8, "channels": 8, "hidden": 16, "norm": "none"}, 24, 80)
    with torch.no_grad():
        joined, _ = front(torch.cat(features[:2]), torch.tensor([137]))
        single = front(features[0], torch.tensor([97]))[0]
    assert (joined[len(single) - 1] - single[-1]).abs().max() > 1e-4


def test_conv_stack_equals_phi4_multimodal(features):
    torch.manual_seed(2)
    config = Phi4MultimodalAudioConfig(hidden_size=64, nemo_conv_channels=32)
    theirs = Phi4MultimodalAudioNemoConvSubsampling(config).eval()
    ours = MelConv(48, 80, channels=32, hidden=64, norm="none")
    ours.conv.load_state_dict(theirs.conv.state_dict())
    ours.out.load_state_dict(theirs.out.state_dict())
    for mel in features:
        with torch.no_grad():
            hidden, _ = theirs(mel[None], None)
            expected = ours.down_proj_for_speech(torch.nn.functional.gelu(ours.up_proj_for_speech(hidden[0])))
            got, patches = ours(mel, torch.tensor([len(mel)]))
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
        assert int(patches) == -(-len(mel) // 8)


def test_global_norm_equals_phi4_multimodal(features):
    theirs = Phi4MultimodalAudioMeanVarianceNormLayer(Phi4MultimodalAudioConfig())
    ours = GlobalNorm(80)
    mean, std = torch.randn(80), torch.rand(80) + 0.5
    ours.set(mean, std)
    theirs.global_mean.copy_(ours.global_mean)
    theirs.global_invstd.copy_(ours.global_invstd)
    torch.testing.assert_close(ours(features[0], torch.tensor([97])), theirs(features[0]))
    torch.testing.assert_close(ours(features[0], torch.tensor([97])), (features[0] - mean) / std, atol=1e-5, rtol=1e-4)


def test_utterance_norm_gives_long_utterances_zero_mean_and_unit_variance():
    mel = torch.randn(5000, 80) * 3 + 7
    out = UtteranceNorm()(mel, torch.tensor([5000]))
    assert out.mean(0).abs().max() < 0.02
    assert (out.std(0) - 1).abs().max() < 0.02


def test_raw_frame_reads_packed_waveforms():
    front = build_speech_input({"kind": "raw-frame", "frame": 640}, 24, 80)
    waves = [torch.randn(1600, 1), torch.randn(639, 1), torch.randn(1281, 1)]
    packed, patches = front(torch.cat(waves), torch.tensor([1600, 639, 1281]))
    single = torch.cat([front(w, torch.tensor([len(w)]))[0] for w in waves])
    assert patches.tolist() == [3, 1, 3]
    torch.testing.assert_close(packed, single)
    louder = torch.cat([front(10 * w, torch.tensor([len(w)]))[0] for w in waves])
    torch.testing.assert_close(packed, louder, atol=0.01, rtol=0.01)


@pytest.mark.parametrize("options", KINDS, ids=lambda o: f"{o['kind']}-{o.get('stride', o.get('patch'))}")
def test_speech_is_heard_from_the_first_step(options):
    """A good part of what a fresh input gives varies with the speech; it is not a constant with a ripple."""
    torch.manual_seed(1)
    mel = torch.randn(800, 80).cumsum(0) * 0.3 + 8
    x, _ = build_speech_input({**options, "norm": "utterance"}, 64, 80)(mel, torch.tensor([800]))
    assert x.var(0).mean() / x.square().mean() > 0.2


def test_unknown_options_are_named():
    with pytest.raises(ConfigError, match=r"speech_input.chanels is unknown for mel-conv.*Did you mean 'channels'"):
        build_speech_input({"kind": "mel-conv", "chanels": 3}, 8, 80)
    with pytest.raises(ConfigError, match="not one of 2, 4, 8, 16"):
        build_speech_input({"kind": "mel-conv", "stride": 5}, 8, 80)
    with pytest.raises(ConfigError, match=r"norm: 'globl' is unknown.*Did you mean 'global'"):
        build_speech_input({"kind": "mel-patch", "norm": "globl"}, 8, 80)
