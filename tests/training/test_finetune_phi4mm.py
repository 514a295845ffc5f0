"""Starting from Phi-4-multimodal: what a recipe says of its speech LoRA and of its front end, to the last of what it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from melcli import recipe as recipes
from melcli.data.utterance import Utterance
from melcli.errors import CheckpointError, ConfigError
from melcli.inputs import AudioInput
from melcli.models import checkpoint, lora
from melcli.models.phi4mm import PROMPT, load_phi4mm
from melcli.models.start import identify, start
from melcli.training.finish import finish
from melcli.training.run import Run
from melcli.training.verify import one_batch
from melcli.transcribe import Transcriber
from tests.models import phi4mm_makers as phi
from tests.training.tones import make_tones

pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
RECIPE = """
name: phi
seed: 5
data:
  root: {root}
  train:
    - {{source: tones.jsonl}}
  text: none
  workers: 0
model:
  speech_input: {{kind: mel-conv}}
tune:
  llm: lora
  lora: {{rank: 4, alpha: 8, targets: down_proj|gate_up_proj|o_proj|qkv_proj}}
train:
  steps: 12
  tokens_per_batch: 512
  row_tokens: 128
  lr: 1.0e-2
  warmup: 1
  schedule: constant
  save_every: 12
  log_every: 1
  log_to: []
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A recipe, recordings, and one model in both layouts."""
    folder = tmp_path_factory.mktemp("phi")
    make_tones(folder, 24)
    (folder / "phi.yaml").write_text(RECIPE.format(root=folder))
    model = phi.native_model(blocks=1)
    phi.write_remote(folder / "remote", model)
    phi.write_native(folder / "native", model)
    return folder


def recipe_of(place: Path, layout: str, *settings: str):
    return recipes.load(str(place / "phi.yaml"), [f"model.init={place / layout}", *settings])


def begin(place: Path, layout: str, *settings: str):
    recipe = recipe_of(place, layout, *settings)
    return start(identify(recipe.model.init), recipe, None)


def same(one, two) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return set(first) == set(second) and all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


@pytest.mark.parametrize("layout", ["remote", "native"])
def test_a_recipe_begins_with_what_was_loaded(place, layout):
    live = begin(place, layout)
    wanted, _, coverage = load_phi4mm(place / layout)
    assert same(live.model, wanted) and live.coverage.left == coverage.left
    assert live.coverage.totals(live.coverage.left)["conformer"][0] > 30 and not live.coverage.fresh
    ids = ("prompt", "speech_token_id", "stop_token_ids", "end_token_ids", "pad_token_id", "speech_input", "lora", "mel")
    mine, theirs = live.model.config.to_dict(), wanted.config.to_dict()
    assert {name: mine[name] for name in ids if name != "lora"} == {name: theirs[name] for name in ids if name != "lora"}
    assert mine["prompt"] == PROMPT and mine["lora"]["alpha"] == 8
    merged = begin(place, layout, "tune.llm=frozen")
    assert same(merged.model, load_phi4mm(place / layout, merge=True)[0]) and merged.model.config.lora is None


@pytest.mark.parametrize(("layout", "settings"), [("remote", []), ("native", ["tune.llm=full", "train.lr=3e-3"])])
def test_it_trains_is_kept_and_transcribes(place, layout, settings, tmp_path):
    run = Run(recipe_of(place, layout, *settings), tmp_path)
    trainer = run.trainer()
    trainer.train()
    found = [entry["loss"] for entry in trainer.state.log_history if "grad_norm" in entry]
    assert len(found) == 12 and sum(found[-3:]) < 0.9 * sum(found[:3])
    result = finish(run, trainer)
    again, processor = checkpoint.load(str(result.folder), dtype=torch.float32)
    batch = one_batch(run.data.features, run.encoders, run.text_ids, run.processor)
    assert batch["input_ids"][0, -2:].tolist() == [phi.END, phi.ENDOFTEXT] and processor.end_token_ids == [phi.END, phi.ENDOFTEXT]
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).logits, run.model.eval()(**batch).logits, rtol=1e-4, atol=1e-4)
    assert (again.config.lora is not None) == (not settings)
    audio = str(place / "1.wav")
    (heard,) = Transcriber.load(str(tmp_path), device="cpu", dtype="float32").transcribe([AudioInput("1.wav", Utterance("1", (audio,)))])
    assert heard.error is None and "<|" not in heard.text


def test_a_new_adapter_and_a_new_front_end(place):
    """Mel-LLM's random LoRA, and a front end that Phi never had."""
    started = begin(place, "remote", "model.fresh=[lora_]", "tune.lora.rank=6")
    assert started.model.config.lora["rank"] == 6 and lora.lora_is_zero(started.model)
    assert started.coverage.totals(started.coverage.fresh) == {
        "LoRA": (16, sum(p.numel() for n, p in started.model.named_parameters() if lora.is_lora(n)))
    }
    other = "model.speech_input={kind: mel-patch, patch: 8}"
    with pytest.raises(CheckpointError, match=r"speech_input.*model\.fresh: \[speech_input\]"):
        begin(place, "remote", other)
    started = begin(place, "remote", other, "model.fresh=[speech_input]")
    assert started.coverage.totals(started.coverage.fresh) == {"speech input": (2, 8 * 80 * 64 + 64)}


def test_an_adapter_that_the_recipe_describes_otherwise(place):
    with pytest.raises(ConfigError, match=r"adapters .*tune\.lora\.rank=4"):
        begin(place, "native", "tune.lora.rank=16")
