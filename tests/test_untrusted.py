"""What other people's files hold: names that become names of files, JSON without a floor, words that terminals would act on, code of theirs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import melcli
from melcli import console, untrusted
from melcli.errors import UsageError
from melcli.inputs import inside
from melcli.untrusted import check_names, parse_json


def test_json_without_a_floor() -> None:
    assert parse_json('{"a": [1]}') == {"a": [1]}
    for text in ("[" * 200_000, '{"a":' * 200_000, "{", "9" * 5000):
        with pytest.raises(ValueError):
            parse_json(text)


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..", ".", "", "\\..\\x", "a/../../b", "..\\..\\x", "~/x", "//x", "./.././x"])
def test_an_id_stays_inside(name: str, tmp_path: Path) -> None:
    place = (tmp_path / f"{inside(name)}.txt").resolve()
    assert place.is_relative_to(tmp_path) and place != tmp_path


def test_names_that_cannot_be(tmp_path: Path) -> None:
    check_names(["a", "b/c", "é" * 100, "CON", "a:b", " ", "x" * 240], tmp_path)
    for names, said in (
        (["a\0b"], "null character"),
        (["x" * 241], "longer than the 240 bytes"),
        (["é" * 121], "longer than"),
        (["a/" * 1500 + "b"], "longer than"),
    ):
        with pytest.raises(UsageError, match=said):
            check_names(names, tmp_path)


def test_names_that_are_one_where_case_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_names(["A", "a", "é", "e\u0301"], tmp_path / "to" / "be" / "made")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(untrusted, "_told_apart", lambda folder: False)
    for names in (["A", "a"], ["é", "e\u0301"], ["x/Y", "X/y"]):
        with pytest.raises(UsageError, match="would be the same file"):
            check_names(names, tmp_path)
    check_names(["a", "b"], tmp_path)


def test_nothing_that_a_terminal_would_act_on(capsys: pytest.CaptureFixture[str]) -> None:
    console.error("a\x1b[2J\x07b\u202ec\nd")
    console.warn("a\x1b]0;title\x07")
    console.failures([("a\x9bx.wav", "no\x1b[1m"), ("b", "c")], 3)
    said = capsys.readouterr().err
    assert said.splitlines()[0] == "error: a\\x1b[2J\\x07b\\u202ec d"
    assert all(line.isprintable() for line in said.splitlines()) and len(said.splitlines()) == 5


def test_no_code_of_a_checkpoint_is_run() -> None:
    """Every class of transformers that could run code out of a folder is told not to; left open, it would ask on the terminal."""
    asked = []
    for path in Path(melcli.__file__).parent.rglob("*.py"):
        if "bundled" in path.parts:  # clients of an export, which read their own folder
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "from_pretrained":
                asked.append((path.name, ast.unparse(node)))
    for name, call in asked:
        ours = name == "speech_lm.py" or "GenerationConfig" in call  # no code of anybody's there
        assert ours or "trust_remote_code=False" in call or "**LOCAL" in call or "**options" in call, f"{name}: {call}"
    assert len(asked) > 12
    told = [path.name for path in Path(melcli.__file__).parent.rglob("*.py") if "trust_remote_code=True" in path.read_text(encoding="utf-8")]
    assert told == []


def test_nothing_is_unpickled() -> None:
    """torch.load is told to read tensors alone, numpy no objects; nobody imports pickle to read."""
    for path in Path(melcli.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            call, name = ast.unparse(node), ast.unparse(node.func)
            assert name != "torch.load" or "weights_only=True" in call, f"{path.name}: {call}"
            assert name != "np.load" or "allow_pickle=False" in call, f"{path.name}: {call}"
            assert name not in ("pickle.load", "pickle.loads", "yaml.load", "eval", "exec", "os.system"), f"{path.name}: {call}"
