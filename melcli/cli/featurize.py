"""`melcli featurize`: its options, what is announced and what is said at the end."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Annotated, Literal

import typer

from melcli import console
from melcli.cli.options import Device, Offline, Quiet, Ray, Root, Verbose, finish, prepare
from melcli.errors import UsageError


def featurize(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A manifest, folder, corpus name (librispeech:dev-clean) or hf:REPO.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the shards; those that are finished there are kept.")],
    mel: Annotated[str, typer.Option(help="Mel preset; `melcli models ls --kind mel` lists them.")] = "phi4mm",
    jobs: Annotated[int | None, typer.Option(min=1, help="Shards made at a time.  [default: the number of cores]")] = None,
    ray: Ray = None,
    dtype: Annotated[Literal["float16", "float32", "bfloat16"], typer.Option(help="Number format on disk.")] = "float16",
    augment: Annotated[bool, typer.Option("--augment", help="Change speed, level, room and noise at random before the features.")] = False,
    copies: Annotated[int, typer.Option(min=1, help="With --augment: times each utterance is stored, each time changed anew.")] = 1,
    seed: Annotated[int, typer.Option(help="What --augment draws from.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace features made with other options or of other audio.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Also draw durations and a few spectrograms into the folder.")] = False,
    device: Device = "auto",
    root: Root = None,
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn audio into mel spectrogram shards.

    \b
    melcli featurize librispeech:train-clean-100 -o features/ --mel phi4mm
    """
    prepare(quiet, verbose, offline)
    if plot and importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib: pip install 'melcli[plot]'.")
    if ray is not None and (jobs is not None or device not in ("auto", "cpu")):
        raise UsageError("--ray makes a shard on each core of the cluster; leave out --jobs and --device.")
    from melcli import ray_pool
    from melcli.audio.augment import Augment
    from melcli.featurize import HISTOGRAM_EDGES, Estimate
    from melcli.featurize import featurize as run

    def announce(plan: Estimate) -> None:
        console.decided([("mel", mel), ("plan", f"{plan.utterances:,} utterances, {plan.hours:.2f} h, about {plan.size / 1e6:,.1f} MB")])

    with ray_pool.joined(ray), console.progress("featurize", None) as bar:
        done = run(
            source,
            out,
            mel,
            jobs=jobs,
            executor=None if ray is None else ray_pool.Tasks(),
            dtype=dtype,
            augment=Augment() if augment else None,
            copies=copies,
            seed=seed,
            device=device,
            root=root,
            offline=offline,
            overwrite=overwrite,
            announce=announce,
            progress=lambda shard: bar.advance(1, f"shard {shard.index}: {shard.utterances} utterances"),
        )
    labels = [f"{low:g}-{high:g}" for low, high in itertools.pairwise(HISTOGRAM_EDGES)]
    console.histogram("seconds  utterances", labels, done.histogram)
    kept = f", {done.skipped_shards} of them there already" if done.skipped_shards else ""
    print(f"{done.folder}: {done.utterances} utterances, {done.hours:.2f} h, {done.size / 1e6:.1f} MB in {done.shards} shards{kept}")
    if plot:
        from melcli.plot import plot_features

        print(*plot_features(done.folder), sep="\n")
    finish([(failure.id, failure.error) for failure in done.failures], done.utterances + len(done.failures))
