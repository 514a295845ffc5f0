"""How fast does a model speak, and what does its key-value cache gain?

    python benchmarks/synthesize.py [--model tiny-voice] [--vocoder auto] [--sentences 8] [--repeats 3] [--device cpu] [--dtype auto] [--json FILE]

The same sentences with the same seed, in turn: one at a time with the cache, one at a time by a plain loop that reads everything anew for each step,
all together, and from text to samples (the whole of `melcli synthesize`, writing left out). The best of the repeats counts. The plain loop must say
the same number of frames, or the benchmark stops; how far the frames are apart is printed. A real-time factor is seconds of computing a second of
audio.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from figures import write
from torch import Tensor

from melcli.models import speaking
from melcli.models.masks import additive, padded_mask
from melcli.models.speaker import Spoken
from melcli.synthesize import Request, Synthesizer

SENTENCES = """\
the old man opened the door and looked out into the rain.
we walked along the river until it was too dark to see the path.
she said that nobody had told her about the letter.
in the morning the children found a small boat on the shore.
it was the best of all the stories that he knew, and he told it well.
there is a garden behind the house, with apple trees and a wall.
when the bell rang, everybody went back to work.
he counted the money twice and put it into his coat.
the train was late again, so they sat down and waited.
nothing in the room had changed since the day she left.
a cold wind blew from the north, and the snow began to fall.
they asked him many questions, but he did not answer.""".splitlines()


class PlainRows(speaking._Rows):
    """One row without a cache: all that was read is read again at each step."""

    def _run(self, x_BLD: Tensor, position_BL: Tensor, mask: Tensor) -> Tensor:
        before = getattr(self, "read", None)
        self.read = (x_BLD, position_BL) if before is None else tuple(torch.cat(pair, 1) for pair in zip(before, (x_BLD, position_BL), strict=True))
        x_BLD, position_BL = self.read
        valid_BL = torch.ones_like(position_BL, dtype=torch.bool)
        mask = padded_mask(valid_BL, torch.zeros_like(valid_BL), False)
        if self.model.llm.config._attn_implementation == "eager":
            mask = additive(mask, self.model.dtype)
        out = self.backbone(inputs_embeds=x_BLD, attention_mask=mask, position_ids=position_BL, use_cache=False)
        return out.last_hidden_state[:, -1]


@contextmanager
def without_cache() -> Iterator[None]:
    rows, speaking._Rows = speaking._Rows, PlainRows
    try:
        yield
    finally:
        speaking._Rows = rows


def best(repeats: int, work: Callable[[], object]) -> tuple[float, object]:
    """The least seconds of several times, and what the work gave."""
    times, found = [], None
    for _ in range(repeats):
        began = time.perf_counter()
        found = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times), found


def first_audio(synthesizer: Synthesizer, text: str) -> float:
    """Seconds until the first samples of a stream."""
    began = time.perf_counter()
    for chunk in synthesizer.stream(Request("first", text)):
        if len(chunk.wave_S):
            break
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="tiny-voice")
    parser.add_argument("--vocoder", default="auto")
    parser.add_argument("--sentences", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    synthesizer = Synthesizer.load(options.model, vocoder=options.vocoder, device=options.device, dtype=options.dtype)
    speaker, texts = synthesizer.speaker, SENTENCES[: options.sentences]
    speaker.speak(texts[:1])  # what is done only once

    def one_by_one() -> list[Spoken]:
        return [speaker.speak([text])[0] for text in texts]

    cached, with_it = best(options.repeats, one_by_one)
    with without_cache():
        plain, without_it = best(options.repeats, one_by_one)
    together, _ = best(options.repeats, lambda: speaker.speak(texts))
    whole, speeches = best(options.repeats, lambda: list(synthesizer.speak(Request(text, text) for text in texts)))
    delay, _ = best(options.repeats, lambda: first_audio(synthesizer, texts[0]))

    frames, those = ([len(one.mel_TM) for one in each] for each in (with_it, without_it))
    exact = speaker.model.dtype == torch.float32  # otherwise the two round differently, and what is drawn goes different ways
    if frames != those if exact else abs(sum(frames) - sum(those)) > 0.05 * sum(those):
        raise SystemExit(f"the plain loop says {those} frames, the cached one {frames}: not the same speech")
    pairs = zip(with_it, without_it, strict=True)
    apart = max(float((one.mel_TM - other.mel_TM).abs().max()) for one, other in pairs) if exact else None
    seconds = sum(frames) / speaker.spec.frame_rate
    audio = sum(speech.seconds for speech in speeches)
    factors = {
        "cached": cached / seconds,
        "plain": plain / (sum(those) / speaker.spec.frame_rate),
        "together": together / seconds,
        "end_to_end": whole / audio,
    }
    print(f"{options.model}, {len(texts)} sentences, {seconds:.1f} s of speech; {synthesizer.vocoder.family}; real-time factors")
    print(f"mel, a plain loop without a cache   {factors['plain']:7.3f}")
    same = "rounded differently" if apart is None else f"frames at most {apart:.2g} apart"
    print(f"mel, with the cache                 {factors['cached']:7.3f}   {plain / cached:.2f} x   ({same})")
    print(f"mel, all sentences together         {factors['together']:7.3f}   {plain / together:.2f} x")
    print(f"from text to samples, together      {factors['end_to_end']:7.3f}")
    print(f"first samples of a stream after     {delay:7.3f} s")
    decisions = synthesizer.decisions
    write(options.json, {"decisions": decisions, "seconds": seconds, "apart": apart, "real_time_factors": factors, "first_audio_seconds": delay})


if __name__ == "__main__":
    main()
