"""Training with voice prompts: the same sequence as when speaking, in no loss, of the same speaker, counted by the plan, resumed bit for bit."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from melcli import recipe as recipes
from melcli.audio.mel_spec import preset
from melcli.data.collate import Item, pack
from melcli.data.utterance import Utterance
from melcli.data.voice_prompts import NONE, VoicePrompts
from melcli.errors import ConfigError
from melcli.featurize import featurize
from melcli.models.noise import Still
from melcli.models.speaker import Speaker, VoicePrompt
from melcli.models.speaking import speak
from melcli.train import train
from melcli.training.run import Run
from tests.models.conftest import OUTPUTS, TEXTS, make_speaker
from tests.training.tones import make_tones

RECIPE = """
name: voices
seed: 5
data:
  root: {root}
  mel: speecht5
  train:
    - {{source: spoken.jsonl, task: tts}}
    - {{source: tones.jsonl}}
  voice_prompts: {{share: 0.7, seconds: [0.3, 0.6], told: 0.5}}
  workers: 0
model:
  speech_input: {{kind: mel-patch, patch: 4, norm: global}}
  speech_output: {{kind: vae, frames: 4, prenet: 32, hidden: 32, postnet: 16, postnet_layers: 2, kl_after: 2, stop_positive: 5}}
  backbone: {{model_type: llama, hidden_size: 48, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 2, intermediate_size: 96}}
  text_positions: spread
  ctc_weight: 0.5
  spoken_ctc_weight: 0.2
  ctc_units: characters
  tokenizer: {{units: characters}}
train:
  steps: 6
  tokens_per_batch: 512
  row_tokens: 128
  lr: 3.0e-3
  save_every: 3
  log_every: 1
  log_to: []
"""
TTS = ["data.train=[{source: spoken.jsonl, task: tts}]", "model.speech_input={kind: none}", "model.ctc_weight=0"]
SPEC = preset("speecht5")


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory) -> Path:
    """Tones of four speakers; a tenth of the recordings are nobody's, and one is the only one of its speaker."""
    folder = tmp_path_factory.mktemp("voices")
    make_tones(folder)
    rows = [json.loads(line) for line in (folder / "tones.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row |= {"speaker": "alone" if number == 7 else f"s{number % 3 + number // 30}"} if number % 10 else {}
    (folder / "spoken.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "voices.yaml"
    path.write_text(RECIPE.format(root=folder))
    return path


def run_of(recipe_file, *settings) -> Run:
    return Run(recipes.load(str(recipe_file), list(settings)), Path("nowhere"))


def drawn_items(run: Run, batches: int):
    """(utterance, epoch, item) of the first batches of a training."""
    dataset = run.dataset()
    for step in range(batches):
        epoch, rows = run.plan.locate(step)
        places = [index for row in rows for index in row]
        for place, index in enumerate(places, 1):
            yield index, epoch, dataset._item(index, step, place)


# --- who prompts whom ----------------------------------------------------------------------------------------------------------------------


def make(speakers, frames, **changes) -> VoicePrompts:
    options = {"share": 0.5, "told": 0.5, "least": 60, "most": 250, "fingerprint": "abc", "seed": 3, **changes}
    return VoicePrompts(speakers, frames, [7] * len(frames), 5, **options)


def test_another_utterance_of_the_same_speaker_that_fits():
    rng = np.random.default_rng(1)
    speakers = [None if n < 0 else ("source", n) for n in rng.integers(-1, 40, 4000).tolist()]
    frames = rng.integers(10, 900, 4000)
    prompts = make(speakers, frames)
    for epoch in range(3):
        draw = prompts.draw(epoch)
        with_N = np.flatnonzero(draw.voice_N != NONE)
        assert all(speakers[i] == speakers[draw.voice_N[i]] is not None and draw.voice_N[i] != i for i in with_N)
        assert abs(len(with_N) / sum(who is not None for who in speakers) - 0.5) < 0.03
        assert abs(draw.told_N[with_N].mean() - 0.5) < 0.03 and not draw.told_N[draw.voice_N == NONE].any()
        there, taken, told = frames[draw.voice_N[with_N]], draw.frames_N[with_N], draw.told_N[with_N]
        assert (taken[told] == there[told]).all() and (taken <= there).all()
        assert taken.min() == 60 and taken.max() == 250 and not draw.frames_N[draw.voice_N == NONE].any()
        assert (prompts.positions(epoch)[with_N] == -(-taken // 5) + 8 * told).all()
    partners = {int(prompts.draw(epoch).voice_N[with_N[0]]) for epoch in range(60)}
    assert len(partners) > 20


def test_draws_are_a_pure_function():
    speakers, frames = ["a"] * 50, list(range(60, 110))
    one, two = make(speakers, frames), pickle.loads(pickle.dumps(make(speakers, frames)))  # as a process of the loader gets it
    two.draw(0)
    same = [one.draw(4), two.draw(4)]
    assert all(np.array_equal(getattr(same[0], name), getattr(same[1], name)) for name in ("voice_N", "told_N", "frames_N"))
    for other in (one.draw(5), make(speakers, frames, seed=4).draw(4), make(speakers, frames, fingerprint="abd").draw(4)):
        assert not np.array_equal(other.voice_N, same[0].voice_N)


def test_two_utterances_prompt_each_other_and_one_alone_has_none():
    prompts = make(["a", "b", "a", "c", "c", "d", "d", None], [100, 100, 100, 30, 100, 300, 400, 100], share=1.0, told=1.0)
    draw = prompts.draw(0)
    assert draw.voice_N.tolist() == [2, NONE, 0, 4, NONE, 6, 5, NONE]  # the only other one of c is too short
    assert draw.told_N.tolist() == [True, False, True, True, False, False, False, False]  # and those of d too long to be told
    assert prompts.able_N.tolist() == [True, False, True, True, False, True, True, False]


# --- the same sequence ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [["model.speech_output.dropout=0"], ["model.text_positions=plain", "data.trim_silence={below: 30, keep: 0.02}", "lexicon"]]
)
def test_a_training_example_is_what_speaking_builds(recipe_file, tmp_path, settings):
    if "lexicon" in settings:
        (tmp_path / "sounds.txt").write_text("low\tləʊ\nmid\tmɪd\n", encoding="utf-8")
        settings = [*settings[:-1], f"model.lexicon={{from: {tmp_path / 'sounds.txt'}, spelled: 0}}"]
    run = run_of(recipe_file, *settings, *TTS, "data.voice_prompts={share: 1, seconds: [0.5, 1.1]}")
    speaker, utterances, kinds = Speaker(run.model, run.processor), run.data.features.utterances, []
    speaker.model.config.max_seconds = 20.0
    for index, epoch, item in drawn_items(run, 4):
        draw = run.voices.draw(epoch)
        other = int(draw.voice_N[index])
        assert (item.voice_TM is None) == (other == NONE)
        if item.voice_TM is None or len(item.voice_TM) < 0.5 * SPEC.frame_rate:
            continue
        whole_TM, told = run.data.features.get(other, None), bool(draw.told_N[index])
        pieces = [whole_TM] if told else whole_TM.unfold(0, len(item.voice_TM), 1).transpose(1, 2)
        assert any(torch.equal(piece, item.voice_TM) for piece in pieces)
        voice = VoicePrompt(item.voice_TM, utterances[other].text if told else None)
        prompt = speaker._prompt(utterances[index].text, voice, 0, None).example
        size = len(prompt.input_ids)
        assert item.example.input_ids[:size] == prompt.input_ids
        assert set(item.example.input_ids[size:]) == {run.model.config.spoken_token_id}
        assert len(item.example.input_ids) - size == run.processor.steps(len(item.spoken_TM))
        if run.model.config.text_positions == "spread":
            assert item.example.positions[:size] == prompt.positions
            assert prompt.positions[0] == 1 + (0 if told else run.processor.steps(len(item.voice_TM))), "after <|speak|>, and an untold voice"
            following = prompt.positions[-1] + 1
            assert item.example.positions[size:] == list(range(following, following + len(item.example.positions) - size))
        own = run.encoders[index]._ctc_ids(utterances[index], run.text_ids[index])[1]
        assert item.example.spoken_ctc_ids == own and own
        batch = pack([[item]], 0)
        names = ("input_ids", "speech", "speech_lengths", "spoken", "spoken_lengths")
        taught = run.model.embed(*(batch.get(name) for name in names), Still(), batch["voice"], batch["voice_lengths"])[0][0]
        ids, length = torch.tensor([prompt.input_ids]), torch.tensor([len(item.voice_TM)])
        spoken = run.model.embed(ids, None, None, item.voice_TM.float(), length, Still())[0][0]
        torch.testing.assert_close(taught[:size], spoken)
        kinds.append(told)
    assert kinds.count(True) > 4 and kinds.count(False) > 4


def test_words_that_stay_in_letters_stay_so_where_they_are_told(recipe_file, tmp_path):
    (tmp_path / "sounds.txt").write_text("low\tləʊ\nmid\tmɪd\nhigh\thaɪ\n", encoding="utf-8")
    run = run_of(recipe_file, f"model.lexicon={{from: {tmp_path / 'sounds.txt'}, spelled: 0.5}}", "data.voice_prompts.told=1", *TTS)
    space, seen = run.tokenizer(" ", add_special_tokens=False)["input_ids"], 0
    assert run.encoders[0].spelled == 0.5
    for index, epoch, item in drawn_items(run, 2):
        if item.voice_TM is not None and run.voices.draw(epoch).told_N[index]:
            other = int(run.voices.draw(epoch).voice_N[index])
            both = [*run.text_ids[other], *space, *run.text_ids[index]]
            assert item.example.input_ids[: len(both)] == both
            seen += 1
    assert seen > 4


@pytest.mark.parametrize("told", [True, False])
def test_taught_is_step_by_step(told):
    """The patches of a free run after a voice, given to the model as teaching gives them, are predicted as they were said."""
    model, processor = make_speaker({**OUTPUTS["vae"], "dropout": 0.0}, mel=SPEC.model_dump(), text_positions="spread")
    with torch.no_grad():
        model.speech_output.stop.weight.zero_()
        model.speech_output.stop.bias.fill_(-60.0)
    one, voice_TM = Speaker(model, processor), 0.7 * torch.randn(40, 80) - 2.0
    *_, (track,) = speak(model, [one._prompt(TEXTS[3], VoicePrompt(voice_TM, TEXTS[0] if told else None), 5, None)], 0.0)
    output, said = model.speech_output, torch.stack(track.patches)
    other, own = Utterance("", (), TEXTS[0]), Utterance("", (), TEXTS[3])
    example = one.encoder.prompted(own, len(said), one.encoder.texts([own])[0], processor.steps(40), other if told else None)
    batch = pack([[Item(example, None, output.frames(said), voice_TM)]], 0)
    names = ("input_ids", "documents", "position_ids", "spoken", "spoken_lengths", "voice", "voice_lengths")
    with torch.no_grad():
        states_SD = model(**{name: batch[name] for name in names}).states
        again = output.say(states_SD[:-1], Still(), 0.0).patch_NX
    assert len(said) > 8 and len(states_SD) == len(said) + 1
    torch.testing.assert_close(again, said, atol=2e-3, rtol=1e-3)


# --- no loss -------------------------------------------------------------------------------------------------------------------------------


def items_of(processor) -> list[Item]:
    """Items that are said without a voice, after one that is told, and after one that is not; frames are no multiple of a patch's."""
    encoder, generator, found = processor.encoder("tts"), torch.Generator().manual_seed(3), []
    for text, frames, voice, told in ((0, 20, 0, None), (1, 25, 31, 2), (3, 16, 11, None)):
        mel_TM, voice_TM = (0.7 * torch.randn(n, 80, generator=generator) - 2 for n in (frames, voice))
        utterance = Utterance("", (), TEXTS[text])
        ids, other = encoder.texts([utterance])[0], None if told is None else Utterance("", (), TEXTS[told])
        example = encoder.prompted(utterance, processor.steps(frames), ids, processor.steps(voice), other)
        found.append(Item(example, None, mel_TM, voice_TM if voice else None))
    return found


@pytest.mark.parametrize("kind", OUTPUTS)
def test_nothing_is_learnt_from_a_prompt(kind):
    """With a pre-net that is blind, frames count as targets alone."""
    model, processor = make_speaker(OUTPUTS[kind], spoken_ctc_weight=0.5)
    with torch.no_grad():
        model.speech_output.prenet.out.weight.zero_()
    batch = pack([items_of(processor)], 0)
    assert batch["voice_lengths"].tolist() == [0, 31, 11]
    plain = {name: tensor for name, tensor in batch.items() if not name.startswith("voice")}
    assert model.targets(batch) == model.targets(plain) and model.targets(batch)["frames"] == 61
    voice, spoken = batch["voice"].requires_grad_(), batch["spoken"].requires_grad_()
    out = model(**batch)
    assert set(out.parts) == {"ce", *model.speech_output.parts, "spoken_ctc"} and len(out.states) == 3 + 7 + 9 + 6
    out.loss.backward()
    assert (voice.grad is None or not voice.grad.any()) and spoken.grad.abs().sum(-1).all()
    with torch.no_grad():
        other = model(**{**batch, "voice": batch["voice"] + 5}).parts
        changed = {**batch, "spoken": torch.cat([batch["spoken"][:20], batch["spoken"][20:] + 5])}
        moved = model(**changed).parts
    assert all(torch.equal(other[name], out.parts[name]) for name in out.parts)
    assert (moved["mel"] - out.parts["mel"]).abs() > 0.1


def test_a_prompt_is_read():
    model, processor = make_speaker()
    batch = pack([items_of(processor)], 0)
    with torch.no_grad():
        before, after = (model(**{**batch, "voice": batch["voice"] + shift}).states for shift in (0, 2))
    assert torch.equal(before[:8], after[:8]) and (before[8:] - after[8:]).abs().amin(0).max() > 1e-3


@pytest.mark.parametrize("kind", OUTPUTS)
def test_losses_of_a_packed_batch_are_those_of_its_parts(kind):
    model, processor = make_speaker(OUTPUTS[kind], spoken_ctc_weight=0.5, ctc_weight=0.5)
    heard = torch.randn(40, 80)
    asr = processor.encoder("asr")
    utterance = Utterance("", (), TEXTS[2])
    items = [*items_of(processor), Item(asr(utterance, processor.patches(40), asr.texts([utterance])[0]), heard)]
    rows = [[items[1], items[3]], [items[0], items[2]]]
    batches = [pack([[item]], 0) for row in rows for item in row]
    counts = {name: sum(model.targets(batch)[name] for batch in batches) for name in model.targets(batches[0])}
    with torch.no_grad():
        whole = model(**pack(rows, 0), counts=counts).loss
        parts = sum(model(**batch, counts=counts).loss for batch in batches)
    torch.testing.assert_close(whole, parts, atol=2e-4, rtol=2e-5)


# --- training ------------------------------------------------------------------------------------------------------------------------------


def history(out: Path, step: int) -> list[dict]:
    log = json.loads((out / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in log if "grad_norm" in entry]


def test_resumed_bit_for_bit(recipe_file, tmp_path):
    train(recipes.load(str(recipe_file)), tmp_path / "whole")
    steps = history(tmp_path / "whole", 6)
    assert all(entry[name] != 0 for entry in steps for name in ("ce", "ctc", "mel", "kl", "flux", "stop", "spoken_ctc"))
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "checkpoint-3", tmp_path / "cut" / "checkpoints" / "checkpoint-3")
    shutil.copytree(tmp_path / "whole" / "tokenizer", tmp_path / "cut" / "tokenizer")
    train(recipes.load(str(recipe_file)), tmp_path / "cut", resume="auto")
    one, two = ([(e["step"], e["loss"], e["grad_norm"]) for e in history(tmp_path / run, 6)] for run in ("whole", "cut"))
    assert one == two
    weights, again = (load_file(tmp_path / run / "checkpoints" / "checkpoint-6" / "model.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_the_plan_counts_what_is_drawn(recipe_file):
    run = run_of(recipe_file)
    assert run.decisions()["voice prompts"] == (
        "before 70% of 53 utterances, 0.3 to 0.6 s, 50% told; none for 6 of unknown speakers, 1 with no other of their speaker that fits"
    )
    epochs, voices = len(run.plan.batches(0)) + len(run.plan.batches(1)), {0: {}, 1: {}}
    for index, epoch, item in drawn_items(run, epochs):
        assert abs(len(item.example.input_ids) - run.plan.lengths_of(epoch)[index]) <= 1, "durations are to a frame"
        voices[epoch][index] = int(run.voices.draw(epoch).voice_N[index])
        if item.voice_TM is not None:
            own, other = (run.data.features.utterances[i].speaker for i in (index, voices[epoch][index]))
            assert run.data.tasks[index] == "tts" and own == other and own is not None
            assert 0.3 * SPEC.frame_rate - 1 <= len(item.voice_TM) <= 0.6 * SPEC.frame_rate + 1
    assert voices[0].keys() == voices[1].keys() and voices[0] != voices[1]
    for epoch in (0, 1):
        lengths = run.plan.lengths_of(epoch)
        assert all(sum(lengths[i] for i in row) <= 128 for batch in run.plan.batches(epoch) for row in batch)


@pytest.mark.parametrize("shuffle", ["global", "shards"])
def test_out_of_shards_and_of_the_same_source(recipe_file, tmp_path, shuffle):
    featurize(str(recipe_file.parent / "spoken.jsonl"), tmp_path / "shards", "speecht5", jobs=1)
    sources = f"data.train=[{{source: {tmp_path / 'shards'}, task: tts}}, {{source: spoken.jsonl, task: tts}}]"
    run = run_of(recipe_file, sources, f"data.shuffle={shuffle}", *TTS[1:])
    blocks, seen = run.data.features.blocks(), 0
    assert len(set(blocks)) == 2
    for index, epoch, item in drawn_items(run, 3):
        if item.voice_TM is not None:
            other = int(run.voices.draw(epoch).voice_N[index])
            assert blocks[other] == blocks[index]
            whole_TM = run.data.features.get(other, None)
            seen += len(item.voice_TM) <= len(whole_TM) and bool((whole_TM[:, None] == item.voice_TM[0]).all(-1).any())
    assert seen > 10
    assert run.dataset()[0]["voice"].isfinite().all()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["data.train=[{source: tones.jsonl, task: tts}]"], "of 60 utterances to be said none names its speaker: give `speaker` in the manifest"),
        (
            ["data.voice_prompts.seconds=[8, 9]"],
            "none has another of its speaker of 8 s or more: shorten data.voice_prompts.seconds",
        ),
        (["data.train=[{source: spoken.jsonl}]"], "data.voice_prompts is for speech that is said, and no data is of task tts"),
        (["data.voice_prompts.seconds=[4, 1]"], r"seconds \[4, 1\] must be two numbers above 0, the smaller one first"),
        (["data.voice_prompts.shre=1"], "shre"),
    ],
)
def test_what_a_recipe_may_not_say(recipe_file, settings, complaint):
    with pytest.raises(ConfigError, match=complaint) as error:
        run_of(recipe_file, *settings)
    assert "\n" not in str(error.value)
