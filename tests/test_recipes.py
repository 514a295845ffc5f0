"""Every shipped recipe trains: a few steps of each on real or made recordings; a language model by hub name is a small checkpoint of its family.

What was trained is read again from its folder and used, so that every system that melcli implements has been through all of it: ASR with and without
an encoder, with several inputs and on frames of the waveform, TTS with each speech output, hearing and saying in one, Spectron; TESU-LLM is in
test_recipes_tesu.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from melcli import recipe as recipes
from melcli import registry, sweep
from melcli.audio import io
from melcli.data.load import load_utterance
from melcli.data.manifest import read_source
from melcli.models.checkpoint import load
from melcli.models.decoding.recognise import recognise, token_limit
from melcli.models.replier import Replier
from melcli.models.speaker import Speaker
from melcli.models.speech_input import build_speech_input
from melcli.train import train
from melcli.train_vocoder import train_vocoder
from melcli.training.vocoder_data import read_sources
from tests.models import encoder_makers, phi4mm_makers
from tests.training.llm_makers import qwen3, smollm2

SMALL = [
    "train.steps=2",
    "train.tokens_per_batch=512",
    "train.log_to=[]",
    "train.eval_limit=2",
    "train.eval_every=2",
    "data.workers=0",
    "train.log_every=1",
]


ABLATIONS = {
    "ablations/base": 1,
    "ablations/token_rate": 5,
    "ablations/init": 4,
    "ablations/layers": 5,
    "ablations/input_kind": 3,
    "ablations/attention": 2,
    "ablations/data_amount": 8,
    "ablations/speech_output": 7,
    "ablations/unified": 3,
    "ablations/spectron": 3,
    "ablations/spectron_output": 2,
}
SPECTRON = {"spectron", "spectron-qa", "tiny/spectron", "tiny/spectron-qa"}


STUDY = {"study/base": 1, "study/lm": 1, "study/encoder": 1, "study/init": 10, "study/rate": 3, "study/layers": 4}


def test_every_recipe_is_tried_here():
    single = {
        "digits",
        "tiny-en",
        "tiny-en-ear",
        "adapt",
        "librispeech",
        "openasr",
        "phi4mm",
        "finetune",
        "counterpart",
        "tiny-voice",
        "tiny-voice-letters",
        "unified",
        "tts",
        "vocoder",
        "digits-voice",
        "digits-unified",
        "digits-spectron",
        "ablations/ears",  # test_recipes_tiny_en.py
    }
    elsewhere = {"tesu", "unified-encoder", "tiny/tesu", "tiny/tesu-lm", "tiny/unified-encoder", "ablations/modality_gap"}  # test_recipes_tesu.py
    assert set(registry.names("recipe")) - elsewhere == {*single, *SPECTRON, *ABLATIONS, *STUDY}


def used(folder: Path, does: str) -> None:
    """What was trained, read again from its folder, hears noise or says letters that it knows: all of it runs. does: `hears`, `says` or both."""
    model, processor = load(str(folder))
    if "hears" in does:
        noise_S = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(7))
        (found,) = recognise(model.eval(), processor, processor.features([noise_S]))
        assert found.finish_reason in ("eos", "length", "repetition") and len(found.tokens) <= token_limit(1, processor.tokens_per_second)
    if "says" in does:
        speaker = Speaker(model, processor)
        text = "".join(sorted(filter(str.isalpha, speaker.alphabet)))[:6]
        (spoken,) = speaker.speak([text], max_seconds=0.4)
        assert spoken.mel_TM.isfinite().all() and spoken.mel_TM.shape[1] == speaker.spec.n_mels and 0 < len(spoken.mel_TM) <= 25


@pytest.mark.parametrize("name", registry.names("recipe"))
def test_every_recipe_loads_and_documents_its_command(name):
    recipe = recipes.load(name)
    assert recipe.name == name
    text = Path(registry.get("recipe", name).load()).read_text()
    assert f"melcli train recipes/{name}.yaml" in text
    assert text.partition("\n")[0].endswith((".", ":"))  # `recipes ls` shows the first line, and that alone


@pytest.mark.parametrize("name", registry.names("recipe"))
def test_a_copy_is_the_same_recipe(name, tmp_path):
    shutil.copy(registry.get("recipe", name).load(), tmp_path / "copy.yaml")
    ours, copied = (recipes.read(str(path)).data for path in (name, tmp_path / "copy.yaml"))
    assert ours == copied


def test_digits(shared_data, tmp_path):
    result = train(recipes.load("digits", [f"data.root={shared_data}", *SMALL]), tmp_path / "run")
    assert result is not None
    assert set(result.rates) == {"digits:test"}
    used(tmp_path / "run", "hears")


def test_the_counterpart_differs_in_its_speech_input_alone():
    free, counterpart = (recipes.load(name).model_dump() for name in ("librispeech", "counterpart"))
    front, encoder = free["model"].pop("speech_input"), counterpart["model"].pop("speech_input")
    assert {**front, "kind": "phi4mm-encoder"}.items() <= encoder.items()
    assert [key for key in free if free[key] != counterpart[key]] == ["name", "summary"]


def test_the_small_scale_study(shared_data, tmp_path, monkeypatch):
    """Its way from text to the table, each training two steps long."""
    monkeypatch.chdir(tmp_path)
    small = [f"data.root={shared_data}", *SMALL]
    text = "data.train=[{source: 'robotutor:words?limit=40'}]"
    assert train(recipes.load("study/lm", [text, "model.tokenizer.vocab_size=60", *small]), tmp_path / "runs/study/lm") is not None
    heard = [*small, "data.train=[{source: 'robotutor:stories?limit=12'}]"]
    assert train(recipes.load("study/encoder", heard), tmp_path / "runs/study/encoder") is not None
    for name in ("study/init", "study/rate", "study/layers"):
        members = sweep.members(recipes.read(name))
        assert len(members) == STUDY[name] == len({recipes.digest(member.recipe) for member in members})
    for member in sweep.members(recipes.read("study/init", small)):
        if member.values["hours"] == "1":
            few = member.recipe.data.model_copy(update={"train": recipes.load("study/encoder", heard).data.train})
            assert train(member.recipe.model_copy(update={"data": few}), tmp_path / member.label) is not None


def test_vocoder(shared_data, tmp_path):
    """Its own sources are read; a few of their recordings are trained on."""
    recipe = recipes.load("vocoder", [f"data.root={shared_data}"])
    found, _ = read_sources(recipe.data.train, shared_data, offline=True)
    held, _ = read_sources(recipe.data.eval, shared_data, offline=True)
    assert len(found) > 10000
    assert not {one.audio for one in found} & {one.audio for one in held}
    few = "data.train=[{source: 'robotutor:words?limit=12'}, {source: 'synth:en?hours=0.003&voices=flite/rms:1'}]"
    small = ["vocoder.width=16", "vocoder.layers=1", "vocoder.pitch_width=16", "vocoder.pitch_layers=1", "train.steps=2", "train.log_to=[]", few]
    result = train_vocoder(recipes.load("vocoder", [f"data.root={shared_data}", "train.eval_limit=1", *small]), tmp_path / "run")
    assert result is not None
    assert set(result.errors) == {entry.source for entry in recipe.data.eval}


def make_librispeech(root: Path) -> None:
    """Noise in the layout of LibriSpeech."""
    generator = torch.Generator().manual_seed(2)
    for subset, count in (("train-clean-100", 6), ("train-clean-360", 1), ("train-other-500", 1), ("dev-clean", 2), ("dev-other", 2)):
        chapter = root / "LibriSpeech" / subset / "19" / "198"
        chapter.mkdir(parents=True)
        lines = []
        for number in range(count):
            io.save(chapter / f"19-198-{number:04d}.wav", 0.1 * torch.randn(24000, generator=generator), 16000)
            lines.append(f"19-198-{number:04d} SOME WORDS AND A NUMBER {'ONE ' * number}".strip())
        (chapter / "19-198.trans.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("name", "smaller"), [("librispeech", []), ("finetune", []), ("counterpart", ["blocks=2", "heads=2", "ffn=24"])])
def test_recipes_that_start_from_a_language_model_by_name(name, smaller, tmp_path):
    """Their own path, the model being a small one in a folder, of the family that the recipe names."""
    make_librispeech(tmp_path / "data")
    llm = {"finetune": smollm2}.get(name, qwen3)(tmp_path / "llm")
    overrides = [f"data.root={tmp_path / 'data'}", f"model.init={llm}", "model.speech_input.channels=8", "model.speech_input.hidden=16"]
    overrides += [f"model.speech_input.{setting}" for setting in smaller]
    result = train(recipes.load(name, [*overrides, "train.epochs=null", *SMALL]), tmp_path / "run")
    assert result is not None
    assert all(rate.startswith("librispeech:dev-clean") or rate == "librispeech:dev-other" for rate in result.rates)
    used(tmp_path / "run", "hears")


def test_several_speech_inputs_are_a_line_in_a_recipe(tmp_path):
    """Encoder fusion, as docs/encoders.md has it, in the recipe librispeech."""
    make_librispeech(tmp_path / "data")
    inputs = [{"kind": "mel-patch", "patch": 8}, {"kind": "encoder", "config": encoder_makers.ENCODERS["speech_lm"], "stack": 2}]
    front = f"model.speech_input={json.dumps({'kind': 'fusion', 'inputs': inputs})}"
    settings = [f"data.root={tmp_path / 'data'}", f"model.init={qwen3(tmp_path / 'llm')}", front, "data.spec_augment=null", "train.epochs=null"]
    assert train(recipes.load("librispeech", [*settings, *SMALL]), tmp_path / "run") is not None
    used(tmp_path / "run", "hears")


@pytest.mark.parametrize("name", ["openasr", "phi4mm"])
def test_recipes_that_start_from_phi(name, tmp_path):
    """Their own path, from a small checkpoint in the layout of the one that they name; openasr's sources are a few utterances on disk."""
    make_librispeech(tmp_path / "data")
    phi = phi4mm_makers.write_remote(tmp_path / "phi", phi4mm_makers.native_model(blocks=1))
    recipe = recipes.load(name)
    assert recipe.model.init == "microsoft/Phi-4-multimodal-instruct"
    assert (recipe.tune.llm, recipe.tune.lora.rank, recipe.tune.lora.alpha) == ("lora", 320, 640)
    sources = ["data.train=[{source: 'librispeech:train-clean-100'}]", "data.eval=[{source: 'librispeech:dev-clean'}]"]
    smaller = [f"model.init={phi}", f"tune.lora.rank={phi4mm_makers.RANK}", f"tune.lora.alpha={phi4mm_makers.ALPHA}"]
    settings = [f"data.root={tmp_path / 'data'}", *smaller, "train.epochs=null", *SMALL, *(sources if name == "openasr" else [])]
    assert train(recipes.load(name, [*settings, "train.warmup=0"]), tmp_path / "run") is not None
    used(tmp_path / "run", "hears")


def test_openasr_says_what_the_paper_does():
    recipe = recipes.load("openasr")
    t = recipe.train
    assert (t.parallel, t.lr, t.warmup, t.schedule, t.clip, t.epochs) == ("zero1", 1e-4, 9000, "linear", 1.0, 3)
    assert len({entry.source.split(":")[1] for entry in recipe.data.train}) == 10


SPOKEN_EVAL = "data.eval=[{source: 'robotutor:words?limit=3', task: tts, text: none}]"


def featurize_voices(recipe, shared_data, count=12):
    """Some recordings in the place of each folder of features."""
    from melcli.featurize import featurize

    for entry in recipe.data.train:
        if entry.source.startswith("features/"):
            featurize(f"robotutor:stories?limit={count}", Path(entry.source), recipe.data.mel, jobs=1, root=shared_data)


@pytest.mark.parametrize("name", ["tiny-voice-letters", "tiny-voice", "unified"])
def test_voices(name, shared_data, tmp_path, monkeypatch):
    recipe = recipes.load(name)
    monkeypatch.chdir(tmp_path)
    featurize_voices(recipe, shared_data)
    settings = [f"data.root={shared_data}", *SMALL, SPOKEN_EVAL]
    if name == "tiny-voice":
        train(recipes.load("tiny-voice-letters", settings), Path("runs/tiny-voice-letters"))
    result = train(recipes.load(name, settings), tmp_path / "run")
    assert result is not None and list(result.rates) == ["robotutor:words?limit=3 [mel dB]"]
    speaker = Speaker.load(str(tmp_path / "run"))
    assert 3e6 < speaker.model.num_parameters() < 10e6 and (speaker.processor.lexicon is not None) == (name == "tiny-voice")
    assert (tmp_path / "run" / "model" / "model.safetensors").stat().st_size < 25e6
    used(tmp_path / "run", "hears and says" if name == "unified" else "says")


def test_speech_outputs_beside_each_other(shared_data, tmp_path, monkeypatch):
    """The members of the ablation differ in the output and in the size of batches alone; one of each kind trains."""
    monkeypatch.chdir(tmp_path)
    members = sweep.members(recipes.read("ablations/speech_output", [f"data.root={shared_data}", *SMALL[:1], *SMALL[2:], SPOKEN_EVAL]))
    assert len(members) == ABLATIONS["ablations/speech_output"] == len({recipes.digest(member.recipe) for member in members})
    featurize_voices(members[0].recipe, shared_data, 45)  # as many patches as the codebook has codes
    base = members[0].recipe.model_dump()
    for member in members:
        ours = member.recipe.model_dump()
        assert {key for key in ours["model"] if ours["model"][key] != base["model"][key]} <= {"speech_output"}
        if member.label.partition("=")[2] in ("one-frame", "codebook", "diffusion"):
            assert train(member.recipe, tmp_path / member.label) is not None
            used(tmp_path / member.label, "says")


def test_one_model_beside_one_for_each_task(shared_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = [f"data.root={shared_data}", *SMALL[1:], "data.max_seconds=20"]
    members = {m.values["tasks"]: m.recipe for m in sweep.members(recipes.read("ablations/unified", settings))}
    assert members["both"].train.steps == members["hears"].train.steps + members["says"].train.steps
    assert members["both"].model == recipes.load("digits-unified").model
    featurize_voices(members["both"], shared_data)
    hears, says = "digits:test", f"{SPOKEN_DIGITS} [mel dB]"
    for name, measured in {"both": {hears, says}, "hears": {hears}, "says": {says}}.items():
        member = members[name]
        result = train(member.model_copy(update={"train": member.train.model_copy(update={"steps": 2})}), tmp_path / name)
        assert result is not None and set(result.rates) == measured


SPOKEN_DIGITS = "synth:en?hours=0.05&seed=99&text=spoken&steady=1&voices=flite/rms:1&mix=digits:1"


def test_spectron_in_small(shared_data, tmp_path, monkeypatch):
    """Its own path: a voice, the model that goes on, the one that answers, each begun from the one before, read again and asked."""
    monkeypatch.chdir(tmp_path)
    voice = recipes.load("tiny-voice-letters")
    featurize_voices(voice, shared_data)
    train(recipes.load("tiny-voice-letters", [f"data.root={shared_data}", *SMALL, SPOKEN_EVAL]), Path("runs/tiny-voice-letters"))
    questions = "synth:qa?hours=0.003&voices=flite/slt:1"
    for name, few in (("tiny/spectron", "librispeech:dev-clean?speakers=1272&limit=4"), ("tiny/spectron-qa", questions)):
        recipe = recipes.load(name)
        task = "answer" if name.endswith("qa") else "continue"
        sources = [
            {"source": SPECTRON_SOURCES[entry.source.partition("?")[0]], "task": entry.task or recipe.data.task} for entry in recipe.data.train
        ]
        settings = [f"data.train={json.dumps(sources)}", f"data.eval=[{{source: '{few}', task: {task}}}]", f"data.root={shared_data}", *SMALL]
        result = train(recipes.load(name, settings), Path("runs", name))
        assert result is not None and set(result.rates) == {f"{few} [nats]", f"{few} [mel dB]"}
        replier = Replier.load(str(Path("runs", name)))
        trained = sum(p.numel() for key, p in replier.model.named_parameters() if ".encoder." not in key)
        assert task in replier.tasks and 2e6 < trained < 5e6
        own, theirs = (load(each)[0].state_dict() for each in (str(Path("runs", name)), "tiny-en"))
        assert torch.equal(own["speech_input.inputs.0.encoder.front.out.weight"], theirs["speech_input.out.weight"])  # left as it is
        heard = load_utterance(read_source(few, root=shared_data)[0], replier.spec.rate)
        (reply,) = replier.reply([heard], task, max_seconds=0.5)
        assert reply.spoken is None or len(reply.spoken.mel_TM) <= 0.5 * replier.spec.frame_rate


def test_digits_gone_on_with(shared_data, tmp_path, monkeypatch):
    """From the model that hears and says digits, a few steps each."""
    monkeypatch.chdir(tmp_path)
    settings = [f"data.root={shared_data}", *SMALL, "data.max_seconds=20"]
    featurize_voices(recipes.load("digits-unified"), shared_data)
    letters = ["model.tokenizer={units: characters}", "model.speech_output.floor=-5"]
    assert train(recipes.load("digits-unified", [*settings, *letters]), Path("runs/digits-letters")) is not None
    result = train(recipes.load("digits-spectron", settings), Path("runs/digits-spectron"))
    assert result is not None and {rate.rpartition(" [")[2] for rate in result.rates} == {"nats]", "mel dB]"}
    replier = Replier.load("runs/digits-spectron")
    (theo, *_) = read_source("digits:test?min=9&max=14", root=shared_data)
    (reply,) = replier.reply([load_utterance(theo, replier.spec.rate)], "continue", max_seconds=0.5)
    assert replier.tasks == ("continue",) and reply.text_reason in ("eos", "length", "repetition")


SPECTRON_SOURCES = {
    "librispeech:train-clean-100": "librispeech:train-clean-100?limit=20&seed=1",
    "librispeech:dev-clean": "librispeech:dev-clean?speakers=1919&limit=20",
    "synth:en": "synth:en?hours=0.02&seed=31&text=spoken&voices=flite/slt:1&mix=book:1",
    "synth:qa": "synth:qa?hours=0.01&voices=flite/slt:1",
    "features/voice-a": "features/voice-a",
}


@pytest.mark.parametrize("name", ["spectron", "spectron-qa"])
def test_spectron_over_an_encoder_and_a_language_model(name, tmp_path):
    """Its own path, from small checkpoints of the families that it names."""
    make_librispeech(tmp_path / "data")
    encoder_makers.saved("wav2vec2-bert", tmp_path / "w2v-bert")
    recipe = recipes.load(name)
    assert recipe.model.speech_input["model"] == "facebook/w2v-bert-2.0" and recipe.data.task == recipe.tasks[0]
    assert {entry.source.partition(":")[0] for entry in recipe.data.train} == {"librispeech" if name == "spectron" else "synth"}
    sources = []
    if name == "spectron-qa":
        rows = [{"audio": f"19-198-000{n}.wav", "question": "one", "answer": "two", "answer_audio": "19-198-0000.wav"} for n in range(4)]
        manifest = tmp_path / "data" / "LibriSpeech" / "train-clean-100" / "19" / "198" / "qa.jsonl"
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        sources = [f"data.train=[{{source: '{manifest}'}}]", f"data.eval=[{{source: '{manifest}'}}]"]
    smaller = [f"model.init={qwen3(tmp_path / 'llm')}", f"model.speech_input.model={tmp_path / 'w2v-bert'}", "data.prompt_seconds=0.5"]
    settings = [f"data.root={tmp_path / 'data'}", *smaller, "train.epochs=null", "model.speech_output.hidden=32", *sources, *SMALL]
    result = train(recipes.load(name, settings), tmp_path / "run")
    assert result is not None and {rate.rpartition(" [")[2] for rate in result.rates} == {"nats]", "mel dB]"}
    replier = Replier.load(str(tmp_path / "run"))
    noise_S = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(7))
    (reply,) = replier.reply([noise_S], recipe.tasks[0], max_seconds=0.5)
    assert replier.speaks and reply.text_reason in ("eos", "length", "repetition")


def test_the_ablation_of_spectron_is_about_its_losses():
    """All else is digits-spectron, of which `all` is a shorter training."""
    members = sweep.members(recipes.read("ablations/spectron"))
    assert len(members) == ABLATIONS["ablations/spectron"] == len({recipes.digest(member.recipe) for member in members})
    base = recipes.load("digits-spectron").model_dump()
    for member in members:
        ours = member.recipe.model_dump()
        assert {key for key in ours if ours[key] != base[key]} <= {"name", "summary", "model", "data", "train"}
        assert {key for key in ours["model"] if ours["model"][key] != base["model"][key]} <= {"speech_output", "ce_weight"}
        assert {key for key in ours["train"] if ours["train"][key] != base["train"][key]} == {"steps", "lr"}
        assert ours["data"] | {"train": None} == base["data"] | {"train": None}
        ours, theirs = ([source | {"repeat": None} for source in one["data"]["train"]] for one in (ours, base))
        assert ours == theirs
    first, *others = (member.recipe.model_dump() for member in members)
    assert all({key for key in one if one[key] != first[key]} == {"name", "model"} for one in others)


def test_the_ablation_of_what_says_it_is_about_the_output():
    """`spectrogram` is digits-spectron itself."""
    base = recipes.load("digits-spectron").model_dump()
    spectrogram, vae = (member.recipe.model_dump() for member in sweep.members(recipes.read("ablations/spectron_output")))
    assert {key for key in base if spectrogram[key] != base[key]} == {"name", "summary"}
    assert {key for key in base["model"] if vae["model"][key] != base["model"][key]} == {"speech_output", "fresh", "drop"}
    assert vae["model"]["speech_output"]["floor"] == base["model"]["speech_output"]["floor"] == -5


def test_tts_starts_from_a_language_model(tmp_path):
    make_librispeech(tmp_path / "data")
    recipe = recipes.load("tts")
    assert recipe.model.init == "Qwen/Qwen3-0.6B" and [entry.source.partition(":")[0] for entry in recipe.data.train] == ["libritts"] * 3
    sources = ["data.train=[{source: 'librispeech:train-clean-100'}]", "data.eval=[{source: 'librispeech:dev-clean'}]"]
    settings = [f"data.root={tmp_path / 'data'}", f"model.init={qwen3(tmp_path / 'llm')}", "train.epochs=null", *sources, *SMALL]
    result = train(recipes.load("tts", settings), tmp_path / "run")
    assert result is not None and list(result.rates) == ["librispeech:dev-clean [mel dB]"]
    used(tmp_path / "run", "says")


OTHER_BASES = {"ablations/base", "ablations/speech_output", "ablations/unified", "ablations/spectron", "ablations/spectron_output"}


@pytest.mark.parametrize("name", sorted(set(ABLATIONS) - OTHER_BASES))
def test_the_members_of_an_ablation_differ_from_its_base_in_what_it_is_about(name):
    members = sweep.members(recipes.read(name))
    assert len(members) == ABLATIONS[name] == len({recipes.digest(member.recipe) for member in members})
    base = recipes.load("ablations/base").model_dump()
    about = {"token_rate": "speech_input", "input_kind": "speech_input", "attention": "speech_attention", "layers": "tune", "data_amount": "data"}
    for member in members:
        ours = member.recipe.model_dump()
        differ = {key for key in ours["model"] if ours["model"][key] != base["model"][key]} | {k for k in ("data", "tune") if ours[k] != base[k]}
        allowed = {about.get(name.rpartition("/")[2], "init"), "init", "fresh"} | (
            {"backbone", "tokenizer", "tune"} if "init=random" in member.label else set()
        )
        assert differ <= allowed, member.label


def test_token_rates_and_sizes_at_phis_width():
    """arXiv 2606.10231's 8x front end and its neighbours, on the meta device: 25,205,760 parameters is Phi-4-multimodal's own count."""
    rates, sizes = {}, {}
    for member in sweep.members(recipes.read("ablations/token_rate")):
        with torch.device("meta"):
            made = build_speech_input(member.recipe.model.speech_input, 3072, 80)
        rates[member.values["hz"]] = 100 / made.stride
        sizes[member.values["hz"]] = sum(p.numel() for p in made.parameters())
        positions = member.recipe.train.tokens_per_batch * member.recipe.train.accumulate
        assert 480 < positions / (12.3 * rates[member.values["hz"]] + 45) < 580  # utterances a step: LibriSpeech's 12.3 s and 45 positions of text
    assert rates == {name: float(name) for name in ("100", "50", "25", "12.5", "6.25")}
    assert sizes["12.5"] == 25_205_760
    assert [round(sizes[name] / 1e6, 1) for name in ("50", "25", "6.25")] == [54.5, 34.6, 21.0]  # stack of 42.0, 22.0, 8.4 M and 12.6 M of projection
    with torch.device("meta"):
        kinds = [build_speech_input(m.recipe.model.speech_input, 3072, 80) for m in sweep.members(recipes.read("ablations/input_kind"))]
    assert [16000 / k.stride if k.reads == "wave" else 100 / k.stride for k in kinds] == [12.5] * 3


@pytest.mark.parametrize("name", ["ablations/base", "ablations/input_kind", "ablations/token_rate"])
def test_ablations_train_with_a_small_model(name, tmp_path):
    """Everything of the recipe but the downloaded model: its sources, batches and speech inputs, over a random language model of width 32."""
    make_librispeech(tmp_path / "data")
    tiny = "{model_type: llama, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1, intermediate_size: 64}"
    overrides = [
        f"data.root={tmp_path / 'data'}",
        "model.init=null",
        "model.fresh=[]",
        "tune={}",
        f"model.backbone={tiny}",
        "train.epochs=null",
        *SMALL,
    ]
    overrides += ["model.prompt='<|speech|>go'", "model.tokenizer.vocab_size=40", "train.gradient_checkpointing=false", "train.row_tokens=512"]
    if name == "ablations/base":
        overrides += ["model.speech_input.channels=8", "model.speech_input.hidden=16"]
        ones = [recipes.load(name, overrides)]
    else:
        ones = [m.recipe for m in sweep.members(recipes.read(name, overrides)) if m.recipe.model.speech_input["kind"] != "mel-conv"]
    for number, one in enumerate(ones):
        result = train(one, tmp_path / f"run{number}")
        assert result is not None and set(result.rates) == {"librispeech:dev-clean", "librispeech:dev-other"}
        used(tmp_path / f"run{number}", "hears")
