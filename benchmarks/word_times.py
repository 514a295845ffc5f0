"""How exact the times of words are: against those that come with a corpus.

    python benchmarks/word_times.py --manifest ../shared/data/robotutor/stories.jsonl [--limit 200] [--json FILE]

Rows have `words`: [word, start, end] in seconds. The model hears each utterance as `melcli transcribe --timestamps word` does; words that it heard
right (by the alignment of the two texts) are compared. `shifted` is the error after the median difference is taken away: corpora have an offset of
their own, which the third line measures without any model: by the first 50 ms less than 30 dB under the loudest.
"""

from __future__ import annotations

import argparse
import difflib
import json
import random
from pathlib import Path

import torch
from figures import write

from melcli.audio import io
from melcli.audio.segment import frame_levels
from melcli.data.utterance import Utterance
from melcli.inputs import AudioInput
from melcli.models.hints import Hints
from melcli.transcribe import Transcriber


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=Path("../shared/data/robotutor/stories.jsonl"))
    parser.add_argument("--model", default="tiny-en")
    parser.add_argument("--beam", type=int)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    rows = [row for row in map(json.loads, options.manifest.read_text(encoding="utf-8").splitlines()) if row.get("words")]
    random.Random(0).shuffle(rows)
    rows = {row["id"]: row for row in rows[: options.limit]}
    items = [AudioInput(name, Utterance(name, (str(options.manifest.parent / row["audio"]),))) for name, row in rows.items()]
    transcriber = Transcriber.load(options.model, beam=options.beam, vad=True, hints=Hints(word_times=True))
    differences: dict[str, list[float]] = {"start": [], "end": [], "sound": []}
    total = 0
    for transcript in transcriber.transcribe(items):
        known = rows[transcript.name]["words"]
        total += len(known)
        heard = [word for segment in transcript.segments for word in segment.words or ()]
        for block in difflib.SequenceMatcher(None, [w for w, _, _ in known], [w.word for w in heard], autojunk=False).get_matching_blocks():
            for (_, start, end), word in zip(known[block.a : block.a + block.size], heard[block.b : block.b + block.size], strict=True):
                differences["start"].append(word.start - start)
                differences["end"].append(word.end - end)
        wave_S = io.load(transcript.audio, 16000)
        power_N = torch.nn.functional.avg_pool1d((10 ** (frame_levels(wave_S, 16000, 0.01) / 10))[None], 5, 1)[0]
        differences["sound"].append(int((power_N > power_N.max() * 10**-3).nonzero()[0]) * 0.01 - known[0][1])
    figures: dict[str, object] = {"utterances": len(rows), "words": total, "compared": len(differences["start"])}
    print(f"{len(rows)} utterances, {total} words, {len(differences['start'])} heard right")
    print(f"{'':<8}{'median error ms':>16}{'offset ms':>11}{'shifted ms':>12}")
    for name, values in differences.items():
        found = torch.tensor(values)
        offset = found.median()
        row = [round(1000 * float(v)) for v in (found.abs().median(), offset, (found - offset).abs().median())]
        figures[name] = dict(zip(("median_error_ms", "offset_ms", "shifted_ms"), row, strict=True))
        print(f"{name:<8}{row[0]:>16}{row[1]:>11}{row[2]:>12}")
    if options.json:
        write(options.json, figures)


if __name__ == "__main__":
    main()
