"""Tab completes commands, options, names of the registry and files, in each shell, without importing torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from melcli import registry

CODE = """
import sys
from melcli.cli import main
try:
    main()
finally:
    print([name for name in ("torch", "numpy", "transformers") if name in sys.modules], file=sys.stderr)
"""


def offered(shell: str, line: str) -> list[str]:
    """What the program gives a shell for a line whose last word is being typed; it must import nothing heavy for that."""
    protocol = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)} if shell == "bash" else {"_TYPER_COMPLETE_ARGS": line}
    environment = {**os.environ, **protocol, "_MELCLI_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "[]\n", done.stderr
    return done.stdout.split("\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("melcli tr", ["train", "transcribe"]),
        ("melcli train tiny/te", ["tiny/tesu", "tiny/tesu-lm"]),
        ("melcli score --set libri", [name for name in registry.names("score-set") if name.startswith("libri")]),
        ("melcli models show --kind mel wh", ["whisper-128", "whisper-80"]),
        ("melcli export tiny-en -o a", []),  # a path: the shell's own files
    ],
)
def test_bash(line: str, expected: list[str]) -> None:
    assert [word for word in offered("bash", line) if word] == expected


def test_fish_and_zsh_say_what_a_name_is() -> None:
    summary = registry.get("model", "tiny-en").summary[:45]
    (line,) = (line for line in offered("fish", "melcli transcribe talk.mp3 --model tiny-e") if line)  # one name, one line
    assert line.startswith(f"tiny-en\t{summary}")
    assert f'"tiny-en":"{summary}' in offered("zsh", "melcli transcribe talk.mp3 --model tiny-e")[0]
    assert offered("zsh", "melcli export tiny-en -o a")[0] == "_files"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_real_bash_completes(tmp_path: Path) -> None:
    """The script that --show-completion prints, in the shell that it is for: the function fills COMPREPLY."""
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "melcli", "--show-completion", "bash"]
    script = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "complete -o default" in script  # files where nothing is offered
    program = tmp_path / "melcli"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m melcli "$@"\n')
    program.chmod(0o755)
    typed = f'{script}\nCOMP_WORDS=({program} recipes show digits-v)\nCOMP_CWORD=3\n_melcli_completion {program}\necho "${{COMPREPLY[*]}}"'
    done = subprocess.run(["bash", "--norc", "-c", typed], capture_output=True, text=True, check=True)
    assert done.stdout == "digits-voice\n", done.stderr
