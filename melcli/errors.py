"""What a user can get wrong, one class a kind. The command line prints the message as one line, never a traceback.

`exit_code` follows the contract: 2 for usage and configuration, 1 for an input or output that failed while others may succeed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MelcliError(Exception):
    """Base of every error that is the input's fault. The message is one line: what is wrong, what is valid, which flag."""

    exit_code = 2


class UsageError(MelcliError):
    """A flag or an argument that cannot be."""


class ConfigError(MelcliError):
    """A recipe or configuration file that cannot be used; the message carries the file and line."""


class RegistryError(MelcliError):
    """A name nobody registered."""


class ManifestError(MelcliError):
    """A manifest or corpus that cannot be read; the message carries the file and line."""


class ShardError(MelcliError):
    """A feature shard that is broken or was made with another mel specification."""


class CheckpointError(MelcliError):
    """A checkpoint that is incomplete, unsafe or of another kind than its configuration says."""


class WriteError(MelcliError):
    """A result that cannot be written: the disk is full, or the place is not ours. What was written before stays."""

    exit_code = 1


class DiskFull(WriteError):
    """A result for which there is no room: nothing that follows would have any, so a command ends there."""


class ClusterError(MelcliError):
    """Workers of a cluster that died, or the cluster itself. What was written before stays, and the same command goes on with it."""

    exit_code = 1


class AudioError(MelcliError):
    """One audio input that cannot be used; other inputs go on."""

    exit_code = 1


def nearest(name: str, valid: Iterable[str]) -> str:
    """' Did you mean X?' for the closest valid name, or an empty string."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def first_line(error: Exception) -> str:
    """What an error of another library says, short enough for one line of ours; its kind too where the words alone say little."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[:2] if lines and lines[0].endswith(":") else lines[:1])[:200]
    return f"{type(error).__name__} {said}".strip() if isinstance(error, KeyError) or not said else said


OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "alloc_failed",
    "could not create a primitive",  # oneDNN
)
"""What torch says in errors that have no class of their own, in small letters."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, of Python, torch or a library beneath it, says that memory was wanted and not had."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and "primitive descriptor" not in said and any(words in said for words in OUT_OF_MEMORY)
