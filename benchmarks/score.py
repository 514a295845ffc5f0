"""How fast are texts normalised and aligned, beside whisper-normalizer and kaldialign called one after the other?

    python benchmarks/score.py [--pairs 100000] [--protocol openasr-2026] [--repeats 3] [--json FILE]

The texts are made here: common words, and in about the share of conversations numbers, contractions, titles, fillers, names, British spellings and
compounds; a transcript is its reference with some words changed. Both contenders run in this process, in turn, and the best round of each counts.
melcli starts every round with nothing remembered. Its memory is the growth of the process while all pairs are scored once, results kept.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import time
from pathlib import Path

from figures import write
from kaldialign import batch_error_rate
from whisper_normalizer.english import EnglishTextNormalizer

from melcli.scoring import openasr, protocol

COMMON = """the be to of and a in that have it for not on with he as you do at this but his by from they we say her she or an will my all would there
their what so up out if about who get which go me when make can like time no just him know take people into year your good some could them
see other than then now look only come its over think also back after use two how our work first well way even new want because any these
give day most us one""".split()
LESS_COMMON = """company quarter revenue meeting question project market government history children science weather language teacher morning
evening window garden mountain river station coffee music picture letter building village island captain doctor""".split()
SPECIAL = """twenty-three 1,500 $20 five% 1960s 32nd Mr. Dr. don't it's we're I've she'd can't gonna um uh hmm okay colour organise centre Stephen
Katherine U.S. p.m. wi-fi BBC white-paper""".split()


def made_pairs(count: int) -> tuple[list[str], list[str]]:
    """References and transcripts of 3 to 30 words."""
    chance = random.Random(0)
    invented = ["".join(chance.choices("bcdfglmnprst", k=1) + chance.choices("aeiou", k=1) + chance.choices("lmnrst", k=3)) for _ in range(20_000)]
    pools, shares = (COMMON, LESS_COMMON, invented, SPECIAL), (70, 15, 10, 5)
    references, hypotheses = [], []
    for _ in range(count):
        words = [chance.choice(chance.choices(pools, shares)[0]) for _ in range(chance.randrange(3, 31))]
        heard = list(words)
        for place in range(len(heard)):
            if chance.random() < 0.05:
                heard[place] = chance.choice(("", chance.choice(COMMON), f"{heard[place]} {chance.choice(COMMON)}"))
        references.append(" ".join(words).capitalize() + ".")
        hypotheses.append(", ".join(" ".join(heard).split(" and ")))
    return references, hypotheses


def plainly(references: list[str], hypotheses: list[str]) -> float:
    """Seconds that whisper-normalizer and kaldialign take."""
    began = time.perf_counter()
    normalise = EnglishTextNormalizer()
    said, heard = [normalise(text).split() for text in references], [normalise(text).split() for text in hypotheses]
    batch_error_rate(said, heard, merge_compounds=True)
    return time.perf_counter() - began


def melcli(name: str, references: list[str], hypotheses: list[str]) -> tuple[float, float]:
    """Seconds that melcli takes, and MiB that the process grew by."""
    openasr._classic.cache_clear()
    openasr._english_2026.cache_clear()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    found = protocol.get(name).score_each(references, hypotheses)
    seconds = time.perf_counter() - began
    assert len(found) == len(references)
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--protocol", default="openasr-2026")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    references, hypotheses = made_pairs(options.pairs)
    melcli(options.protocol, references[:100], hypotheses[:100])  # imports what is imported once
    ours, theirs, grown = [], [], 0.0
    for repeat in range(options.repeats):
        gc.collect()
        seconds, more = melcli(options.protocol, references, hypotheses)
        grown = more if repeat == 0 else grown
        ours.append(seconds)
        theirs.append(plainly(references, hypotheses))
    ratio = min(theirs) / min(ours)
    print(f"{options.pairs} pairs, {options.protocol}")
    print(f"whisper-normalizer, kaldialign  {min(theirs):7.2f} s")
    print(f"melcli                          {min(ours):7.2f} s   {ratio:.2f} x   {grown:.0f} MiB more, results included")
    figures = {"pairs": options.pairs, "protocol": options.protocol, "seconds": ours, "seconds_plainly": theirs, "ratio": ratio, "grown_mib": grown}
    write(options.json, figures)


if __name__ == "__main__":
    main()
