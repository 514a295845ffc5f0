"""Training a model that speaks, as a user runs it: on tones that stand for words, heard and said by one set of weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from melcli import recipe as recipes
from melcli.audio import io
from melcli.audio.mel import log_mel
from melcli.audio.mel_spec import preset
from melcli.data.features import WaveFeatures
from melcli.data.lexicon import Lexicon
from melcli.data.silence import Trim, TrimmedFeatures, kept, level
from melcli.data.utterance import Utterance
from melcli.errors import CheckpointError, ConfigError, UsageError
from melcli.models import checkpoint
from melcli.models.speaker import Speaker
from melcli.models.start import Origin, start
from melcli.train import train
from melcli.training import measures
from melcli.training.run import Run
from tests.training.tones import WORDS, make_tones

RECIPE = """
name: tones
seed: 5
data:
  root: {root}
  mel: speecht5
  train:
    - {{source: tones.jsonl, task: tts}}
    - {{source: tones.jsonl}}
  eval:
    - {{source: "tones.jsonl?limit=8", task: tts}}
    - {{source: "tones.jsonl?limit=8"}}
  trim_silence: {{below: 30, keep: 0.02}}
  workers: 0
model:
  speech_input: {{kind: mel-patch, patch: 4, norm: global}}
  speech_output: {{kind: vae, frames: 4, prenet: 32, hidden: 32, postnet: 16, postnet_layers: 3, kl_after: 6, stop_positive: 5}}
  backbone: {{model_type: llama, hidden_size: 48, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 2, intermediate_size: 96,
              attention_dropout: 0.1}}
  text_positions: spread
  ctc_weight: 0.5
  spoken_ctc_weight: 0.2
  ctc_units: characters
  tokenizer: {{vocab_size: 32}}
train:
  steps: 8
  tokens_per_batch: 512
  row_tokens: 128
  lr: 3.0e-3
  eval_every: 4
  save_every: 4
  log_every: 1
  log_to: []
"""


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    make_tones(folder)
    path = folder / "tones.yaml"
    path.write_text(RECIPE.format(root=folder))
    return path


def history(out: Path, step: int) -> list[dict]:
    return json.loads((out / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json").read_text())["log_history"]


def test_hearing_and_speaking_in_one_run_resumed_bit_for_bit(recipe_file, tmp_path):
    result = train(recipes.load(str(recipe_file)), tmp_path / "whole")
    assert result is not None and set(result.rates) == {"tones.jsonl?limit=8 [mel dB]", "tones.jsonl?limit=8"}
    steps = [entry for entry in history(tmp_path / "whole", 8) if "grad_norm" in entry]
    assert len(steps) == 8
    assert all(entry[name] != 0 for entry in steps for name in ("ce", "ctc", "mel", "kl", "flux", "stop", "spoken_ctc"))
    evaluated = [entry for entry in history(tmp_path / "whole", 8) if "eval_mel_db" in entry]
    assert [set(entry) - {"epoch", "step"} for entry in evaluated] == [
        {"eval_wer", "eval_mel_db", "eval_wer/tones.jsonl?limit=8", "eval_mel_db/tones.jsonl?limit=8"}
    ] * 2
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "checkpoint-4", tmp_path / "cut" / "checkpoints" / "checkpoint-4")
    shutil.copytree(tmp_path / "whole" / "tokenizer", tmp_path / "cut" / "tokenizer")
    train(recipes.load(str(recipe_file)), tmp_path / "cut", resume="auto")
    one, two = ([(e["step"], e["loss"], e["grad_norm"]) for e in history(tmp_path / run, 8) if "grad_norm" in e] for run in ("whole", "cut"))
    assert one == two
    weights, again = (load_file(tmp_path / run / "checkpoints" / "checkpoint-8" / "model.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_it_learns_to_say_tones(recipe_file, tmp_path):
    """Each word is a tone: of what is said of it, the loudest bin is the tone's."""
    settings = ["train.steps=160", "train.lr=5e-3", "train.eval_every=160", "train.save_every=160", "train.log_every=50"]
    settings += ["model.backbone.attention_dropout=0", "data.train=[{source: tones.jsonl, task: tts}]", "model.ctc_weight=0"]
    settings += ["data.eval=[{source: 'tones.jsonl?limit=8', task: tts}]", "model.speech_input={kind: none}"]
    result = train(recipes.load(str(recipe_file), settings), tmp_path / "run")
    assert result is not None and measures.overall(result.rates) < 10
    speaker = Speaker.load(str(tmp_path / "run"))
    assert set(speaker.alphabet) == set("".join(WORDS) + " ")
    bins = {}
    for word, spoken in zip(WORDS, speaker.speak(list(WORDS), temperature=0), strict=True):
        assert 5 <= len(spoken.mel_TM) <= 40, word
        bins[word] = int(spoken.mel_TM[1:8].mean(0).argmax())
    assert bins["low"] + 10 < bins["mid"] and bins["mid"] + 10 < bins["high"]


def test_what_a_recipe_may_not_say(recipe_file):
    for setting, complaint in (
        ("model.speech_output=null", "task tts needs model.speech_output"),
        ("model.speech_input={kind: none}", "task asr needs a model that hears"),
        ("data.trim_silence={belw: 3}", r"data.trim_silence.belw.*below"),
        ("model.speech_output={kind: vae, frame: 2}", r"model.speech_output.frame is unknown for vae"),
        ("model.speak_prompt=say", r"must hold <\|text\|> once"),
        ("data.train=[{source: tones.jsonl, task: tss}]", "tss|tts"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            Run(recipes.load(str(recipe_file), [setting]), Path("nowhere"))


def test_a_voice_that_reads_how_words_sound(recipe_file, tmp_path):
    (tmp_path / "sounds.txt").write_text("low\tləʊ\nmid\tmɪd\n", encoding="utf-8")
    sounds = [f"model.lexicon={{from: {tmp_path / 'sounds.txt'}, spelled: 0.3}}", "model.tokenizer={units: characters}"]
    train(recipes.load(str(recipe_file), [*sounds, "train.steps=2", "train.eval_every=2"]), tmp_path / "one")
    folder = tmp_path / "one" / "model"
    assert (tmp_path / "one" / "checkpoints" / "checkpoint-2" / "lexicon.txt").read_bytes() == (folder / "lexicon.txt").read_bytes()
    voice = Speaker.load(str(folder))
    assert {*"lowmidhg "} == set(voice.alphabet)
    known = set(voice.processor.tokenizer.get_vocab())
    assert {*"ləʊmɪdLOWMIDHG", *"owih"} - known == set()  # sounds and letters of what is said, and letters of what is heard
    says, hears = voice.processor.encoder("tts"), voice.processor.encoder("asr")
    utterance = Utterance("one", (), text="low high")
    assert [voice.processor.tokenizer.decode(encoder.texts([utterance])[0]) for encoder in (says, hears)] == ["ləʊ HIGH", "low high"]
    example = says(utterance, 3, says.texts([utterance])[0])
    assert "".join(voice.processor.ctc_alphabet[i] for i in example.spoken_ctc_ids) == "ləʊ HIGH"
    assert len(voice.speak(["low"], max_seconds=1)[0].mel_TM)
    voice.pronounce(Lexicon({"high": "hʊɪ", "low": "lɪ"}))
    assert voice.processor.tokenizer.decode(voice.encoder.texts([replace(utterance, text="low mid high")])[0]) == "lɪ mɪd hʊɪ"
    with pytest.raises(UsageError, match="--lexicon: 'high' sounds like 'haɪ', and this voice knows the sounds d h l m ɪ ʊ"):
        voice.pronounce(Lexicon({"high": "haɪ"}))
    (tmp_path / "sounds.txt").unlink()
    train(recipes.load(str(recipe_file), [f"model.init={folder}", "train.steps=2", "train.eval_every=2"]), tmp_path / "two")
    assert (tmp_path / "two" / "model" / "lexicon.txt").read_bytes() == (folder / "lexicon.txt").read_bytes()
    (folder / "lexicon.txt").unlink()
    with pytest.raises(CheckpointError, match=r"lexicon.txt: cannot be read as a pronunciation dictionary"):
        Speaker.load(str(folder))


def test_a_voice_of_letters_goes_on_with_sounds(recipe_file, tmp_path):
    alone = ["model.speech_input={kind: none}", "data.train=[{source: tones.jsonl, task: tts}]", "model.ctc_weight=0", "train.steps=2"]
    alone += ["train.eval_every=2", "data.eval=[{source: 'tones.jsonl?limit=8', task: tts}]", "model.tokenizer={units: characters}"]
    train(recipes.load(str(recipe_file), alone), tmp_path / "letters")
    (tmp_path / "sounds.txt").write_text("low\tləʊʊ\nmid\tmɪd\n", encoding="utf-8")
    settings = [f"model.init={tmp_path / 'letters'}", f"model.lexicon={{from: {tmp_path / 'sounds.txt'}}}", *alone[:-1]]
    with pytest.raises(ConfigError, match=r"the spoken_ctc_head of model.init .* tells other characters apart"):
        Run(recipes.load(str(recipe_file), [*settings, "model.tokenizer={units: characters, renew: true}"]), tmp_path / "no")
    settings += ["model.tokenizer={units: characters, renew: true}", "model.fresh=[spoken_ctc_head]"]
    run = Run(recipes.load(str(recipe_file), settings), tmp_path / "sounds")
    old, then = checkpoint.load(str(tmp_path / "letters"))
    rows, before = (model.llm.get_input_embeddings().weight for model in (run.model, old))
    ids, ids_before = run.tokenizer.get_vocab(), then.tokenizer.get_vocab()
    for token, same in (("m", "m"), ("L", "l"), (" ", " "), ("<|speak|>", "<|speak|>"), ("<|spoken|>", "<|spoken|>")):
        assert torch.equal(rows[ids[token]], before[ids_before[same]]), token
    assert not any(torch.equal(rows[ids["ə"]], row) for row in before) and rows[ids["ə"]].std() < 3 * before.std()
    assert run.model.config.spoken_token_id == ids["<|spoken|>"] and run.model.config.stop_token_ids == [ids["<|end|>"]]
    assert run.model.config.spoken_pace < old.config.spoken_pace and run.model.config.spoken_alphabet == old.config.spoken_alphabet
    for name in ("speech_output", "llm.model.layers"):
        one, two = (dict(model.get_submodule(name).state_dict()) for model in (run.model, old))
        assert all(torch.equal(one[key], two[key]) for key in two)
    with pytest.raises(ConfigError, match=r"model.tokenizer.renew: .* is no model of melcli"):
        start(Origin("x", tmp_path, "causal-lm"), run.recipe, None, run.tokenizer)


def test_other_texts_leave_a_voice_its_classes(recipe_file, tmp_path):
    """Its CTC head stays what it is, whatever characters the new texts hold."""
    alone = ["model.speech_input={kind: none}", "model.ctc_weight=0", "train.steps=2", "data.eval=[]"]
    alone += ["model.ctc_units=characters", "model.spoken_ctc_weight=0.3"]
    train(recipes.load(str(recipe_file), [*alone, "data.train=[{source: tones.jsonl, task: tts}]"]), tmp_path / "voice")
    rows = (recipe_file.parent / "tones.jsonl").read_text()
    (recipe_file.parent / "other.jsonl").write_text(rows.replace("mid", "low"))
    other = Run(
        recipes.load(str(recipe_file), [*alone, "data.train=[{source: other.jsonl, task: tts}]", f"model.init={tmp_path / 'voice'}"]), tmp_path
    )
    assert other.model.config.ctc_alphabet == checkpoint.load(str(tmp_path / "voice"))[0].config.ctc_alphabet == " dghilmow"


def test_what_is_new_of_a_speech_output_is_measured_and_nothing_else(recipe_file, tmp_path):
    first = Run(recipes.load(str(recipe_file)), tmp_path / "first")
    with torch.no_grad():  # as if other data had been measured
        first.model.speech_output.normalise.global_mean += 1.0
    checkpoint.save(tmp_path / "voice", first.model, first.processor)
    before = {name: tensor.clone() for name, tensor in first.model.speech_output.state_dict().items()}

    def begun(*settings: str) -> dict[str, torch.Tensor]:
        run = Run(recipes.load(str(recipe_file), [f"model.init={tmp_path / 'voice'}", "model.backbone=null", *settings]), tmp_path / "second")
        return dict(run.model.speech_output.state_dict())

    changed = {name for name, tensor in begun("model.fresh=[speech_output.latent]").items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith("latent.") for name in changed)
    changed = {name for name, tensor in begun("model.fresh=[speech_output.normalise]").items() if not torch.equal(tensor, before[name])}
    assert changed == {"normalise.global_mean"}  # the deviations come out as they were
    with pytest.raises(ConfigError, match=r"floor: -5 where that of model.init .* is None: .*model.fresh: \[speech_output.normalise\]"):
        begun("model.speech_output.floor=-5")
    raised = begun("model.speech_output.floor=-2.5", "model.fresh=[speech_output.normalise]")
    assert (raised["normalise.global_mean"] > before["normalise.global_mean"] - 0.9).all()  # less than that was added above


def test_one_number_of_two_measures():
    rates = {"a": 10.0, "b": 20.0, "a [mel dB]": 6.0}
    assert measures.means(rates) == {"wer": 15.0, "mel_db": 6.0}
    assert measures.overall(rates) == pytest.approx((15 * 6) ** 0.5)
    assert measures.overall({"a": 10.0, "b": 20.0}) == 15.0
    assert measures.found(measures.logged(rates)) == dict(sorted(rates.items()))
    assert [measures.said(*pair) for pair in rates.items()] == ["a WER 10.00 %", "b WER 20.00 %", "a mel distance 6.00 dB"]


# --- silence -------------------------------------------------------------------------------------------------------------------------------


def test_silence_is_cut_at_the_ends_and_shortened_inside(tmp_path):
    spec = preset("speecht5")
    loud, quiet = torch.randn(16000) * 0.1, torch.zeros(16000)
    wave_S = torch.cat([quiet, loud, quiet, loud, quiet])
    io.save(tmp_path / "a.wav", wave_S, 16000)
    source = WaveFeatures([Utterance("a", (str(tmp_path / "a.wav"),), duration=5.0)], spec)
    whole_TM = source.get(0, None)
    ends = TrimmedFeatures(source, spec, Trim(keep=0.1)).get(0, None)
    assert abs(len(ends) - 62.5 * 3.2) < 6 and len(whole_TM) == 313
    short = TrimmedFeatures(source, spec, Trim(keep=0.0, pause=0.2)).get(0, None)
    assert abs(len(short) - 62.5 * 2.2) < 10
    assert (level(spec, short) > level(spec, whole_TM).max() - 40).sum() >= len(short) - 14
    assert kept(spec, torch.full((9, 80), -3.0), Trim()).all()


def test_levels_are_those_of_the_waveform():
    """A tenfold waveform is 20 dB louder in every preset."""
    wave_S = torch.randn(8000) * 0.01
    for name in ("speecht5", "phi4mm", "vocos-24k"):
        spec = preset(name)
        gap = level(spec, log_mel(spec, 10 * wave_S)) - level(spec, log_mel(spec, wave_S))
        torch.testing.assert_close(gap, torch.full_like(gap, 20.0), atol=0.3, rtol=0)
