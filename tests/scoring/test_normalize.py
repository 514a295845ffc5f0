"""Normalisers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melcli.errors import RegistryError
from melcli.scoring import normalize


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Don’t STOP -- he said, 'now'.", "don't stop he said now"),
        ("rock 'n' roll", "rock n roll"),
        ("'TIS O'CLOCK, dogs'", "tis o'clock dogs"),
        ("well-known / state_of", "well known state of"),
        ("1,000 is 1,000,000 but 1,2", "1000 is 1000000 but 1 2"),
        ("Naïve café, Straße, 日本", "naïve café straße 日本"),
        ("½ ﬁne", "1 2 fine"),
        ("", ""),
        (" ... ' -- ", ""),
    ],
)
def test_plain(raw: str, expected: str) -> None:
    assert normalize.plain(raw) == expected


def test_none_keeps_everything_but_white_space() -> None:
    assert normalize.none("  Hello,\tWORLD’s \n end. ") == "Hello, WORLD’s end."


@pytest.mark.parametrize("name", ["plain", "none"])
@given(text=st.text(max_size=40))
def test_twice_is_once(name: str, text: str) -> None:
    normalise = normalize.get(name)
    assert normalise(normalise(text)) == normalise(text)


def test_an_unknown_name_says_which_exist() -> None:
    with pytest.raises(RegistryError, match=r"no normaliser is called 'plane'\. Did you mean 'plain'\? There is: none, plain"):
        normalize.get("plane")
