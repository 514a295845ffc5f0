"""Tasks with speech at both ends: trained, written, read again, asked; resumed bit for bit; and what a recipe may not say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from melcli import recipe as recipes
from melcli.audio import io
from melcli.errors import ConfigError
from melcli.models.replier import Replier
from melcli.train import train
from melcli.training.run import Run
from tests.training.tones import make_tones

RECIPE = """
name: replies
seed: 5
data:
  root: {root}
  mel: speecht5
  prompt_seconds: 0.4
  train:
    - {{source: tones.jsonl, task: continue}}
    - {{source: qa.jsonl, task: answer}}
    - {{source: tones.jsonl}}
    - {{source: tones.jsonl, task: tts}}
  eval:
    - {{source: "tones.jsonl?limit=8", task: continue}}
    - {{source: "qa.jsonl?limit=8", task: answer}}
  workers: 0
model:
  speech_input: {{kind: mel-patch, patch: 4, norm: global}}
  speech_output: {{kind: spectrogram, frames: 4, prenet: 16, hidden: 32, dropout: 0.5, weight: 1.0}}
  backbone: {{model_type: llama, hidden_size: 48, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 2, intermediate_size: 96}}
  ctc_weight: 0.5
  spoken_ctc_weight: 0.2
  ctc_units: characters
  tokenizer: {{vocab_size: 40}}
train:
  steps: 6
  tokens_per_batch: 512
  row_tokens: 128
  lr: 3.0e-3
  eval_every: 3
  save_every: 3
  log_every: 1
  log_to: []
"""


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("replies")
    make_tones(folder, 40)
    rows = []
    for number in range(24):
        row = {"audio": f"{number}.wav", "question": "low mid", "answer": "high", "duration": 0.25 * (1 + number % 4)}
        rows.append(row | ({"answer_audio": f"{4 * (number // 4)}.wav"} if number % 3 else {}))
    (folder / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "replies.yaml"
    path.write_text(RECIPE.format(root=folder))
    return path


def test_trained_resumed_read_again_and_asked(recipe_file, tmp_path):
    result = train(recipes.load(str(recipe_file)), tmp_path / "whole")
    sets = ("tones.jsonl?limit=8", "qa.jsonl?limit=8")
    assert result is not None and set(result.rates) == {f"{name} [{unit}]" for name in sets for unit in ("nats", "mel dB")}
    log = json.loads((tmp_path / "whole" / "checkpoints" / "checkpoint-6" / "trainer_state.json").read_text())["log_history"]
    steps = [entry for entry in log if "grad_norm" in entry]
    assert all(entry[name] != 0 for entry in steps for name in ("ce", "ctc", "mel", "feature", "time", "stop", "spoken_ctc"))
    assert {"eval_nats", "eval_mel_db"} <= set().union(*log)
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "checkpoint-3", tmp_path / "cut" / "checkpoints" / "checkpoint-3")
    shutil.copytree(tmp_path / "whole" / "tokenizer", tmp_path / "cut" / "tokenizer")
    train(recipes.load(str(recipe_file)), tmp_path / "cut", resume="auto")
    weights, again = (load_file(tmp_path / run / "checkpoints" / "checkpoint-6" / "model.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(weights[name], again[name]) for name in weights)

    replier = Replier.load(str(tmp_path / "whole"))
    assert replier.tasks == ("continue", "answer") and replier.prompt_seconds == 0.4 and replier.model.config.spoken_pace > 0
    waves = [io.load(recipe_file.parent / f"{number}.wav", 16000) for number in (2, 3, 7)]
    for task in replier.tasks:
        replies = replier.reply(waves, task, max_seconds=1.0)
        assert len(replies) == 3
        for reply in replies:
            assert reply.text_reason in ("eos", "length", "repetition")
            assert reply.spoken is None or reply.spoken.mel_TM.isfinite().all()


def test_begun_from_one_that_continues_it_learns_to_answer(recipe_file, tmp_path):
    train(recipes.load(str(recipe_file), ["train.steps=2", "data.train=[{source: tones.jsonl, task: continue}]", "data.eval=[]"]), tmp_path / "first")
    settings = ["train.steps=2", "data.train=[{source: qa.jsonl, task: answer}]", "data.eval=[]", f"model.init={tmp_path / 'first' / 'model'}"]
    settings += ["model.backbone=null", "model.prompts={answer: '<|speech|><|question|>?'}"]
    assert train(recipes.load(str(recipe_file), settings), tmp_path / "second") is not None
    replier = Replier.load(str(tmp_path / "second"))
    assert replier.tasks == ("continue", "answer")
    assert replier.model.config.prompts["answer"] == "<|speech|><|question|>?<|text|><|speak|>"
    assert replier.reply([io.load(recipe_file.parent / "3.wav", 16000)], "answer", max_seconds=0.5)


def test_without_a_speech_output_it_learns_to_reply_in_text(recipe_file, tmp_path):
    settings = ["train.steps=2", "data.train=[{source: qa.jsonl, task: answer}]", "model.speech_output=null", "model.spoken_ctc_weight=0"]
    result = train(recipes.load(str(recipe_file), [*settings, "data.eval=[{source: 'qa.jsonl?limit=8', task: answer}]"]), tmp_path / "run")
    assert result is not None and set(result.rates) == {"qa.jsonl?limit=8 [nats]"}
    assert not Replier.load(str(tmp_path / "run")).speaks


def test_rows_that_cannot_be_used_are_counted(recipe_file):
    run = Run(recipes.load(str(recipe_file)), Path("nowhere"))
    assert run.data.left_out == {"no longer than data.prompt_seconds 0.4": 10}  # a quarter of the tones holds one word
    assert "left out: 10 no longer than data.prompt_seconds 0.4" in run.decisions()["data"]
    assert run.data.said == 30 + 16 + 40
    items = run.dataset()[0]
    assert int((items["input_ids"] == run.model.config.spoken_token_id).sum()) == int((-(-items["spoken_lengths"] // 4)).sum())


def test_answers_of_which_nothing_is_left_are_no_answers(recipe_file):
    """Once the normaliser has been over them; the first of several accepted ones is learnt."""
    rows = [
        {"audio": "3.wav", "question": "low mid", "duration": 1.0, **more}
        for more in ({"answer": "?!"}, {"answers": ["High!", "low"]}, {"answer": "mid"})
    ]
    (recipe_file.parent / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = Run(
        recipes.load(str(recipe_file), ["data.train=[{source: odd.jsonl, task: answer}]", "data.eval=[{source: odd.jsonl, task: answer}]"]),
        Path("no"),
    )
    assert run.data.left_out == {"without an answer": 1}
    assert [u.extra["answer"] for u in run.data.features.utterances] == ["high", "mid"]


def test_lengths_are_those_of_the_plan(recipe_file):
    """Rows are packed by what they will hold, to a patch at either end."""
    run = Run(recipes.load(str(recipe_file)), Path("nowhere"))
    dataset = run.dataset()
    for step in range(3):
        _, rows = run.plan.locate(step)
        for row in rows:
            for place, index in enumerate(row):
                item = dataset._item(index, step, place)
                assert abs(len(item.example.input_ids) - run.plan.lengths[index]) <= 1


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("data.train=[{source: tones.jsonl, task: continu}]", "continue"),
        ("model.prompts={answer: 'what?'}", r"model.prompts.answer 'what\?' must hold <\|speech\|> once"),
        ("model.prompts={answer: chat}", "no chat template"),
        ("data.prompt_seconds=9", "no utterance that can be trained on"),
        ("data.eval=[{source: tones.jsonl, task: answer}]", "without an answer"),
    ],
)
def test_what_a_recipe_may_not_say(recipe_file, setting, complaint):
    settings = ["data.train=[{source: tones.jsonl, task: continue}]"] if "prompt_seconds" in setting else []
    with pytest.raises(ConfigError, match=complaint):
        run = Run(recipes.load(str(recipe_file), [*settings, setting]), Path("nowhere"))
        run.trainer()
