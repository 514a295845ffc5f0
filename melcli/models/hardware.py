"""Which device and which number format to compute with, and why."""

from __future__ import annotations

import ctypes
import os
import sys
from threading import Thread

import torch

from melcli.errors import UsageError

KERNELS = 12
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(wanted: str = "auto") -> tuple[str, str]:
    """The device and the reason for it. Raises UsageError where the wanted one is not there."""
    have = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kind = wanted.partition(":")[0]
    if wanted == "auto":
        found = next(name for name, there in have.items() if there)
        threads = f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
        return found, {"cpu": f"no GPU found; {threads}", "mps": "an Apple GPU was found"}.get(found) or torch.cuda.get_device_name()
    if kind not in have:
        raise UsageError(f"--device {wanted}: valid are auto, {', '.join(sorted(have))}")
    if not have[kind]:
        raise UsageError(f"--device {wanted}: there is none here; valid here: {', '.join(name for name, there in have.items() if there)}")
    return wanted, "as asked"


def pick_dtype(wanted: str, device: str) -> tuple[torch.dtype, str]:
    """The type to multiply in and the reason for it: bfloat16 where the hardware multiplies it."""
    if wanted != "auto":
        if wanted not in DTYPES:
            raise UsageError(f"--dtype {wanted}: valid are auto, {', '.join(DTYPES)}")
        return DTYPES[wanted], "as asked"
    if device.startswith("cuda"):
        supported, what = torch.cuda.is_bf16_supported(), "the GPU"
    else:
        supported, what = device == "cpu" and torch.cpu._is_avx512_bf16_supported(), "the processor"
    return (torch.bfloat16, f"{what} multiplies it") if supported else (torch.float32, f"{what} has no bfloat16 arithmetic")


def keep_freed_memory() -> None:
    """Have the C library keep large blocks that were freed, for the next step to reuse.

    glibc gives each back at once, and the processor then spends about a quarter of a training step on mapping and clearing them anew.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        for parameter in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            mallopt(parameter, 2**30)


def keep_few_kernels() -> None:
    """Have oneDNN keep the last KERNELS kernels that it made, and not 1024; before the first is made, and unless the environment says otherwise.

    It makes one for each new shape, and in batches of speech nearly every shape is new: an hour of audio left 80 MB of them that nobody needed again.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS))


def give_back_freed_memory() -> None:
    """Have the C library return what is free, holes between blocks in use too.

    After `keep_freed_memory` nothing is returned by itself, and batches of ever new sizes leave holes that later ones do not fit in: what a
    process holds would grow with the hours that it works.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)


def alone_in_thread() -> None:
    """Compute with this thread alone from now on; for one that prepares what another's model is to work on.

    A second thread with helpers of its own makes more of them than there are cores, and OpenMP then lets all of them sleep after each operation: the
    model ran at little more than half of its speed on two cores. Threads that began to compute before keep their number, and later ones get theirs.
    """
    others = torch.get_num_threads()
    torch.set_num_threads(1)  # of this thread, and of all that have not computed yet
    again = Thread(target=torch.set_num_threads, args=(others,))
    again.start()
    again.join()
