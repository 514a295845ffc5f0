"""tiny-en beside what else recognises English offline: pocketsphinx for accuracy and speed, a model of Whisper-tiny's shape for speed.

    python benchmarks/offline_asr.py --root ../shared/data [--model tiny-en] [--limit N] [--json FILE]

Every recogniser hears the same files in one run, a set after the other, on all cores. WER is that of protocol `plain`, with a 95 % bootstrap
interval over speakers, or utterances where there are less than 10 speakers. The sets are of corpora whose other speakers tiny-en was trained on,
and guided its development; pocketsphinx never saw them. RTFx is seconds of audio by seconds of features, search and detokenising. The Whisper-
shaped model (random weights) has no accuracy worth the name: it writes WHISPER_TOKENS tokens for each word that tiny-en heard, in batches of like
length, greedily, through transformers' `generate`. Pocketsphinx takes its own model, language model and beams. --limit: utterances of each set,
drawn at random.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from figures import write
from torch import Tensor

from melcli.data.load import load_utterance
from melcli.data.manifest import read_source
from melcli.models.hardware import keep_freed_memory, pick_dtype
from melcli.models.recogniser import Recogniser
from melcli.models.speech_lm_recogniser import SpeechLMRecogniser
from melcli.models.sphinx import Sphinx
from melcli.scoring import bootstrap, protocol
from melcli.scoring.results import ResultRow
from melcli.scoring.run import score_rows
from melcli.transcribe import Transcriber

SETS = {
    "LibriSpeech dev-clean, four speakers left out": "librispeech:dev-clean?speakers=1272,1673,174,2412",
    "speechocean762, dev": "speechocean762:dev",
    "strings of digits, a speaker left out": "digits:test",
}
RATE = 16000
WHISPER_TOKENS = 1.3  # a word, about what its vocabulary of 51,865 takes for English
WHISPER_MOST = 440  # of an utterance
BATCH = 16  # Whisper pads each utterance to 30 s, so that batches gain little


@dataclass(frozen=True, slots=True)
class Clips:
    """What is heard. seconds: of all of it."""

    waves: list[Tensor]
    texts: list[str]
    speakers: list[str | None]

    @property
    def seconds(self) -> float:
        return sum(map(len, self.waves)) / RATE


def clips(source: str, root: Path, limit: int | None) -> Clips:
    utterances = read_source(source, root=root)
    if limit is not None and limit < len(utterances):
        utterances = random.Random(1).sample(utterances, limit)
    return Clips([load_utterance(u, RATE) for u in utterances], [u.text or "" for u in utterances], [u.speaker for u in utterances])


def hear(recogniser: Recogniser, waves: Sequence[Tensor]) -> tuple[list[str], float]:
    """What each said, and the seconds that took."""
    began = time.perf_counter()
    found = {i: one.text for batch in recogniser.recognise(waves) for i, one in batch.items()}
    return [found[i] for i in range(len(waves))], time.perf_counter() - began


class WhisperShaped:
    """Whisper-tiny's layers, sizes and front end, with random weights, made to write as many tokens as it is told."""

    def __init__(self) -> None:
        from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, logging

        logging.set_verbosity_error()  # it says at each call that two lengths are given

        torch.manual_seed(0)
        config = WhisperConfig(
            vocab_size=51865, d_model=384, encoder_layers=4, decoder_layers=4, encoder_attention_heads=6, decoder_attention_heads=6,
            encoder_ffn_dim=1536, decoder_ffn_dim=1536, num_mel_bins=80, max_source_positions=1500, max_target_positions=448,
        )  # fmt: skip
        self.model = WhisperForConditionalGeneration(config).eval()
        self.dtype = pick_dtype("auto", "cpu")[0]
        self.model.to(self.dtype)
        self.front = WhisperFeatureExtractor()
        self.parameters = sum(p.numel() for p in self.model.parameters())

    @torch.inference_mode()
    def seconds(self, waves: Sequence[Tensor], tokens: Sequence[int]) -> float:
        """How long it takes to write so many tokens for each wave_S."""
        began = time.perf_counter()
        order = sorted(range(len(waves)), key=lambda i: tokens[i])
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            mel = self.front([waves[i].numpy() for i in batch], sampling_rate=RATE, return_tensors="pt").input_features
            most = max(1, max(tokens[i] for i in batch))
            self.model.generate(mel.to(self.dtype), max_new_tokens=most, min_new_tokens=most, do_sample=False, num_beams=1)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="tiny-en")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    rules = protocol.get("plain")
    ours = {f"{options.model}, {how}": Transcriber.load(options.model, beam=beam).recogniser for how, beam in (("as it is", None), ("greedy", 1))}
    first = next(iter(ours.values()))
    if not isinstance(first, SpeechLMRecogniser):
        parser.error("--model: give a model of melcli")
    sphinx, whisper = Sphinx.load()[0], WhisperShaped()
    print(f"{torch.get_num_threads()} threads; the model of Whisper-tiny's shape has {whisper.parameters / 1e6:.0f} M parameters\n")
    print(f"{'':34}{'WER %':>8}{'95 % interval':>18}{'RTFx':>8}")
    rows = []
    for title, source in SETS.items():
        heard = clips(source, options.root, options.limit)
        print(f"{title}: {len(heard.texts)} utterances, {heard.seconds / 60:.1f} minutes")
        counts: list[int] = []
        for name, recogniser in {**ours, "pocketsphinx": sphinx}.items():
            hear(recogniser, heard.waves[:4])  # loads, where that is left to the first call
            texts, taken = hear(recogniser, heard.waves)
            counts = counts or [min(WHISPER_MOST, round(WHISPER_TOKENS * len(text.split())) + 1) for text in texts]
            rows_heard = [
                ResultRow(str(i), None, None, text, said, speaker=who)
                for i, (text, said, who) in enumerate(zip(heard.texts, texts, heard.speakers, strict=True))
            ]
            run = score_rows(rules, name, source, rows_heard)
            wer = run.total.wer or 0.0
            likely = bootstrap.intervals(run.counts, bootstrap.blocks(run.rows))[0]
            between = f"{likely.low:.1f} to {likely.high:.1f}" if likely else ""
            print(f"  {name:32}{wer:>8.2f}{between:>18}{heard.seconds / taken:>8.1f}", flush=True)
            rows.append({"set": source, "recogniser": name, "wer": round(wer, 2), "interval": between, "rtfx": round(heard.seconds / taken, 1)})
        whisper.seconds(heard.waves[:4], counts[:4])
        taken = whisper.seconds(heard.waves, counts)
        print(f"  {'Whisper-tiny shaped, random':32}{'':>8}{'':>18}{heard.seconds / taken:>8.1f}", flush=True)
        rows.append({"set": source, "recogniser": "Whisper-tiny shaped", "rtfx": round(heard.seconds / taken, 1), "tokens": sum(counts)})
    write(options.json, {"rows": rows, "limit": options.limit})


if __name__ == "__main__":
    main()
