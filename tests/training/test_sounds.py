"""Models that hear how words sound, and write those of a dictionary."""

from __future__ import annotations

import gzip
import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch

from melcli import recipe as recipes
from melcli.audio import io
from melcli.data.manifest import read_source
from melcli.data.utterance import Utterance
from melcli.describe import describe
from melcli.errors import ConfigError, MelcliError, UsageError
from melcli.export import export
from melcli.inputs import AudioInput
from melcli.models import checkpoint
from melcli.models.decoding.dictionary import LIKELY, WORDS
from melcli.models.hints import Hints
from melcli.models.processor import SpeechLMProcessor
from melcli.score.skip import score_skipping
from melcli.train import train
from melcli.training.run import Run
from melcli.transcribe import Transcriber
from tests.training.test_muon import RECIPE
from tests.training.tones import tones_recipe

SOUNDS = ["model.ctc_units=sounds", "train.log_every=50"]


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tones_recipe(tmp_path_factory.mktemp("sounds"), RECIPE)


@pytest.fixture(scope="module")
def ear(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of CTC alone."""
    folder = tmp_path_factory.mktemp("ear") / "run"
    more = ["model.ce_weight=0", "train.steps=150", "train.eval_every=150", "data.eval=[{source: tones.jsonl}]"]
    result = train(recipes.load(str(recipe_file), [*SOUNDS, *more]), folder)
    assert result is not None and result.rates["tones.jsonl"] < 20
    return folder


@pytest.fixture(scope="module")
def both(recipe_file: Path, ear: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its language model as well."""
    folder = tmp_path_factory.mktemp("both") / "run"
    train(recipes.load(str(recipe_file), [*SOUNDS, f"model.init={ear}", "train.steps=4"]), folder)
    return folder


def heard(transcriber: Transcriber, root: Path, count: int = 4):
    utterances = read_source(str(root / "tones.jsonl"))[:count]
    found = {one.name: one for one in transcriber.transcribe([AudioInput(u.id, u) for u in utterances])}
    return [(u.text, found[u.id]) for u in utterances]


def test_what_is_written_is_words_of_the_training_text(ear: Path, recipe_file: Path) -> None:
    transcriber = Transcriber.load(str(ear), device="cpu")
    assert transcriber.decisions["decoding"] == "words of its dictionary, by the sounds that the CTC head hears"
    found = heard(transcriber, recipe_file.parent)
    words = set(checkpoint.load(str(ear))[1].dictionary.words)
    assert all(set(one.text.split()) <= words for _, one in found)
    assert sum(text == one.text for text, one in found) >= 3
    model = ear / "model"
    assert (model / WORDS).is_file() and (model / LIKELY).is_file()
    assert set(SpeechLMProcessor.from_pretrained(model).dictionary.words) == words


def test_a_language_model_behind_it_leaves_its_dictionary(both: Path, ear: Path, recipe_file: Path) -> None:
    for name in (WORDS, LIKELY):
        assert (both / "model" / name).read_bytes() == (ear / "model" / name).read_bytes()
    assert Transcriber.load(str(both), device="cpu").decisions["decoding"].startswith("words of its dictionary")
    favoured = {"beam": 4, "hints": Hints(hotwords=("low",))}
    for options, said in (({"beam": 1}, "greedy, as asked"), ({"beam": 3}, "3 beams, as asked"), (favoured, "4 beams, as asked; 1 hotword favoured")):
        transcriber = Transcriber.load(str(both), device="cpu", **options)
        assert transcriber.decisions["decoding"].startswith(said) and "jointly" not in transcriber.decisions["decoding"]
        assert len(heard(transcriber, recipe_file.parent, 2)) == 2
    with pytest.raises(UsageError, match="--ctc-weight: the CTC head of this model hears sounds"):
        Transcriber.load(str(both), device="cpu", beam=4, ctc_weight=0.3)


def renamed(source: Path, folder: Path, **words: str) -> Path:
    """The tones, their words called otherwise."""
    folder.mkdir(exist_ok=True)
    rows = (source / "tones.jsonl").read_text()
    for old, new in words.items():
        rows = rows.replace(old, new)
    (folder / "tones.jsonl").write_text(rows, encoding="utf-8")
    for wave in source.glob("*.wav"):
        (folder / wave.name).symlink_to(wave)
    return folder / "tones.jsonl"


def test_new_words_of_a_training_enter_the_dictionary_and_are_written(ear: Path, recipe_file: Path, tmp_path: Path) -> None:
    manifest = renamed(recipe_file.parent, tmp_path / "data", low="glow")
    more = [f"data.train=[{{source: {manifest}}}]", f"data.eval=[{{source: {manifest}}}]", f"model.init={ear}", "model.ce_weight=0"]
    result = train(recipes.load(str(recipe_file), [*SOUNDS, *more, "train.steps=150", "train.eval_every=150"]), tmp_path / "run")
    before, after = (checkpoint.load(str(folder))[1].dictionary for folder in (ear, tmp_path / "run"))
    assert after.words == [*before.words, "glow"] and after.pronunciations["glow"] == ("ɡlO",)
    assert result is not None and next(iter(result.rates.values())) < 20


def test_transcripts_are_measured_as_they_are_written_where_that_trains(both: Path, recipe_file: Path, tmp_path: Path) -> None:
    start = [*SOUNDS, f"model.init={both}", "train.steps=1", "train.eval_every=1", "data.eval=[{source: tones.jsonl}]"]
    ears = train(recipes.load(str(recipe_file), [*start, "train.lr=1e-9"]), tmp_path / "ears")
    behind = train(recipes.load(str(recipe_file), [*start, "train.lr=1e-9", "tune.freeze=[speech_input, ctc_head]"]), tmp_path / "behind")
    assert ears is not None and behind is not None
    assert ears.rates == behind.rates  # what is kept of both is measured as the model writes
    told = [(folder / "checkpoints" / "checkpoint-1" / "trainer_state.json").read_text() for folder in (tmp_path / "ears", tmp_path / "behind")]
    rates = [next(one["eval_wer"] for one in json.loads(text)["log_history"] if "eval_wer" in one) for text in told]
    assert rates[0] == ears.rates["tones.jsonl"] and rates[0] < rates[1]


def test_it_is_said_that_what_trains_is_not_read_by_default(both: Path, recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = [*SOUNDS, f"model.init={both}", "train.steps=1"]
    train(recipes.load(str(recipe_file), [*start, "tune.freeze=[speech_input, ctc_head]"]), dry_run=True)
    assert "nothing that trains is read by default" in capsys.readouterr().err
    train(recipes.load(str(recipe_file), start), dry_run=True)
    assert "nothing that trains" not in capsys.readouterr().err


def test_texts_that_the_tokenizer_cannot_write(both: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = renamed(recipe_file.parent, tmp_path / "data", low="猫")
    run = Run(
        recipes.load(str(recipe_file), [*SOUNDS, f"model.init={both}", f"data.train=[{{source: {manifest}}}]", "train.steps=1"]), tmp_path / "run"
    )
    assert "texts hold characters that the tokenizer cannot write (猫): they are learnt as <|unk|>" in capsys.readouterr().err
    encoder = run.encoders[0]
    assert encoder(Utterance("cat", (), text="猫"), 4, [1]).ctc_ids is None  # unknown, where silence would be learnt
    assert encoder(Utterance("cat", (), text=""), 4, []).ctc_ids == []


def test_adapters_that_nothing_asks_for(ear: Path, recipe_file: Path) -> None:
    more = [f"model.init={ear}", "model.ce_weight=0", "tune.llm=lora", "train.steps=1"]
    with pytest.raises(ConfigError, match=r"tune\.llm lora: no adapter would train"):
        train(recipes.load(str(recipe_file), [*SOUNDS, *more]), dry_run=True)


def test_a_head_that_is_kept_keeps_its_rate_and_its_classes(both: Path, recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = [f"model.init={both}", "train.steps=1"]
    train(recipes.load(str(recipe_file), [*more, "model.ctc_units=characters"]), dry_run=True)
    assert "its head tells apart what that of" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"model\.ctc_rate 3: the CTC head of model\.init .* gives 2 frames a position"):
        train(recipes.load(str(recipe_file), [*SOUNDS, *more, "model.ctc_rate=3"]), dry_run=True)
    train(recipes.load(str(recipe_file), [*SOUNDS, *more, "model.ctc_rate=null"]), dry_run=True)


def test_a_head_that_is_left_behind_leaves_no_sounds(both: Path, recipe_file: Path, tmp_path: Path) -> None:
    more = [f"model.init={both}", "model.drop=[ctc_head]", "model.ctc_weight=0", "model.ctc_units=tokens", "train.steps=1"]
    train(recipes.load(str(recipe_file), more), tmp_path / "run")
    assert SpeechLMProcessor.from_pretrained(tmp_path / "run" / "model").dictionary is None


def test_hotwords_are_words_to_a_dictionary(both: Path) -> None:
    hints = Hints(hotwords=("hi-hi!", "Hi, mid"))
    assert Transcriber.load(str(both), device="cpu", hints=hints).decisions["decoding"].endswith("2 hotwords favoured")
    with pytest.raises(UsageError, match="this model cannot write 'zebra'"):
        Transcriber.load(str(both), device="cpu", hints=Hints(hotwords=("zebra",)))


def test_layers_that_write_nothing_are_not_skipped(both: Path, recipe_file: Path) -> None:
    files = {"manifests": [str(recipe_file.parent / "tones.jsonl")], "limit": 2}
    with pytest.raises(UsageError, match=r"writes what its speech input hears, without its layers; --beam 1"):
        score_skipping("all", str(both), load=lambda name: Transcriber.load(name, device="cpu"), **files)
    found = score_skipping("all", str(both), load=lambda name: Transcriber.load(name, device="cpu", beam=1), **files)
    assert len(found.skipped) == 2


def test_a_language_model_that_cannot_write_is_not_exported(ear: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--to backbone: .* learnt to hear by CTC alone"):
        export(str(ear), tmp_path / "out", to="backbone")


def test_a_description_has_the_dictionary_apart(both: Path) -> None:
    rows = dict(describe(both))
    model, _ = checkpoint.load(str(both))
    assert f"with {sum(p.numel() for p in model.parameters()):,} values" in rows["tensors"]
    assert rows["dictionary"].endswith(f"in {WORDS} and {LIKELY}")


def test_hotwords_that_no_dictionary_holds(both: Path, recipe_file: Path) -> None:
    transcriber = Transcriber.load(str(both), device="cpu", hints=Hints(hotwords=("hi", "mid")))
    assert transcriber.decisions["decoding"] == "words of its dictionary, by the sounds that the CTC head hears; 2 hotwords favoured"
    assert sum(text == one.text for text, one in heard(transcriber, recipe_file.parent)) >= 2


def test_hotwords_that_have_no_sound(both: Path) -> None:
    with pytest.raises(UsageError, match="nobody knows how '猫' sounds"):
        Transcriber.load(str(both), device="cpu", hints=Hints(hotwords=("猫",)))


def test_frames_that_are_no_numbers_are_silence(ear: Path) -> None:
    model, processor = checkpoint.load(str(ear))
    logits = torch.zeros(20, model.config.ctc_classes)
    logits[:, -1] = 8
    logits[5:9] = torch.nan
    assert processor.heard_by_ctc(logits, torch.tensor([20])) == [[]]


def test_texts_that_nobody_can_pronounce(recipe_file: Path, tmp_path: Path) -> None:
    manifest = renamed(recipe_file.parent, tmp_path / "data", low="猫", mid="犬", high="鳥")
    more = [f"data.train=[{{source: {manifest}}}]", "train.steps=1"]
    with pytest.raises(ConfigError, match="nobody knows how a word of the training text sounds"):
        train(recipes.load(str(recipe_file), [*SOUNDS, *more]), tmp_path / "run")


def test_a_head_that_is_kept_hears_what_it_heard(recipe_file: Path, tmp_path: Path) -> None:
    train(recipes.load(str(recipe_file), ["train.steps=1"]), tmp_path / "letters")
    with pytest.raises(ConfigError, match=r"model\.ctc_units sounds, and the CTC head hears none: .*fresh: \[ctc_head\]"):
        train(recipes.load(str(recipe_file), [*SOUNDS, f"model.init={tmp_path / 'letters'}", "train.steps=1"]), tmp_path / "run")


def test_a_model_of_ctc_alone_in_letters_takes_no_hotwords(recipe_file: Path, tmp_path: Path) -> None:
    train(recipes.load(str(recipe_file), ["train.steps=1", "model.ce_weight=0"]), tmp_path / "letters")
    recogniser = Transcriber.load(str(tmp_path / "letters"), device="cpu").recogniser
    with pytest.raises(UsageError, match="--hotwords: this model learnt to hear by CTC alone"):
        recogniser.hinted(Hints(hotwords=("low",)))


def test_words_have_times(ear: Path, recipe_file: Path) -> None:
    transcriber = Transcriber.load(str(ear), device="cpu", hints=Hints(word_times=True))
    for _, one in heard(transcriber, recipe_file.parent):
        words = [word for segment in one.segments for word in segment.words]
        assert [word.word for word in words] == one.text.split()
        assert all(a.start <= a.end <= b.end for a, b in itertools.pairwise(words))


def test_texts_besides_the_training_text(recipe_file: Path, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "more.txt.gz", "wt") as file:
        file.write("The elephant walked home slowly. The elephant walked home again.\n" * 3)
    more = [f"model.dictionary={{texts: [{tmp_path / 'more.txt.gz'}]}}", "model.ce_weight=0", "train.steps=1"]
    train(recipes.load(str(recipe_file), [*SOUNDS, *more]), tmp_path / "run")
    dictionary = checkpoint.load(str(tmp_path / "run"))[1].dictionary
    assert dictionary.pronunciations["elephant"] == ("ɛlʌfʌnt",)


def test_texts_that_are_not_there(recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.dictionary\.texts: .*nowhere"):
        train(recipes.load(str(recipe_file), [*SOUNDS, "model.dictionary={texts: [nowhere.txt.gz]}", "train.steps=1"]), tmp_path / "run")


def test_a_dictionary_is_of_sounds(recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.dictionary is of the words that sounds make, and the CTC head hears none"):
        train(recipes.load(str(recipe_file), ["model.dictionary={}", "train.steps=1"]), tmp_path / "run")


@pytest.mark.parametrize("name", [WORDS, LIKELY])
def test_a_checkpoint_without_its_dictionary_says_so(both: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(both / "model", tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    with pytest.raises(MelcliError, match=name):
        Transcriber.load(str(tmp_path / "model"), device="cpu")


def test_silence_is_no_words(ear: Path, tmp_path: Path) -> None:
    io.save(tmp_path / "zeros.wav", torch.zeros(16000), 16000)
    transcriber = Transcriber.load(str(ear), device="cpu")
    assert [one.text for one in transcriber.transcribe([AudioInput("zeros", Utterance("zeros", (str(tmp_path / "zeros.wav"),)))])] == [""]
