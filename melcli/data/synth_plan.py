"""Plans of synthetic speech: hours of `synth:` utterances, drawn from text collections, kinds of prompts and voices by a seed.

`corpus` is what the source `synth:en?hours=60&seed=1` means to featurize and train. A plan is pure text: it is spoken when it is loaded.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

from melcli.data import prompts
from melcli.data.sentences import Sentence, Source, held_out, read_source
from melcli.data.utterance import Utterance
from melcli.data.voices import ESPEAK_ACCENTS, ESPEAK_CLEAR, PACKAGES, Delivery, voice
from melcli.errors import AudioError, ManifestError, UsageError, nearest

KINDS = {"book": 0.45, "dialogue": 0.20, "question": 0.08, "digits": 0.10, "spelled": 0.04, "phrase": 0.08, "child": 0.05}
"""Shares of the hours, by what is said."""
VOICE_SHARES = {
    "flite/slt": 0.24,
    "flite/rms": 0.20,
    "flite/awb": 0.16,
    "flite/kal16": 0.10,
    "espeak": 0.20,
    "festival/ked_diphone": 0.06,
    "festival/cmu_us_slt_arctic_hts": 0.04,
}
"""Shares of the utterances, by speaker. `espeak` is any of its accents and variants."""
FILES = {"book": "text/books.txt.gz", "dialogue": "text/dialogues.txt.gz", "question": "text/qa.jsonl.gz"}
TEXTS = ("transcript", "spoken")
SEPARATE = 0.4
"""Share of the digit strings that are joined from digits spoken one by one, as recordings of single digits are joined."""
STRETCH, PITCH = (0.8, 1.35), (0.8, 1.2)


def plan(
    root: Path,
    hours: float,
    seed: int,
    mix: Mapping[str, float] | None = None,
    voices: Mapping[str, float] | None = None,
    *,
    text: str = "transcript",
    steady: bool = False,
) -> list[Utterance]:
    """`hours` of synthetic speech as shuffled utterances with estimated durations and `extra["kind"]`: a pure function of its arguments.

    root: the data root that holds text/ and, where they exist, the test corpora whose texts are kept out.
    mix: shares of KINDS, by hours. voices: shares by utterances, a voice's name or `espeak`. text: what an utterance's text is, the `transcript`, or
    what was `spoken`, with its punctuation. steady: every voice keeps its own tempo, pitch and size. UsageError for a name or number that cannot be.
    """
    if text not in TEXTS:
        raise UsageError(f"Synthetic speech with text={text} cannot be.{nearest(text, TEXTS)} Valid: {', '.join(TEXTS)}.")
    mix, voices = shares(mix or KINDS, "kind", list(KINDS)), shares(voices or VOICE_SHARES, "voice", None)
    if not 0 < hours < float("inf"):
        raise UsageError(f"Synthetic speech of {hours:g} hours cannot be; valid: hours=0.01 and more.")
    material = Material(root)
    utterances: list[Utterance] = []
    for kind, share in mix.items():
        random = Random(f"{seed}/{kind}")
        said, number, lines = 0.0, 0, material.lines(kind, random)
        while said < hours * 3600 * share:
            utterance = _utterance(f"synth-{seed}-{kind}-{number:06d}", kind, next(lines), voices, random, text == "spoken", steady)
            utterances.append(utterance)
            said, number = said + (utterance.duration or 0.0), number + 1
    Random(f"{seed}/order").shuffle(utterances)
    return utterances


def corpus(options: Mapping[str, str], root: Path) -> list[Utterance]:
    """The source `synth:en?hours=60&seed=1&mix=book:1,digits:0.5&voices=flite/slt:1,espeak:0.3`: options in, utterances out.

    `text=spoken&steady=1` makes what a voice is learnt from: texts with their punctuation, each voice at its own tempo and pitch.
    UsageError for an unknown option or value, and where a program that the voices need is not installed (with the Debian packages to install).
    """
    valid = {"hours", "seed", "mix", "voices", "text", "steady"}
    if unknown := [key for key in options if key not in valid]:
        raise UsageError(f"Unknown option '{unknown[0]}' of synth:en.{nearest(unknown[0], valid)} Valid: {', '.join(sorted(valid))}.")
    hours, seed, steady, voices = read_options(options, "synth:en")
    try:
        mix = parse_shares(options["mix"]) if "mix" in options else None
    except ValueError as problem:
        raise UsageError(f"synth:en?mix={options['mix']}: {problem}; valid: mix=book:1,digits:0.5") from None
    utterances = plan(root, hours, seed, mix, voices, text=options.get("text", "transcript"), steady=steady)
    check_programs(voices or VOICE_SHARES)
    return utterances


def read_options(options: Mapping[str, str], source: str) -> tuple[float, int, bool, dict[str, float] | None]:
    """hours, seed, steady and the shares of voices (None unless given) of a source's options. UsageError for what is no number."""
    try:
        hours, seed, steady = float(options.get("hours", "1")), int(options.get("seed", "1")), bool(int(options.get("steady", "0")))
        return hours, seed, steady, parse_shares(options["voices"]) if "voices" in options else None
    except ValueError as problem:
        given = "&".join(f"{key}={value}" for key, value in options.items())
        raise UsageError(f"{source}?{given}: {problem}; valid: hours=60&seed=1&voices=flite/slt:1,espeak:0.5") from None


def check_programs(voices: Iterable[str]) -> None:
    """UsageError where a program that these voices need is not installed (with the Debian packages to install)."""
    programs = {"espeak-ng" if name == "espeak" else voice(name).program for name in voices}
    if missing := sorted(program for program in programs if shutil.which(program) is None):
        packages = " ".join(PACKAGES[program] for program in missing)
        raise UsageError(
            f"Synthetic speech needs {' and '.join(missing)}: apt-get install {packages}, or choose other voices, e.g. voices=flite/slt:1,espeak:0.3"
        )


def parse_shares(text: str) -> dict[str, float]:
    """ "a:1,b:0.5" -> {"a": 1.0, "b": 0.5}; a name without a number counts 1."""
    return {name: float(share or 1) for name, _, share in (part.partition(":") for part in text.split(",") if part)}


def shares(given: Mapping[str, float], what: str, valid: list[str] | None) -> dict[str, float]:
    """The shares scaled to sum 1. UsageError for unknown names and shares that are not positive."""
    for name in given:
        if valid is not None and name not in valid:
            raise UsageError(f"Unknown {what} '{name}' of synthetic speech.{nearest(name, valid)} Valid: {', '.join(valid)}.")
        if valid is None and name != "espeak":
            try:
                voice(name)
            except AudioError as problem:
                raise UsageError(str(problem)) from None
    total = sum(given.values())
    if not given or min(given.values()) < 0 or not 0 < total < float("inf"):
        raise UsageError(f"Shares of {what}s must be numbers >= 0 and not all 0, not {dict(given)}.")
    return {name: share / total for name, share in given.items() if share > 0}


class Material:
    """The text collections under a data root and endless lines of each kind out of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.held_out = held_out(root)
        self._sources: dict[str, Source] = {}

    def source(self, kind: str) -> Source:
        if kind not in self._sources:
            self._sources[kind] = read_source(self.root / FILES[kind])
        return self._sources[kind]

    def lines(self, kind: str, random: Random) -> Iterator[Sentence]:
        """Sentences of a kind without end, in a random order; a text collection is used up before anything is said again."""
        if kind in FILES:
            return self._cleaned([self.source(kind)], random)
        return {"digits": self._digits, "spelled": self._spelled, "phrase": self._phrases, "child": self._children}[kind](random)

    def _cleaned(self, sources: list[Source], random: Random, fits: Callable[[Sentence], bool] = bool) -> Iterator[Sentence]:
        order = [(number, index) for number, source in enumerate(sources) for index in range(len(source.raw))]
        while True:
            random.shuffle(order)
            found = False
            for number, index in order:
                sentence = sources[number].clean(sources[number].raw[index])
                if sentence is not None and fits(sentence) and sentence.text not in self.held_out:
                    found = True
                    yield sentence
            if not found:
                raise ManifestError(f"No sentence of the kind that was asked for in the text collections under {self.root / 'text'}.")

    def _digits(self, random: Random) -> Iterator[Sentence]:
        while True:
            sentence = prompts.grouped(random, prompts.digits(random))
            if sentence.words < 3 or sentence.text not in self.held_out:
                yield sentence

    def _spelled(self, random: Random) -> Iterator[Sentence]:
        words = prompts.vocabulary([self.source("book"), self.source("dialogue")], 6000)
        while True:
            yield prompts.spelled(random, words)

    def _phrases(self, random: Random) -> Iterator[Sentence]:
        words = prompts.vocabulary([self.source("book"), self.source("dialogue")], 9000)
        for sentence in self._cleaned([self.source("book"), self.source("dialogue")], random):
            yield prompts.phrase(random, sentence, words)

    def _children(self, random: Random) -> Iterator[Sentence]:
        sources = [self.source("book"), self.source("dialogue")]
        common = frozenset(prompts.vocabulary(sources, prompts.COMMON))
        return self._cleaned(sources, random, lambda sentence: prompts.childlike(sentence, common))


def _utterance(name: str, kind: str, sentence: Sentence, voices: Mapping[str, float], random: Random, as_spoken: bool, steady: bool) -> Utterance:
    """The sentence in a random voice and delivery; some digit strings digit by digit."""
    delivery = steady_delivery(voices, random) if steady else delivery_of(kind, voices, random)
    said = {"text": sentence.spoken if as_spoken else sentence.text, "speaker": delivery.voice, "extra": {"kind": kind}}
    if kind == "digits" and sentence.words > 1 and not steady and random.random() < SEPARATE:
        delivery, gap = replace(delivery, lead=0.02, tail=0.02), round(random.uniform(0.03, 0.35), 2)
        words = sentence.text.split()
        seconds = sum(delivery.seconds(word) for word in words) + gap * (len(words) - 1)
        return Utterance(name, tuple(delivery.address(word) for word in words), duration=round(seconds, 2), gap=gap, **said)
    return Utterance(name, (delivery.address(sentence.spoken),), duration=round(delivery.seconds(sentence.spoken), 2), **said)


def _pick(voices: Mapping[str, float], random: Random) -> str:
    name = random.choices(list(voices), list(voices.values()))[0]
    return f"espeak/{random.choice(ESPEAK_ACCENTS)}+{random.choice(ESPEAK_CLEAR)}" if name == "espeak" else name


def steady_delivery(voices: Mapping[str, float], random: Random) -> Delivery:
    """A voice as it is, with a tenth of a second of silence on either side."""
    return Delivery(_pick(voices, random))


def delivery_of(kind: str, voices: Mapping[str, float], random: Random) -> Delivery:
    """A voice and random tempo, pitch and size. Half of the speakers are near the voice's own size, a third smaller (children), the rest bigger."""
    name = _pick(voices, random)
    one = voice(name)
    big, small = one.shifts
    children = 0.7 if kind == "child" else 0.35
    size = random.choices([(0.96, 1.06), (1.06, small), (big, 0.96)], [0.85 - children, children, 0.15])[0]
    return Delivery(
        name,
        stretch=round(random.triangular(*STRETCH, 1.0), 2) if one.stretched else 1.0,
        pitch=round(random.uniform(*PITCH), 2) if one.pitched else 1.0,
        shift=round(random.uniform(*size), 2),
        lead=round(random.uniform(0.05, 0.3), 2),
        tail=round(random.uniform(0.05, 0.3), 2),
    )
