"""What a resumed training goes on from, and that it is the same training still."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from melcli import console
from melcli import recipe as recipes
from melcli.errors import CheckpointError, ConfigError
from melcli.models import checkpoint
from melcli.models.speech_lm import SpeechLM
from melcli.recipe import Recipe
from melcli.training.trainer import latest_checkpoint

RECIPE = "recipe.yaml"  # in a run's folder
FIXED = ("model.", "tune.", "data.mel")  # what the tensors of a checkpoint are, and what they mean
FREE = ("model.beam", "model.label_smoothing", "tune.speech_lr", "tune.lora.dropout", "tune.lora.merge")  # of these all but


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
    """That the run of a checkpoint was of such a model; what else its recipe said is told, and may differ. Raises ConfigError."""
    path = start.parent.parent / RECIPE
    if not path.exists():
        return
    before, now = (dict(_flat(one.model_dump(mode="json", by_alias=True))) for one in (recipes.load(str(path)), recipe))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key) and _counts(key)]
    fixed = [key for key in changed if key.startswith(FIXED) and key not in FREE]
    if fixed:
        more = f" and {len(fixed) - 1} more" if len(fixed) > 1 else ""
        raise ConfigError(
            f"--resume: {path.parent} was begun with {_said(fixed[0], before)}, and the recipe has {_said(fixed[0], now)}{more}: "
            "another model cannot go on from it; give another folder with -o"
        )
    if changed:
        console.note("resumed with other settings: " + "; ".join(f"{_said(key, now)}, was {before.get(key)}" for key in changed))


def check_model(start: Path, model: SpeechLM) -> None:
    """That the classes of the CTC head still are what they were, whatever the training text is now. Raises ConfigError."""
    if not (start / "config.json").exists():
        return
    before = checkpoint.load_config(start).ctc_alphabet
    if before != model.config.ctc_alphabet:
        raise ConfigError(
            f"--resume {start}: its CTC head hears {before!r}, and with this training text it would hear {model.config.ctc_alphabet!r}: "
            "the data is not the same; give another folder with -o"
        )


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
    return f"{key} {settings.get(key)}"
