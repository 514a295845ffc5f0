"""What the encoder costs: waveform to first token and training step, `mel-conv` beside `phi4mm-encoder` with the same language model.

    python benchmarks/prefill.py [--width 8 --depth 4] [--seconds 5,10,20,30] [--json FILE]

The model has Phi-4-multimodal's proportions: every width of it divided by --width, the layers of the language model and the blocks of the
encoder by --depth, random weights. That keeps the encoder's share of parameters and multiplications, which is printed beside Phi's own.
The two sides take turns, run for run, and the median counts. Training is one packed step (forward, backward, clipping, AdamW), once with
all parameters and once as Mel-LLM trains: the language model frozen but for a LoRA adapter (rank 320 divided by --width), the speech input not.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from figures import write

from melcli.audio.mel import log_mel
from melcli.audio.mel_spec import preset
from melcli.models.config import SpeechLMConfig
from melcli.models.hardware import pick_device, pick_dtype
from melcli.models.speech_lm import SpeechLM

PAPER_TRAINING = 1.57  # arXiv 2606.10231 as reported: training speed at 12.5 Hz against the encoder version
TEXT_RATE = 3.5  # tokens a second of speech
SPEC = preset("phi4mm")
SPEECH, PAD = 1, 0


@dataclass(frozen=True)
class Sizes:
    """Phi-4-multimodal's sizes, divided."""

    width: int
    layers: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    hidden: int
    blocks: int
    encoder_ffn: int
    encoder_heads: int

    @classmethod
    def phi(cls, width: int = 1, depth: int = 1) -> Sizes:
        """Heads keep Phi's dimension of 128 and 64 as far as the width allows; the vocabulary is divided so that the head keeps its share."""
        kv_heads = max(1, 8 // width)
        return cls(
            width=3072 // width,
            layers=32 // depth,
            ffn=8192 // width,
            heads=3 * kv_heads,
            kv_heads=kv_heads,
            head_dim=3072 // width // (3 * kv_heads),
            vocab=200064 // (width * depth),
            hidden=1024 // width,
            blocks=24 // depth,
            encoder_ffn=1536 // width,
            encoder_heads=max(1, 16 // width),
        )

    @property
    def llm_parameters(self) -> int:
        """Of the layers, without embeddings."""
        attention = 2 * self.width * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.width * self.ffn)

    @property
    def encoder_parameters(self) -> int:
        """Of the conformer blocks' matrices."""
        h, f = self.hidden, self.encoder_ffn
        return self.blocks * (2 * 3 * h * f + 4 * h * h + 2 * h * h + 2 * h * h)

    def multiplications(self, seconds: float) -> dict[str, float]:
        """Multiply-adds of a forward pass over an utterance and its text, in each part."""
        frames = SPEC.frames(round(seconds * SPEC.rate))
        patches = -(-frames // 8)
        positions = patches + seconds * TEXT_RATE
        c = self.hidden  # the convolutions are as wide as the blocks
        convolutions = patches * (16 * 40 * 9 * c + 4 * 20 * (9 * c + c * c) + 10 * (9 * c + c * c) + 10 * c * c)
        attention = 2 * patches * patches * self.hidden * self.blocks
        llm_attention = 2 * positions * positions * self.heads * self.head_dim * self.layers
        return {
            "front end": convolutions + patches * (self.hidden + self.width) * self.width,
            "encoder": self.encoder_parameters * patches + attention,
            "LLM": (self.llm_parameters + self.vocab * self.width) * positions + llm_attention,
        }


def build(sizes: Sizes, encoder: bool) -> SpeechLM:
    """One side of the comparison."""
    torch.manual_seed(0)
    front = {"kind": "mel-conv", "stride": 8, "channels": sizes.hidden, "hidden": sizes.hidden, "norm": "global"}
    if encoder:
        blocks = {"blocks": sizes.blocks, "heads": sizes.encoder_heads, "ffn": sizes.encoder_ffn}
        front = {**front, "kind": "phi4mm-encoder", **blocks}
    backbone = {
        "model_type": "llama",
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.layers,
        "intermediate_size": sizes.ffn,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.head_dim,
        "vocab_size": sizes.vocab,
        "tie_word_embeddings": True,
    }
    return SpeechLM(SpeechLMConfig(text_config=backbone, speech_input=front, mel=SPEC.model_dump(), speech_token_id=SPEECH, pad_token_id=PAD))


def first_token(model: SpeechLM, wave_S: torch.Tensor, device: str, dtype: torch.dtype) -> int:
    """The first token after an utterance and a prompt of eight tokens."""
    with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype != torch.float32):
        mel_TM = log_mel(SPEC, wave_S.to(device))
        ids = torch.tensor([[2] * 4 + [SPEECH] * model.speech_input.patches(len(mel_TM)) + [3] * 4], device=device)
        lengths = torch.tensor([len(mel_TM)], device=device)
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), speech=mel_TM, speech_lengths=lengths, use_cache=True, logits_to_keep=1)
        return int(out.logits[0, -1].argmax())


def packed_batch(model: SpeechLM, total: float, row: float, device: str) -> dict[str, torch.Tensor]:
    """Utterances of 4 to 16 s, `total` seconds of them in rows of `row` seconds, with their text."""
    generator = torch.Generator().manual_seed(1)
    rows, mels = [], []
    for _ in range(round(total / row)):
        ids, documents, left = [], [], row
        while left > 0:
            seconds = min(left, 4 + 12 * torch.rand((), generator=generator).item())
            left = left - seconds if left - seconds > 2 else 0
            mels.append(torch.randn(SPEC.frames(round(seconds * SPEC.rate)), SPEC.n_mels, generator=generator))
            count = model.speech_input.patches(len(mels[-1]))
            text = torch.randint(4, model.config.vocab_size, (round(seconds * TEXT_RATE),), generator=generator).tolist()
            documents += [1 + (documents[-1] if documents else 0)] * (count + len(text))
            ids += [SPEECH] * count + text
        rows.append((ids, documents))
    longest = max(len(ids) for ids, _ in rows)
    ids_BL = torch.tensor([ids + [PAD] * (longest - len(ids)) for ids, _ in rows])
    documents_BL = torch.tensor([documents + [0] * (longest - len(documents)) for _, documents in rows])
    batch = {
        "input_ids": ids_BL,
        "documents": documents_BL,
        "position_ids": torch.arange(longest).expand(len(rows), -1),
        "labels": torch.where(ids_BL > SPEECH, ids_BL, -100),
        "speech": torch.cat(mels),
        "speech_lengths": torch.tensor([len(mel) for mel in mels]),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def timed(run: Callable[[], object], device: str) -> float:
    began = time.perf_counter()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began


def alternate(sides: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, float]:
    """Median seconds of each side, which take turns; one run each goes before to warm up."""
    for run in sides.values():
        timed(run, device)
    times = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            times[name].append(timed(run, device))
    return {name: statistics.median(values) for name, values in times.items()}


def in_milliseconds(free: float, encoder: float) -> dict[str, float]:
    return {"encoder_free_ms": round(1000 * free, 1), "encoder_ms": round(1000 * encoder, 1), "ratio": round(encoder / free, 2)}


def freeze_but_for_lora(model: SpeechLM, rank: int) -> None:
    """Leave the speech input and an adapter on every linear layer of the language model to train."""
    from peft import LoraConfig, inject_adapter_in_model  # after melcli, whose guard it needs where torchaudio is built for CUDA

    model.llm.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=r".*_proj"), model.llm)


def trainer(model: SpeechLM, batch: dict[str, torch.Tensor], device: str, dtype: torch.dtype) -> Callable[[], None]:
    """A training step over the parameters that train."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=8, help="what Phi's widths are divided by")
    parser.add_argument("--depth", type=int, default=4, help="what Phi's layers and blocks are divided by")
    parser.add_argument("--seconds", default="5,10,20,30", help="lengths of speech for the time to the first token")
    parser.add_argument("--batch", type=float, default=60.0, help="seconds of speech in a training step")
    parser.add_argument("--row", type=float, default=20.0, help="seconds of speech in a packed row")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--train", default="all,lora", help="what trains: all, lora")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device, _ = pick_device()
    dtype, _ = pick_dtype("auto", device)
    sizes, phi = Sizes.phi(options.width, options.depth), Sizes.phi()
    models = {name: build(sizes, name == "phi4mm-encoder").to(device) for name in ("mel-conv", "phi4mm-encoder")}
    shares = {}
    for name, one in (("Phi-4-MM", phi), ("here", sizes)):
        work = one.multiplications(10)
        shares[name] = {
            "llm_parameters": one.llm_parameters,
            "encoder_parameters": one.encoder_parameters,
            "encoder_by_llm_parameters": round(one.encoder_parameters / one.llm_parameters, 4),
            "encoder_by_llm_multiplications_10s": round(work["encoder"] / work["LLM"], 4),
            "front_end_by_llm_multiplications_10s": round(work["front end"] / work["LLM"], 4),
            "all_by_encoder_free_multiplications_10s": round(sum(work.values()) / (work["front end"] + work["LLM"]), 3),
        }
    print(f"{device}, {str(dtype).removeprefix('torch.')}, {torch.get_num_threads()} threads; width {sizes.width}, {sizes.layers} layers;")
    print(f"encoder of {sizes.blocks} blocks, width {sizes.hidden}\n")
    print(f"{'share of the encoder, 10 s of speech':44}" + "".join(f"{name:>12}" for name in shares))
    for key in shares["here"]:
        print(f"{key.replace('_', ' '):44}" + "".join(f"{share[key]:12,}" for share in shares.values()))

    figures = {"sizes": vars(sizes), "shares": shares, "dtype": str(dtype).removeprefix("torch."), "first_token": [], "training": []}
    print(f"\n{'waveform to first token':24}{'mel-conv':>12}{'encoder':>12}{'ratio':>8}")
    for seconds in (float(text) for text in options.seconds.split(",")):
        wave_S = 0.1 * torch.randn(round(seconds * SPEC.rate), generator=torch.Generator().manual_seed(0))
        for model in models.values():
            model.eval()
        took = alternate({name: partial(first_token, m, wave_S, device, dtype) for name, m in models.items()}, options.repeats, device)
        free, encoder = took.values()
        print(f"{f'{seconds:g} s of speech':24}{1000 * free:9.1f} ms{1000 * encoder:9.1f} ms{encoder / free:8.2f}")
        figures["first_token"].append({"seconds": seconds, **in_milliseconds(free, encoder)})

    print(f"\n{'training step':24}{'mel-conv':>12}{'encoder':>12}{'ratio':>8}   paper (as reported)")
    for what in options.train.split(","):
        if what == "lora":
            for model in models.values():
                freeze_but_for_lora(model, max(1, 320 // options.width))
                model.to(device)
        for model in models.values():
            model.train()
        batch = packed_batch(models["mel-conv"], options.batch, options.row, device)
        took = alternate({name: trainer(m, batch, device, dtype) for name, m in models.items()}, options.repeats, device)
        free, encoder = took.values()
        label = {"all": "all parameters", "lora": "front end and LoRA"}[what]
        print(f"{label:24}{1000 * free:9.1f} ms{1000 * encoder:9.1f} ms{encoder / free:8.2f}   {PAPER_TRAINING:.2f}")
        row = {"trains": what, **in_milliseconds(free, encoder), "paper_ratio": PAPER_TRAINING, "seconds_of_speech": options.batch}
        figures["training"].append(row)
    write(options.json, figures)


if __name__ == "__main__":
    main()
