"""English normalisation: what is left out for speed changes nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from melcli.scoring import openasr_tables
from melcli.scoring.english import OPENASR_2026, Additions, English, _whisper
from tests.scoring.plain_english import plain_english

RULES = {"classic": Additions(), "2026": OPENASR_2026}
FAST = {name: English(extra) for name, extra in RULES.items()}
SIMPLE = "the of and to a in that it is was i for you he with not at this but from they we say her she or an will my all would there".split()
NUMBERS = [
    *sorted(_whisper().standardize_numbers.words),
    "half",
    "0",
    "1",
    "7",
    "12",
    "1,500",
    "3.5",
    "$20",
    "¢7",
    "£0.50",
    "5%",
    "1960s",
    "32nd",
    "٣",
    "²",
]
SHORTENED = (
    "won't can't let's ain't y'all wanna i'ma imma coulda ma'am mr. Mrs st. Dr. gen. jr she'd he's it's dog's they've we'll I'm o'clock n't".split()
)
SIGNS = [
    "-",
    "--",
    "...",
    ".",
    ",",
    "'",
    "’",
    "' s",
    "[noise]",
    "(laughs)",
    "<unk>",
    "[",
    ")",
    "%",
    "$",
    "€",
    "/",
    "&",
    "½",
    "\x1c",
    "\n",
    "a.b.c.",
    "U.S.",
]
LETTERS = [*"abcimpxeot5", "naïve", "Øre", "ﬁne", "straße", "日本", "ÇA", "ᴬ", "é", "हिन्दी", "u\u0308ber", "i̇"]
BOUND = [
    "been",
    "gone",
    "got",
    "done",
    "and a half",
    "a m",
    "p.m.",
    "wi-fi",
    "e mail",
    "all right",
    "how ever",
    "et cetera",
    "x-ray",
    "o.k.",
    "T-shirt",
]
BRITISH = ["colour", "archaeology", "flyer", "practise", "ok", "kay", "stephen", "Kristen", "lewis", "macdonald", "pummelled", "archeological"]
TOKENS = [*SIMPLE, *NUMBERS, *SHORTENED, *SIGNS, *LETTERS, *BOUND, *BRITISH, *openasr_tables.FILLERS]
JOINTS = [" "] * 12 + ["", "-", ", ", ". ", " '", "'", "  ", "? "]


@st.composite
def texts(draw: st.DrawFn) -> str:
    parts = draw(st.lists(st.tuples(st.sampled_from(TOKENS), st.sampled_from(JOINTS)), max_size=14))
    return "".join(part for pair in parts for part in pair)


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=400, deadline=None)
@given(text=texts() | st.text(max_size=30))
@example(text="it's been one and a half years, and a half")
@example(text="um, 's got um's ... ... .5 $ % x% minus and double oh seven")
def test_fast_is_exact(name: str, text: str) -> None:
    assert FAST[name](text) == plain_english(text, RULES[name])


ALMOST_ALONE = (
    "the point and we",
    "minus and we",
    "it's been there",
    "he'd gone there",
    "she's got it",
    "the b b said",
    "dog's x",
    "well um's there",
    "she don um't say",
    "we say and a half there",
    "that's all right then",
    "a i a say",
    "oh well",
)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("text", ALMOST_ALONE)
def test_words_that_only_seem_to_speak_for_themselves(name: str, text: str) -> None:
    assert FAST[name](text) == plain_english(text, RULES[name])


@pytest.mark.parametrize("name", RULES)
def test_fast_is_exact_on_a_large_corpus(name: str) -> None:
    """Words that speak for themselves are frequent here, so that both ways through are taken, and words are remembered from text to text."""
    chance = random.Random(7)
    fast, both = English(RULES[name]), [0, 0]
    for _ in range(4000):
        odd = chance.random() < 0.5
        words = [chance.choice(TOKENS if odd and chance.random() < 0.3 else SIMPLE + SHORTENED) for _ in range(chance.randrange(20))]
        text = "".join(word + chance.choice(JOINTS if odd else [" ", ", ", ". "]) for word in words).capitalize()
        both[odd] += 1
        assert fast(text) == plain_english(text, RULES[name]), text
    assert min(both) > 1000


def test_plain_is_whispers_own() -> None:
    """The yardstick without additions is transformers' class, as a whole."""
    chance = random.Random(8)
    for _ in range(500):
        text = " ".join(chance.choices(TOKENS, k=12))
        assert plain_english(text, Additions()) == " ".join(_whisper()(text).split())


def test_no_words_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melcli.scoring.english.MOST_WORDS", 10)
    fast = English()
    assert fast(" ".join(f"{a}{b}x" for a in "abcdef" for b in "abcdef")).count(" ") == 35
    assert len(fast._lone) == 10


def test_a_number_longer_than_python_reads_stays_as_it_is() -> None:
    assert FAST["2026"]("so " + "1" * 5000 + " dollars") == "so " + "1" * 5000 + " dollars"
