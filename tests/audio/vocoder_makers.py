"""Small random checkpoints of published vocoders, each in the format in which its family is published."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import yaml

BIGVGAN_22K = {
    "resblock": "1",
    "upsample_rates": [4, 4, 4, 4],
    "upsample_kernel_sizes": [8, 8, 8, 8],
    "upsample_initial_channel": 32,
    "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1, 3], [1, 3]],
    "activation": "snakebeta",
    "snake_logscale": True,
    "use_tanh_at_final": False,
    "use_bias_at_final": False,
    "num_mels": 80,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "sampling_rate": 22050,
    "fmin": 0,
    "fmax": None,
}


def louder(net: torch.nn.Module, times: float) -> torch.nn.Module:
    """transformers begins its vocoders with such small weights that their output is next to nothing."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("weight"):
                parameter.mul_(times)
    return net


def hifigan(folder: Path, **more: object) -> Path:
    """microsoft/speecht5_hifigan's layout: config.json and pytorch_model.bin, weight norm removed."""
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    torch.manual_seed(1)
    config = SpeechT5HifiGanConfig(upsample_initial_channel=32, resblock_kernel_sizes=[3, 5], resblock_dilation_sizes=[[1, 3], [1, 3]], **more)
    net = louder(SpeechT5HifiGan(config), 12.0)
    net.mean.fill_(-2.0)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**config.to_dict(), "model_type": "hifigan"}))
    torch.save(net.state_dict(), folder / "pytorch_model.bin")
    return folder


def univnet(folder: Path, do_normalize: bool = True) -> Path:
    """dg845/univnet-dev's layout: config.json, preprocessor_config.json and model.safetensors."""
    from transformers import UnivNetConfig, UnivNetFeatureExtractor, UnivNetModel

    torch.manual_seed(2)
    config = UnivNetConfig(model_in_channels=16, model_hidden_channels=8, kernel_predictor_hidden_channels=16)
    louder(UnivNetModel(config), 12.0).save_pretrained(folder)
    UnivNetFeatureExtractor(do_normalize=do_normalize).save_pretrained(folder)
    return folder


def vocos(folder: Path, padding: str = "center", layers: int = 2) -> Path:
    """charactr/vocos-mel-24khz's layout: config.yaml and a pickle of tensors. Needs the package."""
    from vocos.feature_extractors import MelSpectrogramFeatures
    from vocos.heads import ISTFTHead
    from vocos.models import VocosBackbone
    from vocos.pretrained import Vocos

    parts = {
        "feature_extractor": {"sample_rate": 24000, "n_fft": 1024, "hop_length": 256, "n_mels": 100, "padding": padding},
        "backbone": {"input_channels": 100, "dim": 32, "intermediate_dim": 64, "num_layers": layers},
        "head": {"dim": 32, "n_fft": 1024, "hop_length": 256, "padding": padding},
    }
    paths = ("vocos.feature_extractors.MelSpectrogramFeatures", "vocos.models.VocosBackbone", "vocos.heads.ISTFTHead")
    torch.manual_seed(3)
    net = Vocos(MelSpectrogramFeatures(**parts["feature_extractor"]), VocosBackbone(**parts["backbone"]), ISTFTHead(**parts["head"]))
    folder.mkdir(parents=True)
    sections = {name: {"class_path": path, "init_args": parts[name]} for name, path in zip(parts, paths, strict=True)}
    (folder / "config.yaml").write_text(yaml.dump(sections))
    torch.save(net.state_dict(), folder / "pytorch_model.bin")
    return folder


def bigvgan(folder: Path, **more: object) -> Path:
    """nvidia/bigvgan_v2_*'s layout: config.json and bigvgan_generator.pt, with weight norm. Needs the package."""
    from bigvgan.bigvgan import AttrDict, BigVGAN

    torch.manual_seed(4)
    fields = {**BIGVGAN_22K, "fmax": 8000, **more}
    net = BigVGAN(AttrDict(fields))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(fields))
    torch.save({"generator": net.state_dict()}, folder / "bigvgan_generator.pt")
    return folder
