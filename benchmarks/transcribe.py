"""Transcription speed beside transformers' own `generate` with the same weights: real-time factors (RTFx) and whether the tokens agree.

    python benchmarks/transcribe.py --root ../shared/data [--model tiny-en] [--utterances 200] [--json FILE]

Times cover features, generation and detokenising, not decoding of the files nor loading of the model. `generate` runs one utterance at a time and in
batches of several sizes, in the order of the set and sorted by length, in float32 and bfloat16, all greedy with the same limits; the best counts.
Of tiny-en that is its language model, which `--beam` asks for.
Contenders take turns; each is given its best of --repeats rounds. Tokens are compared in float32, where the order of sums matters least.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from figures import write
from torch import Tensor

from melcli.data.load import load_utterance
from melcli.data.manifest import read_source
from melcli.models import checkpoint
from melcli.models.decoding.recognise import recognise, token_limit
from melcli.models.hardware import keep_freed_memory
from melcli.models.processor import SpeechLMProcessor
from melcli.models.speech_lm import SpeechLM

Tokens = list[list[int]]


def ours(model: SpeechLM, processor: SpeechLMProcessor, waves: list[Tensor]) -> Tokens:
    """The way `melcli transcribe --beam 1` goes."""
    tokens = [hypothesis.tokens for hypothesis in recognise(model, processor, processor.features(waves))]
    for ids in tokens:
        processor.text(ids)
    return tokens


@torch.inference_mode()
def theirs(model: SpeechLM, processor: SpeechLMProcessor, waves: list[Tensor], batch: int, ordered: bool) -> Tokens:
    """transformers' generate over batches of a fixed size."""
    order = sorted(range(len(waves)), key=lambda i: -len(waves[i])) if ordered else list(range(len(waves)))
    found: dict[int, list[int]] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        inputs = processor([waves[i] for i in chosen])
        limit = token_limit(max(len(waves[i]) for i in chosen) / processor.spec.rate)
        out = model.generate(**inputs, max_new_tokens=limit, do_sample=False, num_beams=1, eos_token_id=model.config.stop_token_ids, pad_token_id=0)
        for i, row in zip(chosen, out[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            end = next((at for at, token in enumerate(row) if token in model.config.stop_token_ids), len(row))
            found[i] = row[:end]
            processor.text(row[:end])
    return [found[i] for i in range(len(waves))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--source", default="librispeech:dev-clean?speakers=1272,1673,174,2412")
    parser.add_argument("--model", default="tiny-en")
    parser.add_argument("--utterances", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_freed_memory()  # as `melcli transcribe` does; it helps all contenders
    models = {dtype: checkpoint.load(options.model, dtype=dtype) for dtype in (torch.bfloat16, torch.float32)}
    processor = models[torch.float32][1]
    utterances = [u for u in read_source(options.source, root=options.root) if (u.duration or 0) <= 18][: options.utterances]
    waves = [load_utterance(u, processor.spec.rate) for u in utterances]
    seconds = sum(map(len, waves)) / processor.spec.rate
    contenders: dict[str, Callable[[], Tokens]] = {}
    for dtype, (model, _) in models.items():
        kind = str(dtype).removeprefix("torch.")
        contenders[f"melcli, {kind}"] = lambda model=model: ours(model, processor, waves)
        contenders[f"generate, {kind}, one by one"] = lambda model=model: theirs(model, processor, waves, 1, False)
        for batch in (8, 16, 32, 64):
            contenders[f"generate, {kind}, batch {batch}"] = lambda model=model, batch=batch: theirs(model, processor, waves, batch, False)
            contenders[f"generate, {kind}, batch {batch}, sorted"] = lambda model=model, batch=batch: theirs(model, processor, waves, batch, True)
    best: dict[str, float] = {}
    tokens: dict[str, Tokens] = {}
    ours(models[torch.bfloat16][0], processor, waves[:8])
    for number in range(options.repeats):
        for name, contender in contenders.items():
            if number and "one by one" in name:
                continue  # the slowest by far; one round is enough of them
            began = time.perf_counter()
            tokens[name] = contender()
            best[name] = min(best.get(name, float("inf")), time.perf_counter() - began)
    rtfx = {name: seconds / taken for name, taken in best.items()}
    melcli = max(value for name, value in rtfx.items() if name.startswith("melcli"))
    single = max(value for name, value in rtfx.items() if "one by one" in name)
    batched = max(value for name, value in rtfx.items() if "batch" in name)
    print(f"{len(waves)} utterances, {seconds:.0f} s, {torch.get_num_threads()} threads\n")
    for name, value in rtfx.items():
        print(f"{name:44}{value:8.0f} x real time   melcli is {melcli / value:6.2f} x as fast")
    reference = tokens["melcli, float32"]
    same = {name: sum(a == b for a, b in zip(reference, found, strict=True)) for name, found in tokens.items()}
    for name in ("generate, float32, one by one", "generate, float32, batch 16", "melcli, bfloat16"):
        print(f"same tokens as melcli in float32: {same[name]} of {len(waves)}: {name}")
    print(f"\nmelcli / best one by one: {melcli / single:.2f}; melcli / best batched: {melcli / batched:.2f}")
    figures = {"rtfx": {k: round(v, 1) for k, v in rtfx.items()}, "same_tokens_as_melcli_float32": same, "utterances": len(waves)}
    write(options.json, {**figures, "ratios": {"one_by_one": round(melcli / single, 2), "batched": round(melcli / batched, 2)}})


if __name__ == "__main__":
    main()
