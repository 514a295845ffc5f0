"""pocketsphinx on flite's speech."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor

from melcli import registry
from melcli.data.load import load_part
from melcli.data.utterance import Utterance
from melcli.errors import UsageError
from melcli.inputs import AudioInput
from melcli.models import sphinx
from melcli.models.sphinx import Sphinx
from melcli.transcribe import Transcriber

pytest.importorskip("pocketsphinx", reason="needs pocketsphinx")


@pytest.fixture(scope="module")
def waves() -> list[Tensor]:
    if shutil.which("flite") is None:
        pytest.skip("needs flite")
    return [load_part(f"synth:flite/rms#{text}", 16000) for text in ("where%20are%20my%20keys", "close%20the%20window")]


def heard(recogniser: Sphinx, waves: list[Tensor]) -> list[str]:
    found = {i: one.text for batch in recogniser.recognise(waves) for i, one in batch.items()}
    return [found[i] for i in range(len(waves))]


def test_what_is_heard_depends_on_nothing_but_the_words(waves: list[Tensor]) -> None:
    """Not on what was heard before, not on the level, not on the process."""
    alone = Sphinx(jobs=1)
    texts = heard(alone, waves)
    assert texts == ["where are my keys", "close the window"]
    assert heard(alone, [waves[1], 0.003 * waves[0]]) == texts[::-1]
    assert heard(Sphinx(jobs=2), waves) == texts


def test_by_name() -> None:
    transcriber = Transcriber.load("pocketsphinx", batch_size=1)
    assert isinstance(transcriber.recogniser, Sphinx) and transcriber.recogniser.jobs == 1
    assert transcriber.decisions["device"].startswith("cpu: pocketsphinx") and "pocketsphinx 5" in transcriber.decisions["model"]
    assert (transcriber.folder / "en-us").is_dir() and "pocketsphinx" in registry.names("recogniser")
    quiet = torch.zeros(16000)
    assert sphinx._pcm(quiet) == bytes(2 * (16000 + 2 * 3200))
    item = AudioInput("nothing", Utterance("nothing", ("/absent.wav",)))
    assert next(transcriber.transcribe([item])).error is not None


def test_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="pocketsphinx has a search of its own"):
        Transcriber.load("pocketsphinx", beam=4)
    monkeypatch.setattr(sphinx.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pocketsphinx is not installed: pip install 'melcli\[sphinx\]'"):
        Sphinx.load()
