"""Speech that is said: the losses are what they claim, padding and neighbours change nothing, and what is said is what was taught."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from melcli import registry
from melcli.data.collate import Item, pack
from melcli.data.utterance import Utterance
from melcli.errors import ConfigError
from melcli.models.noise import Still
from melcli.models.postnet import PostNet, Windowed
from melcli.models.speech_output import build_speech_output
from melcli.models.spoken_layout import Layout, state_mask
from melcli.models.vae_output import divergence
from tests.models.conftest import OUTPUTS, TEXTS, make_speaker


def vae(**options):
    torch.manual_seed(1)
    return build_speech_output({"kind": "vae", "frames": 3, "norm": "none", "prenet": 16, "hidden": 16, "postnet": 8, **options}, 32, 20)


def spoken_items(processor, features, task="tts"):
    encoder = processor.encoder(task)
    utterances = [Utterance(str(i), (), text) for i, text in enumerate(TEXTS)]
    items = []
    for u, mel, ids in zip(utterances, features, encoder.texts(utterances), strict=False):
        places = (processor.steps if encoder.speaks else processor.patches)(len(mel))
        items.append(Item(encoder(u, places, ids), None if encoder.speaks else mel, mel if encoder.speaks else None))
    return items


def counted(model, items):
    """What there is to learn in all items together."""
    return {name: max(count, 1) for name, count in model.targets(pack([items], 0)).items()}


# --- places --------------------------------------------------------------------------------------------------------------------------------


def test_patches_and_frames_are_inverse_and_the_last_patch_is_filled_with_its_last_frame():
    frames_U = torch.tensor([7, 3, 1, 9])
    mel_FM = torch.randn(20, 4)
    layout = Layout.of(frames_U, 3)
    assert layout.patches_U.tolist() == [3, 1, 1, 3]
    patches_PRM = layout.patches(mel_FM)
    assert torch.equal(layout.frames(patches_PRM), mel_FM)
    assert torch.equal(patches_PRM[2], mel_FM[[6, 6, 6]])
    assert torch.equal(patches_PRM[4], mel_FM[[10, 10, 10]])
    assert layout.valid_PR.sum() == 20
    assert layout.predicts_P.tolist() == [0, 1, 2, 4, 6, 8, 9, 10]
    assert layout.ends_S.nonzero()[:, 0].tolist() == [3, 5, 7, 11]
    assert layout.first_PR.nonzero().tolist() == [[0, 0], [3, 0], [4, 0], [5, 0]]
    before_PRM = layout.before(mel_FM)
    assert torch.equal(before_PRM[1, 0], mel_FM[2]) and torch.equal(before_PRM[5, 2], mel_FM[12])


def test_states_are_where_speech_stands_and_right_before_it():
    at_spoken = torch.tensor([[0, 0, 1, 1, 0, 0, 1], [0, 1, 0, 0, 0, 0, 0]]).bool()
    assert state_mask(at_spoken).int().tolist() == [[0, 1, 1, 1, 0, 1, 1], [1, 1, 0, 0, 0, 0, 0]]


# --- losses of the variational autoencoder ---------------------------------------------------------------------------------------------------


def test_divergence_is_that_from_a_unit_normal_at_the_target():
    mu, log_variance, y = torch.randn(3, 200).unbind()
    expected = kl_divergence(Normal(mu, (0.5 * log_variance).exp()), Normal(y, 1.0))
    torch.testing.assert_close(divergence(mu, log_variance, y), expected)
    assert divergence(y, torch.zeros(200), y).abs().max() == 0


@pytest.mark.parametrize("limit", [None, 0.5])
def test_losses_are_what_is_written(limit):
    """By hand, frame by frame, for two utterances whose last patches are not full."""
    output = vae(flux_limit=limit)
    frames_U = torch.tensor([7, 4])
    y_FM, h_SD = torch.randn(11, 20), torch.randn(5 + 2, 32)
    found = output.losses(h_SD, y_FM, frames_U, {"frames": 11, "states": 7}, Still())
    mu, log_variance = output.distribution(h_SD)
    h_SD, mu, log_variance = h_SD.detach(), mu.detach(), log_variance.detach()
    mel = kl = flux = 0.0
    for utterance, states in ((y_FM[:7], [0, 1, 2]), (y_FM[7:], [4, 5])):
        means = mu[states].view(-1, 20)[: len(utterance)]
        said = output.decode(mu[states]).view(-1, 20)[: len(utterance)]
        polished = output.polish(said)
        for one in (said, polished):
            mel += float((one - utterance).abs().sum() + (one - utterance).square().sum())
        kl += float(divergence(means, log_variance[states].view(-1, 20)[: len(utterance)], utterance).sum())
        most = torch.inf if limit is None else limit * (utterance[1:] - utterance[:-1]).abs()
        flux -= float((means[1:] - utterance[:-1]).abs().minimum(torch.as_tensor(most)).sum())
    torch.testing.assert_close(torch.stack([found["mel"], found["kl"], found["flux"]]), torch.tensor([mel, kl, flux]) / 220)
    logits = output.stop(h_SD)[:, 0]
    ends = torch.tensor([0, 0, 0, 1, 0, 0, 1.0])
    expected = -(100 * ends * logits.sigmoid().log() + (1 - ends) * (1 - logits.sigmoid()).log()).mean()
    torch.testing.assert_close(found["stop"], expected)


def test_flux_rewards_what_differs_from_the_frame_before():
    output = vae(frames=1, flux_limit=None)
    y_FM, frames_U = torch.zeros(6, 20), torch.tensor([6])
    with torch.no_grad():
        output.latent.weight.zero_()
    losses = []
    for mean in (0.0, 0.5, 2.0):
        with torch.no_grad():
            output.latent.bias[:20] = mean
        losses.append(float(output.losses(torch.randn(7, 32), y_FM, frames_U, {"frames": 6, "states": 7}, Still())["flux"]))
    torch.testing.assert_close(torch.tensor(losses), torch.tensor([0.0, -0.5, -2.0]) * 5 / 6)


def test_published_weights_and_the_late_divergence():
    output = vae()
    assert output.weights(0) == {"mel": 1.0, "kl": 0.0, "flux": 0.5, "stop": 1.0}
    assert output.weights(9_999)["kl"] == 0 and output.weights(10_000)["kl"] == 0.1 == output.weights(None)["kl"]


@pytest.mark.parametrize("kind", OUTPUTS)
def test_losses_do_not_depend_on_length(kind):
    output = build_speech_output({**OUTPUTS[kind], "frames": 3}, 32, 20)
    output.measure([torch.randn(60, 20)])
    y_FM, h_SD = torch.randn(7, 20), torch.randn(4, 32)
    once = output.losses(h_SD, y_FM, torch.tensor([7]), {"frames": 7, "states": 4}, Still())
    twice = output.losses(h_SD.repeat(2, 1), y_FM.repeat(2, 1), torch.tensor([7, 7]), {"frames": 14, "states": 8}, Still())
    assert set(once) == set(output.parts)
    for name in once:
        torch.testing.assert_close(once[name], twice[name], atol=1e-5, rtol=1e-4)


# --- the post-net --------------------------------------------------------------------------------------------------------------------------


def postnet(layers=5):
    torch.manual_seed(2)
    net = PostNet(6, 8, layers)
    with torch.no_grad():
        net.convolutions[-1].weight.normal_()
    return net


def test_the_post_net_keeps_utterances_apart():
    net = postnet()
    parts = [torch.randn(n, 6) for n in (1, 14, 3, 25)]
    together = net(torch.cat(parts), torch.tensor([1, 14, 3, 25]))
    alone = torch.cat([net(part, torch.tensor([len(part)])) for part in parts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert (together - torch.cat(parts)).abs().max() > 0.1


@pytest.mark.parametrize("sizes", [[40], [1] * 40, [3, 1, 20, 16], [39, 1]])
@pytest.mark.parametrize("layers", [2, 5])
def test_streamed_is_whole(sizes, layers):
    net = postnet(layers)
    whole_TM = torch.randn(40, 6)
    window = Windowed(lambda mel: net(mel, torch.tensor([len(mel)])), net.context)
    pieces = [window.push(piece) for piece in whole_TM.split(sizes)]
    if len(sizes) > 1:
        assert sum(map(len, pieces)) == 40 - net.context
    streamed = torch.cat([*pieces, window.flush()])
    torch.testing.assert_close(streamed, net(whole_TM, torch.tensor([40])), atol=1e-5, rtol=1e-5)


# --- in the model --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("more", [{}, {"text_positions": "spread", "spoken_ctc_weight": 0.3}])
def test_packed_is_one_by_one(kind, more, features):
    model, processor = make_speaker(OUTPUTS[kind], **more)
    items = spoken_items(processor, features)
    counts = counted(model, items)
    with torch.no_grad():
        packed = model(**pack([[items[0], items[2]], [items[1], items[3], items[4]]], 0))
        alone = [model(**pack([[item]], 0), counts=counts) for item in items]
    torch.testing.assert_close(packed.loss, sum(out.loss for out in alone), atol=2e-4, rtol=2e-5)
    for part in model.speech_output.parts:
        torch.testing.assert_close(packed.parts[part], sum(out.parts[part] for out in alone), atol=2e-4, rtol=2e-5)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_one_batch_hears_and_speaks(kind, features):
    """Utterances that are heard and such that are said, in the same rows: losses and gradients are those of both apart."""
    model, processor = make_speaker(OUTPUTS[kind])
    said, heard = spoken_items(processor, features), spoken_items(processor, features, "asr")
    rows = [[heard[0], said[1], heard[2]], [said[3], heard[4]]]
    counts = model.targets(pack(rows, 0))
    mixed = model(**pack(rows, 0))
    mixed.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert set(gradients) == {name for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    parts = [model(**pack([[item]], 0), counts=counts) for row in rows for item in row]
    for part in parts:
        part.loss.backward()
    torch.testing.assert_close(mixed.loss, sum(part.loss for part in parts), atol=2e-4, rtol=2e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=2e-3, rtol=2e-3)


def test_speech_that_is_said_never_looks_ahead(features):
    """Bidirectional speech is what is heard: what is said sees the past alone."""
    model, processor = make_speaker(attention="bidirectional")
    batch = pack([[spoken_items(processor, features)[0]]], 0)
    read = {name: batch[name] for name in ("input_ids", "documents", "position_ids", "spoken", "spoken_lengths")}
    with torch.no_grad():
        before = model(**read).states
        read["spoken"] = read["spoken"].clone()
        read["spoken"][9:] += 3  # from the fourth patch on
        after = model(**read).states
    torch.testing.assert_close(before[:4], after[:4])
    assert (before[4] - after[4]).abs().max() > 1e-3


def test_where_others_speak_every_gradient_is_there_and_zero():
    model, _ = make_speaker(spoken_ctc_weight=0.5)
    model.train()
    ids = torch.tensor([[5, 6, 7]])
    model(input_ids=ids, labels=ids, speech_elsewhere=True, spoken_elsewhere=True).loss.backward()
    ends = [p for part in (model.speech_input, model.speech_output, model.ctc_head, model.spoken_ctc_head) for p in part.parameters()]
    assert all(p.grad is not None and not p.grad.any() for p in ends if p.requires_grad)


def test_a_text_never_holds_the_places_of_speech():
    model, _ = make_speaker()
    assert model.generation_config.suppress_tokens == [model.config.speech_token_id, model.config.spoken_token_id]
    assert len(set(model.generation_config.suppress_tokens)) == 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"kind": "vea"}, "no speech-output is called 'vea'.*vae"),
        ({}, r"model.speech_output.kind is missing; valid: .*vae"),
        ({"kind": "vae", "frame": 5}, r"model.speech_output.frame is unknown for vae.*frames"),
        ({"kind": "vae", "frames": 0}, r"model.speech_output.frames: 0 is no whole number of at least 1"),
        ({"kind": "vae", "dropout": 1.0}, r"model.speech_output.dropout: 1.0 is no number of at least 0 and less than 1"),
        ({"kind": "vae", "norm": "globl"}, r"model.speech_output.norm: 'globl' is unknown; valid: global, none"),
        ({"kind": "vae", "floor": "low"}, r"model.speech_output.floor: 'low' is no number"),
        ({"kind": "vae", "floor": float("nan")}, r"model.speech_output.floor: nan is no number"),
        ({"kind": "vae", "kl_weight": "big"}, r"model.speech_output.kl_weight: 'big' is no number"),
    ],
)
def test_options_that_cannot_be_are_named(options, complaint):
    with pytest.raises((ConfigError, Exception), match=complaint) as caught:
        build_speech_output(options, 16, 80)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", list(OUTPUTS))
def test_nothing_below_the_floor_is_learnt_or_measured(kind):
    """Digital silence is to the output what its floor is: the same statistics, and nothing read differs."""
    mel_FM = torch.randn(60, 20) - 2
    silent_FM = mel_FM.clone()
    silent_FM[10:20] = -23.0
    outputs = []
    for floor, mel in ((None, silent_FM.clamp_min(-5)), (-5, silent_FM), (None, silent_FM)):
        torch.manual_seed(1)
        output = build_speech_output({"kind": kind, **OUTPUTS[kind], "norm": "global", "floor": floor}, 32, 20).eval()
        output.measure([mel])
        outputs.append((output.normalise.global_invstd, output.normal(mel), output.embed(mel, torch.tensor([60]), Still())))
    for by_hand, by_floor, without in zip(*outputs, strict=True):
        assert torch.equal(by_hand, by_floor)
        assert not torch.allclose(by_hand, without)


def test_every_registered_output_is_tried_here():
    assert set(OUTPUTS) == set(registry.names("speech-output"))
