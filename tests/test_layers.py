"""Imports point down the layers: cli, commands, scoring and models, data, audio, and at the bottom what everything may use."""

from __future__ import annotations

import ast
from pathlib import Path

import melcli

PACKAGE = Path(melcli.__file__).parent
LAYERS = (
    {
        "__init__",
        "auto_classes",
        "errors",
        "files",
        "interrupts",
        "torchaudio_guard",
        "registry",
        "hub",
        "config",
        "recipe",
        "vocoder_recipe",
        "console",
        "sweep",
    }
    | {"unified_recipe", "steps_recipe", "untrusted"},
    {"audio"},
    {"data"},
    {"models", "scoring"},
    {
        "describe",
        "doctor",
        "doctor_trials",
        "inputs",
        "journal",
        "transcripts",
        "launch",
        "plot",
        "ray_pool",
        "featurize",
        "train",
        "branches",
        "train_unified",
        "train_vocoder",
        "training",
        "transcribe",
        "listening",
        "subtitles",
        "score",
        "sweeping",
        "synthesize",
        "synthesizing",
        "voice_prompt",
        "reply",
        "reply_files",
        "export",
        "exporting",
        "serve",
        "serving",
    },
    {"cli"},
    {"__main__"},
)
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports(path: Path) -> set[str]:
    """First words below `melcli.` of everything a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            raise AssertionError(f"{path}: relative import")
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == "melcli":
                found.add(rest.partition(".")[0])
    return {name for name in found if name and (name in LEVELS or (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists())}


def test_every_module_has_a_layer() -> None:
    there = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert there == set(LEVELS)


def test_imports_point_down() -> None:
    upwards = []
    for path in sorted(PACKAGE.rglob("*.py")):
        here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        upwards += [f"{path.relative_to(PACKAGE)} imports {name}" for name in imports(path) if LEVELS[name] > LEVELS[here]]
    assert upwards == []


def test_scoring_and_models_do_not_know_each_other() -> None:
    for one, other in (("models", "scoring"), ("scoring", "models")):
        for path in (PACKAGE / one).rglob("*.py"):
            assert other not in imports(path), path


def test_no_path_of_one_machine() -> None:
    root = PACKAGE.parent
    files = [path for folder in ("melcli", "recipes", "docs", "benchmarks") for path in (root / folder).rglob("*") if path.is_file()]
    for path in files:
        if path.suffix in (".py", ".yaml", ".md", ".toml"):
            text = path.read_text(encoding="utf-8")
            assert not [word for word in ("/home/", "/Users/", "/var/tmp/", "/work/") if word in text], path
