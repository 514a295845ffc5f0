"""The transcriber around any recogniser: pieces joined, results as they are done, time shared out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from melcli.audio import io
from melcli.data.utterance import Utterance
from melcli.inputs import AudioInput
from melcli.models.recogniser import Recognised
from melcli.transcribe import Transcriber


class Counter:
    """Hears how many tenths of a second there are, one piece a batch, the longest first."""

    rate = 16000
    max_seconds = 1.0

    def __init__(self) -> None:
        self.batches = 0

    def recognise(self, waves: Sequence[torch.Tensor]) -> Iterator[dict[int, Recognised]]:
        for i in sorted(range(len(waves)), key=lambda i: -len(waves[i])):
            self.batches += 1
            time.sleep(0.01)
            yield {i: Recognised(str(round(len(waves[i]) / 1600)), "eos")}


def test_each_file_is_yielded_with_its_last_piece(tmp_path: Path) -> None:
    items = []
    for name, seconds in (("short", 0.3), ("long", 2.5), ("middle", 0.7)):
        noise_S = torch.randn(round(16000 * seconds), generator=torch.Generator().manual_seed(1))
        io.save(tmp_path / f"{name}.wav", 0.1 * noise_S, 16000)
        items.append(AudioInput(name, Utterance(name, (str(tmp_path / f"{name}.wav"),))))
    counter = Counter()
    found, batches = {}, {}
    for transcript in Transcriber(counter, {}, Path()).transcribe(items):
        found[transcript.name], batches[transcript.name] = transcript, counter.batches
    assert batches["short"] == counter.batches > batches["middle"]
    assert found["short"].text == "3" and found["middle"].text == "7"
    long = found["long"]
    assert sum(map(int, long.text.split())) in (24, 25, 26) and len(long.segments) >= 3 and long.segments[-1].end == 2.5
    assert long.seconds >= 0.01 * len(long.segments) and found["short"].seconds >= 0.01
