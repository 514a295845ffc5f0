"""Starting from language models of eight families in their own format: what is loaded and what is random; that it trains, is kept and transcribes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertForMaskedLM

from melcli import cli, console
from melcli import recipe as recipes
from melcli.data.utterance import Utterance
from melcli.errors import CheckpointError, ConfigError
from melcli.inputs import AudioInput
from melcli.models import checkpoint, lora
from melcli.models.start import identify, start
from melcli.train import Run, finish, train
from melcli.training.verify import one_batch
from melcli.transcribe import Transcriber
from tests.training.llm_makers import FAMILIES, byte_level, write
from tests.training.tones import make_tones

RECIPE = """
name: tuned
seed: 5
data:
  root: {root}
  train:
    - {{source: tones.jsonl}}
  text: none
  workers: 0
model:
  init: {init}
  speech_input: {{kind: mel-conv, stride: 8, channels: 8, hidden: 32, norm: global}}
  speech_attention: bidirectional
tune:
  llm: lora
  lora: {{rank: 4, alpha: 8}}
train:
  steps: 10
  tokens_per_batch: 256
  row_tokens: 128
  lr: 5.0e-3
  warmup: 1
  schedule: constant
  save_every: 10
  log_every: 1
  log_to: []
"""
MODES = {  # family: how it is trained here
    "qwen3": [],
    "llama": ["tune.llm=full"],
    "phi3": ["tune.lora.merge=true"],
    "gemma2": [],
    "gemma3_text": ["tune.llm=full", "train.weights=bfloat16"],
    "smollm3": ["model.prompt=<|speech|> what was said?"],
    "mistral": ["tune.llm=full", "tune.speech_lr=1e-2"],
    "gpt_neox": ["model.ctc_weight=0.3", "model.ctc_units=characters"],
}


@pytest.fixture(scope="module")
def llms(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("llms")
    return {name: make(folder / name) for name, make in FAMILIES.items()}


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory, llms) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    make_tones(folder, 24)
    path = folder / "tuned.yaml"
    path.write_text(RECIPE.format(root=folder, init=llms["qwen3"]))
    return path


@pytest.fixture
def copy(llms, tmp_path) -> Path:
    """A Qwen3 to break."""
    return Path(shutil.copytree(llms["qwen3"], tmp_path / "broken"))


def begin(recipe_file: Path, *settings: str):
    recipe = recipes.load(str(recipe_file), list(settings))
    return start(identify(recipe.model.init), recipe, "abc")


def run_of(recipe_file: Path, out: Path, *settings: str) -> Run:
    return Run(recipes.load(str(recipe_file), list(settings)), out)


def losses(out: Path) -> list[float]:
    states = sorted((out / "checkpoints").glob("checkpoint-*/trainer_state.json"), key=lambda path: int(path.parent.name.rpartition("-")[2]))
    return [entry["loss"] for entry in json.loads(states[-1].read_text())["log_history"] if "grad_norm" in entry]


# --- eight families ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_started_model_reads_text_as_its_language_model_does(recipe_file, llms, family):
    started = begin(recipe_file, f"model.init={llms[family]}", "model.speech_attention=causal")
    native = AutoModelForCausalLM.from_pretrained(llms[family]).eval()
    tokenizer = AutoTokenizer.from_pretrained(llms[family])
    ids = torch.tensor([tokenizer("Once there was a low tone")["input_ids"]])
    with torch.no_grad():
        theirs, ours = native(ids).logits, started.model.eval()(input_ids=ids).logits
    rows = min(theirs.shape[-1], ours.shape[-1], max(tokenizer.get_vocab().values()) + 1)
    torch.testing.assert_close(ours[..., :rows], theirs[..., :rows], rtol=1e-4, atol=1e-4)
    assert not [name for name in started.coverage.fresh if name.startswith("llm.") and not lora.is_lora(name)]
    assert started.coverage.left == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_it_trains_is_kept_and_transcribes(recipe_file, llms, family, tmp_path):
    run = run_of(recipe_file, tmp_path, f"model.init={llms[family]}", *MODES[family])
    trainer = run.trainer()
    trainer.train()
    found = losses(tmp_path)
    assert len(found) == 10
    assert sum(found[-3:]) < 0.9 * sum(found[:3])
    result = finish(run, trainer)
    again, _ = checkpoint.load(str(result.folder), dtype=torch.float32)
    batch = one_batch(run.data.features, run.encoders, run.text_ids, run.processor)
    with torch.no_grad():
        trained, kept = run.model.eval()(**batch).logits, again(**batch).logits
    torch.testing.assert_close(kept, trained, rtol=1e-4, atol=1e-4)
    assert (again.config.lora is not None) == (run.recipe.tune.llm == "lora" and not run.recipe.tune.lora.merge)
    audio = str(Path(run.recipe.data.root) / "1.wav")
    (heard,) = Transcriber.load(str(tmp_path), device="cpu", dtype="float32").transcribe([AudioInput("1.wav", Utterance("1", (audio,)))])
    assert heard.error is None
    assert "<|" not in heard.text


# --- prompts, tokens, vocabularies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "prompt", "stops"),
    [
        (
            "qwen3",
            "<|im_start|>user\n<|speech|>Transcribe the audio clip into text.<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
            ["<|im_end|>", "<|endoftext|>"],
        ),
        ("llama", "<s><|speech|><|transcribe|>", ["</s>"]),
        ("phi3", "<|user|>\n<|speech|>Transcribe the audio clip into text.<|end|>\n<|assistant|>\n", ["<|end|>", "<|endoftext|>"]),
        (
            "gemma2",
            "<bos><start_of_turn>user\n<|speech|>Transcribe the audio clip into text.<end_of_turn>\n<start_of_turn>model\n",
            ["<end_of_turn>", "<eos>"],
        ),
        (
            "smollm3",
            "<|im_start|>system\nToday: 26 July 2024<|im_end|>\n<|im_start|>user\n<|speech|>Transcribe the audio clip into text.<|im_end|>\n"
            "<|im_start|>assistant\n",
            ["<|im_end|>"],
        ),
        ("gpt_neox", "<|speech|><|transcribe|>", ["<|endoftext|>"]),
    ],
)
def test_a_model_is_asked_and_stops_as_its_checkpoint_means_it(recipe_file, llms, family, prompt, stops):
    started = begin(recipe_file, f"model.init={llms[family]}")
    config = started.model.config
    assert config.prompt == prompt
    assert started.tokenizer.convert_ids_to_tokens(config.stop_token_ids) == stops
    assert config.text_config.eos_token_id == (config.stop_token_ids if len(stops) > 1 else config.stop_token_ids[0])


def test_an_instruction_and_a_prompt_of_ones_own(recipe_file, llms):
    assert "<|speech|>What was said?<|im_end|>" in begin(recipe_file, "model.instruction=What was said?").model.config.prompt
    assert begin(recipe_file, "model.prompt=<|speech|> text").model.config.prompt == "<|speech|> text"
    with pytest.raises(ConfigError, match="has no chat template"):
        begin(recipe_file, f"model.init={llms['llama']}", "model.prompt=chat")


@pytest.mark.parametrize(("family", "grows"), [("qwen3", False), ("llama", True), ("phi3", True)])
def test_added_tokens_get_the_mean_row_and_are_announced(recipe_file, llms, family, grows):
    started = begin(recipe_file, f"model.init={llms[family]}")
    before = load_file(llms[family] / "model.safetensors")
    known = len(AutoTokenizer.from_pretrained(llms[family]))
    added = [token for token in ("<|speech|>", "<|transcribe|>") if token in started.tokenizer.get_vocab()]
    assert "<|speech|>" in added
    assert f"{', '.join(added)} added, each the mean of the {known} others" in started.decided["tokens"]
    assert ("the table grew" in started.decided["tokens"]) == grows
    llm = started.model.llm
    tables = {"model.embed_tokens.weight": llm.get_input_embeddings().weight, "lm_head.weight": llm.get_output_embeddings().weight}
    for name, table in tables.items():
        if name in before:  # tied heads are not in the file
            old = before[name][:known]
            assert torch.equal(table[:known], old)
            torch.testing.assert_close(table[started.tokenizer.convert_tokens_to_ids(added)], old.mean(0).expand(len(added), -1))
    assert tables["lm_head.weight"].data_ptr() == tables["model.embed_tokens.weight"].data_ptr() or "lm_head.weight" in before
    assert started.model.config.vocab_size == len(llm.get_input_embeddings().weight)


def test_a_tokenizer_with_more_entries_than_rows_is_refused(recipe_file, copy):
    byte_level([f"<|extra{i}|>" for i in range(40)], "<|extra0|>").save_pretrained(copy)
    with pytest.raises(CheckpointError, match=r"its tokenizer has \d+ entries and its embedding table \d+ rows"):
        begin(recipe_file, f"model.init={copy}")


# --- coverage ------------------------------------------------------------------------------------------------------------------------------


def edit(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_tensors_of_a_language_model_that_are_missing_or_too_many(recipe_file, copy):
    edit(copy, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(CheckpointError, match=r"misses llm\.model\.layers\.1\.mlp\.up_proj\.weight; model\.fresh"):
        begin(recipe_file, f"model.init={copy}")
    started = begin(recipe_file, f"model.init={copy}", r"model.fresh=['layers\.1\.mlp']")
    fresh = {name for name in started.coverage.fresh if name.startswith("llm.") and not lora.is_lora(name)}
    assert fresh == {f"llm.model.layers.1.mlp.{part}_proj.weight" for part in ("up", "gate", "down")}
    edit(copy, lambda tensors: tensors.update({"model.layers.1.mlp.up_proj.weight": torch.zeros(64, 32), "mtp.0.weight": torch.zeros(3)}))
    with pytest.raises(CheckpointError, match=r"holds llm\.mtp\.0\.weight, for which there is no place; model\.drop"):
        begin(recipe_file, f"model.init={copy}")
    assert list(begin(recipe_file, f"model.init={copy}", "model.drop=[mtp]").coverage.left) == ["llm.mtp.0.weight"]


def test_a_random_language_model_of_the_same_shape(recipe_file, llms):
    torch.manual_seed(1)
    started = begin(recipe_file, "model.fresh=['^llm']", "tune.llm=full")
    assert started.coverage.loaded == {}
    there = load_file(llms["qwen3"] / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    assert not torch.equal(started.model.llm.model.layers[0].mlp.up_proj.weight, there)
    torch.manual_seed(1)
    again = begin(recipe_file, "model.fresh=['^llm']", "tune.llm=full")
    assert all(torch.equal(a, b) for a, b in zip(started.model.parameters(), again.model.parameters(), strict=True))


def test_patterns_that_match_nothing_or_are_none(recipe_file):
    with pytest.raises(ConfigError, match=r"model\.fresh: 'speech_imput' is found in no tensor's name"):
        begin(recipe_file, "model.fresh=[speech_imput]")
    with pytest.raises(ConfigError, match=r"tune\.freeze: '\(' is no regular expression"):
        run_of(recipe_file, Path("nowhere"), "tune.freeze=['(']")
    with pytest.raises(ConfigError, match=r"tune\.keep: 'layers\.7\.' is found in no tensor's name"):
        run_of(recipe_file, Path("nowhere"), "tune.keep=['layers.7.']")


@pytest.fixture(scope="module")
def ours(recipe_file, tmp_path_factory) -> Path:
    """A model of ours with a CTC head and live adapters."""
    folder = tmp_path_factory.mktemp("ours")
    settings = ["model.ctc_weight=0.3", "model.ctc_units=characters", "train.steps=3"]
    result = train(recipes.load(str(recipe_file), settings), folder)
    assert result is not None
    return result.folder


CTC = ["model.ctc_weight=0.3", "model.ctc_units=characters"]


def test_ours_is_begun_from_as_it_is(recipe_file, ours):
    started = begin(recipe_file, f"model.init={ours}", *CTC)
    there = load_file(ours / "model.safetensors")
    state = started.model.state_dict()
    assert all(torch.equal(state[name], there[name]) for name in there)
    assert started.coverage.fresh == started.coverage.left == {}
    assert started.model.config.ctc_alphabet == " dghilmow"
    assert started.model.config.prompt.startswith("<|im_start|>user")
    text = started.coverage.said("ours")
    assert text["random"] == "nothing"


def test_ours_with_parts_left_behind_and_parts_new(recipe_file, ours, tmp_path):
    with pytest.raises(
        CheckpointError, match=r"has ctc_head\.bias, ctc_head\.weight, for which this model has no place; .*model\.drop: \[ctc_head\]"
    ):
        begin(recipe_file, f"model.init={ours}")
    started = begin(recipe_file, f"model.init={ours}", "model.drop=[ctc_head]")
    assert set(started.coverage.left) == {"ctc_head.bias", "ctc_head.weight"}
    assert "CTC head: 2 tensors" in started.coverage.said("x")["left behind"]
    with pytest.raises(CheckpointError, match=r"has no speech_input\.proj\.bias, speech_input\.proj\.weight; .*model\.fresh: \[speech_input\]"):
        begin(recipe_file, f"model.init={ours}", "model.speech_input={kind: mel-patch, patch: 8}", "model.drop=[speech_input]", *CTC)
    started = begin(recipe_file, f"model.init={ours}", "model.speech_input={kind: mel-patch, patch: 8}", "model.fresh=[speech_input]", *CTC)
    assert set(started.coverage.fresh) == {"speech_input.proj.bias", "speech_input.proj.weight"}
    anew = begin(recipe_file, f"model.init={ours}", "model.fresh=[ctc_head]", *CTC)
    assert anew.model.config.ctc_alphabet == "abc"
    copied = Path(shutil.copytree(ours, tmp_path / "encoder"))
    edit(copied, lambda tensors: tensors.update({"speech_input.encoders.0.weight": torch.zeros(2), "speech_input.encoders.1.weight": torch.zeros(2)}))
    with pytest.raises(CheckpointError, match=r"model\.drop: \[speech_input\.encoders\]"):
        begin(recipe_file, f"model.init={copied}", *CTC)
    said = begin(recipe_file, f"model.init={copied}", "model.drop=['speech_input.encoders']", *CTC).coverage.said("x")
    assert said["left behind"] == "speech input encoders: 2 tensors, 4"


def test_ours_with_other_features_or_another_shape(recipe_file, ours):
    with pytest.raises(ConfigError, match=r"data\.mel: the features differ"):
        begin(recipe_file, f"model.init={ours}", "data.mel=whisper-80", *CTC)
    with pytest.raises(CheckpointError, match=r"of another shape"):
        begin(recipe_file, f"model.init={ours}", "model.speech_input.channels=16", *CTC)
    assert begin(recipe_file, f"model.init={ours}", "data.mel=whisper-80", "model.fresh=[speech_input]", *CTC).coverage.fresh
    started = begin(recipe_file, f"model.init={ours}", "model.speech_attention=causal", "model.prompt=<|listen|><|speech|>", *CTC)
    assert started.decided["new speech attention"].startswith("'causal' where")
    assert started.decided["tokens"].startswith("<|listen|> added")
    assert begin(recipe_file, f"model.init={ours}", "model.speech_attention=null", *CTC).model.config.speech_attention == "bidirectional"


def test_adapters_of_ours_are_kept_merged_or_left(recipe_file, ours):
    kept = begin(recipe_file, f"model.init={ours}", *CTC).model.eval()
    merged = begin(recipe_file, f"model.init={ours}", "tune.llm=full", *CTC)
    ids = torch.arange(30)[None]
    with torch.no_grad():
        torch.testing.assert_close(merged.model.eval()(input_ids=ids).logits, kept(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    assert merged.model.config.lora is None
    assert "added to its weights" in merged.decided["LoRA"]
    with pytest.raises(ConfigError, match=r"has adapters with tune\.lora\.rank=4; say so too"):
        begin(recipe_file, f"model.init={ours}", "tune.lora.rank=8", *CTC)
    anew = begin(recipe_file, f"model.init={ours}", "tune.lora.rank=8", "model.fresh=[lora_]", *CTC)
    assert lora.lora_is_zero(anew.model)
    assert anew.model.config.lora["rank"] == 8


# --- what trains ---------------------------------------------------------------------------------------------------------------------------


def trained(run: Run) -> set[str]:
    return {name.replace(".base_layer.", ".") for name, parameter in run.model.named_parameters() if parameter.requires_grad}


def test_what_trains(recipe_file):
    nowhere = Path("nowhere")
    names = trained(run_of(recipe_file, nowhere))
    assert {name for name in names if not lora.is_lora(name)} == {name for name in names if name.startswith("speech_input.")}
    assert len([name for name in names if lora.is_lora(name)]) == 2 * 7 * 2
    frozen = run_of(recipe_file, nowhere, "tune.llm=frozen")
    assert trained(frozen) == {name for name in names if name.startswith("speech_input.")}
    assert "LLM layers none of" in frozen.decisions()["trains"]
    some = trained(run_of(recipe_file, nowhere, "tune.llm=full", r"tune.freeze=['layers\.0\.', 'embed_tokens']", "tune.keep=[input_layernorm]"))
    assert "llm.model.layers.0.input_layernorm.weight" in some
    assert not [name for name in some if ("layers.0." in name and "input_layernorm" not in name) or "embed_tokens" in name]
    assert "llm.model.layers.1.mlp.up_proj.weight" in some
    with pytest.raises(ConfigError, match="nothing is left to train"):
        run_of(recipe_file, nowhere, "tune.llm=frozen", "tune.freeze=[speech_input]")
    with pytest.raises(ConfigError, match=r"tune\.lora\.layers: 0-5 where the model has layers 0-1"):
        run_of(recipe_file, nowhere, "tune.lora.layers=0-5")
    with pytest.raises(ConfigError, match=r"is no list of layers"):
        run_of(recipe_file, nowhere, "tune.lora.layers=lower")
    with pytest.raises(ConfigError, match=r"matches no linear layer of the language model; there are down_proj"):
        run_of(recipe_file, nowhere, "tune.lora.targets=w1|w2")


def test_only_the_chosen_layers_adapters_change(recipe_file, tmp_path):
    run = run_of(recipe_file, tmp_path, "tune.lora.layers='0'", "train.steps=3")
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    run.trainer().train()
    changed = {name for name, tensor in run.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name for name in changed if name.startswith("llm.")} == {name for name in before if lora.is_lora(name) and "layers.0." in name}


def test_the_speech_side_has_a_learning_rate_of_its_own(recipe_file, tmp_path):
    run = run_of(recipe_file, tmp_path, "tune.llm=full", "tune.speech_lr=0.5", "train.weight_decay=0.1")
    optimizer = run.trainer().create_optimizer()
    names = {id(parameter): name for name, parameter in run.model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names.pop(id(parameter))
            assert group["lr"] == (5e-3 if name.startswith("llm.") else 0.5), name
            assert group["weight_decay"] == (0.0 if "norm" in name or name.endswith("bias") else 0.1), name
    assert not names


def test_a_resumed_finetuning_is_an_uninterrupted_one(recipe_file, tmp_path):
    settings = ["train.steps=6", "train.save_every=3", "tune.lora.dropout=0.1", "tune.speech_lr=1e-2"]
    recipe = recipes.load(str(recipe_file), settings)
    whole = train(recipe, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "checkpoint-3", tmp_path / "cut" / "checkpoints" / "checkpoint-3")
    cut = train(recipe, tmp_path / "cut", resume="auto")
    one, two = (load_file(result.folder / "model.safetensors") for result in (whole, cut))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(lora.is_lora(name) for name in one)


def test_adapters_that_learnt_nothing_are_no_result(recipe_file, tmp_path, capsys):
    recipe = recipes.load(str(recipe_file), ["train.steps=2", "tune.freeze=[lora_]"])
    with pytest.raises(CheckpointError, match="the adapters are zero after training"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    assert train(recipe, tmp_path / "smoke", smoke=1) is not None
    assert "warning: the adapters are zero" in capsys.readouterr().err


def test_a_dry_run_says_what_is_loaded_random_and_trained_and_what_it_takes(recipe_file, capsys):
    train(recipes.load(str(recipe_file)), Path("nowhere"), dry_run=True)
    lines = dict(line.strip().split("  ", 1) for line in capsys.readouterr().err.splitlines() if "  " in line.strip())
    assert "tensors" in lines["start"]
    assert lines["random"].strip().startswith("speech input: ")
    assert "LoRA: 28 tensors" in lines["random"]
    assert "speech input all" in lines["trains"]
    assert "LLM layers none of" in lines["trains"]
    assert "estimated" in lines["memory"]
    assert "<|speech|> added" in lines["tokens"]


# --- the command and what it refuses -------------------------------------------------------------------------------------------------------


@pytest.fixture
def melcli(capsys):
    def run(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        return int(stopped.value.code or 0), capsys.readouterr().err

    yield run
    console.set_level(console.NORMAL)


def test_the_command_takes_a_model(melcli, recipe_file, llms, tmp_path):
    code, err = melcli("finetune", recipe_file, "--from", llms["gpt_neox"], "train.steps=2", "-o", tmp_path / "run")
    assert code == 0, err
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["text_config"]["model_type"] == "gpt_neox"
    assert config["lora"]["rank"] == 4
    assert "read again: logits within" in err


def test_the_backbone_of_a_recipe_gives_way_to_the_model(melcli, recipe_file, ours, tmp_path):
    settings = ["model.backbone={model_type: llama, hidden_size: 8}", *CTC]
    (tmp_path / "scratch.yaml").write_text(f"extends: {recipe_file}\nmodel: {{init: null, backbone: {{model_type: llama, hidden_size: 8}}}}\n")
    code, err = melcli("finetune", tmp_path / "scratch.yaml", "--from", ours, *CTC, "--dry-run")
    assert code == 0, err
    code, err = melcli("finetune", tmp_path / "scratch.yaml", *settings)
    assert code == 2
    assert "give --from MODEL, or model.init in the recipe" in err


def bert(folder: Path) -> None:
    config = BertConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertForMaskedLM(config).save_pretrained(folder)
    byte_level(["<eos>"], "<eos>").save_pretrained(folder)


def pickled(folder: Path) -> None:
    torch.save({name: tensor for name, tensor in load_file(folder / "model.safetensors").items()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def set_config(**fields):
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def cut_short(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def peft_beside(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


BROKEN = {
    "BertForMaskedLM is no causal language model": bert,
    "pytorch_model.bin, a pickle, which is never opened": pickled,
    "transformers knows no model of type 'their_own'; code that a checkpoint brings along is never run": set_config(
        model_type="their_own", auto_map={"AutoModelForCausalLM": "theirs.py"}
    ),
    "its weights are quantised": set_config(quantization_config={"quant_method": "gptq"}),
    "the files of its tokenizer are missing|the tokenizer cannot be read": no_tokenizer,
    "cannot be loaded": cut_short,
    "holds an adapter (adapter_config.json)": peft_beside,
    "config.json: cannot be read": lambda folder: (folder / "config.json").write_text("{"),
    "the chat template of": lambda folder: (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}"),
}


@pytest.mark.parametrize("said", BROKEN)
def test_what_cannot_be_started_from_is_one_line(melcli, recipe_file, copy, said):
    BROKEN[said](copy)
    code, err = melcli("finetune", recipe_file, "--from", copy, "--quiet")
    assert code == 2
    assert err.count("\n") == 1, err
    assert any(one in err for one in said.split("|")), err


def test_models_that_are_not_there(melcli, recipe_file, tmp_path, monkeypatch):
    for name in (tmp_path / "gone", "no-such-model"):
        code, err = melcli("finetune", recipe_file, "--from", name, "--quiet")
        assert code == 2
        assert err.startswith(f"error: model.init {name}: no such folder or registered model")
    code, err = melcli("finetune", recipe_file, "--from", "nobody/nothing", "--offline", "--quiet")
    assert code == 2
    assert err == "error: model.init nobody/nothing: not a folder, and not on this machine, and offline nothing is downloaded\n"


def test_a_gated_model(melcli, recipe_file, monkeypatch):
    from huggingface_hub.errors import GatedRepoError

    def refuse(*_, **__):
        raise GatedRepoError("403", response=MagicMock())

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    code, err = melcli("finetune", recipe_file, "--from", "somebody/gated", "--quiet")
    assert code == 2
    assert err.startswith("error: model.init somebody/gated: gated: accept its terms")


def test_a_pair_that_is_none(melcli, recipe_file, copy):
    write(copy, byte_level(["<eos>"], "<eos>"), "qwen3", rows=100)
    code, err = melcli("finetune", recipe_file, "--from", copy, "--quiet")
    assert code == 2
    assert "entries and its embedding table 100 rows: not a pair" in err
