"""The client that lies in an export, and running it: in a process of its own that cannot import melcli."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import soundfile
from torch import Tensor

from melcli import registry
from melcli.errors import CheckpointError
from melcli.exporting import front, probes
from melcli.exporting.source import Source
from melcli.models.decoding.hypothesis import extend

# The guard is for transformers, which needs it where torchaudio does not match torch; it is run from its file, and melcli itself is shut out.
RUN = (
    "import os, runpy, sys; runpy.run_path(sys.argv[1])['install'](); sys.modules['melcli'] = None; sys.argv = sys.argv[2:]; "
    "sys.path.insert(0, os.path.dirname(sys.argv[0])); runpy.run_path(sys.argv[0], run_name='__main__')"
)


def write(source: Source, folder: Path, files: Mapping[str, str], settings: Mapping[str, Any], card: str) -> None:
    """What every export with a client has: its scripts (a name in `bundled` to one in the folder), their settings, the tokenizer, the card."""
    source.processor.tokenizer.save_pretrained(folder)
    (folder / "speech_input.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    for name, copy in files.items():
        shutil.copyfile(front.BUNDLED / name, folder / copy)
    (folder / "README.md").write_text(card, encoding="utf-8")


def check(source: Source, folder: Path) -> list[probes.Compared]:
    """What the folder's client makes of recordings, beside what melcli does."""
    waves = probes.pieces(source.processor.spec.rate, source.model.config.max_seconds)
    ours = probes.tokens(source.model, source.processor, waves)
    return [probes.compare("transcripts", ours, tokens(folder, waves, source.processor.spec.rate))]


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
