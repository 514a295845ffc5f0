"""What is spoken besides whole sentences: digit strings, spelled words, words and short phrases; functions of a seeded generator."""

from __future__ import annotations

from random import Random

from melcli.data.sentences import Sentence, Source

DIGITS = "zero one two three four five six seven eight nine".split()
OH = 0.06
"""Share of zeros called "oh"."""
COMMON = 2500
"""A child's sentence has only so many of the most frequent words."""


def digits(random: Random) -> list[str]:
    """One to ten digits, each a word; 0 is "zero" and now and then "oh"."""
    count = random.choice([1, 1, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8, 9, 10])
    words = random.choices(DIGITS, k=count)
    return ["oh" if word == "zero" and count > 1 and random.random() < OH else word for word in words]


def grouped(random: Random, words: list[str]) -> Sentence:
    """Digits as one utterance, run together or with pauses, in groups of one to four as telephone and card numbers are said."""
    parts = [words[0]]
    left = random.randint(1, 4)
    for word in words[1:]:
        left -= 1
        parts.append((", " if left == 0 else " ") + word)
        left = random.randint(1, 4) if left == 0 else left
    return Sentence("".join(parts) + ".", " ".join(words))


def spelled(random: Random, vocabulary: list[str]) -> Sentence:
    """A word spelled ("c a t"), a word and its letters ("cat c a t"), or some letters."""
    letters = list(random.choice(vocabulary)) if random.random() < 0.75 else random.choices("abcdefghijklmnopqrstuvwxyz", k=random.randint(1, 5))
    letters = [letter for letter in letters if letter.isalpha()][:9]
    joint = random.choice([" ", ", ", ", "])
    spoken = joint.join("eigh" if letter == "a" else letter for letter in letters)  # "eigh": every synthesiser says the letter's name
    text = " ".join(letters)
    if len(letters) > 2 and random.random() < 0.3:
        word = "".join(letters)
        if word in vocabulary:
            return Sentence(f"{word}, {spoken}.", f"{word} {text}")
    return Sentence(spoken + ".", text)


def phrase(random: Random, sentence: Sentence, vocabulary: list[str]) -> Sentence:
    """One word of the vocabulary or one to three words out of a sentence."""
    if random.random() < 0.4:
        words = [random.choice(vocabulary)]
    else:
        said = sentence.text.split()
        count = min(len(said), random.choice([1, 2, 2, 3, 3]))
        start = random.randint(0, len(said) - count)
        words = said[start : start + count]
        if words == ["a"]:
            words = said[:2]
    text = " ".join(words)
    return Sentence(text + random.choice([".", ".", "", "!", "?"]), text)


def childlike(sentence: Sentence, common: frozenset[str]) -> bool:
    """Whether a six-year-old could read the sentence out: three to nine short common words."""
    words = sentence.text.split()
    return 3 <= len(words) <= 9 and all(len(word) <= 7 and word in common for word in words)


def vocabulary(sources: list[Source], size: int) -> list[str]:
    """The most frequent words of several collections, all of them known words of two letters or more, most frequent first."""
    total = sum((source.counts for source in sources[1:]), sources[0].counts.copy())
    known = frozenset.intersection(*(source.known for source in sources)) if len(sources) > 1 else sources[0].known
    return [word for word, _ in total.most_common(size * 2) if (len(word) > 1 or word in "ai") and word in known][:size]
