"""The table of names."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from melcli import registry
from melcli.errors import RegistryError
from melcli.registry import Entry

CODE = [entry for entry in registry.BUILT_IN if entry.kind not in registry.FILE_KINDS]


@pytest.fixture
def fresh_table() -> Iterator[None]:
    """A table of its own for a test that changes it."""
    registry._table.cache_clear()
    yield
    registry._table.cache_clear()
    registry.plugin_errors.clear()


@pytest.mark.parametrize("entry", CODE, ids=lambda entry: f"{entry.kind}:{entry.name}")
def test_every_built_in_target_exists(entry: Entry) -> None:
    assert entry.load() is not None


def test_every_file_exists() -> None:
    for kind in registry.FILE_KINDS:
        for entry in registry.entries(kind):
            assert entry.path().exists()
            assert entry.load() == entry.path()


def test_every_recipe_has_a_summary() -> None:
    assert all(entry.summary for entry in registry.entries("recipe"))


def test_presets_and_corpora_are_all_listed() -> None:
    from melcli.audio.mel_spec import PRESETS
    from melcli.data.corpora import CORPORA

    assert registry.names("mel") == sorted(PRESETS)
    assert registry.names("corpus") == sorted(CORPORA)


def test_unknown_names_say_what_exists() -> None:
    with pytest.raises(RegistryError, match=r"no mel is called 'whisper80'\. Did you mean 'whisper-80'\? There is: bigvgan-22k, bigvgan-24k, phi4mm"):
        registry.get("mel", "whisper80")
    with pytest.raises(RegistryError, match=r"there is no kind 'mels'\. Did you mean 'mel'\?"):
        registry.names("mels")


def test_register(fresh_table: None) -> None:
    entry = Entry("vocoder", "mine", "json:dumps", "a test")
    registry.register(entry)
    assert "mine" in registry.names("vocoder")
    import json

    assert registry.get("vocoder", "mine").load() is json.dumps
    with pytest.raises(RegistryError, match="vocoder 'mine' is registered already, as json:dumps"):
        registry.register(entry)


def test_wrong_targets_are_told(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="points at json:nothing, which does not exist"):
        Entry("task", "x", "json:nothing", "").load()
    with pytest.raises(RegistryError, match="is code"):
        Entry("task", "x", "json:dumps", "").path()
    with pytest.raises(RegistryError, match="is not installed"):
        Entry("model", "x", str(tmp_path / "absent"), "").path()


def test_plugins_add_entries_and_broken_ones_are_reported(fresh_table: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "someones_plugin.py").write_text(
        "from melcli.registry import Entry\ndef entries():\n    yield Entry('task', 'theirs', 'json:loads', 'from outside')\n"
    )
    info = tmp_path / "someones_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: someones-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[melcli.plugins]\ngood = someones_plugin:entries\nbad = no_such_module_anywhere:x\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert registry.get("task", "theirs").summary == "from outside"
    assert [message for message in registry.plugin_errors if "bad" in message and "ModuleNotFoundError" in message]


def test_listing_imports_no_torch() -> None:
    code = """import sys
from melcli import registry
assert all(registry.entries(kind) is not None for kind in registry.KINDS)
print(sorted({"torch", "torchaudio"} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", registry.names("recipe"))
def test_every_shipped_recipe_is_valid_and_survives_being_saved(name: str, tmp_path: Path) -> None:
    from melcli.config import dump_yaml
    from melcli.recipe import load

    recipe = load(name)
    (tmp_path / "saved.yaml").write_text(dump_yaml(recipe))
    assert load(str(tmp_path / "saved.yaml")) == recipe
    assert recipe.name == name
