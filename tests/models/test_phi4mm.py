"""Phi-4-multimodal's checkpoints in both layouts: the same model, which says what transformers' own class says; and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Phi3ForCausalLM

from melcli import registry
from melcli.data.utterance import Utterance
from melcli.errors import CheckpointError
from melcli.models import checkpoint, lora
from melcli.models.config import SpeechLMConfig
from melcli.models.decoding.generate import decode
from melcli.models.phi4mm import PROMPT, load_phi4mm, read_phi4mm
from melcli.models.speech_lm import SpeechLM
from tests.models import phi4mm_makers as phi

pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`")  # the native model has two adapters, as it should
LAYOUTS = {"remote": phi.write_remote, "native": phi.write_native}
ENCODER = pytest.mark.skipif("phi4mm-encoder" not in registry.names("speech-input"), reason="no phi4mm-encoder here")


@pytest.fixture(scope="module")
def native():
    """The native class without conformer blocks: what it hears is what Mel-LLM hears."""
    return phi.native_model()


@pytest.fixture(scope="module")
def conformer():
    return phi.native_model(blocks=2)


@pytest.fixture(scope="module")
def folders(native, conformer, tmp_path_factory) -> dict[str, Path]:
    """Checkpoints of both, in both layouts."""
    root = tmp_path_factory.mktemp("phi")
    plain = {name: write(root / name, native) for name, write in LAYOUTS.items()}
    return plain | {f"{name} conformer": write(root / f"{name}-conformer", conformer) for name, write in LAYOUTS.items()}


@pytest.fixture
def copy(folders, tmp_path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(folders[name], tmp_path / name))


def prompt_of(frames: int) -> list[int]:
    """The ids of Phi's own prompt, which its processor makes of <|audio_1|>."""
    text = f"<|user|>{'<|endoftext11|>' * -(-frames // 8)}Transcribe the audio clip into text.<|end|><|assistant|>"
    return phi.tokenizer()(text)["input_ids"]


def mel(frames: int) -> torch.Tensor:
    return torch.randn(frames, 80, generator=torch.Generator().manual_seed(frames)) * 3 + 8


@torch.no_grad()
def theirs(model, frames: int) -> torch.Tensor:
    ids, sizes = torch.tensor([prompt_of(frames)]), torch.tensor([-(-frames // 8)])
    return model(input_ids=ids, audio_input_features=mel(frames)[None], audio_embed_sizes=sizes).logits


@torch.no_grad()
def ours(model: SpeechLM, frames: int) -> torch.Tensor:
    return model(input_ids=torch.tensor([prompt_of(frames)]), speech=mel(frames), speech_lengths=torch.tensor([frames])).logits


def close(one: torch.Tensor, other: torch.Tensor, within: float = 1e-4) -> bool:
    assert other.std() > 0.3  # nothing is compared with zeros
    return bool((one - other).abs().max() < within)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("frames", [83, 8, 700])  # the last beyond original_max_position_embeddings, where the long factors apply
def test_logits_are_those_of_the_native_class(native, folders, layout, frames):
    wanted = theirs(native, frames)
    live, *_ = load_phi4mm(folders[layout])
    merged, *_ = load_phi4mm(folders[layout], merge=True)
    assert close(ours(live, frames), wanted) and close(ours(merged, frames), wanted)
    assert merged.config.lora is None and live.config.lora["rank"] == phi.RANK
    with lora.without_lora(live):
        assert not close(ours(live, frames), wanted, 0.1)


def test_both_layouts_are_one_model(folders):
    one, two = (load_phi4mm(folders[layout])[0] for layout in LAYOUTS)
    assert close(ours(one, 83), ours(two, 83), 1e-5)
    first, second = one.state_dict(), two.state_dict()
    assert set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)
    assert one.config.to_dict() == two.config.to_dict()
    assert {name: getattr(two.config.text_config, name) for name in phi.TEXT} == phi.TEXT


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_language_model_is_a_stock_one(conformer, folders, layout, tmp_path):
    """With the conformer dropped the text part is still theirs; exported, any program that knows Phi-3 reads it."""
    model, *_ = load_phi4mm(folders[f"{layout} conformer"], merge=True)
    assert type(model.llm) is Phi3ForCausalLM
    model.llm.save_pretrained(tmp_path / "backbone")
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "backbone")
    assert json.loads((tmp_path / "backbone" / "config.json").read_text())["model_type"] == "phi3"
    for length in (20, 90):
        embeds = conformer.get_input_embeddings()(torch.arange(7, 7 + length)[None]).detach()
        with torch.no_grad():
            wanted = conformer(inputs_embeds=embeds).logits
            assert close(model.llm(inputs_embeds=embeds).logits, wanted)
            assert close(alone(inputs_embeds=embeds).logits, wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_is_accounted_for(conformer, folders, layout):
    _, _, coverage = load_phi4mm(folders[f"{layout} conformer"])
    files = folders[f"{layout} conformer"].rglob("*.safetensors")
    there = {f"{path}:{name}": tensor.numel() for path in files for name, tensor in load_file(path).items()}
    assert len(coverage.loaded) + len(coverage.left) == len(there)
    assert sum(coverage.loaded.values()) + sum(coverage.left.values()) == sum(there.values())
    assert not coverage.fresh
    left = coverage.totals(coverage.left)
    audio = conformer.model.embed_tokens_extend.audio_embed
    dropped = [*audio.encoder.encoders.parameters(), *audio.encoder.relative_attention_bias_layer.parameters()]
    assert left["conformer"] == (len(dropped), sum(p.numel() for p in dropped))
    assert left["vision LoRA"][0] == 2 * 4 * 2 and left["speech projector beside images"][0] == 4
    assert left["vision"][1] == sum(p.numel() for p in conformer.model.embed_tokens_extend.image_embed.parameters())
    assert coverage.totals(coverage.loaded)["LoRA"][0] == 2 * 4 * 2
    assert "conformer: " in coverage.said("phi")["left behind"] and coverage.said("phi")["random"] == "nothing"


def test_the_conformer_is_kept_for_the_counterpart(conformer, folders):
    """Its tensors bear the native class's names in both layouts, and its sizes are the checkpoint's."""
    one, two = (read_phi4mm(folders[f"{layout} conformer"], {"kind": "phi4mm-encoder"}) for layout in LAYOUTS)
    audio = conformer.model.embed_tokens_extend.audio_embed.encoder.state_dict()
    wanted = {f"speech_input.{name}": tensor for name, tensor in audio.items() if name.startswith(("encoders.", "relative"))}
    assert wanted and all(torch.equal(one.tensors[name], tensor) for name, tensor in wanted.items())
    assert set(one.tensors) == set(two.tensors) and "conformer" not in {*one.groups.values(), *two.groups.values()}
    sizes = {"blocks": 2, "heads": 2, "ffn": 48, "kernel": 3, "max_distance": 50, "dropout": 0.0}
    assert one.config.speech_input == two.config.speech_input
    assert one.config.speech_input == {"kind": "phi4mm-encoder", "norm": "global", "stride": 8, "channels": phi.CONV, "hidden": phi.WIDTH, **sizes}


@ENCODER
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_counterpart_says_what_the_native_class_says(conformer, folders, layout):
    model, _, coverage = load_phi4mm(folders[f"{layout} conformer"], speech_input={"kind": "phi4mm-encoder"})
    assert close(ours(model, 83), theirs(conformer, 83))
    assert "conformer" not in coverage.groups.values()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prompt_placeholder_and_stops_are_phis(folders, layout, tmp_path):
    model, processor, _ = load_phi4mm(folders[layout])
    assert processor.prompt == PROMPT and processor.spec.frames(16000) == 98
    assert model.config.speech_token_id == phi.AUDIO and model.config.stop_token_ids == [phi.END, phi.ENDOFTEXT]
    assert processor.prompts([83]) == [prompt_of(83)]
    text = phi.tokenizer()("one two", add_special_tokens=False)["input_ids"]
    example = processor.encoder()(Utterance("", (), text="one two"), 11, text)
    assert example.input_ids == [*prompt_of(83), *text, phi.END, phi.ENDOFTEXT]
    assert example.labels == [-100] * len(prompt_of(83)) + [*text, phi.END, phi.ENDOFTEXT]

    checkpoint.save(tmp_path / "model", model, processor)
    again, other = checkpoint.load(str(tmp_path / "model"))
    assert close(ours(again, 83), ours(model, 83), 1e-5) and lora.lora_is_used(again)
    assert other.prompts([83, 40]) == processor.prompts([83, 40]) and other.end_token_ids == [phi.END, phi.ENDOFTEXT]
    assert other.tokenizer.chat_template == processor.tokenizer.chat_template
    features = [mel(83), mel(40)]
    written = decode(again, other.prompts([83, 40]), torch.cat(features), torch.tensor([83, 40]), [12, 12])
    assert all(phi.END not in one.tokens and phi.AUDIO not in one.tokens for one in written)


def test_sizes_of_the_real_one():
    """Phi-4-multimodal's own sizes, with no memory behind them (arXiv 2503.01743; the config on the hub)."""
    sizes = {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 24, "num_key_value_heads": 8}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75, "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
    places = {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096}
    text = {"model_type": "phi3", "vocab_size": 200064, "tie_word_embeddings": True, "rope_parameters": rope, **sizes, **places}
    adapter = {"rank": 320, "alpha": 640.0, "dropout": 0.01, "targets": "down_proj|gate_up_proj|o_proj|qkv_proj"}
    with torch.device("meta"):
        model = SpeechLM(SpeechLMConfig(text_config=text, speech_input={"kind": "mel-conv"}, lora=adapter))
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert sum(size for name, size in counts.items() if name.startswith("speech_input.")) == 25_205_760
    assert sum(size for name, size in counts.items() if lora.is_lora(name)) == 461_373_440
    assert sum(size for name, size in counts.items() if name.startswith("llm.") and not lora.is_lora(name)) == 3_836_021_760


# --- what is refused -----------------------------------------------------------------------------------------------------------------------


def edit(path: Path, **fields) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change(folder: Path, act: Callable[[dict], object]) -> None:
    """Edit the weights of the native layout."""
    tensors = load_file(folder / "model.safetensors")
    act(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def refused(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_phi4mm(folder)
    assert "\n" not in str(caught.value)


def test_a_lora_of_another_rank(copy):
    remote, native = copy("remote"), copy("native")
    edit(remote / "config.json", speech_lora={"r": 8, "lora_alpha": 16, "layer": phi.LAYERS, "dp": 0.0})
    refused(remote, r"speech LoRA of rank 4 \(llm\.model\.layers\.\d\..*\), and is said to have one of rank 8")
    edit(native / "speech-lora" / "adapter_config.json", r=8)
    refused(native, "speech LoRA of rank 4 .* rank 8")


def test_a_lora_for_other_modules(copy):
    remote, native = copy("remote"), copy("native")
    edit(remote / "config.json", speech_lora={"r": 4, "lora_alpha": 8, "layer": r"layers.*self_attn\.qkv_proj", "dp": 0.0})
    refused(remote, r"speech LoRA for llm\.model\.layers\.0\.mlp\.down_proj, .* and 3 more, which its description does not name")
    path = native / "speech-lora" / "adapter_model.safetensors"
    part = {name: tensor for name, tensor in load_file(path).items() if "down_proj" not in name}
    save_file(part, path)
    refused(native, r"no speech LoRA for llm\.model\.layers\.0\.mlp\.down_proj, llm\.model\.layers\.1\.mlp\.down_proj, which its description names")
    save_file(part | {"model.layers.0.mlp.router.lora_X.weight": torch.zeros(1)}, path)
    refused(native, r"holds unexpected model\.layers\.0\.mlp\.router\.lora_X\.weight, which no LoRA of Phi")


def test_a_lora_that_nothing_or_too_much_is_said_of(copy):
    remote, native = copy("remote"), copy("native")
    edit(remote / "config.json", speech_lora=None)
    refused(remote, r"holds a speech LoRA for .*, and its config\.json does not describe it \(speech_lora\)")
    edit(native / "speech-lora" / "adapter_config.json", use_dora=True)
    refused(native, r"another kind \(use_dora\)")
    edit(native / "speech-lora" / "adapter_config.json", use_dora=False)
    shutil.rmtree(native / "speech-lora")
    assert load_phi4mm(native)[0].config.lora is None  # merged before it was written


def test_descriptions_and_files_of_a_lora_that_cannot_be_read(copy):
    remote, native = copy("remote"), copy("native")
    edit(remote / "config.json", speech_lora=[4])
    refused(remote, r"config\.json: speech_lora is no description of an adapter")
    edit(remote / "config.json", speech_lora={"r": 4, "lora_alpha": 8, "layer": "(", "dp": 0.0})
    refused(remote, "which its description does not name")
    (native / "vision-lora").mkdir(exist_ok=True)
    (native / "vision-lora" / "adapter_model.safetensors").write_bytes(b"cut short")
    refused(native, r"vision-lora.*not a whole safetensors file")


def test_missing_and_unexpected_tensors(copy):
    folder = copy("native")
    kept = load_file(folder / "model.safetensors")
    bias = "model.embed_tokens_extend.audio_embed.encoder.embed.conv.2.bias"
    change(folder, lambda tensors: tensors.pop(bias))
    refused(folder, r"misses speech_input\.conv\.2\.bias")
    change(folder, lambda tensors: tensors.update(kept, **{"model.layers.0.self_attn.q_norm.weight": torch.ones(16)}))
    refused(folder, r"unexpected llm\.model\.layers\.0\.self_attn\.q_norm\.weight")
    change(folder, lambda tensors: (tensors.clear(), tensors.update(kept, **{"model.memory.weight": torch.ones(1)})))
    refused(folder, r"holds unexpected model\.memory\.weight, which no Phi-4-multimodal has")
    change(folder, lambda tensors: (tensors.clear(), tensors.update(kept, **{"model.norm.weight": torch.ones(63)})))
    refused(folder, r"wrong shape for llm\.model\.norm\.weight")


def test_pickles_are_never_opened(copy):
    folder = copy("native")
    adapter = folder / "speech-lora" / "adapter_model.safetensors"
    adapter.rename(adapter.with_name("adapter_model.bin"))
    refused(folder, r"adapter_model\.safetensors is missing; it holds adapter_model\.bin, a pickle, which is never opened")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, r"model\.safetensors is missing; it holds pytorch_model\.bin, a pickle")


def test_a_vocabulary_that_does_not_fit(copy):
    folder = copy("remote")
    edit(folder / "config.json", vocab_size=300)
    refused(folder, r"its tokenizer has \d+ entries and its embedding table 300 rows")
    edit(folder / "config.json", vocab_size=1000)
    refused(folder, r"wrong shape for llm\.model\.embed_tokens\.weight")
    folder = copy("native")
    config = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", audio_config=config["audio_config"] | {"audio_token_id": 9})
    refused(folder, r"<\|endoftext11\|> is 6, and audio_token_id in config\.json 9: not a pair")
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("<|end|>", "<|halt|>"))
    refused(folder, r"its tokenizer has no <\|end\|>, so it is not that of Phi-4-multimodal")


@pytest.mark.parametrize("missing", ["num_attention_heads", "tie_word_embeddings", "rope_scaling", "audio_processor"])
def test_nothing_is_left_to_defaults(copy, missing):
    folder = copy("remote")
    config = json.loads((folder / "config.json").read_text())
    del config[missing]
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, rf"config\.json: {missing}.* is missing")


def test_another_model(copy):
    folder = copy("remote")
    edit(folder / "config.json", model_type="phi3")
    refused(folder, r"model_type 'phi3' is not Phi-4-multimodal, which is phi4mm or phi4_multimodal")
