"""Repositories of the Hugging Face hub as folders on this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from melcli import console
from melcli.errors import CheckpointError, first_line


def is_repository(name: str) -> bool:
    """Whether a name can be OWNER/NAME on the hub, with @REVISION or without."""
    return name.partition("@")[0].count("/") == 1 and not name.startswith((".", "/"))


def snapshot(name: str, allow: Sequence[str], ignore: Sequence[str], *, offline: bool, flag: str) -> Path:
    """The folder with the files of a repository that match `allow` and not `ignore`, downloaded where they are not here yet.

    flag: what the user gave the name with. Raises CheckpointError, one line.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo, _, revision = name.partition("@")
    offline = offline or constants.HF_HUB_OFFLINE
    chosen = {"allow_patterns": list(allow), "ignore_patterns": list(ignore)}
    try:
        folder = Path(snapshot_download(repo, revision=revision or None, local_files_only=offline, **chosen))
    except GatedRepoError:
        raise CheckpointError(f"{flag} {name}: gated: accept its terms on its page on the hub, then log in with `hf auth login`") from None
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        why = "not on this machine, and offline nothing is downloaded" if offline else f"not to be had from the hub ({first_line(error)})"
        raise CheckpointError(f"{flag} {name}: not a folder, and {why}") from None
    told(repo, folder, revision)
    return folder


def told(repo: str, folder: Path, revision: str = "") -> None:
    """Say once which revision of a repository is used, by its commit; and how to have this one again where none was asked for."""
    if (repo, commit := folder.name) in _told or not _COMMIT.fullmatch(commit):
        return
    _told.add((repo, commit))
    console.note(f"  {repo} at revision {commit}" + ("" if revision else f"; {repo}@{commit} stays this one, whatever is published later"))


_COMMIT = re.compile("[0-9a-f]{40}")
_told: set[tuple[str, str]] = set()
