"""docs/bad-input.md says what is printed now, a section a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import bad_inputs


@pytest.fixture(scope="module")
def desk() -> Iterator[None]:
    with bad_inputs.inside():
        yield


@pytest.mark.parametrize("name", bad_inputs.SECTIONS)
def test_the_page_says_what_is_printed(desk: None, name: str) -> None:
    wanted = bad_inputs.section(name).splitlines()
    page = bad_inputs.PAGE.read_text(encoding="utf-8").splitlines()
    other = [line for line in wanted if line not in page]
    assert not other, "make the page anew: python -m tests.bad_inputs\n" + "\n".join(other)


def test_every_case_is_refused_or_explained() -> None:
    """A case that passes without a word is no case; silence and a twentieth of a second are the two that are no mistake."""
    rows = [line for line in bad_inputs.PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ") and "`melcli" in line]
    assert len(rows) == sum(map(len, bad_inputs.SECTIONS.values())) > 90
    for row in rows:
        _, _, code, said = (cell.strip() for cell in row.replace("\\|", "¦").strip("| ").split(" | "))
        assert said and (code in "12" or "silence" in said), row
