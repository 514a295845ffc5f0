"""The README.md of a trained unified encoder, from facts alone."""

from __future__ import annotations

from collections.abc import Mapping

from melcli import __version__
from melcli.models.unified_encoder import UnifiedEncoderConfig
from melcli.unified_recipe import UnifiedRecipe


def card(recipe: UnifiedRecipe, config: UnifiedEncoderConfig, record: Mapping[str, float | int], recalls: Mapping[str, Mapping[str, float]]) -> str:
    """record: what the training took. recalls: retrieval in percent by evaluation source."""
    spec = config.mel
    sources = "\n".join(f"- `{s.source}`" + (f", {s.repeat:g} times as often" if s.repeat != 1 else "") for s in recipe.data.train)
    measures = list(next(iter(recalls.values()), {}))
    head = " | ".join(["evaluation source", *measures])
    rows = "\n".join("| " + " | ".join([f"`{name}`", *(f"{found[m]:.2f}" for m in measures)]) + " |" for name, found in recalls.items())
    table = f"| {head} |\n|{' --- |' * (len(measures) + 1)}\n{rows}" if measures else "Nothing was measured."
    begun = f"begins as `{recipe.unified.speech.init}`" if recipe.unified.speech.init else "begins from nothing"
    return f"""---
library_name: melcli
pipeline_tag: feature-extraction
tags: [speech, text, retrieval, mel-spectrogram]
---
# {recipe.name}

{recipe.summary[:1].upper()}{recipe.summary[1:]}. A unified encoder: a speech branch and a text branch
that give {config.vectors} vectors of {config.width} numbers in one space. Made by melcli {__version__} with the `recipe.yaml` beside this file.

| | |
| --- | --- |
| parameters | {record["parameters"]:,} |
| mel | {spec.rate} Hz, {spec.n_mels} bins, {spec.frame_rate:g} frames a second |
| speech branch | {begun}{", which stays as it is" if recipe.unified.speech.frozen else ""} |
| training | {record["steps"]:,} steps of {recipe.train.batch} pairs, out of {record["pairs"]:,} |

## Trained on

{sources}

## Measured

Retrieval on at most {recipe.train.eval_limit} pairs a source, in percent: how often the right one is among the nearest 1, 5 and 10.

{table}
"""
