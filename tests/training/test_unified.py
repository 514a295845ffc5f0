"""TESU-LLM on tones that stand for words: a unified encoder learns from pairs, a language model from text alone, and then it hears."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from melcli import recipe as recipes
from melcli.audio.io import load
from melcli.branches import branches, others
from melcli.data.utterance import Utterance
from melcli.data.written import codes_of
from melcli.errors import CheckpointError, ConfigError
from melcli.inputs import AudioInput
from melcli.models import checkpoint, unified_encoder
from melcli.models.replier import Replier
from melcli.train import train
from melcli.train_unified import UnifiedRun, train_unified
from melcli.training.run import Run
from melcli.training.unified_loss import Contrast, Spelling, distance, recalls
from melcli.transcribe import Transcriber
from tests.training.tones import make_tones

ENCODER = """
name: tones-encoder
seed: 3
data:
  root: {root}
  train: [{{source: tones.jsonl}}]
  eval: [{{source: "tones.jsonl?limit=40"}}]
unified:
  vectors: 4
  width: 16
  hidden: 32
  heads: 2
  speech:
    input: {{kind: mel-patch, patch: 5, norm: utterance}}
    backbone: {{model_type: llama, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 2, intermediate_size: 64}}
  text:
    backbone: {{model_type: llama, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 2, intermediate_size: 64}}
train:
  steps: 100
  batch: 32
  warmup: 10
  lr: 5.0e-3
  align: 1.0
  spelling: 0.3
  spelling_rate: 6
  log_every: 20
  eval_every: 1000
  save_every: 60
  log_to: []
"""
TESU = """
name: tones-tesu
seed: 5
data:
  root: {root}
  task: repeat
  train: [{{source: texts.jsonl}}]
  eval:
    - {{source: "tones.jsonl?limit=30", task: asr}}
    - {{source: "tones.jsonl?limit=30"}}
  workers: 0
model:
  speech_input: {{kind: unified, encoder: {encoder}, tokens: 8, noise: 0.2}}
  backbone: {{model_type: llama, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 2, intermediate_size: 64}}
  speech_attention: bidirectional
  tokenizer: {{vocab_size: 32}}
train:
  steps: 150
  tokens_per_batch: 512
  row_tokens: 128
  lr: 1.0e-2
  warmup: 10
  eval_every: 150
  save_every: 150
  log_every: 50
  log_to: []
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Recordings of tones, their texts in a manifest whose recordings are not there, and both recipes."""
    folder = tmp_path_factory.mktemp("tones")
    make_tones(folder, 60)
    rows = [json.loads(line) for line in (folder / "tones.jsonl").read_text().splitlines()]
    written = [{"id": f"text-{i}", "audio": f"gone/{i}.wav", "text": row["text"], "answer": row["text"].split()[0]} for i, row in enumerate(rows)]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    (folder / "encoder.yaml").write_text(ENCODER.format(root=folder))
    (folder / "tesu.yaml").write_text(TESU.format(root=folder, encoder=folder / "encoder" / "model"))
    assert train_unified(recipes.load(str(folder / "encoder.yaml")), folder / "encoder") is not None
    return folder


@pytest.fixture(scope="module")
def tesu(folder) -> Path:
    """A language model that learnt to repeat, from text alone."""
    result = train(recipes.load(str(folder / "tesu.yaml")), folder / "tesu")
    assert result is not None
    return folder / "tesu"


def test_a_unified_encoder_finds_speech_by_text_and_back(folder):
    found = json.loads((folder / "encoder" / "model" / "evaluation.json").read_text())["tones.jsonl?limit=40"]
    assert found["speech to text @1"] > 80 and found["text to speech @1"] > 80, found
    encoder = unified_encoder.load(folder / "encoder" / "model")
    assert encoder.text_mean_VW.abs().sum() > 0 and encoder.speech_mean_VW.abs().sum() > 0
    assert "speech to text @5" in (folder / "encoder" / "model" / "README.md").read_text()
    assert recipes.load(str(folder / "encoder" / "model" / "recipe.yaml")) == recipes.load(str(folder / "encoder.yaml"))


def test_what_learnt_from_text_alone_repeats_speech(folder, tesu):
    """Far better than with the speech of others, and not much worse than from the text itself."""
    rates = json.loads((tesu / "model" / "evaluation.json").read_text())
    heard, read = rates["tones.jsonl?limit=30"], rates["tones.jsonl?limit=30 [repeat]"]
    found = branches([str(folder / "tones.jsonl?limit=30")], str(tesu), out=folder / "vectors").as_dict()["sets"]
    (one,) = found.values()
    assert one["fed"]["speech"]["wer"] == pytest.approx(heard, abs=4) and one["fed"]["text"]["wer"] == pytest.approx(read, abs=4)
    assert read <= heard < 35 < 60 < one["fed"]["shuffled speech"]["wer"], one
    assert one["retrieval"]["speech to text @1"] > 70
    assert one["cosines"]["pairs"] > one["cosines"]["others"] + 0.2
    assert {path.name for path in (folder / "vectors").iterdir()} == {"tones.jsonl-speech.safetensors", "tones.jsonl-text.safetensors"}


def test_transcribing_goes_through_the_speech_branch(folder, tesu):
    """The ordinary way of audio to text, on words that are easy to tell apart."""
    rows = [json.loads(line) for line in (folder / "tones.jsonl").read_text().splitlines()][:20]
    items = [AudioInput(str(i), Utterance(str(i), (str(folder / row["audio"]),))) for i, row in enumerate(rows)]
    texts = {one.name: one.text for one in Transcriber.load(str(tesu), dtype="float32").transcribe(items)}
    assert sum(texts[str(i)] == row["text"] for i, row in enumerate(rows)) > 10


def test_training_opens_no_audio(folder, tmp_path, monkeypatch):
    """Neither to read it nor for its header; every way to a recording fails here."""

    def opened(*arguments, **options):
        raise AssertionError(f"audio was opened: {arguments}")

    for name in ("melcli.audio.io.load", "melcli.audio.io.probe", "melcli.data.load.load_part", "melcli.data.durations.probe_utterance"):
        monkeypatch.setattr(name, opened)
    import soundfile

    monkeypatch.setattr(soundfile, "SoundFile", opened)
    short = ["train.steps=3", "train.eval_every=3", "train.save_every=3", "data.eval=[{source: texts.jsonl, task: repeat}]"]
    for task in ("repeat", "instruct"):
        settings = [*short, f"data.task={task}", "data.train=[{source: texts.jsonl}, {source: tones.jsonl}]" if task == "repeat" else "seed=6"]
        assert train(recipes.load(str(folder / "tesu.yaml"), settings), tmp_path / task) is not None
    with pytest.raises(AssertionError, match="audio was opened"):
        train(recipes.load(str(folder / "tesu.yaml"), [*short, "data.task=asr", "data.train=[{source: tones.jsonl}]"]), tmp_path / "asr")


def test_the_frozen_parts_stay_as_they_are(folder, tesu, tmp_path):
    """With tune.llm frozen the projector alone learns; the encoder never does, unless tune.keep names it."""
    again = [f"model.init={tesu / 'model'}", "model.backbone=null", "model.fresh=[speech_input]", "tune.llm=frozen", "train.steps=3"]
    recipe = recipes.load(str(folder / "tesu.yaml"), [*again, "data.eval=[]"])
    assert train(recipe, tmp_path / "run") is not None
    before, after = (load_file(place / "model" / "model.safetensors") for place in (tesu, tmp_path / "run"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"speech_input.{name}" for name in ("up_proj.weight", "up_proj.bias", "places_VH", "down_proj.weight", "down_proj.bias")}
    kept = recipes.load(str(folder / "tesu.yaml"), [*again, "tune.keep=[speech_input.encoder.characters]"])
    trained = {name for name, p in Run(kept, tmp_path / "kept").model.named_parameters() if p.requires_grad}
    assert "speech_input.encoder.characters.weight" in trained and "speech_input.encoder.trunk.layers.norm.weight" not in trained


def test_instruct_learns_the_answer_and_gives_it_to_a_spoken_question(folder, tmp_path):
    """Asked with three tones, it says the first: learnt from written questions, beside repeating."""
    both = "data.train=[{source: texts.jsonl, task: instruct}, {source: texts.jsonl}]"
    evaluated = "data.eval=[{source: texts.jsonl, task: instruct}]"
    longer = ["train.steps=260", "train.eval_every=260", "train.save_every=260"]
    result = train(recipes.load(str(folder / "tesu.yaml"), [both, evaluated, *longer]), tmp_path / "run")
    assert result is not None and result.rates["texts.jsonl [instruct]"] < 20
    replier = Replier.load(str(tmp_path / "run"), dtype="float32")
    rows = [json.loads(line) for line in (folder / "tones.jsonl").read_text().splitlines()][:20]
    replies = replier.reply([load(folder / row["audio"], 16000) for row in rows], "answer")
    right = [reply.said == row["text"].split()[0] for reply, row in zip(replies, rows, strict=True)]
    assert sum(right) > 14 and replier.tasks == ("answer",)
    heard = [reply.heard == row["text"] for reply, row in zip(replies, rows, strict=True)]
    assert sum(heard) > 8, replies
    read = replier.reply([codes_of(row["text"]) for row in rows], "answer")
    assert sum(reply.said == row["text"].split()[0] for reply, row in zip(read, rows, strict=True)) > 16
    assert [event.kind for event in replier.stream(codes_of("low mid"), "answer")] == ["heard", "said"]
    run = Run(recipes.load(str(folder / "tesu.yaml"), ["data.task=instruct", "data.eval=[]"]), tmp_path / "unused")
    features = run.data.features
    assert features.sources[0].heard[3] != features.utterances[3].text == features.sources[0].heard[3].split()[0]
    batch = run.dataset()[0]
    assert not batch["speech"].is_floating_point() and batch["speech"].shape[1] == 1
    assert (batch["input_ids"] == run.model.config.speech_token_id).sum() == 8 * len(batch["speech_lengths"])


def test_vectors_of_another_encoder(folder, tesu, tmp_path):
    """Those that `branches` wrote, as if they were SONAR's: trained on text's, heard with speech's."""
    branches([str(folder / "tones.jsonl")], str(folder / "encoder"), out=tmp_path)
    text, speech = tmp_path / "tones.jsonl-text.safetensors", tmp_path / "tones.jsonl-speech.safetensors"
    source = f"source: tones.jsonl, vectors: {text}"
    settings = ["model.speech_input={kind: unified, size: 16, vectors: 4, tokens: 8, noise: 0.2}", f"data.train=[{{{source}}}]"]
    evaluated = f"data.eval=[{{source: tones.jsonl, task: asr, vectors: {speech}}}]"
    result = train(recipes.load(str(folder / "tesu.yaml"), [*settings, evaluated]), tmp_path / "run")
    assert result is not None and result.rates["tones.jsonl"] < 40
    found = branches([str(folder / "tones.jsonl")], str(tmp_path / "run"), vectors={"speech": speech, "text": text}).as_dict()["sets"]
    (one,) = found.values()
    assert one["fed"]["speech"]["wer"] == pytest.approx(result.rates["tones.jsonl"], abs=5)
    assert one["fed"]["shuffled speech"]["wer"] > 60

    def refused(*settings: str) -> str:
        with pytest.raises(ConfigError) as caught:
            Run(recipes.load(str(folder / "tesu.yaml"), list(settings)), tmp_path / "x")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "and the model reads 4 x 12" in refused("model.speech_input={kind: unified, size: 12, vectors: 4}", settings[1])
    assert "60 of 60 ids are missing" in refused(settings[0], f"data.train=[{{source: texts.jsonl, vectors: {text}}}]")
    assert "needs vectors: FILE" in refused(settings[0])
    assert "makes its own: leave them out" in refused(settings[1])
    assert "task repeat reads texts, which have no seconds" in refused("train.curriculum={epochs: 1}")
    assert "is for model.speech_input unified" in refused("model.speech_input={kind: mel-patch}")
    assert "one training has one of them" in refused("data.train=[{source: texts.jsonl}, {source: tones.jsonl, task: asr}]")


def test_a_resumed_training_of_an_encoder_is_an_uninterrupted_one(folder, tmp_path):
    recipe = recipes.load(str(folder / "encoder.yaml"), ["train.steps=12", "train.save_every=5", "data.eval=[]"])
    assert train_unified(recipe, tmp_path / "whole") is not None
    assert train_unified(recipe, tmp_path / "cut", smoke=7) is not None
    with pytest.raises(ConfigError, match="holds a run already: add --resume auto"):
        train_unified(recipe, tmp_path / "cut")
    with pytest.raises(CheckpointError, match="--resume nowhere: no checkpoint of a unified encoder's training there"):
        train_unified(recipe, tmp_path / "cut", resume="nowhere")
    assert train_unified(recipe, tmp_path / "cut", resume="auto") is not None
    one, two = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_sigterm_saves_and_stops(folder, tmp_path, monkeypatch, capsys):
    learn = UnifiedRun.learn

    def learning(run, pairs):
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(run, pairs)

    monkeypatch.setattr(UnifiedRun, "learn", learning)
    assert train_unified(recipes.load(str(folder / "encoder.yaml")), tmp_path / "run") is None
    assert "stopped at step 3 of 100; continue with --resume auto" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-3" / "complete").exists()


@pytest.mark.parametrize("ctc_from", ["backbone", "speech-input"])
def test_a_speech_branch_begins_with_a_model_of_ours(ctc_from, folder, tmp_path):
    """Its states are those that the model's own CTC head reads at speech positions, the latter of one size each; frozen they stay."""
    theirs, processor = checkpoint.load("tiny-en", dtype=torch.float32)
    theirs.config.ctc_from = ctc_from
    checkpoint.save(tmp_path / "ours", theirs, processor)
    settings = [
        f"unified.speech={{init: {tmp_path / 'ours'}, frozen: true}}",
        "train.steps=2",
        "train.batch=4",
        "data.train=[{source: 'tones.jsonl?limit=6'}]",
    ]
    recipe = recipes.load(str(folder / "encoder.yaml"), settings)
    run = UnifiedRun(recipe, tmp_path / "run")
    model, processor = checkpoint.load(str(tmp_path / "ours"), dtype=torch.float32)
    inputs = processor([0.1 * torch.randn(12000)])
    with torch.no_grad():
        x_PH, _ = model.speech_input(inputs["speech"], inputs["speech_lengths"])
        mask = torch.ones(1, 1, len(x_PH), len(x_PH), dtype=torch.bool)
        own = model.llm.get_decoder()(inputs_embeds=x_PH[None], attention_mask=mask).last_hidden_state[0]
        own = own if ctc_from == "backbone" else torch.nn.functional.rms_norm(x_PH, x_PH.shape[1:], eps=1e-6)
        run.encoder.eval()  # its speech input leaves channels out in training
        assert torch.allclose(own, run.encoder.states(inputs["speech"], inputs["speech_lengths"])[0], atol=1e-4)
    result = train_unified(recipe, tmp_path / "run")
    assert result is not None
    written = load_file(result.folder / "model.safetensors")
    if ctc_from == "backbone":
        assert torch.equal(written["trunk.layers.layers.3.mlp.up_proj.weight"], model.llm.model.layers[3].mlp.up_proj.weight)
    else:
        assert torch.equal(written["front.out.weight"], model.speech_input.out.weight)


@torch.no_grad()
def test_losses():
    """A pair apart costs, with the same text it does not; distances and spelling are what they say."""
    z_B1W, own = torch.eye(4)[:, None], torch.eye(4, dtype=torch.bool)
    contrast, swapped = Contrast(0.01), z_B1W[[1, 0, 2, 3]]
    same = own.clone()
    same[:2, :2] = True
    assert contrast(z_B1W, z_B1W, own) < 1e-6
    assert contrast(z_B1W, swapped, same) < 1e-6 < 10 < contrast(z_B1W, swapped, own)
    assert distance(z_B1W, z_B1W) < 1e-6 and distance(z_B1W, -z_B1W) == pytest.approx(2)
    spelling, vectors = Spelling(5, 4, 3), torch.randn(2, 2, 5)
    logs = spelling.head(5**0.5 * torch.nn.functional.normalize(vectors, dim=-1)).reshape(2, 6, 4).log_softmax(-1)
    texts = ([1, 2], [3])
    alone = [float(torch.nn.functional.ctc_loss(log, torch.tensor(t), (6,), (len(t),), reduction="sum")) for log, t in zip(logs, texts, strict=True)]
    assert float(spelling(vectors, [[1, 2], [3]])) == pytest.approx(sum(alone) / 3, rel=1e-5)
    assert float(spelling(vectors, [[1, 2], [3] * 7])) == pytest.approx(alone[0] / 9, rel=1e-5)


def test_recall_counts_every_utterance_of_a_text():
    speech = torch.eye(4)[[0, 0, 1, 2]][:, None]
    text = torch.stack([*torch.eye(4)[[0, 0, 1]], -torch.eye(4)[2]])[:, None]
    found = recalls(speech, text, ["a", "a", "b", "c"], (1, 3))
    assert found == {"speech to text @1": 75.0, "speech to text @3": 100.0, "text to speech @1": 66.67, "text to speech @3": 66.67}


def test_others_are_of_other_words():
    texts = ["a", "a", "b", "b", "c"] * 5
    assert all(texts[other] != text for text, other in zip(texts, others(texts), strict=True))
    assert others(["a", "a"]) == [1, 0]


def test_recipes_of_encoders_that_cannot_be_are_one_line(folder, tmp_path):
    def refused(*settings: str) -> str:
        with pytest.raises(ConfigError) as caught:
            UnifiedRun(recipes.load(str(folder / "encoder.yaml"), list(settings)), tmp_path / "x")
        return str(caught.value)

    assert "speech needs either init" in refused("unified.speech.init=tiny-en")
    assert "speech.frozen is for a branch that begins from a model" in refused("unified.speech.frozen=true")
    assert "heads 5 does not divide hidden 32" in refused("unified.heads=5")
    assert "data.spec_augment: the states of a frozen branch" in refused(
        "unified.speech={init: tiny-en, frozen: true}", "data.spec_augment={frequency_masks: 1}"
    )
    assert "model_type: 'lama' is no model of transformers" in refused("unified.text.backbone.model_type=lama")
    assert "unified.text.backbone.hiden_size is unknown for llama" in refused("unified.text.backbone.hiden_size=3")
    assert "fewer than two pairs" in refused("data.max_seconds=0.15")
