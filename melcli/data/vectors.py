"""Vectors of utterances that another program's encoder made, SONAR's for example, read from a safetensors or npy file.

    vectors.safetensors     a tensor an utterance, called by its id: [W], or [V, W] where there are several vectors
    vectors.npy             one array, [N, W] or [N, V, W], a row an utterance: in the order of the source, or of vectors.ids, a text file of ids

Nothing is unpickled: an npy file of objects is refused.
Shapes: N utterances, V vectors of an utterance, W width of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from melcli.errors import ManifestError, first_line
from melcli.files import replacing

NAMED = 3  # ids that a message lists


def read_vectors(
    path: Path, ids: Sequence[str], shape: tuple[int, int], centre: bool = False, order: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """float32 [V, W] of each id. shape: (V, W) that they must have. order: the ids of an npy file's rows, where it is not `ids`.

    centre: take away the mean over all vectors of the file, which is that of its modality. Raises ManifestError: no such file, another width, ids
    that it does not hold, numbers that are not finite.
    """
    found = _read(path, ids if order is None else order, shape)
    missing = [one for one in ids if one not in found]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise ManifestError(f"vectors {path}: {len(missing)} of {len(ids)} ids are missing: {', '.join(missing[:NAMED])}{more}")
    mean_VW = torch.stack(list(found.values())).mean(0) if centre else 0.0
    return {name: found[name] - mean_VW for name in ids}


def mean_of(path: Path, shape: tuple[int, int]) -> Tensor:
    """The mean [V, W] of all vectors of a file. Raises ManifestError as `read_vectors` does."""
    return torch.stack(list(_read(path, None, shape).values())).mean(0)


def write_vectors(path: Path, vectors: Mapping[str, Tensor]) -> None:
    """Write vectors [V, W] by id as a safetensors file. Raises WriteError."""
    with replacing(path) as temporary:
        # save_file, when it is killed, leaves a scratch file of its own behind
        temporary.write_bytes(save({name: tensor.contiguous() for name, tensor in vectors.items()}))


def _read(path: Path, ids: Sequence[str] | None, shape: tuple[int, int]) -> dict[str, Tensor]:
    """Every vector of a file by its id; rows without ids are called by `ids`, or by their numbers."""
    if not path.is_file():
        raise ManifestError(f"vectors {path}: no such file")
    if path.suffix not in (".safetensors", ".npy"):
        raise ManifestError(f"vectors {path}: neither .safetensors nor .npy")
    found = _safetensors(path) if path.suffix == ".safetensors" else _npy(path, ids)
    if not found:
        raise ManifestError(f"vectors {path}: holds none")
    ready = {}
    for name, tensor in found.items():
        own = tensor[None] if tensor.dim() == 1 else tensor
        if tuple(own.shape) != shape:
            given = " x ".join(map(str, own.shape))
            raise ManifestError(f"vectors {path}: {name} is {given}, and the model reads {shape[0]} x {shape[1]} (vectors x width)")
        if not own.isfinite().all():
            raise ManifestError(f"vectors {path}: {name} holds numbers that are not finite")
        ready[name] = own
    return ready


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key).float() for key in file.keys()}
    except (SafetensorError, OSError, RuntimeError, AttributeError) as error:  # the last two: number formats that torch does not know
        raise ManifestError(f"vectors {path}: not a whole safetensors file ({first_line(error)})") from None


def _npy(path: Path, ids: Sequence[str] | None) -> dict[str, Tensor]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: what a header claims takes no memory
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise TypeError("it holds " + (f"{array.dtype}" if isinstance(array, np.ndarray) else "an archive"))
        if not array.size:
            raise ValueError("it holds none")
        rows = torch.from_numpy(np.array(array, dtype=np.float32))
    except Exception as error:  # whatever numpy makes of a broken header
        raise ManifestError(f"vectors {path}: not an npy file of numbers ({first_line(error)})") from None
    names, beside = list(map(str, range(len(rows) if rows.dim() else 0)) if ids is None else ids), path.with_suffix(".ids")
    if beside.is_file():
        try:
            names = beside.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"{beside}: cannot be read as a text file of ids ({first_line(error)})") from None
        names = names[:-1] if names and not names[-1] else names
    if rows.dim() < 2 or len(rows) != len(names):
        have = len(rows) if rows.dim() else 0
        raise ManifestError(f"vectors {path}: {have} rows for {len(names)} {'ids in ' + beside.name if beside.is_file() else 'utterances'}")
    return dict(zip(names, rows, strict=True))
