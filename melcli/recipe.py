"""The recipe: everything that decides a training run, in one typed, frozen tree that is read from YAML and saved beside the weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from melcli import config, registry
from melcli.config import Config
from melcli.unified_recipe import UnifiedRecipe
from melcli.vocoder_recipe import VocoderRecipe

TRAINING = "training.json"  # in a trained model's folder: what the training took
UNCOUNTED = {
    "name": True,
    "summary": True,
    "sweep": True,
    "data": {"root", "cache", "workers"},
    "train": {"log_every", "log_to"},
}  # in a recipe's digest


TEXT_ALONE = ("text", "repeat", "instruct")  # tasks in which no speech is heard or said
TaskName = Literal["asr", "text", "tts", "continue", "answer", "repeat", "instruct"]


class Section(Config):
    """Base of every part of a recipe."""


class Source(Section):
    """One source of utterances: a manifest, folder, corpus (`digits:train`), synthetic speech (`synth:en?hours=2`) or folder of feature shards."""

    source: str = Field(description="what to read; relative paths are looked up from data.root, then from the working directory")
    repeat: float = Field(1.0, gt=0, description="times an epoch goes through it; 0.5 takes a different random half each epoch")
    weight: float | None = Field(None, gt=0, description="instead of repeat, for all sources or none: its share of the hours of an epoch")
    task: TaskName | None = Field(None, description="how its utterances become sequences; data.task unless given")
    text: str | None = Field(None, description="normaliser applied to its text; data.text unless given")
    vectors: str | None = Field(
        None, description="file of vectors (.safetensors, .npy) that an external encoder made of it, read instead of audio; see docs/tesu.md"
    )
    augment: bool = Field(True, description="whether data.augment applies; shards were augmented when they were made and are never changed here")

    @model_validator(mode="after")
    def _one_measure(self) -> Source:
        if self.weight is not None and self.repeat != 1:
            raise ValueError(f"{self.source} has both repeat and weight: give one of them")
        return self


class Mix(Section):
    """Shares of the sources by their size."""

    temperature: float = Field(
        1.0, ge=1, description="a source's share is its hours to the power of 1 / temperature: 1 as they are, more makes small sources larger"
    )


class StoreSection(Section):
    """Where feature shards behind addresses (s3://, gs://, https://) are kept on this machine."""

    folder: str = "~/.cache/melcli/shards"
    gigabytes: float = Field(50.0, gt=0, description="what all kept shards may take together; those wanted longest ago go first")


class VoicePromptSection(Section):
    """Another utterance of the same speaker before what is said, read and not learnt; see data/voice_prompts.py."""

    share: float = Field(0.5, gt=0, le=1, description="of the utterances of task tts whose speaker has others; drawn anew each epoch")
    seconds: tuple[float, float] = Field((1.0, 4.0), description="how long: between these")
    told: float = Field(0.5, ge=0, le=1, description="share that is whole utterances, with their text; the rest are stretches without text")

    @model_validator(mode="after")
    def _in_order(self) -> VoicePromptSection:
        least, most = self.seconds
        if not 0 < least <= most:
            raise ValueError(f"seconds [{least:g}, {most:g}] must be two numbers above 0, the smaller one first")
        return self


class DataSection(Section):
    root: str = Field("data", description="folder that holds the corpora")
    mel: str = Field("phi4mm", description="mel preset; must agree with feature shards and with the model trained from")
    train: tuple[Source, ...] = Field(min_length=1)
    eval: tuple[Source, ...] = Field((), description="decoded and scored during training")
    task: TaskName = Field("asr", description="how an utterance becomes a sequence")
    text: str = Field("plain", description="normaliser applied to the text that is learnt to write or to say; `none` keeps it as it is")
    min_seconds: float = Field(0.1, ge=0)
    max_seconds: float = Field(20.0, gt=0, description="longer utterances are left out, counted and said")
    augment: dict[str, Any] | None = Field(None, description="options of audio augmentation, see melcli.audio.augment.Augment")
    spec_augment: dict[str, Any] | None = Field(None, description="options of melcli.audio.augment.SpecAugment, applied to the log-mel in training")
    prompt_seconds: float = Field(3.0, gt=0, description="task continue: what is heard of an utterance; the rest is said, shorter ones are left out")
    trim_silence: dict[str, Any] | None = Field(None, description="options of melcli.data.silence.Trim, applied to speech that is learnt to be said")
    voice_prompts: VoicePromptSection | None = Field(None, description="speech of the same speaker before what is learnt to be said")
    mix: Mix | None = Field(None, description="shares of the sources by their hours, instead of each source's repeat or weight")
    shuffle: Literal["global", "shards"] = Field(
        "global", description="order of an epoch: of all utterances, or of shards and then of those in a window of them, for shards behind addresses"
    )
    cache: StoreSection = StoreSection()
    text_noise: float = Field(0.0, ge=0, lt=1, description="share of target tokens that the model reads as others in training, so that it listens")
    workers: int = Field(1, ge=0, description="processes that decode and extract features")

    @model_validator(mode="after")
    def _one_mixture(self) -> DataSection:
        weighted = [entry for entry in self.train if entry.weight is not None]
        if weighted and len(weighted) < len(self.train):
            raise ValueError(f"weights are shares of the whole: {weighted[0].source} has one, so give one to every source of train, or to none")
        if self.mix is not None and (found := next((e.source for e in self.train if e.weight is not None or e.repeat != 1), None)):
            raise ValueError(f"mix sets how often each source is drawn: take repeat or weight from {found}, or leave mix out")
        if (weighted or self.mix) and (found := next((e.source for e in self.train if (e.task or self.task) in TEXT_ALONE), None)):
            raise ValueError(f"weight and mix share out hours of speech, and {found} is text alone: use repeat")
        return self


class TokenizerSection(Section):
    from_: str | None = Field(None, alias="from", description="tokenizer of a model by hub name or folder; default: train one on the training text")
    units: Literal["pieces", "characters"] = Field("pieces", description="of a trained one: byte pairs, or each character of the training text")
    vocab_size: int = Field(512, ge=32, description="size of a trained byte-pair vocabulary")
    renew: bool = Field(False, description="train one although the model of `init` has its own; the rows of tokens that both have are kept")


class LexiconSection(Section):
    """What is said is read as it sounds, word by word, instead of as it is spelled; see data/lexicon.py."""

    from_: str = Field(alias="from", description="cmudict, the CMU Pronouncing Dictionary, or a file: a word, a tab and its pronunciation a line")
    spelled: float = Field(0.1, ge=0, le=1, description="share of the known words that training leaves in letters, for the sake of unknown ones")


class DictionarySection(Section):
    """The words that a CTC head's sounds make, of the CMU Pronouncing Dictionary, and how likely they are to follow each other."""

    texts: tuple[str, ...] = Field((), description="text collections, under data.root or by path, besides the training text: *.txt.gz or *.jsonl.gz")
    least_words: int = Field(2, ge=1, description="times that a word must occur to be one of the dictionary's")
    least: int = Field(2, ge=1, description="times that three words must follow each other for that to be kept; of two words one less")


class ModelSection(Section):
    init: str | None = Field(
        None, description="a model to start from: ours, any causal LM of transformers, or Phi-4-multimodal, by name, folder or hub id"
    )
    fresh: tuple[str, ...] = Field((), description="patterns of tensors that start random though `init` may have them, `speech_input` for example")
    drop: tuple[str, ...] = Field((), description="patterns of tensors of `init` that the model has no place for and that are left behind")
    speech_input: dict[str, Any] = Field(
        {"kind": "mel-patch", "patch": 8}, description="kind and options, see `melcli models ls --kind speech-input`"
    )
    backbone: dict[str, Any] | None = Field(
        None, description="a transformers config (model_type and its fields), trained from scratch; by default that of `init`"
    )
    speech_attention: Literal["causal", "bidirectional"] | None = Field(
        None, description="how speech positions see each other; causal unless given, or as in `init` where that is ours"
    )
    speech_output: dict[str, Any] | None = Field(
        None, description="kind and options of what speaks, see `melcli models ls --kind speech-output`; none for a model that only listens"
    )
    speak_prompt: str | None = Field(
        None, description="what is read before speaking, <|text|> in it being where the text goes; <|text|><|speak|>, or as in `init`, unless given"
    )
    speak_temperature: float | None = Field(
        None, ge=0, le=10, description="of what the model says, unless `--temperature` asks for another; 1, or as in `init`, unless given"
    )
    text_positions: Literal["plain", "spread"] = Field(
        "plain", description="spread: a token of a text or reply that is said, and the step that says it, get about the same position"
    )
    spoken_ctc_weight: float = Field(0.0, ge=0, description="weight of an auxiliary CTC loss on the states that speech is said from")
    ctc_weight: float = Field(0.0, ge=0, description="weight of an auxiliary CTC loss on speech positions")
    ctc_units: Literal["tokens", "characters", "sounds"] = Field(
        "tokens", description="what CTC tells apart; characters are those of the training text, sounds how its words are pronounced"
    )
    dictionary: DictionarySection | None = Field(
        None, description="of the words that ctc_units sounds make; that of `init` unless given, or one of the training text"
    )
    ctc_rate: int | None = Field(
        None, ge=1, description="CTC frames that each speech position gives, 1 or as in `init` unless given; characters at 12.5 Hz need 2 or 3"
    )
    ctc_from: Literal["backbone", "speech-input"] | None = Field(
        None, description="what CTC reads: the language model's last states where speech is, or what goes into it there; backbone, or as in `init`"
    )
    ce_weight: float = Field(1.0, ge=0, description="weight of the next-token cross entropy")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    beam: int = Field(1, ge=1, description="hypotheses that the finished model follows unless told otherwise; 1 is greedy")
    prompt: str = Field(
        "auto",
        description="what precedes the transcript; <|speech|> in it is where the audio goes. chat: the chat template of `init` around <|speech|> "
        "and the instruction. auto: that of `init` where it is ours, chat where it has a template, else <|speech|><|transcribe|>",
    )
    prompts: dict[str, str] = Field(
        {},
        description="the same for tasks that write something else, by task; auto: <|speech|><|continue|>, <|speech|><|question|>. What follows "
        "<|text|> in one is read between the text and speech that is said, by default what follows it in speak_prompt",
    )
    instruction: str = Field("Transcribe the audio clip into text.", description="what the chat prompt asks for")
    lexicon: LexiconSection | None = Field(
        None, description="a pronunciation dictionary for texts that are said; none, or that of `init`, unless given"
    )
    tokenizer: TokenizerSection = TokenizerSection()


def _as_text(value: Any) -> Any:
    """One layer, which YAML reads as a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class LoraSection(Section):
    """Low-rank adapters (Hu et al., 2021, arXiv 2106.09685) on linear layers of the language model."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str = Field(
        r"(q|k|v|o|qkv|gate|up|down|gate_up)_proj|query_key_value|dense(_h_to_4h|_4h_to_h)?|fc1|fc2",
        description="pattern that the last part of a module's name must match in full",
    )
    layers: Annotated[str, BeforeValidator(_as_text)] | None = Field(
        None, description="layers whose adapters train, such as 0-23 or 0-3,8; the others keep theirs as they are"
    )
    merge: bool = Field(False, description="add the adapters to the weights, in float32, when training is done")


class TuneSection(Section):
    """What trains, and how fast. Without it everything does, at train.lr."""

    llm: Literal["full", "lora", "frozen"] = "full"
    lora: LoraSection = LoraSection()
    freeze: tuple[str, ...] = Field((), description="patterns of parameters that do not train")
    keep: tuple[str, ...] = Field((), description="patterns of parameters that train in spite of `freeze`")
    speech_lr: float | None = Field(None, gt=0, description="learning rate of speech input, output and CTC head; train.lr unless given")


class Curriculum(Section):
    epochs: int = Field(1, gt=0, description="epochs that hold short utterances only")
    max_seconds: float = Field(6.0, gt=0, description="what counts as short")


class TrainSection(Section):
    epochs: float | None = Field(None, gt=0)
    steps: int | None = Field(None, gt=0, description="optimiser steps; either this or epochs")
    tokens_per_batch: int = Field(8192, gt=0, description="sequence positions in one batch; a step has `accumulate` batches a device")
    row_tokens: int = Field(512, gt=0, description="positions in one packed row")
    curriculum: Curriculum | None = Field(None, description="begin with short utterances, from which alignment is learnt sooner")
    lr: float = Field(1e-3, gt=0)
    warmup: float = Field(0.05, ge=0, description="fraction of the run, or steps where it is 1 or more")
    schedule: Literal["linear", "cosine", "constant", "wsd"] = "cosine"
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = Field(1.0, gt=0)
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: the matrices of hidden layers by Muon (orthogonalised momentum), everything else by AdamW"
    )
    accumulate: int = Field(1, ge=1, description="batches of each device in one optimiser step")
    parallel: Literal["ddp", "fsdp", "zero1"] = Field(
        "ddp", description="what several devices share: ddp nothing, zero1 (DeepSpeed) the optimiser's states, fsdp (PyTorch's FSDP2) weights too"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="autocast type; auto takes bfloat16 where the hardware multiplies it")
    weights: Literal["float32", "bfloat16"] = Field("float32", description="number format of the final model's weights on disk")
    compile: bool = Field(False, description="compile the language model's layers with torch.compile")
    gradient_checkpointing: bool = Field(False, description="compute each layer's activations anew in the backward pass instead of keeping them")
    eval_every: int = Field(500, gt=0, description="steps between evaluations by decoding")
    save_every: int = Field(500, gt=0)
    keep: int = Field(2, ge=1, description="checkpoints kept; the best by word error rate is always kept")
    average: int = Field(0, ge=0, description="average the last K evaluations' weights into the final model, if that is better")
    log_every: int = Field(20, gt=0)
    log_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    eval_limit: int = Field(200, gt=0, description="utterances a source that are decoded during training")

    @model_validator(mode="after")
    def _one_length(self) -> TrainSection:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        if self.optimizer == "muon" and self.parallel != "ddp":
            raise ValueError(f"optimizer muon needs whole matrices and parallel {self.parallel} shares them out: take adamw, or parallel ddp")
        return self


class SweepSection(Section):
    """Many trainings from one recipe: the product of everything listed here, see melcli.sweep."""

    grid: dict[str, list[Any]] = Field({}, description="dotted keys and the values that each takes in turn")
    cases: dict[str, dict[str, Any] | None] = Field({}, description="named sets of dotted keys and values, of which each member takes one")
    axes: dict[str, dict[str, dict[str, Any] | None]] = Field({}, description="further such groups of named sets, each group under its own name")


class Recipe(Section):
    """A whole experiment. `melcli train RECIPE key.sub=value` overrides any field by its dotted name."""

    name: str
    summary: str = ""
    seed: int = 0
    data: DataSection
    model: ModelSection
    tune: TuneSection = TuneSection()
    train: TrainSection
    sweep: SweepSection | None = None

    @model_validator(mode="after")
    def _starts_somewhere(self) -> Recipe:
        if self.model.init is None and not isinstance(self.model.backbone, dict):
            raise ValueError("give model.init, a model to start from, or model.backbone, a transformers config to train from scratch")
        return self

    @model_validator(mode="after")
    def _one_rate(self) -> Recipe:
        if self.train.optimizer == "muon" and self.tune.speech_lr is not None:
            raise ValueError("train.optimizer muon has one learning rate: leave tune.speech_lr out, or take adamw")
        return self

    @model_validator(mode="after")
    def _speech_once(self) -> Recipe:
        named = self.model.prompt in ("auto", "chat")
        if self.data.task == "asr" and not named and (count := self.model.prompt.count("<|speech|>")) != 1:
            raise ValueError(f"model.prompt {self.model.prompt!r} must hold <|speech|> once, where the audio goes, and holds it {count} times")
        for task, prompt in self.model.prompts.items():
            if prompt not in ("auto", "chat") and (count := prompt.partition("<|text|>")[0].count("<|speech|>")) != 1:
                raise ValueError(f"model.prompts.{task} {prompt!r} must hold <|speech|> once, where the audio goes, and holds it {count} times")
        said = self.model.speak_prompt
        if said is not None and (count := said.count("<|text|>")) != 1:
            raise ValueError(f"model.speak_prompt {said!r} must hold <|text|> once, where the text goes, and holds it {count} times")
        return self

    @property
    def tasks(self) -> list[str]:
        """The tasks of the training data, each once."""
        return list(dict.fromkeys(entry.task or self.data.task for entry in self.data.train))


def load(name_or_path: str, overrides: list[str] | None = None) -> Recipe:
    """A recipe by registered name or path with `key.sub=value` overrides applied. Raises ConfigError with file and line.

    One with a `vocoder:` is a VocoderRecipe, one with a `unified:` a UnifiedRecipe, which share name, summary and seed with the others.
    """
    tree = read(name_or_path, overrides)
    kind = VocoderRecipe if "vocoder" in tree.data else UnifiedRecipe if "unified" in tree.data else Recipe
    return config.validate(kind, tree)  # type: ignore[type-var,return-value]


def read(name_or_path: str, overrides: list[str] | None = None) -> config.Tree:
    """What `load` checks, before it is checked."""
    path = Path(name_or_path)
    if not path.suffix and not path.exists():
        path = Path(registry.get("recipe", name_or_path).load())
    return _dotted(config.apply_overrides(config.load_tree(path), overrides or []))


def _dotted(tree: config.Tree) -> config.Tree:
    """The same tree with nested mappings in `sweep.grid` written as dotted keys; `sweep.grid.train.lr=[1]` on the command line makes such.

    Of a key that is there in both forms the nested one counts, which came later.
    """
    sweep = tree.data.get("sweep")
    if not isinstance(sweep, dict) or not isinstance(sweep.get("grid"), dict):
        return tree
    grid: dict[str, Any] = {}
    marks = dict(tree.marks)

    def lay(part: dict[str, Any], above: tuple[str, ...]) -> None:
        for word, value in part.items():
            if isinstance(value, dict):
                lay(value, (*above, word))
            else:
                key = ".".join((*above, word))
                grid[key] = value
                marks["sweep", "grid", key] = tree.where(("sweep", "grid", *above, word))

    lay(sweep["grid"], ())
    return config.Tree({**tree.data, "sweep": {**sweep, "grid": grid}}, marks, tree.name)


def digest(recipe: Recipe) -> str:
    """Eight bytes in hexadecimal that stand for what a recipe makes: equal for the same training, whatever the version that wrote the recipe down.

    Names, where the corpora lie and what is only shown do not count, nor do settings that are at their defaults.
    """
    said = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=UNCOUNTED)
    if said.get("model", {}).get("ctc_rate") == 1:  # what earlier versions wrote down where nothing was said
        del said["model"]["ctc_rate"]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
