"""Sentences to be spoken, cut from text collections, and the guard that keeps test sentences out of them.

Three kinds of file, told apart by name: `*.txt.gz` of books (paragraphs, ` Title:` lines between books), `dialogues*.txt.gz` (a line a turn) and
`*.jsonl.gz` of questions (`question` and, when it is a few words, `answer`).
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from melcli.data.text import ABBREVIATIONS, prompt, speakable, transcript
from melcli.errors import ManifestError

WORDS = (2, 30)
"""Fewest and most words of a sentence; longer ones are cut at their clauses."""
SHARED_RUN = 7
"""A sentence that shares so many words in a row with a test text is dropped, whatever surrounds them."""
TEST_SENTENCE = 5
"""A test text of at least so many words may not occur inside a sentence."""

_HONORIFIC = re.compile(r"\b(Mr|Mrs|Dr|Prof|Capt|Lt|Sgt|Jr|Sr|vs|St|Col|Gen|Rev|Hon|Messrs)\.(?= )")
_END = re.compile(r"(?<!\b[A-Z]\.)(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])|(?<=[.!?][\"'])\s+(?=[\"'(\[]*[A-Z0-9])")
_CLAUSE = re.compile(r"(?<=[;:,])\s+|\s*--+\s*|\s*—\s*")
_ODD = re.compile(r"[^\sA-Za-z0-9.,;:!?'\"()$£%&+*_\-–—‘’“”…#éèêçôîïüñáà]|[A-Za-z]\d|\d[A-Za-z]{3}|https?:|www\.|\.(?:com|org|net)\b")
_HEADING = re.compile(r"\s*(?:(?:chapter|book|canto|part|volume|act|scene|section|title|author|year)\b[\s:.]|[ivxlcIVXLC]+\.?\s*$)", re.IGNORECASE)
_ROMAN = re.compile(r"\b(?:[IVXLC]{2,}|[VX])\b")
_INITIAL = re.compile(r"(?<!\.)(?<!\. )\b[A-Z]\.? (?=[A-Z][a-z])(?<!I )(?<!A )")
_CAPITALS = re.compile(r"\b[A-Z]{2,}\b")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")


@dataclass(frozen=True, slots=True)
class Sentence:
    """spoken: for the synthesiser, with punctuation. text: the transcript."""

    spoken: str
    text: str

    @property
    def words(self) -> int:
        return self.text.count(" ") + 1


@dataclass(frozen=True, slots=True)
class Source:
    """A text collection cut but not yet cleaned: raw sentences, how often each word occurs, and the words that are surely English."""

    raw: tuple[str, ...]
    counts: Counter[str]
    known: frozenset[str]

    def clean(self, raw: str) -> Sentence | None:
        """The sentence, or None where it cannot be spoken as written: odd characters, headings, capitals and roman numerals, unknown words."""
        if _ODD.search(raw) or _HEADING.match(raw) or _ROMAN.search(raw) or _INITIAL.search(raw):
            return None
        said = speakable(raw)
        if any(word.lower() not in self.known or len(word) > 12 for word in _CAPITALS.findall(said)) or any(letter.isdigit() for letter in said):
            return None
        spoken, text = prompt(said), transcript(said)
        words = text.split()
        if not WORDS[0] <= len(words) <= WORDS[1]:
            return None
        unknown = sum(word not in self.known for word in words)
        if unknown > (len(words) >= 8) or max(map(len, words)) > 18:
            return None
        return Sentence(spoken if spoken[-1] in ".!?,;:" else spoken + ".", text)


def sentences(path: Path, tested: HeldOut | None = None) -> list[Sentence]:
    """Every speakable sentence of a file once, in its order, without those that `tested` forbids. ManifestError where the file is missing."""
    source = read_source(path)
    cleaned = dict.fromkeys(sentence for raw in source.raw if (sentence := source.clean(raw)) is not None)
    return [sentence for sentence in cleaned if tested is None or sentence.text not in tested]


@lru_cache(maxsize=8)
def read_source(path: Path) -> Source:
    """The text collection in a file, cut into raw sentences (a second or two for 20 MB)."""
    if not path.is_file():
        raise ManifestError(f"There is no text collection {path}; expected books.txt.gz, dialogues.txt.gz and qa.jsonl.gz under DATA_ROOT/text.")
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as lines:
        paragraphs = [line.strip() for line in lines]
    if ".jsonl" in path.name:
        rows = (json.loads(line) for line in paragraphs if line)
        paragraphs = [text for row in rows for text in (row["question"], row.get("answer", "")) if text]
    counts, books = _count(paragraphs)
    enough = 2 if len(books) > 1 else 3
    spread = Counter(word for book in books for word in book) if len(books) > 1 else counts
    written_short = (word for words in ABBREVIATIONS.values() for word in words.split())
    known = frozenset(word for word, count in spread.items() if count >= enough).union(written_short)
    return Source(tuple(_cut(paragraphs)), counts, known)


def _count(paragraphs: list[str]) -> tuple[Counter[str], list[set[str]]]:
    """How often each word occurs, and the words of each book (one "book" where the file has no titles)."""
    counts: Counter[str] = Counter()
    books: list[set[str]] = [set()]
    for paragraph in paragraphs:
        if paragraph.startswith("Title: ") and books[-1]:
            books.append(set())
        words = _WORD.findall(paragraph.lower().replace("’", "'"))
        counts.update(words)
        books[-1].update(words)
    return counts, books


def _cut(paragraphs: Iterable[str]) -> Iterator[str]:
    for paragraph in paragraphs:
        for sentence in _END.split(_HONORIFIC.sub(r"\1", paragraph)):
            if sentence.count(" ") < WORDS[1]:
                if sentence:
                    yield sentence
                continue
            yield from _clauses(sentence)


def _clauses(sentence: str) -> Iterator[str]:
    """A long sentence in pieces of 5 to 30 words that end where a clause does; a piece without such an end is left out."""
    piece = ""
    for clause in _CLAUSE.split(sentence):
        if piece and piece.count(" ") + clause.count(" ") + 2 > WORDS[1]:
            yield piece
            piece = ""
        piece = f"{piece} {clause}" if piece else clause
    if piece.count(" ") >= 4:
        yield piece


class HeldOut:
    """Texts that are tested on. `text in tested` where a sentence would give one of them away.

    That is: it is one of them (two words or more), holds one of five words or more, or shares seven words in a row with one.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = {transcript(text) for text in texts}
        self._runs: set[tuple[str, ...]] = set()
        for text in self.texts:
            words = text.split()
            if TEST_SENTENCE <= len(words) < SHARED_RUN:
                self._runs.add(tuple(words))
            self._runs.update(tuple(words[i : i + SHARED_RUN]) for i in range(len(words) - SHARED_RUN + 1))

    def __contains__(self, text: str) -> bool:
        words = text.split()
        if len(words) > 1 and text in self.texts:
            return True
        lengths = range(TEST_SENTENCE, SHARED_RUN + 1)
        return any(tuple(words[i : i + length]) in self._runs for length in lengths for i in range(len(words) - length + 1))


@lru_cache(maxsize=4)
def held_out(root: Path) -> HeldOut:
    """The test texts of the corpora found under the data root: speechocean762 dev, LibriSpeech dev and test, llama-questions, WebQuestions test."""
    texts: list[str] = []
    for name in ("speechocean762/dev.jsonl", "llama-questions/test.jsonl", "text/webquestions-test.jsonl"):
        if (root / name).is_file():
            rows = (json.loads(line) for line in (root / name).read_text(encoding="utf-8").splitlines() if line.strip())
            texts += [speakable(row.get("text") or row["question"]) for row in rows]
    for subset in ("dev-clean", "dev-other", "test-clean", "test-other"):
        for path in sorted((root / "librispeech" / "LibriSpeech" / subset).glob("*/*/*.trans.txt")):
            texts += [line.split(" ", 1)[1] for line in path.read_text(encoding="utf-8").splitlines() if " " in line]
    return HeldOut(texts)
