"""Recordings that cost nothing: tones that stand for words."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from melcli.audio import io

WORDS = {"low": 300.0, "mid": 900.0, "high": 2700.0}


def make_tones(folder: Path, count: int = 60) -> None:
    """Recordings of one to four words, each word a tone of its own."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for number in range(count):
        names = [list(WORDS)[int(torch.randint(3, (), generator=generator))] for _ in range(1 + number % 4)]
        time_S = torch.arange(3200) / 16000
        wave = torch.cat([torch.cat([0.3 * torch.sin(2 * torch.pi * WORDS[name] * time_S), torch.zeros(800)]) for name in names])
        io.save(folder / f"{number}.wav", wave + 0.001 * torch.randn(len(wave), generator=generator), 16000)
        rows.append({"audio": f"{number}.wav", "text": " ".join(names), "duration": len(wave) / 16000})
    (folder / "tones.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def tones_recipe(folder: Path, recipe: str) -> Path:
    """The recordings and, beside them, a recipe whose `{root}` they are."""
    make_tones(folder)
    path = folder / "tones.yaml"
    path.write_text(recipe.format(root=folder))
    return path
