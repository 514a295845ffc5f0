"""Speech models of transformers beside ours: every family from a tiny checkpoint in its own layout, batches, long audio, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from melcli.audio import io
from melcli.data.utterance import Utterance
from melcli.errors import CheckpointError, UsageError
from melcli.inputs import AudioInput
from melcli.models.peers.families import FAMILIES, GENERATIVE
from melcli.models.peers.peer import Peer
from melcli.models.recogniser import Recognised
from melcli.transcribe import Transcriber
from tests.models.peer_makers import MAKERS, wav2vec2

BLENDING = {"moonshine", "moonshine_streaming", "granite_speech", "phi4_multimodal"}
Made = Callable[[str], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """The checkpoint of a family, made once."""
    root = tmp_path_factory.mktemp("peers")

    def make(name: str) -> Path:
        if not (root / name).exists():
            torch.manual_seed(1)
            MAKERS[name](root / name)
        return root / name

    yield make
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def waves() -> list[torch.Tensor]:
    """Sounds of awkward lengths, the last shorter than some front ends can take."""
    generator = torch.Generator().manual_seed(0)
    seconds = (1.3, 0.7, 2.1, 0.02)
    return [0.1 * torch.randn(round(16000 * s), generator=generator) * torch.linspace(0.1, 1, round(16000 * s)) for s in seconds]


def load(folder: Path, **options) -> Transcriber:
    return Transcriber.load(str(folder), **({"device": "cpu", "dtype": "float32"} | options))


def hear(peer: Peer, waves: list[torch.Tensor]) -> list[tuple[str, str]]:
    found = {i: (r.text, r.finish_reason) for batch in peer.recognise(waves) for i, r in batch.items()}
    return [found[i] for i in range(len(waves))]


@pytest.mark.parametrize("name", MAKERS)
def test_a_batch_gives_the_text_of_each_alone(made: Made, waves: list[torch.Tensor], name: str) -> None:
    transcriber = load(made(name))
    peer = transcriber.recogniser
    assert isinstance(peer, Peer) and list(transcriber.decisions)[:4] == ["device", "dtype", "model", "weights"]
    assert transcriber.decisions["weights"].startswith("every tensor loaded")
    together = hear(peer, waves)
    assert together == [hear(peer, [wave_S])[0] for wave_S in waves]
    assert len(set(together)) > 1  # what is heard depends on the sound, or on its length at least
    assert len(list(peer.recognise(waves))) == (len(waves) if name in BLENDING else 1)


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_is_random(made: Made, name: str) -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(load(made(name)).recogniser.model.state_dict())
    assert states[0].keys() == states[1].keys() and all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", MAKERS)
def test_in_bfloat16(made: Made, waves: list[torch.Tensor], name: str) -> None:
    peer = load(made(name), dtype="bfloat16", batch_size=4).recogniser
    assert {p.dtype for p in peer.model.parameters()} == {torch.bfloat16}
    assert len(hear(peer, waves)) == len(waves)


def test_every_family_named_is_one_of_transformers() -> None:
    import transformers
    from transformers.models.auto import modeling_auto

    names = {"AutoModelForSpeechSeq2Seq": "SPEECH_SEQ_2_SEQ", "AutoModelForMultimodalLM": "MULTIMODAL_LM", "AutoModelForCTC": "CTC"}
    names |= {"AutoModelForTDT": "TDT", "AutoModelForRNNT": "RNNT"}
    for model_type, family in FAMILIES.items():
        assert hasattr(transformers, family.auto)
        assert model_type in getattr(modeling_auto, f"MODEL_FOR_{names[family.auto]}_MAPPING_NAMES"), model_type
    assert {name for name in MAKERS if name not in FAMILIES} == set()


def test_padding_that_is_not_masked_is_avoided(tmp_path: Path, waves: list[torch.Tensor]) -> None:
    torch.manual_seed(1)
    wav2vec2(tmp_path / "base", norm="group")
    transcriber = load(tmp_path / "base")
    assert transcriber.decisions["decoding"] == "CTC, greedy, the same for all models; one at a time, because padding would change the text"
    assert [list(batch) for batch in transcriber.recogniser.recognise(waves)] == [[2], [0], [1], [3]]
    assert [list(batch) for batch in load(tmp_path / "base", batch_size=2).recogniser.recognise(waves)] == [[2, 0], [1, 3]]


def test_texts_end_at_the_stop_token_or_at_their_limit(made: Made, waves: list[torch.Tensor]) -> None:
    peer = load(made("moonshine")).recogniser
    text, reason = hear(peer, waves[:1])[0]
    assert reason == "length"
    token = peer.processor.tokenizer(text)["input_ids"][-1]
    peer.model.generation_config.eos_token_id = [token]
    shorter, reason = hear(peer, waves[:1])[0]
    assert reason == "eos" and text.startswith(shorter) and len(shorter) < len(text)
    assert 0 < len(peer.processor.tokenizer(text)["input_ids"]) <= 16 + 12 * 1.3 + 1


def test_a_batch_too_large_for_the_memory_is_halved(made: Made, waves: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    peer = load(made("wav2vec2")).recogniser
    expected, batch, room = hear(peer, waves), peer._batch, 1

    def small(chosen: list[torch.Tensor]) -> list[Recognised]:
        if len(chosen) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch(chosen)

    monkeypatch.setattr(peer, "_batch", small)
    assert hear(peer, waves) == expected
    room = 0
    with pytest.raises(UsageError, match="try --dtype bfloat16, or --device cpu"):
        hear(peer, waves)


def test_whisper_is_told_the_language_and_beams_are_kept(made: Made, waves: list[torch.Tensor]) -> None:
    transcriber = load(made("whisper"), beam=2)
    assert transcriber.decisions["decoding"] == "2 beams, as asked; language en"
    calls = []
    generate = transcriber.recogniser.model.generate
    transcriber.recogniser.model.generate = lambda **given: calls.append(given) or generate(**given)
    hear(transcriber.recogniser, waves[:1])
    assert calls[0]["language"] == "en" and calls[0]["task"] == "transcribe" and calls[0]["num_beams"] == 2 and calls[0]["max_new_tokens"] == 32


def test_files_go_the_same_way_as_for_our_models(made: Made, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    sounds = {"long": 0.1 * torch.randn(16000 * 35, generator=generator), "zeros": torch.zeros(16000), "short": 0.1 * torch.randn(8000)}
    for name, wave_S in sounds.items():
        io.save(tmp_path / f"{name}.wav", wave_S, 16000)
    items = [AudioInput(name, Utterance(name, (str(tmp_path / f"{name}.wav"),))) for name in (*sounds, "absent")]
    transcriber = load(made("wav2vec2"), max_chunk=15)
    found = {t.name: t for t in transcriber.transcribe(items)}
    assert list(found)[:2] == ["zeros", "absent"]  # what needs no model is there at once
    assert found["absent"].error and found["zeros"].text == "" and found["zeros"].segments[0].finish_reason == "silence"
    long = found["long"]
    assert len(long.segments) >= 3 and long.segments[-1].end == pytest.approx(35) and long.text == " ".join(s.text for s in long.segments)
    assert long.seconds > found["short"].seconds > 0 == found["zeros"].seconds


def test_the_adapter_for_speech_is_put_on(made: Made, tmp_path: Path, waves: list[torch.Tensor]) -> None:
    folder = shutil.copytree(made("phi4_multimodal"), tmp_path / "phi")
    assert load(folder).decisions["weights"] == "every tensor loaded; speech-lora put on"
    peer = load(folder).recogniser
    with_lora = hear(peer, waves)
    assert any(".lora_A.speech" in name for name, _ in peer.model.named_parameters())
    (folder / "speech-lora" / "adapter_model.safetensors").rename(folder / "speech-lora" / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors is missing; it holds adapter_model\.bin, a pickle"):
        load(folder)
    shutil.rmtree(folder / "speech-lora")
    bare = load(folder)
    assert bare.decisions["weights"] == "every tensor loaded; no speech-lora beside it, so it counts as merged"
    assert hear(bare.recogniser, waves) != with_lora


def test_a_lora_in_the_folder_itself_hides_no_missing_weights(made: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(made("granite_speech"), tmp_path / "granite")
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "/somewhere/else"}))
    assert load(folder).decisions["weights"] == "every tensor loaded; its LoRA put on"
    for name in ("adapter_model.safetensors", "model.safetensors"):
        tensors = load_file(folder / name)
        gone = next(key for key in tensors if "q_proj" in key)
        save_file({key: tensor for key, tensor in tensors.items() if key != gone}, folder / name, {"format": "pt"})
        with pytest.raises(CheckpointError, match=r"does not fit the model: .*q_proj|misses .*q_proj"):
            load(folder)
        save_file(tensors, folder / name, {"format": "pt"})


def change(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_weights_are_accounted_for(made: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(made("wav2vec2"), tmp_path / "w")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({k: v for k, v in tensors.items() if k != "wav2vec2.masked_spec_embed"} | {"extra.weight": torch.ones(1)}, path, {"format": "pt"})
    assert load(folder).decisions["weights"] == "every tensor of the model loaded; NOT USED: extra.weight"
    save_file({k: v for k, v in tensors.items() if not k.startswith("lm_head")}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"w: the checkpoint misses lm_head\.bias, lm_head\.weight$"):
        load(folder)
    save_file(tensors | {"lm_head.bias": torch.zeros(3)}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"w: the checkpoint has the wrong shape for lm_head\.bias$"):
        load(folder)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(folder)


def test_pickles_are_never_opened(made: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(made("wav2vec2"), tmp_path / "w")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"no safetensors file with its weights; it holds pytorch_model\.bin, a pickle, which is never opened"):
        load(folder)


def test_code_from_the_hub_is_never_run(made: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(made("wav2vec2"), tmp_path / "w")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    change(folder, auto_map={"AutoConfig": "evil.Config", "AutoModelForCTC": "evil.Model"})
    assert isinstance(load(folder).recogniser, Peer)  # transformers' own class is there
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("zzz", "model_type 'zzz' is no speech recogniser melcli can run. It runs speech_lm, whisper, moonshine"),
        ("wisper", "melcli can run. Did you mean 'whisper'?"),
        ("phi4mm", "needs code from the hub, which is never run; give its native form: microsoft/Phi-4-multimodal-instruct@refs/pr/70"),
        (None, "its config.json names no model_type"),
        (["whisper"], "is no speech recogniser"),
    ],
)
def test_other_models_are_refused_with_the_families_there_are(made: Made, tmp_path: Path, model_type: object, expected: str) -> None:
    folder = shutil.copytree(made("wav2vec2"), tmp_path / "w")
    change(folder, model_type=model_type)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_family_needs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "voxtral"}')
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"this model needs mistral_common: pip install 'mistral-common\[audio\]'"):
        load(tmp_path)


def test_options_of_our_own_models_are_refused(made: Made) -> None:
    with pytest.raises(UsageError, match="--ctc-weight"):
        load(made("whisper"), beam=2, ctc_weight=0.3)
    with pytest.raises(UsageError, match="--beam 4: wav2vec2 is decoded greedily only"):
        load(made("wav2vec2"), beam=4)


def test_a_broken_processor_is_one_line(made: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(made("whisper"), tmp_path / "w")
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"w: the files of its tokenizer are missing$"):
        load(folder)
    (folder / "processor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be loaded") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_the_table_of_families_is_whole() -> None:
    assert {"phi4_multimodal", "granite_speech", "qwen3_asr", "whisper", "parakeet_tdt"} <= set(GENERATIVE) < set(FAMILIES)
