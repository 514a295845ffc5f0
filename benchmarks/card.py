"""What the card of a model that hears says of it: word error rates by set, length, pitch of the voice and noise, and the words it confuses.

    python benchmarks/card.py --root ../shared/data [--model tiny-en] [--limit N] [--card README.md]

The sets are those of offline_asr.py; protocol `plain`; the model decodes as it does by default. Speakers are grouped by the median pitch of up to
five of their recordings, as these sets do not say who is a child: children's voices mostly lie above 245 Hz, men's below 165 Hz. Noise is pink, added
to each recording at a fixed level below its speech. Intervals are bootstrap ones, 95 %, over speakers or, where there are less than 10, utterances.
--card: the file whose part from the line MARK on is replaced; without it the tables are printed.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from offline_asr import RATE, SETS, Clips, clips, hear
from torch import Tensor

from melcli.audio.augment import add_noise
from melcli.audio.timbre import timbre
from melcli.files import write_text
from melcli.models.hardware import keep_freed_memory
from melcli.models.recogniser import Recogniser
from melcli.scoring import bootstrap, protocol
from melcli.scoring.bins import Bin, by_duration, by_values
from melcli.scoring.breakdown import breakdown
from melcli.scoring.results import ResultRow
from melcli.scoring.run import Run, score_rows
from melcli.transcribe import Transcriber

MARK = "## Measured on other speakers"
HERTZ = (0, 165, 245, float("inf"))
VOICES = {0: "below 165 Hz", 165: "165 to 245 Hz", 245: "above 245 Hz"}
SNR = (20, 10, 5, 0)
PINK = 1.0
RECORDINGS = 5  # of a speaker whose pitch is looked at
SPEECHLESS = 1000  # utterances a set at most for the noise
CONFUSED = 12


def run_of(recogniser: Recogniser, name: str, heard: Clips, waves: Sequence[Tensor]) -> Run:
    rows = [
        ResultRow(str(i), len(wave_S) / RATE, None, text, said, speaker=who)
        for i, (wave_S, text, said, who) in enumerate(zip(waves, heard.texts, hear(recogniser, waves)[0], heard.speakers, strict=True))
    ]
    return score_rows(protocol.get("plain"), "model", name, rows)


def pitches(heard: Clips) -> list[float | None]:
    """Of each utterance the median pitch of its speaker in Hz."""
    found: dict[str | None, list[float]] = {}
    for wave_S, who in zip(heard.waves, heard.speakers, strict=True):
        of_speaker = found.setdefault(who, [])
        if len(of_speaker) < RECORDINGS and (pitch := timbre(wave_S, RATE).pitch) is not None:
            of_speaker.append(pitch)
    return [statistics.median(found[who]) if found[who] else None for who in heard.speakers]


def interval(counts: Sequence, rows: Sequence[ResultRow]) -> str:
    likely = bootstrap.intervals(counts, bootstrap.blocks(rows))[0]
    return f"{likely.low:.1f} to {likely.high:.1f}" if likely else ""


def table(head: str, lines: Sequence[str]) -> str:
    return "\n".join([head, "|" + " --- |" * (head.count("|") - 1), *lines])


def of_bins(bins: Sequence[Bin], title: str, labels: dict[float, str] | None = None) -> str:
    rows = []
    for b in bins:
        between = f"{b.interval.low:.1f} to {b.interval.high:.1f}" if b.interval else ""
        rows.append(f"| {labels[b.low] if labels else b.label} | {b.counts.wer:.1f} | {between} | {b.counts.utterances} |")
    return table(f"| {title} | WER % | 95 % | utterances |", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="tiny-en")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--card", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    recogniser = Transcriber.load(options.model).recogniser
    every = {name: clips(source, options.root, options.limit) for name, source in SETS.items()}
    runs = {name: run_of(recogniser, name, heard, heard.waves) for name, heard in every.items()}
    parts = [
        MARK,
        "",
        "Protocol `plain`, decoded as by default, but in one piece (`benchmarks/card.py`); `melcli score` cuts what is longer than "
        "the model was trained with." + (f" {options.limit} utterances a set." if options.limit else ""),
    ]
    rows = [
        f"| {name} | {run.total.wer:.1f} | {interval(run.counts, run.rows)} | {run.total.cer:.1f} | {len(run.rows)} |" for name, run in runs.items()
    ]
    parts += ["", table("| set | WER % | 95 % | CER % | utterances |", rows)]
    spoken = [name for name in runs if "digits" not in name]
    parts += ["", of_bins(by_duration([runs[name] for name in spoken]), "seconds (all but digits)")]
    for name in spoken:
        bins = by_values([runs[name]], [pitches(every[name])], HERTZ)
        parts += ["", of_bins(bins, f"median pitch of the speaker, {name}", VOICES)]
    generator, noisy = torch.Generator().manual_seed(1), []
    for name, heard in every.items():
        some = Clips(heard.waves[:SPEECHLESS], heard.texts[:SPEECHLESS], heard.speakers[:SPEECHLESS])
        rates = []
        for snr in SNR:
            waves = [add_noise(wave_S, snr, PINK, RATE, generator) for wave_S in some.waves]
            rates.append(run_of(recogniser, name, some, waves).total.wer or 0.0)
        clean = sum(runs[name].counts[: len(some.waves)], type(runs[name].counts[0])())
        noisy.append(f"| {name} | {clean.wer:.1f} | " + " | ".join(f"{rate:.1f}" for rate in rates) + " |")
    parts += ["", "In pink noise, so many dB below the speech:", ""]
    parts += [table("| WER %, first " + f"{SPEECHLESS:,} utterances a set | as it is | " + " | ".join(f"{snr} dB" for snr in SNR) + " |", noisy)]
    confused: Counter[tuple[str, str]] = Counter()
    missed: Counter[str] = Counter()
    for name in spoken:
        found = breakdown(runs[name], protocol.get("plain"))
        confused += found.substitutions
        missed += found.deletions
    often = ", ".join(f"*{was}* as *{heard}* ({count})" for (was, heard), count in confused.most_common(CONFUSED))
    parts += ["", f"Most confused, beyond digits: {often}. Most often missed: {', '.join(f'*{w}* ({n})' for w, n in missed.most_common(8))}.", ""]
    text = "\n".join(parts)
    if options.card is None:
        print(text)
        return
    card = options.card.read_text(encoding="utf-8")
    write_text(options.card, card.partition(MARK)[0].rstrip("\n") + "\n\n" + text)


if __name__ == "__main__":
    main()
