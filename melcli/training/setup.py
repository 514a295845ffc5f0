"""From a recipe to what a training needs: data, tokenizer, model. Everything decided here is said once, with its reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError

from melcli import console, registry
from melcli.audio.augment import Augment, SpecAugment
from melcli.audio.mel_spec import MelSpec, preset
from melcli.data import written
from melcli.data.features import FeatureSource, Joined, ShardFeatures, TextFeatures, WaveFeatures
from melcli.data.lexicon import Lexicon
from melcli.data.manifest import fingerprint, read_source
from melcli.data.mixing import repeats as mixed
from melcli.data.remote import RemoteFolder, is_remote
from melcli.data.replies import TASKS as REPLIES
from melcli.data.replies import WITHOUT_ANSWER, reply_features, spoken_answer, unfit, with_answer
from melcli.data.shards import SUMMARY, FeatureShards
from melcli.data.silence import Trim, TrimmedFeatures, level
from melcli.data.sounds import ALPHABET, words_of
from melcli.data.utterance import Utterance
from melcli.errors import AudioError, ConfigError, nearest
from melcli.models.mel_norm import GlobalNorm
from melcli.models.processor import SpeechLMProcessor
from melcli.models.speech_input import SpeechInput, build_speech_input, settle_speech_input, speech_input_class
from melcli.models.start import Started, from_nothing, identify, start
from melcli.recipe import TEXT_ALONE, DataSection, ModelSection, Recipe
from melcli.scoring import normalize
from melcli.training import measures
from melcli.training.texts import build_tokenizer, characters, choose_dictionary, choose_lexicon, texts_of, unwritable
from melcli.training.unheard import unheard

Options = TypeVar("Options", bound=BaseModel)

STATISTICS_UTTERANCES = 300  # enough for per-bin means within a few hundredths


@dataclass
class TrainingData:
    """Utterances that are trained on, with what the plan needs to know of them."""

    features: Joined
    tasks: list[str]
    repeats: list[float]
    fingerprint: str
    hours: float
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def said(self) -> int:
        """Utterances with speech that is said."""
        return self.tasks.count("tts") + sum(n > 0 for n in self.features.said)


def locate(source: str, root: Path) -> str:
    """A relative path is looked up below data.root first; anything else stays as it is."""
    return str(root / source) if not Path(source).is_absolute() and (root / source.partition("?")[0]).exists() else source


def _shards(source: str, spec: MelSpec, data: DataSection) -> FeatureShards | None:
    if is_remote(source):
        return FeatureShards.open(RemoteFolder(source, Path(data.cache.folder), data.cache.gigabytes), spec)
    folder = Path(source)
    return FeatureShards.open(folder, spec) if (folder / SUMMARY).exists() else None


def _keep(utterance: Utterance, data: DataSection, text: str, task: str) -> str | None:
    """Why an utterance is left out of training, or None."""
    speech = task != "text"
    if reason := unfit(utterance, task, data.prompt_seconds):
        return reason
    if not text:
        return "without text"
    if speech and utterance.duration is not None and utterance.duration < data.min_seconds:
        return f"shorter than data.min_seconds {data.min_seconds:g}"
    if speech and utterance.duration is not None and utterance.duration > data.max_seconds:
        return f"longer than data.max_seconds {data.max_seconds:g}"
    return None


def training_data(data: DataSection, front: SpeechInput, offline: bool = False, speaks: bool = True) -> TrainingData:
    """All training sources, read and filtered. front: the speech input, whatever its weights. speaks: whether replies are said aloud."""
    reads = front.reads
    spec = preset(data.mel)
    root = Path(data.root)
    augment = _options(Augment, data.augment, "data.augment")
    sources: list[FeatureSource] = []
    tasks: list[str] = []
    features: FeatureSource
    left_out: dict[str, int] = {}
    hours: list[float] = []
    trim = _options(Trim, data.trim_silence, "data.trim_silence")
    for entry in data.train:
        source = locate(entry.source, root)
        task = entry.task or data.task
        clean = normalize.get(entry.text or data.text)
        if task in written.TASKS or entry.vectors or (reads == "vectors" and task == "asr"):
            features = unheard(entry, source, task, clean, front, root=root, offline=offline)
            hours.append(0.0)
            sources.append(features)
            tasks += [task] * len(features.utterances)
            continue
        form = "mel" if task == "tts" else reads
        shards = _shards(source, spec, data)
        if shards is not None and form == "wave":
            raise ConfigError(f"data.train: {entry.source} holds mel features, and model.speech_input reads waveforms")
        utterances = shards.utterances if shards else read_source(source, root=root, offline=offline)
        texts = [clean(u.text) if u.text else "" for u in utterances]
        answers = [clean(written.question_and_answer(u)[1]) for u in utterances] if task == "answer" else []
        kept = []
        for i, (utterance, text) in enumerate(zip(utterances, texts, strict=True)):
            reason = _keep(utterance, data, text, task) or (WITHOUT_ANSWER if answers and not answers[i] else None)
            if reason:
                left_out[reason] = left_out.get(reason, 0) + 1
            else:
                kept.append(i)
        chosen = [with_text(utterances[i], texts[i]) for i in kept]
        if task == "answer":
            chosen = [with_answer(u, answers[i]) for u, i in zip(chosen, kept, strict=True)]
        if task == "text":
            features = TextFeatures(chosen)
        elif shards:
            features = ShardFeatures(shards, kept, chosen)
        else:
            features = WaveFeatures(chosen, spec, augment=augment if entry.augment else None, reads=form)
        if task in REPLIES:
            features = reply_features(task, features, spec, data.prompt_seconds, speaks=speaks, trim=trim)
        elif trim is not None and task == "tts":
            features = TrimmedFeatures(features, spec, trim)
        said = sum(getattr(features, "said", ())) / spec.frame_rate
        hours.append((sum(features.frames) / (spec.rate if form == "wave" else spec.frame_rate) + said) / 3600)
        sources.append(features)
        tasks += [task] * len(kept)
    spec_augment = _options(SpecAugment, data.spec_augment, "data.spec_augment")
    if reads in ("wave", "vectors") and spec_augment:
        what = "waveforms" if reads == "wave" else "vectors made elsewhere"
        raise ConfigError(f"data.spec_augment masks mel features, and model.speech_input reads {what}: leave it out")
    if (mixed_in := next((task for task in tasks if task in written.TASKS), None)) and reads != "vectors" and "asr" in tasks:
        raise ConfigError(f"data.train: task {mixed_in} reads text and task asr audio: one training has one of them")
    joined = Joined(sources, spec_augment)
    if not joined.utterances:
        raise ConfigError("data.train holds no utterance that can be trained on; see data.min_seconds and data.max_seconds")
    times = _times(data, hours)
    repeats = [each for source, each in zip(sources, times, strict=True) for _ in source.utterances]
    total = sum(own * each for own, each in zip(hours, times, strict=True))
    return TrainingData(joined, tasks, repeats, fingerprint(joined.utterances), total, left_out)


def _times(data: DataSection, hours: Sequence[float]) -> list[float]:
    """How often an epoch goes through each source of so many hours."""
    weights = [entry.weight for entry in data.train]
    if data.mix is None and None in weights:
        return [entry.repeat for entry in data.train]
    if 0 in hours:
        raise ConfigError(f"data.train: {data.train[hours.index(0)].source} holds nothing that can be trained on, and cannot have a share")
    return mixed(hours, None if data.mix else weights, data.mix.temperature if data.mix else 1.0)


def _options(cls: type[Options], fields: dict[str, Any] | None, key: str) -> Options | None:
    """Options of a recipe as their typed object; None where there are none. Raises ConfigError naming the key."""
    if not fields:
        return None
    try:
        return cls.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join([key, *map(str, first["loc"])])
        raise ConfigError(f"{name}: {first['msg']}; valid: {', '.join(cls.model_fields)}.{nearest(name.split('.')[-1], cls.model_fields)}") from None


def with_text(utterance: Utterance, text: str) -> Utterance:
    """The same utterance with its text replaced."""
    from dataclasses import replace

    return utterance if utterance.text == text else replace(utterance, text=text)


@dataclass(frozen=True)
class EvaluationSet:
    """Utterances that are evaluated with, their task (not `text`) and the normaliser of their text. features: of what is not heard."""

    utterances: list[Utterance]
    task: str
    text: str
    features: FeatureSource | None = None


def evaluation_sets(
    data: DataSection, limit: int, offline: bool = False, speaks: bool = True, front: SpeechInput | None = None
) -> dict[str, EvaluationSet]:
    """What is evaluated with, by source and measure, spread evenly over each source where there is more than `limit`.

    speaks: whether replies are said aloud. front: the speech input, where it may be unified.
    """
    sets: dict[str, EvaluationSet] = {}
    root = Path(data.root)
    for entry in data.eval:
        task, source = entry.task or data.task, locate(entry.source, root)
        if task in written.TASKS or entry.vectors or (front is not None and front.reads == "vectors"):
            clean = normalize.get(entry.text or data.text)
            features = unheard(entry, source, task, clean, front, root=root, offline=offline, limit=limit, key="data.eval")
            unread = EvaluationSet(list(features.utterances), task, entry.text or data.text, features)
            sets |= dict.fromkeys(measures.named(entry.source, task), unread)
            continue
        if is_remote(source) or Path(source, SUMMARY).exists():
            raise ConfigError(f"data.eval: {entry.source} holds features, and evaluation reads audio: give the source they were made of")
        found = [u for u in read_source(source, root=root, offline=offline) if u.text and (u.duration or 0) <= data.max_seconds]
        utterances = [u for u in found if not unfit(u, task, data.prompt_seconds)]
        if not utterances:
            why = f", and all others are {unfit(found[0], task, data.prompt_seconds)}" if found else ""
            raise ConfigError(f"data.eval: {entry.source} holds no utterance with text within data.max_seconds{why}")
        step = max(1, len(utterances) // limit)
        one = EvaluationSet(utterances[::step][:limit], task, entry.text or data.text)
        aloud = speaks and (task == "continue" or any(spoken_answer(u) for u in one.utterances))
        sets |= dict.fromkeys(measures.named(entry.source, task, aloud), one)
    return sets


def build_model(recipe: Recipe, data: TrainingData, tokenizer: Any = None, offline: bool = False) -> tuple[Started, SpeechLMProcessor]:
    """A model as the recipe describes it, random or begun from another, its statistics measured where it keeps any that were not loaded.

    tokenizer: of a run from scratch that is resumed, so that it cannot get another.
    """
    front = recipe.model.speech_input
    if "tts" in data.tasks and recipe.model.speech_output is None:
        raise ConfigError(
            f"task tts needs model.speech_output, which says how speech is made: {{kind: {', or '.join(registry.names('speech-output'))}}}"
        )
    section = recipe.model.model_copy(update={"speech_input": settle_speech_input(front, offline)})
    recipe = recipe.model_copy(update={"model": section})
    origin = None if section.init is None else identify(section.init, offline=offline)
    sounds = choose_lexicon(section, origin, data.tasks)
    corpus = texts_of(data.features.utterances, data.tasks, sounds)
    letters = characters(corpus) if section.ctc_units == "characters" else ALPHABET if section.ctc_units == "sounds" else None
    own = tokenizer is None and (section.tokenizer.renew or origin is None)
    tokenizer = build_tokenizer(recipe, corpus) if own else tokenizer
    torch.manual_seed(recipe.seed)
    started = from_nothing(recipe, tokenizer, letters) if origin is None else start(origin, recipe, letters, tokenizer)
    model, fresh = started.model, started.coverage.fresh
    if not model.hears_by_itself and (lost := unwritable(started.tokenizer, corpus)):
        console.warn(lost)
    model.config.spoken_lexicon = sounds is not None
    dictionary = None
    if model.config.ctc_sounds:
        spoken = (u.text or "" for u, task in zip(data.features.utterances, data.tasks, strict=True) if task not in TEXT_ALONE)
        words = {word for text in dict.fromkeys(spoken) for word in words_of(text)}
        dictionary = choose_dictionary(recipe, origin, corpus, words)
        lacking = len(words - dictionary.pronunciations.keys())
        started.decided["dictionary"] = f"{len(dictionary.words):,} words, those of the recordings among them" + (
            f" but for {lacking:,} that nobody can pronounce" * bool(lacking)
        )
    if dictionary is None and (section.dictionary is not None or section.ctc_units == "sounds"):
        wrong = "model.dictionary is of the words that sounds make" if section.dictionary is not None else "model.ctc_units sounds"
        raise ConfigError(f"{wrong}, and the CTC head hears none: it takes ctc_units: sounds, a ctc_weight and, over another head, fresh: [ctc_head]")
    model.generation_config.num_beams = section.beam
    if all(f"speech_input.{name}" in fresh for name in model.speech_input.state_dict()):
        taken = model.speech_input.load_pretrained(speech_input_class(front)[1], offline)
        started.coverage.take(f"speech_input.{name}" for name in taken)
    norms = [
        module
        for name, module in model.speech_input.named_modules(prefix="speech_input")
        if isinstance(module, GlobalNorm) and any(key.startswith(f"{name}.") for key in fresh)
    ]
    if norms:
        mel_FM = torch.cat([mel_TM.double() for _, mel_TM in sample_heard(data) or sample_said(data)])
        for norm in norms:
            norm.set(mel_FM.mean(0).float(), mel_FM.std(0).float())
    if getattr(model.speech_input, "measures_text", False) and "speech_input.normalise.text_mean_VW" in fresh:
        texts = [source.heard for source in data.features.sources if isinstance(source, written.WrittenFeatures)]
        model.speech_input.measure_text([text for heard in texts for text in heard][:STATISTICS_UTTERANCES])
    if any(name.startswith("speech_output.") for name in fresh):
        measure_output(started, data, sounds)
    elif section.tokenizer.renew and "tts" in data.tasks:
        measure_output(started, data, sounds, statistics=False)
    return started, SpeechLMProcessor.of(model.config, started.tokenizer, model.speech_input, model.speech_output, sounds, dictionary)


def measure_output(started: Started, data: TrainingData, sounds: Lexicon | None = None, statistics: bool = True) -> None:
    """What a new speech output takes from the data before training: its statistics, the pace of speech, and the characters that it learns to say.

    statistics: False leaves those as they are, where one that has them reads other tokens from now on.
    """
    model = started.model
    found = sample_said(data)
    says = bool(found)
    found = found or sample_heard(data)
    spec = model.config.mel_spec
    if statistics:
        output, new = model.speech_output, started.coverage.fresh
        kept = {name: tensor.clone() for name, tensor in output.state_dict().items() if f"speech_output.{name}" not in new}
        output.measure([mel_TM.float() for _, mel_TM in found])
        output.load_state_dict(kept, strict=False)  # what another model brought stays as it is
    texts, steps = [], 0
    for i, mel_TM in found:
        utterance, task = data.features.utterances[i], data.tasks[i]
        before = round(model.config.prompt_seconds * spec.frame_rate) if task == "continue" else 0  # the text is of all of it
        text = str(utterance.extra["answer"]) if task == "answer" else utterance.text or ""
        texts.append(sounds.write(text) if sounds and task == "tts" else text)
        steps += model.speech_output.steps(before + len(mel_TM))
    ids = started.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    model.config.spoken_pace = round(steps / max(sum(map(len, ids)), 1), 4)
    loudness = torch.cat([level(spec, mel_TM) for _, mel_TM in found])
    model.config.spoken_level = round(float(loudness.quantile(0.95)), 2)
    said = [u.text or "" for u, task in zip(data.features.utterances, data.tasks, strict=True) if task == "tts"]
    model.config.spoken_alphabet = characters(said) if said else None
    pace = f"{model.config.spoken_pace:.3g} steps of {model.speech_output.stride} frames a token of text"
    started.decided["pace"] = f"{pace}, measured on {len(found)} utterances{'' if says else ' that are heard'}"


def sample_heard(data: TrainingData) -> list[tuple[int, torch.Tensor]]:
    """Utterances that are heard and their features, evenly spread over the training data."""
    heard = [i for i, (frames, task) in enumerate(zip(data.features.frames, data.tasks, strict=True)) if frames and task != "tts"]
    return _sample(heard, lambda i: data.features.get(i, None))


def sample_said(data: TrainingData) -> list[tuple[int, torch.Tensor]]:
    """Utterances with speech that is said and the mel of that, evenly spread over the training data."""
    both, tasks, features = data.features.said, data.tasks, data.features
    said = [i for i, task in enumerate(tasks) if both[i] or (task == "tts" and features.frames[i])]
    return _sample(said, lambda i: features.get(i, None) if tasks[i] == "tts" else features.pair(i, None)[1])


def _sample(indices: Sequence[int], read: Callable[[int], torch.Tensor | None]) -> list[tuple[int, torch.Tensor]]:
    found = []
    for i in indices[:: max(1, len(indices) // STATISTICS_UTTERANCES)]:
        with suppress(AudioError):  # training names it when it meets it
            found.append((i, read(i)))
    if indices and not found:
        raise ConfigError("data.train: none of the audio sampled for the mel statistics can be read")
    return found


def front_of(model: ModelSection, mel: str, offline: bool = False) -> SpeechInput:
    """The recipe's speech input without memory behind it. Raises ConfigError where it cannot read this mel."""
    spec = preset(mel)
    with torch.device("meta"):
        speech_input = build_speech_input(settle_speech_input(model.speech_input, offline), 8, spec.n_mels)
    speech_input.bind(spec)
    return speech_input
