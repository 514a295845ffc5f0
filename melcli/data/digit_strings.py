"""Strings of spoken digits out of single spoken digits: one speaker's clips joined with short pauses."""

from __future__ import annotations

import itertools
import random

from melcli.data.utterance import Utterance

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GAP_SECONDS = (0.1, 0.3)


def _join(clips: list[Utterance], name: str, gap: float) -> Utterance:
    known = all(clip.duration is not None for clip in clips)
    starts = [0.0, *itertools.accumulate((clip.duration or 0.0) + gap for clip in clips)]
    times = [[clip.text or "", round(at, 4), round(at + (clip.duration or 0.0), 4)] for clip, at in zip(clips, starts, strict=False)]
    return Utterance(
        id=name,
        audio=tuple(clip.audio[0] for clip in clips),
        text=" ".join(clip.text or "" for clip in clips),
        duration=round(sum(clip.duration or 0.0 for clip in clips) + gap * (len(clips) - 1), 4) if known else None,
        speaker=clips[0].speaker,
        gap=gap if len(clips) > 1 else 0.0,
        extra={"words": times} if known else {},
    )


def digit_strings(clips: list[Utterance], count: int, least: int, most: int, seed: int) -> list[Utterance]:
    """`count` strings of `least` to `most` digits, each of one speaker, speakers in turn, with 0.1 to 0.3 s between the digits.

    A speaker's clips are dealt out of a shuffled deck that is shuffled again when it is used up, so every clip is used before one comes twice. The
    same clips, numbers and seed give the same strings.
    """
    by_speaker: dict[str, list[Utterance]] = {}
    for clip in sorted(clips, key=lambda clip: clip.id):
        by_speaker.setdefault(clip.speaker or "", []).append(clip)
    rng, decks, strings = random.Random(seed), {}, []
    speakers = sorted(by_speaker)
    for index in range(count):
        speaker = speakers[index % len(speakers)]
        dealt = []
        for _ in range(rng.randint(least, most)):
            if not decks.get(speaker):
                decks[speaker] = rng.sample(by_speaker[speaker], len(by_speaker[speaker]))
            dealt.append(decks[speaker].pop())
        strings.append(_join(dealt, f"{speaker}-string-{index:05d}", round(rng.uniform(*GAP_SECONDS), 3)))
    return strings
