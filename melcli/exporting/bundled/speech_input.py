"""Features of one utterance to the vectors that the language model reads, for a client without melcli.

Shapes: T frames (or samples), M mel bins, P patches, D width of the language model.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def normalise(mel_TM: Tensor, weights: dict[str, Tensor], options: dict) -> Tensor:
    """Features as the speech input was trained with them."""
    if options["norm"] == "global":
        return (mel_TM - weights["normalise.global_mean"]) * weights["normalise.global_invstd"]
    if options["norm"] == "utterance":
        prior, frames, total_M = options["prior"], mel_TM.shape[0], mel_TM.sum(0)
        mel_TM = mel_TM - (total_M + prior * (total_M / frames).mean()) / (frames + prior)
        return mel_TM * torch.rsqrt((mel_TM.square().sum(0) + prior) / (frames + prior))
    return mel_TM


def mel_patch(mel_TM: Tensor, weights: dict[str, Tensor], options: dict) -> Tensor:
    """Stacks frames and projects them."""
    stride, frames = options["stride"], mel_TM.shape[0]
    patches = (frames + stride - 1) // stride
    filled = F.pad(normalise(mel_TM, weights, options), (0, 0, 0, patches * stride - frames))
    return F.linear(filled.reshape(patches, stride * mel_TM.shape[1]), weights["proj.weight"], weights.get("proj.bias"))


def mel_conv(mel_TM: Tensor, weights: dict[str, Tensor], options: dict) -> Tensor:
    """Convolutions of stride two, the first plain, the others depthwise and pointwise, and a projector."""
    stride, frames = options["stride"], mel_TM.shape[0]
    patches = (frames + stride - 1) // stride
    x = F.pad(normalise(mel_TM, weights, options), (0, 0, 0, (patches + 1) * stride - frames))[None, None]
    layer, factor = 0, 1
    while factor < stride:
        if layer:
            x = F.conv2d(x, weights[f"conv.{layer - 1}.weight"], weights[f"conv.{layer - 1}.bias"], 2, 1, groups=x.shape[1])
        x = F.conv2d(x, weights[f"conv.{layer}.weight"], weights[f"conv.{layer}.bias"], *((1, 0) if layer else (2, 1)))
        layer, factor = layer + 3, factor * 2
        real_T = torch.arange(x.shape[2]) < (frames + factor - 1) // factor
        x = F.relu(x) * real_T[None, None, :, None]
    flat = x[0].permute(1, 0, 2)[:patches].flatten(1)
    for name in ("out", "up_proj_for_speech", "down_proj_for_speech"):
        flat = F.gelu(flat) if name == "down_proj_for_speech" else flat
        flat = F.linear(flat, weights[f"{name}.weight"], weights[f"{name}.bias"])
    return flat


def mel_tdnn(mel_TM: Tensor, weights: dict[str, Tensor], options: dict) -> Tensor:
    """Convolutions of stride two to half the stride, layers that see a frame and one to either side, and two frames to a position."""
    stride, frames, reaches = options["stride"], mel_TM.shape[0], options["reaches"]
    half, patches = stride // 2, (frames + stride - 1) // stride
    x = F.pad(normalise(mel_TM, weights, options), (0, 0, 0, (patches + 1) * stride - frames))[None, None]
    layer, factor = 0, 1
    while factor < half:
        x = F.conv2d(x, weights[f"conv.{layer}.weight"], weights[f"conv.{layer}.bias"], 2, 1)
        layer, factor = layer + 1, factor * 2
        real_T = torch.arange(x.shape[2]) < (frames + factor - 1) // factor
        x = F.relu(x) * real_T[None, None, :, None]
    x = F.linear(x[0].permute(1, 0, 2)[: 2 * patches].flatten(1), weights["into.weight"], weights["into.bias"])
    real_T1 = (torch.arange(2 * patches) < (frames + half - 1) // half)[:, None]
    for layer, reach in enumerate(reaches):
        given = {name: weights[f"layers.{layer}.{name}"] for name in ("norm.weight", "norm.bias", "up.weight", "up.bias", "down.weight", "down.bias")}
        near = F.layer_norm(x, x.shape[1:], given["norm.weight"], given["norm.bias"]) * real_T1
        before, after = F.pad(near, (0, 0, reach, 0))[: 2 * patches], F.pad(near, (0, 0, 0, reach))[reach:]
        inner = F.silu(F.linear(torch.cat([before, near, after], 1), given["up.weight"], given["up.bias"]))
        x = x + F.linear(inner, given["down.weight"], given["down.bias"])
    x = F.layer_norm(x, x.shape[1:], weights["norm.weight"], weights["norm.bias"]) * real_T1
    return F.linear(x.reshape(patches, 2 * x.shape[1]), weights["out.weight"], weights["out.bias"])


def raw_frame(wave_T1: Tensor, weights: dict[str, Tensor], options: dict) -> Tensor:
    """Frames of the waveform, each of unit loudness, projected."""
    stride, samples = options["stride"], wave_T1.shape[0]
    patches = (samples + stride - 1) // stride
    frames = F.pad(wave_T1[:, 0], (0, patches * stride - samples)).reshape(patches, stride)
    frames = frames * torch.rsqrt(frames.square().mean(-1, keepdim=True) + options["eps"])
    return F.linear(frames, weights["proj.weight"])


KINDS = {"mel-patch": mel_patch, "mel-conv": mel_conv, "mel-tdnn": mel_tdnn, "raw-frame": raw_frame}


def embed(features: Tensor, weights: dict[str, Tensor], options: dict) -> Tensor:
    """x_PD of features [T, M], or of samples [T, 1]."""
    return KINDS[options["kind"]](features, weights, options)
