"""Result files say what made them."""

from __future__ import annotations

from pathlib import Path

import pytest

from melcli.errors import UsageError
from melcli.scoring import results


def test_settings_of_another_run_are_quoted_in_short(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    results.begin(path, {"model": "tiny-en"})
    path.write_text("")
    results.begin(path, {"model": "tiny-en"})
    results.settings_path(path).write_text('{"model": "' + "x" * 5000 + '", "' + "y" * 5000 + '": 1}')
    with pytest.raises(UsageError, match=r"model was 'xxx.*now it is 'tiny-en'") as raised:
        results.begin(path, {"model": "tiny-en"})
    assert len(str(raised.value)) < 1000
