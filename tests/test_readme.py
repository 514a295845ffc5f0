"""Every melcli command of the README runs as it is written, in a folder that holds the files it names; trainings are only tried (`--dry-run`).

Each runs in a process of its own, forked from one that has imported everything.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from melcli import registry
from melcli.audio import io
from tests.cli import mirror
from tests.reply_maker import save_replier
from tests.training.llm_makers import qwen3

ROOT = Path(__file__).resolve().parent.parent
CLIPS = sorted((Path(registry.__file__).parent / "assets" / "clips").glob("*.wav"))
COMMANDS = [match.group(1).split("  #")[0].strip() for match in re.finditer(r"^    (melcli .*)$", (ROOT / "README.md").read_text(), re.M)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """Where the README's reader sits: a talk, interviews, a manifest, results, a mirror of the hub, recipes and LibriSpeech."""
    import soundfile

    folder = tmp_path_factory.mktemp("desk")
    wave = io.load(CLIPS[0], 16000)
    text = CLIPS[0].with_suffix(".txt").read_text().strip()
    soundfile.write(folder / "talk.mp3", wave.numpy(), 16000)
    (folder / "interviews" / "deep").mkdir(parents=True)
    shutil.copy(CLIPS[0], folder / "interviews" / "one.wav")
    shutil.copy(CLIPS[0], folder / "interviews" / "deep" / "two.wav")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    (folder / "dev.jsonl").write_text(json.dumps({"audio": "talk.mp3", "text": text}) + "\n")
    (folder / "results").mkdir()
    (folder / "results" / "MODEL_theirs_DATASET_theirs.jsonl").write_text(json.dumps({"text": "a b c", "pred_text": "a b d"}) + "\n")
    mirror.build(folder / "mirror")
    for name in ("results", "old", "new"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"text": "a b c", "pred_text": "a b d"}) + "\n")
    chapter = folder / "data" / "LibriSpeech" / "dev-clean" / "84" / "121123"
    chapter.mkdir(parents=True)
    io.save(chapter / "84-121123-0000.wav", wave, 16000)
    (chapter / "84-121123.trans.txt").write_text(f"84-121123-0000 {text.upper()}\n")
    return folder


def test_the_readme_has_commands():
    assert len(COMMANDS) > 8


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_command(command, desk, apart, request, tmp_path):
    words = shlex.split(command)
    if words[1] in ("train", "finetune"):
        shared = request.getfixturevalue("shared_data")
        words = [f"data.root={shared}" if word.startswith("data.root=") else word for word in words]
        words += [] if "--dry-run" in words else ["--dry-run"]
        if words[1] == "finetune":  # a small model stands in for the one by name, and what fits a test for its batch and its data
            words[words.index("--from") + 1] = str(qwen3(tmp_path / "llm"))
            words += [
                "train.tokens_per_batch=512",
                "train.row_tokens=512",
                "model.speech_input.channels=8",
                "data.train.0.source=librispeech:train-clean-100?limit=20",
            ]
    elif ".." in command or ("librispeech:" in command and words[1] == "score"):
        pytest.skip("scores real recordings, which tests/test_tiny_en.py does on fewer")
    elif words[1] == "serve":
        pytest.skip("serves until it is stopped, as tests/serving/test_stop.py does")
    elif words[1] == "answer":
        words[words.index("--model") + 1] = str(save_replier(tmp_path / "answers"))
    elif words[1] == "featurize":
        words += ["--root", "data"]
    run = apart(*words[1:], cwd=desk)
    assert run.returncode == 0, run.stderr
