"""Phi-4-multimodal's encoder: equal to transformers' class, by name, in size, and for an utterance whatever it is batched with."""

from __future__ import annotations

import pytest
import torch
from transformers import Phi4MultimodalAudioConfig
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import Phi4MultimodalAudioModel

from melcli.errors import ConfigError
from melcli.models.conformer import BLOCK_PATCHES, MelConformer
from melcli.models.groups import length_groups
from melcli.models.speech_input import MelConv, build_speech_input

BLOCK_PARAMETERS = 428_637_440  # 24 blocks of 17,858,560 and a bias of 2000 distances for 16 heads
TINY = {"channels": 16, "hidden": 32, "blocks": 3, "heads": 4, "ffn": 48, "max_distance": 20}


@pytest.fixture
def pair() -> tuple[MelConformer, Phi4MultimodalAudioModel]:
    """The same random weights in our class and in transformers'."""
    torch.manual_seed(4)
    config = Phi4MultimodalAudioConfig(
        hidden_size=32,
        intermediate_size=48,
        num_blocks=3,
        num_attention_heads=4,
        ext_pw_out_channel=32,
        depthwise_separable_out_channel=32,
        nemo_conv_channels=16,
        bias_max_distance=20,
    )
    theirs = Phi4MultimodalAudioModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        theirs.encoder_embedding.global_mean.fill_(8)
        theirs.encoder_embedding.global_invstd.fill_(0.3)
    ours = MelConformer(24, 80, **TINY).eval()
    renamed = {"encoder_embedding.": "normalise.", "embed.": ""}
    state = {}
    for name, tensor in theirs.state_dict().items():
        for old, new in renamed.items():
            name = new + name.removeprefix(old) if name.startswith(old) else name
        state[name] = tensor
    loaded = ours.load_state_dict(state, strict=False)
    assert not loaded.unexpected_keys
    assert {name.split(".")[0] for name in loaded.missing_keys} == {"up_proj_for_speech", "down_proj_for_speech"}
    return ours, theirs


@pytest.mark.parametrize("frames", [1, 97, 163, 8 * 2 * BLOCK_PATCHES])
def test_equals_transformers(pair, frames):
    ours, theirs = pair
    mel = torch.randn(frames, 80) * 3 + 8
    with torch.no_grad():
        hidden = theirs(mel[None], None)[0]
        expected = ours.down_proj_for_speech(torch.nn.functional.gelu(ours.up_proj_for_speech(hidden)))
        got, patches = ours(mel, torch.tensor([frames]))
    assert int(patches) == len(expected) == -(-frames // 8)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_packed_is_the_same_as_one_by_one(pair, features):
    ours, _ = pair
    features = [*features, torch.randn(8 * BLOCK_PATCHES + 37, 80) * 3 + 8]
    with torch.no_grad():
        packed, patches = ours(torch.cat(features), torch.tensor([len(f) for f in features]))
        single = [ours(f, torch.tensor([len(f)]))[0] for f in features]
    assert patches.tolist() == [len(s) for s in single]
    torch.testing.assert_close(packed, torch.cat(single), atol=1e-4, rtol=1e-4)


def test_padding_would_be_heard_without_the_mask(pair, features):
    """The test above can fail: transformers' own mask lets the shorter utterance of a batch attend to its padding."""
    _, theirs = pair
    long, short = features[0], features[1]
    batch = torch.nn.utils.rnn.pad_sequence([long, short], batch_first=True)
    mask = torch.arange(len(long)) < torch.tensor([[len(long)], [len(short)]])
    with torch.no_grad():
        together = theirs(batch, mask)[1][: -(-len(short) // 8)]
        alone = theirs(short[None], None)[0]
    assert (together - alone).abs().max() > 1e-2


def test_phi_sizes_on_the_meta_device():
    with torch.device("meta"):
        ours, free, theirs = MelConformer(3072, 80), MelConv(3072, 80), Phi4MultimodalAudioModel(Phi4MultimodalAudioConfig())
    sizes = {name: p.shape for name, p in ours.named_parameters()}
    total = sum(p.numel() for p in ours.parameters())
    assert total == sum(p.numel() for p in theirs.parameters()) + sum(p.numel() for n, p in free.named_parameters() if "_proj_" in n)
    assert total - sum(p.numel() for p in free.parameters()) == BLOCK_PARAMETERS
    assert {n: s for n, s in sizes.items() if not n.startswith(("encoders.", "relative_attention_bias_layer."))} == {
        n: p.shape for n, p in free.named_parameters()
    }


def test_without_the_blocks_it_is_mel_conv(pair, features):
    ours, _ = pair
    free = build_speech_input({"kind": "mel-conv", "channels": 16, "hidden": 32}, 24, 80)
    kept = {n: t for n, t in ours.state_dict().items() if not n.startswith(("encoders.", "relative_attention_bias_layer."))}
    free.load_state_dict(kept)
    ours.encode = lambda x_PH, patches_U: x_PH
    lengths = torch.tensor([len(f) for f in features])
    with torch.no_grad():
        torch.testing.assert_close(free(torch.cat(features), lengths), ours(torch.cat(features), lengths))


def test_training_reaches_every_parameter_and_checkpointing_changes_nothing(features):
    torch.manual_seed(5)
    ours = MelConformer(24, 80, **TINY, norm="utterance")
    lengths = torch.tensor([len(f) for f in features])
    gradients = []
    for on in (False, True):
        ours.gradient_checkpointing = on
        ours.zero_grad()
        ours(torch.cat(features), lengths)[0].square().mean().backward()
        gradients.append({n: p.grad.clone() for n, p in ours.named_parameters()})
    assert all(g.isfinite().all() for g in gradients[0].values())
    # only keys of all zeros would leave these alone, softmax does not see what is added to every key
    assert not [n for n, g in gradients[0].items() if not g.any() and not n.endswith("k_proj.bias")]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_speech_is_heard_from_the_first_step():
    torch.manual_seed(1)
    mel = torch.randn(800, 80).cumsum(0) * 0.3 + 8
    x, _ = build_speech_input({"kind": "phi4mm-encoder", **TINY, "norm": "utterance"}, 64, 80)(mel, torch.tensor([800]))
    assert x.var(0).mean() / x.square().mean() > 0.2


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match="heads: 5 does not divide hidden 32"):
        build_speech_input({"kind": "phi4mm-encoder", **TINY, "heads": 5}, 8, 80)
    with pytest.raises(ConfigError, match=r"speech_input.block is unknown for phi4mm-encoder.*Did you mean 'blocks'"):
        build_speech_input({"kind": "phi4mm-encoder", "block": 3}, 8, 80)


@pytest.mark.parametrize("waste", [0.0, 0.25])
def test_groups_hold_everything_once_and_little_padding(waste):
    lengths = torch.randint(1, 300, (200,), generator=torch.Generator().manual_seed(0)).tolist()
    groups = length_groups(lengths, waste=waste, positions=2000)
    assert sorted(i for group in groups for i in group) == list(range(200))
    for group in groups:
        area = len(group) * max(lengths[i] for i in group)
        assert len(group) == 1 or area <= 2000
        assert area <= (1 + waste) * sum(lengths[i] for i in group)
    assert len(groups) < (40 if waste else 160)
