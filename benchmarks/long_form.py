"""Long recordings: what is lost by not knowing where the sentences are, how exact segments are, and how much memory an hour takes.

    python benchmarks/long_form.py --root ../shared/data [--minutes 60] [--json FILE]

Utterances of several corpora, cut to where their sound begins and ends (30 dB under their loudest 50 ms), are joined with gaps of 0.8 to 4 seconds of
faint noise into one file. `melcli transcribe -f json` hears the file, and one of its first minute, each in a process of its own whose peak memory is
read; the same model then hears each utterance by itself, cut out of the file by the known times.

An utterance that begins or ends with a breath, a click or a room that rings ends where its energy says, and its speech elsewhere: `sharp` ends are
those where the sound is within 50 ms of 20 dB under the loudest, so that nobody can doubt where they are.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import soundfile
import torch
from figures import write

from melcli.audio import io
from melcli.audio.segment import frame_levels
from melcli.data.load import load_utterance
from melcli.data.manifest import read_source
from melcli.scoring import normalize, wer
from melcli.transcribe import Transcriber

RATE = 16000
SOURCES = ("librispeech:dev-clean?speakers=1272,1673,174,2412", "speechocean762:dev", "robotutor:stories")
FLOOR_DBFS = -70.0
UNDER, SHARP_UNDER = 30.0, 20.0  # decibel under the loudest 50 ms: there an utterance ends, and there it does without doubt
AROUND_SECONDS = 0.2


def ends_of(power_N: torch.Tensor, under: float) -> tuple[int, int]:
    """The first and the last sample of sound, at RATE, by the power of each 50 ms in steps of 10 ms."""
    loud = torch.nonzero(power_N > power_N.max() * 10 ** (-under / 10))[:, 0]
    return int(loud[0]) * 160, (int(loud[-1]) + 5) * 160


def assemble(root: Path, seconds: float, file: Path) -> list[tuple[float, float, str, tuple[bool, bool]]]:
    """Write the recording; (start, end, text, whether these are sharp) of each utterance in it."""
    shuffled = random.Random(0)
    noise = torch.Generator().manual_seed(0)
    queues = []
    for source in SOURCES:
        utterances = [u for u in read_source(source, root=root) if u.text]
        shuffled.shuffle(utterances)
        queues.append(utterances)
    said, at = [], 0
    with soundfile.SoundFile(file, "w", RATE, 1, "PCM_16", format="WAV") as out:
        for utterance in itertools.chain.from_iterable(zip(*queues, strict=False)):
            wave_S = load_utterance(utterance, RATE)
            power_N = torch.nn.functional.avg_pool1d((10 ** (frame_levels(wave_S, RATE, 0.01) / 10))[None], 5, 1)[0]
            (first, last), (inner_first, inner_last) = ends_of(power_N, UNDER), ends_of(power_N, SHARP_UNDER)
            sharp = (inner_first - first <= 0.05 * RATE, last - inner_last <= 0.05 * RATE)
            wave_S = wave_S[first:last]
            gap = round(shuffled.uniform(0.8, 4.0) * RATE)
            wave_S = torch.cat([torch.zeros(gap), wave_S])
            out.write((wave_S + 10 ** (FLOOR_DBFS / 20) * torch.randn(len(wave_S), generator=noise)).numpy())
            said.append(((at + gap) / RATE, (at + len(wave_S)) / RATE, utterance.text, sharp))
            at += len(wave_S)
            if at >= seconds * RATE:
                return said
    return said


def transcribed(file: Path, options: list[str]) -> tuple[dict, float, float]:
    """What the command heard, its peak memory in MB, and its seconds."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([sys.executable, "-m", "melcli", "transcribe", str(file), "-f", "json", "-q", *options], stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"melcli transcribe failed on {file}")
        out.seek(0)
        return json.load(out), usage.ru_maxrss / 1024, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--model", default="tiny-en")
    parser.add_argument("--beam", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    clean = normalize.get("plain")
    flags = ["--model", options.model, *([] if options.beam is None else ["--beam", str(options.beam)])]
    with tempfile.TemporaryDirectory() as folder:
        file, short = Path(folder, "long.wav"), Path(folder, "minute.wav")
        said = assemble(options.root, 60 * options.minutes, file)
        io.save(short, io.load(file, RATE, end=min(60.0, said[-1][1])), RATE)
        _, short_memory, _ = transcribed(short, flags)
        found, memory, seconds = transcribed(file, flags)
        listener = Transcriber.load(options.model, beam=options.beam).recogniser
        ends = [min(end + AROUND_SECONDS, said[-1][1]) for _, end, _, _ in said]
        waves = [io.load(file, listener.rate, start=start - AROUND_SECONDS, end=end) for (start, _, _, _), end in zip(said, ends, strict=True)]
        alone = {i: r.text for batch in listener.recognise(waves) for i, r in batch.items()}

    reference = clean(" ".join(text for _, _, text, _ in said))
    apart = wer.score([reference], [clean(" ".join(alone[i] for i in range(len(said))))]).wer
    whole = wer.score([reference], [clean(found["text"])]).wer
    segments = [s for s in found["segments"] if s["text"]]
    errors = torch.tensor(
        [min((abs(s[key] - time) for s in segments), default=9.0) for at, key in ((0, "start"), (1, "end")) for time in [one[at] for one in said]]
    )
    sharp = torch.tensor([one[3][at] for at in (0, 1) for one in said])
    figures = {
        "minutes": round(found["duration"] / 60, 2),
        "utterances": len(said),
        "segments": len(segments),
        "wer": round(whole, 2),
        "wer_presegmented": round(apart, 2),
        "relative": round(100 * (whole / apart - 1), 1),
        "ends_within_50_ms": round(100 * float((errors <= 0.05).float().mean()), 1),
        "sharp_ends": int(sharp.sum()),
        "sharp_within_50_ms": round(100 * float((errors[sharp] <= 0.05).float().mean()), 1),
        "end_error_median_ms": round(1000 * float(errors.median())),
        "end_error_95_ms": round(1000 * float(errors.quantile(0.95))),
        "peak_mb": round(memory),
        "peak_mb_of_a_minute": round(short_memory),
        "seconds": round(seconds, 1),
    }
    for name, value in figures.items():
        print(f"{name:<24}{value}")
    if options.json:
        write(options.json, figures)


if __name__ == "__main__":
    main()
