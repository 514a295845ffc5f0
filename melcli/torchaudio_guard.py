"""Lets a torchaudio wheel built for CUDA be imported beside a CPU-only torch.

torchaudio's PyPI wheel for Linux links its compiled extension against CUDA. With a CPU-only torch that extension cannot be loaded and
`import torchaudio` fails, and with it much of transformers, which imports torchaudio wherever it is installed. Only torchaudio's pure
PyTorch parts are used here, and they work when the extension package is taken as absent. Nothing happens where the two match.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path


def _folder(package: str) -> Path | None:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def mismatch() -> bool:
    """Whether torchaudio brings a compiled extension for CUDA and torch is a CPU-only build."""
    torch, torchaudio = _folder("torch"), _folder("torchaudio")
    if torch is None or torchaudio is None:
        return False
    extension = next(torchaudio.glob("lib/_torchaudio*.so"), None) or next(torchaudio.glob("_torchaudio*.so"), None)
    if extension is None or any(torch.glob("lib/libc10_cuda*")):
        return False
    return b"libc10_cuda" in extension.read_bytes()


def install() -> None:
    """Put a stand-in for `torchaudio._extension` in place when, and only when, the two wheels do not match."""
    name = "torchaudio._extension"
    if name in sys.modules or "torchaudio" in sys.modules or not mismatch():
        return
    stand_in = types.ModuleType(name)
    stand_in.__spec__ = importlib.machinery.ModuleSpec(name, loader=None)
    stand_in.__dict__.update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        fail_if_no_align=lambda function: function,
        _check_cuda_version=lambda: None,
        lazy_import_sox_ext=lambda: None,
    )
    sys.modules[name] = stand_in
