"""Where a training starts: nothing, one of our models, any causal language model of transformers, or Phi-4-multimodal.

One function a kind builds the SpeechLM of the recipe from it and says which tensors were loaded, left behind or are random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from melcli.audio.mel_spec import preset
from melcli.data.tasks import SPOKEN
from melcli.errors import CheckpointError, ConfigError, MelcliError, first_line, nearest
from melcli.models import causal_lm, chat, checkpoint, lora
from melcli.models.config import SPEAK_PROMPT, SPEECH_TOKEN, STOP_TOKEN, SpeechLMConfig
from melcli.models.coverage import Coverage, Patterns, sizes, some
from melcli.models.packable import check_packable
from melcli.models.phi4mm import read_phi4mm
from melcli.models.speech_input import build_speech_input
from melcli.models.speech_lm import SpeechLM
from melcli.models.speech_output import build_speech_output
from melcli.models.start_lora import add_lora, take_lora
from melcli.models.task_prompts import prompt_tokens, speaking_tokens, task_prompts, tokens_of
from melcli.models.vocabulary import renew
from melcli.models.written_config import check_fields
from melcli.recipe import ModelSection, Recipe

SPOKEN_FACTS = ("spoken_pace", "spoken_alphabet", "spoken_level", "speak_temperature")  # the first three measured where a speech output begins
Kind = Literal["speech_lm", "phi4mm", "phi4_multimodal", "causal-lm"]


@dataclass(frozen=True, slots=True)
class Origin:
    """A model to start from, looked at and not loaded. name: as it was given."""

    name: str
    folder: Path
    kind: Kind


@dataclass
class Started:
    """The model of a recipe, its tokenizer, where its tensors come from, and what else was decided."""

    model: SpeechLM
    tokenizer: Any
    coverage: Coverage
    decided: dict[str, str] = field(default_factory=dict)


def identify(name: str, *, offline: bool = False) -> Origin:
    """What a name, folder or hub id is. Raises CheckpointError where nothing can start from it."""
    folder = checkpoint.resolve(name, offline=offline, flag="model.init")
    fields = checkpoint.read_config(folder)
    kind = fields.get("model_type")
    if kind in ("speech_lm", "phi4mm", "phi4_multimodal"):
        return Origin(name, folder, kind)
    causal_lm.check(folder, fields)
    return Origin(name, folder, "causal-lm")


def from_nothing(recipe: Recipe, tokenizer: Any, alphabet: str | None) -> Started:
    """A random model of the backbone that the recipe describes. Raises ConfigError."""
    section = recipe.model
    if section.prompt == "chat":
        raise ConfigError("model.prompt chat: a chat template comes with a model; give model.init, or write the prompt out")
    prompt = chat.PLAIN if section.prompt == "auto" else section.prompt
    prompts = task_prompts(recipe, chat.PLAIN, lambda: chat.chat_prompt(tokenizer, section.instruction, "this tokenizer"))
    stops = [tokenizer.convert_tokens_to_ids(STOP_TOKEN)]
    text_config = _text_config(section, len(tokenizer))
    text_config.bos_token_id = None
    speech = tokenizer.convert_tokens_to_ids(SPEECH_TOKEN)
    speaks = speaking(section, tokenizer)
    speaks["prompts"] = prompts
    config = speech_config(recipe, text_config, tokenizer.pad_token_id, prompt, stops, alphabet, speech_token_id=speech, **speaks)
    model = _build(config, "model.backbone")
    check_packable(model, "model.backbone")
    tensors = _wanted(model)
    started = Started(model, tokenizer, Coverage(fresh=sizes(tensors, tensors)))
    if recipe.tune.llm == "lora":
        add_lora(started, recipe)
    return started


def start(origin: Origin, recipe: Recipe, alphabet: str | None, tokenizer: Any = None) -> Started:
    """The model of a recipe, begun from another. alphabet: the characters of a CTC head that starts anew, None for tokens.

    tokenizer: one that a model of ours gets instead of its own. Raises ConfigError and CheckpointError.
    """
    fresh, drop = Patterns(recipe.model.fresh, "model.fresh"), Patterns(recipe.model.drop, "model.drop")
    if recipe.model.tokenizer.from_:
        raise ConfigError(f"model.tokenizer.from: a model begun from {origin.name} keeps its tokenizer; leave it out")
    if tokenizer is not None and origin.kind != "speech_lm":
        raise ConfigError(f"model.tokenizer.renew: {origin.name} is no model of melcli, and keeps its tokenizer; leave it out")
    if origin.kind == "speech_lm":
        started = _from_ours(origin, recipe, alphabet, fresh, drop, tokenizer)
    else:
        started = (_from_llm if origin.kind == "causal-lm" else _from_phi)(origin, recipe, alphabet, fresh, drop)
    if broken := checkpoint.not_finite(started.model.state_dict()):
        raise CheckpointError(f"model.init {origin.name}: {broken} holds numbers that are not finite")
    check_packable(started.model, f"model.init {origin.name}")
    config = started.model.config
    if recipe.tune.llm == "lora" and config.lora is None:
        add_lora(started, recipe)
    drop.check_used(started.coverage.left, f"leaves nothing of {origin.name} behind; take it out, or name tensors that this model has no place for")
    fresh.check_used([*started.coverage.fresh, *started.coverage.loaded, *started.coverage.left])
    stops = " ".join(started.tokenizer.convert_ids_to_tokens(config.stop_token_ids))
    started.decided |= {"prompt": f"{config.prompt!r}, then the transcript, then {stops}"}
    return started


def speaking(section: ModelSection, tokenizer: Any) -> dict[str, Any]:
    """The fields of the configuration that speech which is said needs; the tokenizer has its tokens."""
    if section.speech_output is None:
        return {}
    found: dict[str, Any] = {"speak_prompt": section.speak_prompt or SPEAK_PROMPT, "spoken_token_id": tokenizer.convert_tokens_to_ids(SPOKEN)}
    return found if section.speak_temperature is None else found | {"speak_temperature": section.speak_temperature}


def speech_config(recipe: Recipe, text_config: PretrainedConfig, pad: int, prompt: str, stops: list[int], alphabet: str | None, **more: Any):
    """The SpeechLMConfig of a recipe around a backbone. more: fields that the recipe leaves open, as the model begun from has them."""
    section = recipe.model
    if "instruct" in (prompts := more.get("prompts") or {}) and {"repeat", "asr"} & {*recipe.tasks}:
        more["prompts"] = {**prompts, "repeat": prompt}  # what a spoken question was heard as
    text_config.use_cache = True
    text_config.pad_token_id = pad
    text_config.eos_token_id = stops[0] if len(stops) == 1 else stops
    return SpeechLMConfig(
        text_config=text_config,
        speech_input=section.speech_input,
        mel=preset(recipe.data.mel).model_dump(),
        ctc_weight=section.ctc_weight,
        ctc_alphabet=alphabet if section.ctc_weight > 0 or section.spoken_ctc_weight > 0 else None,
        ce_weight=section.ce_weight,
        label_smoothing=section.label_smoothing,
        prompt=prompt,
        stop_token_ids=stops,
        pad_token_id=pad,
        max_seconds=recipe.data.max_seconds,
        prompt_seconds=recipe.data.prompt_seconds,
        speech_output=section.speech_output,
        text_positions=section.text_positions,
        spoken_ctc_weight=section.spoken_ctc_weight,
        **{
            **more,
            "speech_attention": section.speech_attention or more.get("speech_attention", "causal"),
            "ctc_from": section.ctc_from or more.get("ctc_from", "backbone"),
            "ctc_rate": section.ctc_rate or more.get("ctc_rate", 1),
        },
    )


def _text_config(section: ModelSection, vocabulary: int) -> PretrainedConfig:
    """The backbone's config that the recipe writes down."""
    fields = dict(section.backbone or {})
    kind = fields.get("model_type")
    if kind not in CONFIG_MAPPING or CONFIG_MAPPING[kind] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        known = nearest(str(kind), MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
        raise ConfigError(f"model.backbone.model_type: {kind!r} is no causal language model of transformers, as qwen3 and llama are.{known}")
    check_fields(fields, "model.backbone")
    del fields["model_type"]
    try:
        return AutoConfig.for_model(kind, **{"vocab_size": vocabulary, "tie_word_embeddings": True, **fields})
    except Exception as error:  # transformers checks each field in its own way
        raise ConfigError(f"model.backbone: {first_line(error)}") from None


# --- the kinds -----------------------------------------------------------------------------------------------------------------------------


def _from_llm(origin: Origin, recipe: Recipe, alphabet: str | None, fresh: Patterns, drop: Patterns) -> Started:
    """A language model of transformers, with a speech input that knows nothing yet."""
    section = recipe.model
    if section.backbone is not None:
        raise ConfigError(f"model.backbone: the language model is that of model.init {origin.name}; leave it out")
    tokenizer = causal_lm.read_tokenizer(origin.folder)
    llm, coverage = causal_lm.read_llm(origin.folder, fresh, drop)
    causal_lm.check_vocabulary(llm.get_input_embeddings().weight.shape[0], tokenizer, origin.name)
    talks = section.prompt == "chat" or (section.prompt == "auto" and chat.has_template(tokenizer))
    prompt = _prompt(section, tokenizer, origin.name, chat.plain_prompt(tokenizer), talks)
    stops = chat.stop_ids(tokenizer, origin.folder, llm.config, talks, origin.name)
    prompts = task_prompts(recipe, chat.plain_prompt(tokenizer), lambda: chat.chat_prompt(tokenizer, section.instruction, origin.name))
    special = [*tokens_of(prompt), *speaking_tokens(section), *prompt_tokens(prompts)]
    added = causal_lm.add_tokens(tokenizer, [SPEECH_TOKEN, *special, *([] if stops else [STOP_TOKEN])])
    stops = stops or [tokenizer.convert_tokens_to_ids(STOP_TOKEN)]
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(stops[-1])
    decided = {"tokens": causal_lm.fit_vocabulary(llm, tokenizer, added)} if added else {}
    speech = tokenizer.convert_tokens_to_ids(SPEECH_TOKEN)
    speaks = speaking(section, tokenizer) | {"prompts": prompts}
    model = _empty(speech_config(recipe, llm.config, tokenizer.pad_token_id, prompt, stops, alphabet, speech_token_id=speech, **speaks))
    model.llm = llm
    wanted = _wanted(model)
    random = [name for name in wanted if name in coverage.fresh or not name.startswith("llm.")]
    _assign(model, _random(model, random))
    return Started(model, tokenizer, Coverage(coverage.loaded, coverage.left, sizes(wanted, random)), decided)


def _from_ours(origin: Origin, recipe: Recipe, alphabet: str | None, fresh: Patterns, drop: Patterns, other: Any = None) -> Started:
    """A model of ours: all tensors by name, but those that `fresh` and `drop` say. other: a tokenizer to go on with instead of its own."""
    theirs = checkpoint.load_config(origin.folder)
    tokenizer = causal_lm.read_tokenizer(origin.folder)
    checkpoint.check_pair(origin.folder, theirs, tokenizer)
    tensors = {name.replace(".base_layer.", "."): tensor for name, tensor in checkpoint.read_tensors(origin.folder).items()}
    if other is None:
        return _from_speech_lm(origin, recipe, theirs, tokenizer, tensors, alphabet, fresh, drop)
    llm = _empty(theirs).llm
    ends = [end for end in (llm.get_input_embeddings(), llm.get_output_embeddings()) if end is not None]
    tables = [f"llm.{name}.weight" for name, module in llm.named_modules() if any(module is end for end in ends)]
    renewed = renew(theirs, [name for name in tables if name in tensors], tensors, tokenizer, other)
    started = _from_speech_lm(origin, recipe, theirs, other, tensors, alphabet, fresh, drop)
    started.decided["new tokens"] = renewed
    return started


def _from_phi(origin: Origin, recipe: Recipe, alphabet: str | None, fresh: Patterns, drop: Patterns) -> Started:
    """Phi-4-multimodal in either layout: language model, speech LoRA and front end are its own, vision and what else is not heard is left."""
    phi = read_phi4mm(origin.folder, recipe.model.speech_input)
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"speech_input": phi.config.speech_input})})
    started = _from_speech_lm(origin, recipe, phi.config, phi.tokenizer, phi.tensors, alphabet, Patterns([*fresh.patterns, "^ctc_head"], ""), drop)
    started.coverage.left |= phi.left
    started.coverage.groups |= phi.groups
    return started


def _from_speech_lm(
    origin: Origin,
    recipe: Recipe,
    theirs: SpeechLMConfig,
    tokenizer: Any,
    tensors: dict[str, Tensor],
    alphabet: str | None,
    fresh: Patterns,
    drop: Patterns,
) -> Started:
    """The recipe's model from the configuration and the tensors of another SpeechLM, its adapters' beside the weights and not around them."""
    section = recipe.model
    prompt = _prompt(section, tokenizer, origin.name, theirs.prompt, section.prompt == "chat")
    text_config = theirs.text_config if section.backbone is None else _text_config(section, theirs.vocab_size)
    hears = section.ctc_weight > 0 and theirs.ctc_weight > 0 and not (fresh("ctc_head.weight") or drop("ctc_head.weight"))
    speaks_ctc = section.spoken_ctc_weight > 0 and theirs.spoken_ctc_weight > 0
    says = speaks_ctc and not (fresh("spoken_ctc_head.weight") or drop("spoken_ctc_head.weight"))
    classes = theirs.ctc_alphabet if hears or says else alphabet  # of either head
    if hears and section.ctc_from not in (None, theirs.ctc_from):
        raise ConfigError(
            f"model.ctc_from {section.ctc_from}: the CTC head of model.init {origin.name} learnt to read from its {theirs.ctc_from}; "
            "leave ctc_from out, or model.fresh: [ctc_head]"
        )
    if (hears or says) and section.ctc_rate not in (None, theirs.ctc_rate):
        raise ConfigError(
            f"model.ctc_rate {section.ctc_rate}: the CTC head of model.init {origin.name} gives {theirs.ctc_rate} frames a position; "
            "leave ctc_rate out, or model.fresh: [ctc_head]"
        )
    if section.tokenizer.renew and ((says and theirs.ctc_alphabet != alphabet) or ((hears or says) and theirs.ctc_alphabet is None)):
        head = "spoken_ctc_head" if says else "ctc_head"
        raise ConfigError(f"model.tokenizer.renew: the {head} of model.init {origin.name} tells other characters apart; model.fresh: [{head}]")
    kept = {name: getattr(theirs, name) for name in ("speech_token_id", "end_token_ids", "speech_attention", "ctc_from", "ctc_rate", *SPOKEN_FACTS)}
    if theirs.speech_output is not None:
        section = section.model_copy(update={"speak_prompt": section.speak_prompt or theirs.speak_prompt})
    plain = chat.plain_prompt(tokenizer)
    prompts = task_prompts(recipe, plain, lambda: chat.chat_prompt(tokenizer, section.instruction, origin.name), theirs.prompts)
    special = [*tokens_of(prompt), *speaking_tokens(section), *prompt_tokens(prompts)]
    added = causal_lm.add_tokens(tokenizer, [token for token in special if token != SPEECH_TOKEN])
    kept |= speaking(section, tokenizer) | {"prompts": prompts}
    config = speech_config(recipe, text_config, theirs.pad_token_id, prompt, theirs.stop_token_ids, classes, **kept)
    model = _empty(config)
    wanted = _wanted(model)
    if not all(fresh(name) for name in wanted if name.startswith("speech_input.")) and (gap := config.mel_spec.difference(theirs.mel_spec)):
        raise ConfigError(f"data.mel: the features differ from those of model.init {origin.name}: {gap}; or model.fresh: [speech_input]")
    floors = [(output or {}).get("floor") for output in (config.speech_output, theirs.speech_output)]
    if floors[0] != floors[1] and not all(fresh(name) for name in wanted if name.startswith("speech_output.normalise.")):
        raise ConfigError(
            f"model.speech_output.floor: {floors[0]} where that of model.init {origin.name} is {floors[1]}: its statistics are of other values; "
            "measure them anew with model.fresh: [speech_output.normalise]"
        )
    adapters = {name: tensors.pop(name) for name in [*tensors] if lora.is_lora(name)}
    coverage = _match(origin, wanted, tensors, fresh, drop)
    _assign(model, {name: tensors[name].float() for name in coverage.loaded} | _random(model, [*coverage.fresh]))
    started = Started(model, tokenizer, coverage)
    take_lora(started, origin, recipe, theirs.lora, adapters, fresh, drop)
    if added:
        started.decided["tokens"] = causal_lm.fit_vocabulary(model.llm, tokenizer, added)
        model.config.text_config = model.llm.config
    if (hears or says) and classes != alphabet and section.ctc_units != "tokens":
        started.decided["CTC"] = f"its head tells apart what that of {origin.name} does; for {section.ctc_units}, model.fresh: [ctc_head]"
    for name in ("prompt", "speech_attention"):
        if (now := getattr(config, name)) != (then := getattr(theirs, name)):
            started.decided[f"new {name.replace('_', ' ')}"] = f"{now!r} where {origin.name} had {then!r}"
    return started


# --- their parts ---------------------------------------------------------------------------------------------------------------------------


def _prompt(section: ModelSection, tokenizer: Any, name: str, otherwise: str, talks: bool) -> str:
    """What precedes the transcript: the chat template where the model is talked to, what the recipe says, or else `otherwise`."""
    if talks:
        return chat.chat_prompt(tokenizer, section.instruction, name)
    return otherwise if section.prompt == "auto" else section.prompt


def _empty(config: SpeechLMConfig) -> SpeechLM:
    """The model with no memory behind its parameters; buffers that no checkpoint holds are computed."""
    with init_empty_weights():
        return _build(config, "the recipe with its model.init")


def _build(config: SpeechLMConfig, what: str) -> SpeechLM:
    """A model; ConfigError where `what` describes none."""
    try:
        return SpeechLM(config)
    except MelcliError:
        raise
    except Exception as error:  # transformers checks each field in its own way
        raise ConfigError(f"{what} describes no possible model: {first_line(error)}") from None


def _wanted(model: SpeechLM) -> dict[str, Tensor]:
    """The tensors that a model consists of, tied ones once."""
    tied = set(model._tied_weights_keys or {})
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


def _match(origin: Origin, wanted: dict[str, Tensor], tensors: dict[str, Tensor], fresh: Patterns, drop: Patterns) -> Coverage:
    """Which tensors are loaded, which start random and which are left behind. Raises CheckpointError for any that nothing was said of."""
    dropped = [name for name in tensors if drop(name)]
    random = [name for name in wanted if fresh(name)]
    loaded = [name for name in wanted if name in tensors and name not in {*random, *dropped}]
    if missing := sorted(set(wanted) - set(loaded) - set(random)):
        first = missing[0].partition(".")[0]
        raise CheckpointError(f"model.init {origin.name} has no {some(missing)}; to start those at random: model.fresh: [{first}]")
    if over := sorted(name for name in tensors if name not in wanted and name not in dropped and not fresh(name)):
        first = over[0].rpartition(".")[0].partition(".")[0] if over[0].count(".") < 2 else ".".join(over[0].split(".")[:2])
        raise CheckpointError(f"model.init {origin.name} has {some(over)}, for which this model has no place; to leave those: model.drop: [{first}]")
    if wrong := sorted(name for name in loaded if tensors[name].shape != wanted[name].shape):
        there, here = ("x".join(map(str, one[wrong[0]].shape)) for one in (tensors, wanted))
        raise CheckpointError(f"model.init {origin.name} has {some(wrong)} of another shape ({there}, and {here} here)")
    left = [name for name in tensors if name not in loaded]
    return Coverage(sizes(tensors, loaded), sizes(tensors, left), sizes(wanted, random))


def _random(model: SpeechLM, names: Iterable[str]) -> dict[str, Tensor]:
    """Tensors as a new model would begin with, only the parts being built that hold them."""
    config, wanted = model.config, set(names)
    built: dict[str, Callable[[], nn.Module]] = {
        "speech_input": lambda: build_speech_input(config.speech_input, config.hidden_size, config.mel_spec.n_mels),
        "speech_output": lambda: build_speech_output(config.speech_output, config.hidden_size, config.mel_spec.n_mels),
        "ctc_head": lambda: nn.Linear(config.hidden_size, config.ctc_rate * config.ctc_classes),
        "spoken_ctc_head": lambda: nn.Linear(config.hidden_size, config.ctc_rate * config.ctc_classes),
        "llm": lambda: AutoModelForCausalLM.from_config(config.text_config),
    }
    tensors: dict[str, Tensor] = {}
    for part, build in built.items():
        if any(name.startswith(f"{part}.") for name in wanted):
            module = build()
            if part.endswith("ctc_head"):
                model._init_weights(module)
            elif part == "speech_input":
                module.bind(config.mel_spec)  # what a fusion joins its inputs with depends on it
            tensors |= {name: tensor for key, tensor in module.state_dict().items() if (name := f"{part}.{key}") in wanted}
    return tensors


def _assign(model: SpeechLM, tensors: dict[str, Tensor]) -> None:
    model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
