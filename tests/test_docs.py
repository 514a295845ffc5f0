"""The docs say what is true: every code block of README and docs is run, or parsed by what would run it, and the site builds without a warning.

A block is not run where `why_not` gives a reason, or a comment before it does: `<!-- not run: the reason -->`. It is parsed all the same.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from melcli import cli, console, recipe, registry, sweep
from melcli.errors import MelcliError

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
APP = typer.main.get_command(cli.app)
PROGRAMS = {"make", "git", "cd", "pip", "hf", "cat", ".venv/bin/python", "aplay", "vllm", "torchrun", "python", "ray", "curl"}
STANDS_FOR = {"RECIPE", "MODEL", "DIR"}  # words in capitals that the reader replaces
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str
    mark: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Fenced blocks, and indented ones, which are commands."""
    found, lines, mark, number = [], page.read_text(encoding="utf-8").splitlines(), None, 0
    while number < len(lines):
        line, start = lines[number], number
        number += 1
        if said := re.fullmatch(r"<!-- not run: (.+) -->", line):
            mark = said[1]
        elif line.startswith("```"):
            while lines[number] != "```":
                number += 1
            found.append(Block(page, start + 1, line[3:], "\n".join(lines[start + 1 : number]), mark))
            number, mark = number + 1, None
        elif line.startswith("    ") and not lines[start - 1].strip():
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                number += 1
            found.append(Block(page, start + 1, "bash", "\n".join(one[4:] for one in lines[start:number]).rstrip(), mark))
            mark = None
        elif line.strip():
            mark = None
    return found


ALL = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in ALL if block.language == "bash"]


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a block; a pipe's are several."""
    lines = [re.sub(r"\s+#.*$", "", line) for line in block.text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    return [without_settings(shlex.split(part)) for line in lines for part in re.split(r" \| | && ", line)]


def without_settings(words: list[str]) -> list[str]:
    """Without the variables that a command is given before it."""
    return list(itertools.dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))


def parse(words: list[str]) -> None:
    """Give a melcli command to the app without running it, and its recipe to what reads recipes."""
    command, rest = APP, list(words)
    if rest[0].startswith("--"):
        assert rest[0] in ("--version", "--help", "--show-completion", "--install-completion"), words
        return
    while hasattr(command, "commands"):
        assert rest and rest[0] in command.commands, words
        command = command.commands[rest.pop(0)]
    context = command.make_context(command.name, rest)
    given = context.params
    for parameter, kind in (("protocol", "protocol"), ("vocoder", "vocoder"), ("mel", "mel")):
        if given.get(parameter) not in (None, "auto"):
            registry.get(kind, given[parameter])
    if command.name in ("train", "finetune"):
        check_recipe(given["recipe"], given["settings"] or [], bool(given.get("start")))


def check_recipe(name: str, settings: list[str], started: bool) -> None:
    if name in STANDS_FOR or name in ("rates.yaml", "recipes/mine.yaml"):  # the reader's own
        return
    path = ROOT / name
    found = str(path) if name.endswith(".yaml") else name
    assert not name.endswith(".yaml") or path.is_file(), name
    settings = [*settings, *(["model.init=x", "model.backbone=null"] if started else [])]
    raw = recipe.read(found, settings)
    assert sweep.members(raw) if isinstance(raw, dict) and "sweep" in raw else raw is not None


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_are_understood(block: Block) -> None:
    for words in commands(block):
        if words[0] == "melcli":
            parse(words[1:])
        elif "melcli" in words and words[words.index("melcli") - 1] == "-m":
            parse(words[words.index("melcli") + 1 :])
        elif words[0] == "pip":
            assert all(extra in EXTRAS for word in words for found in re.findall(r"\[(.+)\]", word) for extra in found.split(",")), words
        elif words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file() or words[1].endswith("client.py"), words
        else:
            assert words[0] in PROGRAMS, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_the_text_have_these_flags(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for said in re.findall(r"`melcli ([^`]+)`", text):
        words = said.split()
        if words[0] in APP.commands:
            command = APP.commands[words[0]]
            command = getattr(command, "commands", {}).get(words[1] if len(words) > 1 else "", command)
            there = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
            flags = {re.split(r"[=\[,]", word)[0] for word in words if re.match(r"--?[a-z]", word)}
            assert flags <= there, said
        else:
            assert words[0] in ("COMMAND", "--version", "--help", "--install-completion", "--show-completion"), said


def why_not(words: list[str]) -> str | None:
    """Why a melcli command is not run here. None: it is."""
    line = " ".join(words)
    for reason, found in {
        "trainings are parsed here and run by tests/test_recipes.py": words[0] in ("train", "finetune"),
        "compares 20 transcripts, as tests/exporting does": words[0] == "export",
        "tries everything out, as tests/cli/test_names.py does": words[0] == "doctor",
        "needs a model that the reader trained": words[0] in ("answer", "branches") or re.search(r"runs/|other/", line),
        "needs the hub": re.search(r"(--model|--lm) [\w-]+/[\w.-]+\w|--set |fixie", line),
        "serves until it is stopped, as tests/serving does": words[:1] == ["serve"],
        "needs a cluster or several devices": re.search(r"--ray|--devices", line),
        "needs recordings": re.search(r"librispeech:|digits:|recordings|\.\./shared|--spoken|--task tts", line),
        "needs a microphone": words[:2] == ["transcribe", "mic"],
        "needs a voice of many speakers": "--voice" in words,
        "is shell's": ">" in words or words[-1:] == ["-"] or "-" in words[1:2],
        "is run by tests/cli/test_completion.py": words[0].startswith("--"),
        "scores the model once a layer, as tests/cli/test_skip_layers.py does": "--skip-layers" in words,
    }.items():
        if found:
            return reason
    return None


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the reader sits: recordings, a manifest, result files and texts under the names that the docs use."""
    from melcli.audio import io

    clips = registry.PACKAGE / "assets" / "clips"
    wave_S = io.load(clips / "digits-slt.wav", 16000)
    text = (clips / "digits-slt.txt").read_text().strip()
    for name in ("talk.mp3", "meeting.mp3", "one.wav", "two.flac", "talk.wav", "begun.wav"):
        io.save(tmp_path / name, wave_S, 16000)
    (tmp_path / "interviews").mkdir()
    shutil.copy(clips / "digits-slt.wav", tmp_path / "interviews" / "three.wav")
    (tmp_path / "dev.jsonl").write_text(json.dumps({"audio": "talk.mp3", "text": text}) + "\n")
    row = json.dumps({"audio_filepath": "a", "text": "a b c", "pred_text": "a b d"}) + "\n"
    (tmp_path / "results").mkdir()
    for name in ("old", "new", "results", *(f"results/MODEL_{model}_DATASET_t" for model in "ab")):
        (tmp_path / f"{name}.jsonl").write_text(row)
    (tmp_path / "story.txt").write_text("Once upon a time.")
    (tmp_path / "rows.jsonl").write_text('{"text": "Good night.", "id": "night"}\n')
    shutil.copytree(registry.PACKAGE / "assets" / "tiny-en", tmp_path / "tiny-en-hf")
    monkeypatch.chdir(tmp_path)
    return tmp_path


RUNS = [page for page in PAGES if page.name not in ("README.md", "commands.md")]  # tests/test_readme.py; the others' heads are on the pages


@pytest.mark.parametrize("page", RUNS, ids=lambda page: page.name)
def test_commands_run(page: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of a page, one after another, in one folder; each of them once."""
    found = [words[1:] for block in SHELL if block.page == page and block.mark is None for words in commands(block) if words[0] == "melcli"]
    wanted = [words for number, words in enumerate(found) if why_not(words) is None and words not in found[:number]]
    if wanted:
        request.getfixturevalue("desk")
    for words in wanted:
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert not ended.value.code, (words, capsys.readouterr().err)
    console.set_level(console.NORMAL)


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "python"], ids=str)
def test_python_runs(block: Block, desk: Path) -> None:
    """All of it where what it needs is here; else what it imports is there."""
    import torch

    tree = ast.parse(block.text)
    code = block.text
    if block.mark or re.search(r"runs/|features/|Phi-4", code):
        code = "\n".join(ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    if "from transformers" in code:  # a process of its own, as the reader's: there nothing else of melcli is imported yet
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return
    mel_TM = torch.zeros(40, 80) - 5.0
    sys.modules["docs_block"] = module = types.ModuleType("docs_block")  # where a class finds its module
    module.__dict__.update(mel_TM=mel_TM, mel_BTM=mel_TM[None], wave_S=torch.zeros(16000), play=lambda wave: None)
    exec(compile(code, str(block), "exec"), module.__dict__)


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "yaml"], ids=str)
def test_yaml_is_a_recipe_or_a_part_of_one(block: Block, tmp_path: Path) -> None:
    told = yaml.safe_load(block.text)
    told = {"model": told} if "speech_input" in told else told
    failures = []
    for base in [told.pop("extends", None)] if "extends" in told else ["digits", "finetune", "tiny-voice", "tts", "spectron", "tesu"]:
        path = tmp_path / "part.yaml"
        path.write_text(yaml.safe_dump({"extends": base, "name": "part", **told}))
        try:
            check_recipe_file(str(path), "sweep" in told)
            return
        except MelcliError as error:
            failures.append(f"{base}: {error}")
    raise AssertionError(failures)


def check_recipe_file(path: str, swept: bool) -> None:
    if swept:
        assert sweep.members(recipe.read(path))
    else:
        recipe.load(path)


@pytest.mark.parametrize("block", [block for block in ALL if block.language in ("json", "toml")], ids=str)
def test_json_and_toml_parse(block: Block) -> None:
    if block.language == "toml":
        assert tomllib.loads(block.text)
    else:
        assert all(json.loads(line) for line in block.text.splitlines())


def test_every_block_has_a_test() -> None:
    unknown = [str(block) for block in ALL if block.language not in ("bash", "python", "yaml", "json", "toml", "text")]
    assert unknown == [] and len(SHELL) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        made = target == "recipes.md"  # by docs/hooks.py
        assert made or target.startswith("http") or (page.parent / target).exists(), target


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_of_commands_is_what_the_app_says() -> None:
    made = script("make_commands")
    page = made.page()
    assert made.PAGE.read_text(encoding="utf-8") == page, "stale: python docs/make_commands.py"
    missing = {
        flag
        for name, command in APP.commands.items()
        for parameter in command.params
        for flag in parameter.opts
        if flag.startswith("--") and flag != "--help" and f"`{flag}" not in page
    }
    assert missing == set()


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in PAGES[1:] if not re.search(rf"[ :]{re.escape(page.name)}$", navigation, re.M)] == []


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs mkdocs-material: pip install 'melcli[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", str(ROOT / "mkdocs.yml"), "-d", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Recipe tiny/tesu" in (tmp_path / "site" / "recipes" / "tiny" / "tesu.html").read_text(encoding="utf-8")
    for page in (tmp_path / "site").rglob("*.html"):  # what a page needs is beside it
        fetched = re.findall(
            r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)|<link[^>]+rel="stylesheet"[^>]+href="(https?:[^"]+)', page.read_text(encoding="utf-8")
        )
        assert fetched == [], page


def test_the_input_of_the_page_on_extending_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its class under its entry: built from a recipe's options, with its errors, and giving packed what it gives alone."""
    import torch

    from melcli.errors import ConfigError
    from melcli.models.speech_input import build_speech_input

    first = next(block for block in ALL if block.page.name == "extending.md" and block.language == "python")
    module = types.ModuleType("mel_mean")
    exec(first.text, module.__dict__)
    monkeypatch.setitem(sys.modules, "mel_mean", module)
    registry._table.cache_clear()
    try:
        registry.register(registry.Entry("speech-input", "mel-mean", "mel_mean:MelMean", "a test"))
        made = build_speech_input({"kind": "mel-mean", "patch": 4}, 16, 80)
        one, two = torch.randn(10, 80), torch.randn(7, 80)
        both_PD, patches_U = made(torch.cat([one, two]), torch.tensor([10, 7]))
        assert patches_U.tolist() == [3, 2] == [made.patches(10), made.patches(7)]
        torch.testing.assert_close(both_PD, torch.cat([made(one, torch.tensor([10]))[0], made(two, torch.tensor([7]))[0]]))
        for options in ({"pach": 8}, {"patch": 0}):
            with pytest.raises(ConfigError, match="patch"):
                build_speech_input({"kind": "mel-mean", **options}, 16, 80)
    finally:
        registry._table.cache_clear()


def test_importing_what_pages_name() -> None:
    """Modules and classes that the page on extending sends its reader to."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:melcli|tests|recipes|docs)/[\w/.-]+\.\w+)`", text):
        assert (ROOT / path).is_file() or "mine" in path, path
    for name, path in re.findall(r"`(\w+)` in `(melcli/[\w/]+)\.py`", text):
        assert hasattr(importlib.import_module(path.replace("/", ".")), name), (name, path)
