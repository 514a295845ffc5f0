"""`melcli train` and `melcli finetune`: one training, or by a recipe with a sweep many."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melcli import console, interrupts
from melcli.cli.options import Offline, Quiet, Verbose, finish, prepare
from melcli.errors import UsageError

if TYPE_CHECKING:
    from melcli.unified_recipe import UnifiedRecipe
    from melcli.vocoder_recipe import VocoderRecipe


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The arguments and options that `train` and `finetune` share."""

    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name or YAML file.")]
    settings: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings over the recipe's: train.lr=5e-4 data.root=data.")] = (
        None
    )
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run; the default is runs/NAME.")] = None
    resume: Annotated[
        str | None, typer.Option(metavar="auto|CHECKPOINT", help="Go on from the last checkpoint in the folder (auto), or this one.")
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read data, build the model, plan the batches, say it all, and stop.")] = False
    smoke: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N steps and write the model: does everything run?")] = None
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the resolved recipe as YAML and exit.")] = False
    devices: Annotated[int, typer.Option(min=1, help="Processes to train with, one a device.")] = 1
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's seed.")] = None
    offline: Offline = False
    quiet: Quiet = False
    verbose: Verbose = False

    def switches(self) -> list[str]:
        """The flags that are on, for another process to be told. Not --dry-run: that of a sweep is answered here."""
        on = {"--quiet": self.quiet, "--verbose": self.verbose, "--offline": self.offline}
        return [name for name, given in on.items() if given]


def _with_shared(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the fields of `Asked` as parameters after its own. Typer reads a signature and has no groups of options."""
    shared = inspect.signature(Asked, eval_str=True).parameters
    _, *own = inspect.signature(command, eval_str=True).parameters.values()

    @functools.wraps(command)
    def run(**given: object) -> None:
        command(Asked(**{name: given.pop(name) for name in shared}), **given)

    run.__signature__ = inspect.Signature([*own, *shared.values()])
    return run


@_with_shared
def train(
    asked: Asked,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Of a recipe with a sweep: trainings at a time, sharing the processor.")] = 1,
    only: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="Of a recipe with a sweep: train these members only; * stands for anything; may repeat.")
    ] = None,
) -> None:
    """Train a model by a recipe; by one with a sweep, all its members, and make a table of them.

    \b
    melcli train recipes/digits.yaml data.root=data
    melcli train ablations/token_rate -o rates/ --dry-run
    """
    _train(asked, [], jobs=jobs, only=only or [])


@_with_shared
def finetune(
    asked: Asked,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="MODEL", help="Name, folder or hub id of the model to start from.  [default: the recipe's model.init]"),
    ] = None,
) -> None:
    """Train a model by a recipe, starting from another: ours, any causal language model of transformers, or Phi-4-multimodal.

    \b
    melcli finetune recipes/finetune.yaml --from Qwen/Qwen3-0.6B data.root=data
    melcli finetune recipes/finetune.yaml tune.llm=frozen data.root=data --dry-run
    """
    _train(asked, [] if start is None else [f"model.init={json.dumps(start)}", "model.backbone=null"], needs_start=True)


def _train(asked: Asked, begun: Sequence[str], jobs: int = 1, only: Sequence[str] = (), needs_start: bool = False) -> None:
    """What both do, once each has made settings of its own (begun); the processes of several devices are all called `train`."""
    prepare(asked.quiet, asked.verbose, asked.offline)
    from melcli import launch
    from melcli.recipe import UnifiedRecipe, VocoderRecipe, load

    settings = [*begun, *(asked.settings or []), *([] if asked.seed is None else [f"seed={asked.seed}"])]
    recipe = load(asked.recipe, settings)
    if isinstance(recipe, VocoderRecipe | UnifiedRecipe):
        _train_alone(asked, recipe, jobs > 1 or bool(only), needs_start)
        return
    if recipe.sweep is not None and not asked.print_config:
        _sweep(asked, settings, asked.out or Path("runs") / recipe.name, jobs, only)
        return
    if jobs > 1 or only:
        raise UsageError(f"--jobs and --only are for recipes with a sweep, which {asked.recipe} has not.")
    if needs_start and recipe.model.init is None:
        raise UsageError("finetune needs a model to start from: give --from MODEL, or model.init in the recipe; `melcli train` starts from nothing.")
    if asked.print_config:
        from melcli.config import dump_yaml

        print(dump_yaml(recipe), end="")
        return
    if asked.devices > 1 and not launch.is_worker():
        options = {"--out": asked.out, "--resume": asked.resume, "--smoke": asked.smoke}
        given = [part for name, value in options.items() if value is not None for part in (name, str(value))]
        given += [*asked.switches(), *(["--dry-run"] if asked.dry_run else [])]
        raise typer.Exit(launch.launch(asked.devices, ["train", asked.recipe, *settings, *given]))
    if launch.is_worker():
        launch.join()
    from melcli.train import train as run

    result = run(recipe, asked.out, resume=asked.resume, smoke=asked.smoke, dry_run=asked.dry_run, offline=asked.offline)
    if result is not None and launch.is_first():
        from melcli.training.measures import said

        rates = "; ".join(said(name, rate) for name, rate in result.rates.items())
        console.note(f"weights kept: {result.chosen}" + (f": {rates}" if rates else ""))
        print(result.folder)
    _end_if_stopped(result is None and not asked.dry_run and launch.is_first())


def _train_alone(asked: Asked, recipe: VocoderRecipe | UnifiedRecipe, swept: bool, needs_start: bool) -> None:
    """By a recipe that has a `vocoder:` or a `unified:`."""
    from melcli.recipe import VocoderRecipe

    if needs_start:
        begins = "starts from nothing" if isinstance(recipe, VocoderRecipe) else "starts from what its unified.speech.init says"
        raise UsageError(f"{asked.recipe} trains a {recipe.what}, which {begins}: use `melcli train`.")
    if swept:
        raise UsageError(f"--jobs and --only are for recipes with a sweep, which {asked.recipe} has not.")
    if asked.devices > 1:
        raise UsageError(f"--devices {asked.devices}: {asked.recipe} trains a {recipe.what}, which takes one device.")
    if asked.print_config:
        from melcli.config import dump_yaml

        print(dump_yaml(recipe), end="")
        return
    options = {"resume": asked.resume, "smoke": asked.smoke, "dry_run": asked.dry_run, "offline": asked.offline}
    if isinstance(recipe, VocoderRecipe):
        from melcli.train_vocoder import train_vocoder

        result = train_vocoder(recipe, asked.out, **options)
        said = [f"{source} mel error {error:.4f}" for source, error in result.errors.items()] if result else []
    else:
        from melcli.train_unified import train_unified

        result = train_unified(recipe, asked.out, **options)
        said = [f"{source}: " + ", ".join(f"{n} {v:.1f} %" for n, v in found.items()) for source, found in result.recalls.items()] if result else []
    if result is not None:
        console.note("; ".join(said) or "not evaluated")
        print(result.folder)
    _end_if_stopped(result is None and not asked.dry_run)


def _end_if_stopped(stopped: bool) -> None:
    """Exit as what a signal ended, for a training that saved what it had and stopped: what follows it must not take it for done."""
    if stopped:
        raise typer.Exit(interrupts.exit_code())


def _sweep(asked: Asked, settings: Sequence[str], out: Path, jobs: int, only: Sequence[str]) -> None:
    """By a recipe that has a sweep."""
    from melcli import launch, sweep
    from melcli.recipe import read
    from melcli.sweeping import run as sweep_run
    from melcli.sweeping import table as sweep_table

    if launch.is_worker():
        raise UsageError("a sweep starts its own processes: run it without torchrun; --devices N is for each of its trainings.")
    if asked.resume not in (None, "auto"):
        raise UsageError(f"--resume {asked.resume}: a sweep goes on from the last checkpoint of each of its trainings by itself.")
    members = sweep.members(read(asked.recipe, list(settings)))
    chosen = sweep_run.select(members, only)
    if asked.dry_run:
        found = [one for one in sweep_run.outcomes(members, out) if one.member in chosen]
        console.table(("training", "state", "recipe"), sweep_run.plan_rows(found), stdout=True)
        console.note(f"{len(found)} trainings in {out}")
        return
    given = [*(["--devices", str(asked.devices)] if asked.devices > 1 else []), *(["--smoke", str(asked.smoke)] if asked.smoke else [])]
    found = sweep_run.run(members, out, chosen=chosen, jobs=jobs, options=[*given, *asked.switches()])
    console.table(*sweep_table.readable(*sweep_table.table(found)), stdout=True)
    if means := sweep_table.summary(found):
        console.table(*sweep_table.mean_table(means), title="over seeds, mean ± standard deviation", stdout=True)
    console.note(f"written: {out}/sweep.md, sweep.csv, sweep.json")
    if left := sum(one.state in ("new", "begun") for one in found):
        console.note(f"{left} of {len(found)} are not done; the same command goes on with them")
    finish([(one.member.label, one.error) for one in found if one.error], len(found))
    _end_if_stopped(interrupts.noted())
