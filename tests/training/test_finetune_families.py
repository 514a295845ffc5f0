"""Starting from language models of eight families in their own format: it reads, is asked and stops as they do, trains, is kept and transcribes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from melcli.data.utterance import Utterance
from melcli.errors import CheckpointError, ConfigError
from melcli.inputs import AudioInput
from melcli.models import checkpoint, lora
from melcli.training.finish import finish
from melcli.training.verify import one_batch
from melcli.transcribe import Transcriber
from tests.training.llm_makers import FAMILIES, byte_level
from tests.training.tuned import begin, run_of

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


def losses(out: Path) -> list[float]:
    states = sorted((out / "checkpoints").glob("checkpoint-*/trainer_state.json"), key=lambda path: int(path.parent.name.rpartition("-")[2]))
    return [entry["loss"] for entry in json.loads(states[-1].read_text())["log_history"] if "grad_norm" in entry]


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
