"""Makes transformers' Auto classes know melcli's models after `import melcli`, which itself imports neither torch nor transformers.

transformers has no place where a package can say which models it brings: they are registered by classes, and those need torch. So the import of
transformers is watched, and once an Auto class is there and nothing of transformers is half imported any more, ours are registered. A process that
uses melcli's own modules is left alone: these register what they need when they are imported.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

AUTO = tuple(f"transformers.models.auto.{name}_auto" for name in ("configuration", "modeling", "processing"))
OWN = {"melcli.auto_classes", "melcli.torchaudio_guard"}


def _register() -> None:
    """Imports our model classes where an Auto class is there, and melcli was imported for nothing else."""
    if any(name in sys.modules for name in AUTO) and not any(name.startswith("melcli.") and name not in OWN for name in sys.modules):
        importlib.import_module("melcli.models.processor")
        importlib.import_module("melcli.models.speech_lm")


class _Loader(importlib.abc.Loader):
    """Loads as another loader does, and registers after the outermost import."""

    depth = 0

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> object:
        return getattr(self.loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__.loader = module.__loader__ = self.loader  # the module never knows
        _Loader.depth += 1
        try:
            self.loader.exec_module(module)
        finally:
            _Loader.depth -= 1
        if _Loader.depth == 0:
            _register()


class _Watch(importlib.abc.MetaPathFinder):
    """Finds modules of transformers as they would be found without it."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith("transformers."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def install() -> None:
    """Register now where transformers' Auto classes are imported already, else when they are."""
    if any(name in sys.modules for name in AUTO):
        _register()
    elif not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())
