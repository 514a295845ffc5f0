"""Running the client that lies in an export: in a process of its own that cannot import melcli."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import soundfile
from torch import Tensor

from melcli import registry
from melcli.errors import CheckpointError
from melcli.models.hypothesis import extend

# The guard is for transformers, which needs it where torchaudio does not match torch; it is run from its file, and melcli itself is shut out.
RUN = (
    "import os, runpy, sys; runpy.run_path(sys.argv[1])['install'](); sys.modules['melcli'] = None; sys.argv = sys.argv[2:]; "
    "sys.path.insert(0, os.path.dirname(sys.argv[0])); runpy.run_path(sys.argv[0], run_name='__main__')"
)


def run(folder: Path, arguments: Sequence[str]) -> str:
    """What `client.py ARGUMENTS` prints. Raises CheckpointError where it fails."""
    guard, client = registry.PACKAGE / "torchaudio_guard.py", folder.resolve() / "client.py"
    ran = subprocess.run([sys.executable, "-c", RUN, str(guard), str(client), *arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise CheckpointError(f"{client} failed: {(ran.stderr.strip().splitlines() or ['no message'])[-1]}")
    return ran.stdout


def tokens(folder: Path, waves: Sequence[Tensor], rate: int) -> list[list[int]]:
    """What `client.py --tokens` prints of each wave_S, as far as melcli would have decoded: it cuts loops."""
    with tempfile.TemporaryDirectory() as place:
        paths = [str(Path(place, f"{i}.wav")) for i in range(len(waves))]
        for path, wave_S in zip(paths, waves, strict=True):
            soundfile.write(path, wave_S.numpy(), rate, subtype="FLOAT")
        printed = run(folder, [*paths, "--tokens"])
    return [_without_loops(one) for one in json.loads(printed.strip().splitlines()[-1])]


def _without_loops(found: list[int]) -> list[int]:
    kept: list[int] = []
    for token in found:
        if extend(kept, token, set(), len(found) + 1) is not None:
            break
    return kept
