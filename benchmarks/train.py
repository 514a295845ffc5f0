"""What packing is worth: real tokens a second of training, packed rows beside a padded batch in random order, same model, same utterances.

    python benchmarks/train.py --root ../shared/data [--recipe tiny-en] [--init tiny-en] [--json FILE]

Both sides do the whole step (forward, backward, clipping, AdamW) on features computed beforehand and hold at most as many positions a batch as
the recipe says. They take turns, batch for batch, and each is timed over all its batches. Real tokens are positions that are not padding.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch
from figures import write

from melcli import recipe as recipes
from melcli.data.batches import read_item
from melcli.data.collate import pack
from melcli.data.packing import BatchPlan
from melcli.training.run import Run

SOURCES = ("librispeech:train-clean-100?limit=200", "speechocean762:train?limit=200", "robotutor:words?limit=100", "robotutor:stories?limit=100")


def padded_batches(lengths: list[int], budget: int, seed: int) -> list[list[list[int]]]:
    """One utterance a row in random order, as many rows as fit the budget at the longest row's width."""
    order = list(range(len(lengths)))
    random.Random(seed).shuffle(order)
    batches: list[list[list[int]]] = []
    group: list[int] = []
    for index in order:
        widest = max(lengths[i] for i in [*group, index])
        if group and widest * (len(group) + 1) > budget:
            batches.append([[i] for i in group])
            group = []
        group.append(index)
    return [*batches, [[i] for i in group]]


def step(run: Run, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor]) -> None:
    with torch.autocast(run.device, run.dtype, enabled=run.dtype != torch.float32):
        loss = run.model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    if run.device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="where corpora are")
    parser.add_argument("--recipe", default="tiny-en", help="whose model and budgets to take")
    parser.add_argument("--init", default="tiny-en", help="the model it begins from")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sources = ", ".join(f'{{source: "{source}"}}' for source in SOURCES)
    settings = [f"data.root={options.root}", f"data.train=[{sources}]", f"model.init={options.init}", "data.spec_augment=null", "data.max_seconds=30"]
    recipe = recipes.load(options.recipe, settings)
    run = Run(recipe, Path("unused"))
    run.model.to(run.device).train()
    features = run.data.features
    items = []
    for index in range(len(features.utterances)):
        items.append(read_item(features, index, run.encoders[index], run.text_ids[index], run.processor.patches, run.processor.steps))
    lengths = [len(item.example.input_ids) for item in items]
    t = recipe.train
    plan = BatchPlan(lengths, fingerprint="benchmark", seed=1, tokens_per_batch=t.tokens_per_batch, row_tokens=t.row_tokens)
    sides = {"packed": [list(map(list, batch)) for batch in plan.batches(0)], "padded, random order": padded_batches(lengths, t.tokens_per_batch, 1)}
    optimizer = torch.optim.AdamW(run.model.parameters(), lr=1e-4, fused=True)
    spent = dict.fromkeys(sides, 0.0)
    tensors = {
        name: [{k: v.to(run.device) for k, v in pack([[items[i] for i in row] for row in batch], 0).items()} for batch in batches]
        for name, batches in sides.items()
    }
    for batches in tensors.values():
        step(run, optimizer, batches[0])
    rounds = max(map(len, tensors.values()))
    for number in range(rounds):
        for name, batches in tensors.items():
            first, last = (round(len(batches) * edge / rounds) for edge in (number, number + 1))
            for batch in batches[first:last]:
                began = time.perf_counter()
                step(run, optimizer, batch)
                spent[name] += time.perf_counter() - began
    rows = {}
    for name, batches in tensors.items():
        positions = sum(batch["documents"].numel() for batch in batches)
        real = sum(int((batch["documents"] > 0).sum()) for batch in batches)
        rows[name] = {
            "tokens_per_second": round(real / spent[name]),
            "padding_percent": round(100 * (1 - real / positions), 2),
            "batches": len(batches),
        }
    ratio = rows["packed"]["tokens_per_second"] / rows["padded, random order"]["tokens_per_second"]
    print(f"{len(items)} utterances of {min(lengths)} to {max(lengths)} positions, {sum(lengths)} in all; {run.decisions()['dtype']}\n")
    for name, row in rows.items():
        print(f"{name:24}{row['tokens_per_second']:8d} real tokens/s   {row['padding_percent']:6.2f} % padding   {row['batches']:4d} batches")
    print(f"\npacked / padded: {ratio:.2f}")
    write(options.json, {"rows": rows, "ratio": round(ratio, 2)})


if __name__ == "__main__":
    main()
