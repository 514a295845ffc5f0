"""What a resumed training goes on from, and that it is the same model still."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from melcli import console
from melcli import recipe as recipes
from melcli.errors import CheckpointError, ConfigError, first_line
from melcli.models import checkpoint
from melcli.models.config import SpeechLMConfig
from melcli.models.speech_lm import SpeechLM
from melcli.recipe import Recipe
from melcli.training.trainer import latest_checkpoint

RECIPE = "recipe.yaml"  # in a run's folder
TUNE_FREE = ("tune.speech_lr", "tune.lora.dropout", "tune.lora.merge")  # what else `tune` says decides which states the optimizer has
PARTS = ("text_config", "speech_input", "speech_output", "mel", "speech_attention", "text_positions", "ctc_alphabet", "ctc_rate", "ctc_from", "lora")
WEIGHTS = ("ce_weight", "ctc_weight", "spoken_ctc_weight")  # of which nothing or something is another model
SHAPES = (
    *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act", "tie_word_embeddings"),
)  # of a backbone's configuration; others are added to by versions of transformers
LONG = 60  # characters of a setting that are worth showing


def resume_from(out: Path, resume: str | None) -> Path | None:
    """The checkpoint folder that `--resume` means; None where the training begins. Raises ConfigError and CheckpointError."""
    if resume is None:
        if latest_checkpoint(out / "checkpoints") is not None:
            raise ConfigError(f"{out} holds a run already: add --resume auto to continue it, or -o for another folder")
        return None
    if resume == "auto":
        return latest_checkpoint(out / "checkpoints")
    if not (Path(resume) / "trainer_state.json").exists():
        raise CheckpointError(f"--resume {resume}: no checkpoint of a training there; give `auto` or a folder checkpoint-N")
    return Path(resume)


def check_recipe(start: Path, recipe: Recipe) -> None:
    """That the run of a checkpoint trained the same parts; what else its recipe said differently is told. Raises ConfigError."""
    path = start.parent.parent / RECIPE
    if not path.exists():
        return
    try:
        begun = recipes.load(str(path))
    except ConfigError as error:
        console.note(f"what {path} said cannot be compared with this recipe: {first_line(error)}")
        return
    before, now = (dict(_flat(one.model_dump(mode="json", by_alias=True))) for one in (begun, recipe))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key) and _counts(key)]
    for key in changed:
        if key.startswith("tune.") and key not in TUNE_FREE:
            raise ConfigError(
                f"--resume {start}: begun with {_said(key, before)}, and now {_said(key, now)}: other parts train; leave it, or begin anew"
            )
    if changed:
        console.note("resumed with other settings: " + "; ".join(_said(key, now) + _was(before.get(key)) for key in changed))


def check_model(start: Path, model: SpeechLM) -> None:
    """That a checkpoint's tensors fit, and mean what they meant, whatever the training text is now. Raises ConfigError."""
    if not (start / "config.json").exists():
        return
    before, now = _parts(checkpoint.load_config(start)), _parts(model.config)
    for name in before:
        if before[name] != now[name]:
            gap = next(key for key in sorted({*before[name], *now[name]}) if before[name].get(key) != now[name].get(key))
            was, is_now = (part[name].get(gap) for part in (before, now))
            where = f"{name}.{gap}".removesuffix(".")
            raise ConfigError(
                f"--resume {start}: it is a model with {where} {was!r}, and this recipe and data make one with {is_now!r}: "
                "it cannot become that; begin anew, with -o in another folder"
            )


def _parts(config: SpeechLMConfig) -> dict[str, dict[str, Any]]:
    """What decides a model's tensors, by the part of its configuration."""
    found: dict[str, dict[str, Any]] = {name: {"": getattr(config, name) > 0} for name in WEIGHTS}
    for name in PARTS:
        value = getattr(config, name)
        plain = json.loads(json.dumps(value.to_dict() if name == "text_config" else value, default=str))
        found[name] = dict(_flat(plain)) if isinstance(plain, dict) else {"": plain}
        if name == "text_config":
            found[name] = {key: each for key, each in found[name].items() if key in SHAPES}
        found[name] = {key: each for key, each in found[name].items() if "dropout" not in key}
    return found


def _flat(tree: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _counts(key: str) -> bool:
    """Whether a setting decides what is learnt."""
    section, _, rest = key.partition(".")
    ours = recipes.UNCOUNTED.get(section)
    return not (ours is True or (isinstance(ours, set) and rest.partition(".")[0] in ours))


def _said(key: str, settings: dict[str, Any]) -> str:
    shown = str(settings.get(key))
    return f"{key} {shown}" if len(shown) <= LONG else key


def _was(value: Any) -> str:
    return f", was {value}" if len(str(value)) <= LONG else ""
