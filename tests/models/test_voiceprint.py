"""Speaker embeddings by a tiny random checkpoint in WavLM-SV's format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForAudioXVector, Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

from melcli.errors import CheckpointError
from melcli.models.voiceprint import Voiceprint

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8, 8, 8, 8, 8, 8, 8),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "tdnn_dim": (16, 16, 16, 16, 24),
    "xvector_output_dim": 12,
    "num_buckets": 32,
}


def write_voiceprint(folder: Path) -> Path:
    """A random WavLM with an x-vector head, saved as microsoft/wavlm-base-plus-sv is."""
    torch.manual_seed(0)
    WavLMForXVector(WavLMConfig(**TINY)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voiceprint(tmp_path_factory.mktemp("wavlm") / "sv")


def noise(seconds: float, seed: int) -> torch.Tensor:
    return 0.1 * torch.randn(round(16000 * seconds), generator=torch.Generator().manual_seed(seed)).cumsum(0).sin()


def test_embeddings_are_those_of_transformers(folder: Path) -> None:
    prints, about = Voiceprint.load(str(folder), device="cpu")
    one_S, other_S = noise(1.0, 1), noise(1.5, 2)
    model, extractor = AutoModelForAudioXVector.from_pretrained(folder).eval(), Wav2Vec2FeatureExtractor.from_pretrained(folder)
    with torch.inference_mode():
        found = [model(**extractor(wave_S.numpy(), sampling_rate=16000, return_tensors="pt")).embeddings[0] for wave_S in (one_S, other_S)]
    expected = torch.nn.functional.cosine_similarity(*found, dim=0)
    assert prints.rate == 16000 and "WavLMForXVector" in about
    assert prints.likeness(one_S, other_S) == pytest.approx(float(expected), abs=1e-5)
    assert prints.likeness(one_S, one_S) == pytest.approx(1, abs=1e-5) and prints.likeness(one_S, 0.1 * one_S) == pytest.approx(1, abs=1e-3)


def test_too_short_to_tell(folder: Path) -> None:
    prints, _ = Voiceprint.load(str(folder), device="cpu")
    assert prints.likeness(noise(0.4, 1), noise(2, 2)) is None and prints.embed(noise(0.5, 1)) is not None


def test_what_gives_no_embeddings(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"--similarity .*: no such folder"):
        Voiceprint.load(str(tmp_path / "absent"))
    with pytest.raises(CheckpointError, match="a speech_lm model gives no speaker embeddings"):
        Voiceprint.load("tiny-en")
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in folder.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    save_file({name: t for name, t in tensors.items() if not name.startswith("tdnn.0")}, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"the checkpoint misses tdnn\.0"):
        Voiceprint.load(str(broken))
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin, a pickle, which is never opened"):
        Voiceprint.load(str(broken))
