"""The model in the package: it is whole, small, hears the bundled clip, keeps silent on silence, and is as good as the README says on real speech."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from melcli import registry
from melcli.audio import io
from melcli.data.manifest import read_source
from melcli.data.utterance import Utterance
from melcli.inputs import AudioInput
from melcli.scoring import normalize, wer
from melcli.transcribe import Transcriber

CLIPS = sorted((Path(registry.__file__).parent / "assets" / "clips").glob("*.wav"))
# Word error rates in percent on the first 40 utterances of each set, with room for another processor's rounding.
LIMITS = {"digits:test": 4.0, "speechocean762:dev": 63.0, "librispeech:dev-clean?speakers=1272,1673,174,2412": 47.0}


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    return Transcriber.load("tiny-en", device="cpu")


def hear(transcriber: Transcriber, *utterances: Utterance) -> list[str]:
    texts = {t.name: t.text for t in transcriber.transcribe([AudioInput(str(i), u) for i, u in enumerate(utterances)])}
    return [texts[str(i)] for i in range(len(utterances))]


def test_it_is_small_and_says_what_it_is(transcriber):
    folder = Path(registry.get("model", "tiny-en").load())
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 40e6
    assert {"device", "dtype", "model", "mel"} <= set(transcriber.decisions)
    assert (folder / "recipe.yaml").exists()


@pytest.mark.parametrize("clip", CLIPS, ids=lambda path: path.stem)
def test_bundled_clips(transcriber, clip):
    """At most a third of the words of each clip are wrong; its text stands beside it."""
    reference = clip.with_suffix(".txt").read_text().strip()
    heard = hear(transcriber, Utterance("clip", (str(clip),)))[0]
    assert wer.score([reference], [heard]).wer <= 34, heard


def test_the_demo_command_prints_transcripts_and_decisions(apart):
    run = apart("transcribe", *CLIPS)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.strip().splitlines()) == len(CLIPS)
    for word in ("device", "dtype", "model", "attention", "mel"):
        assert word in run.stderr


def test_silence_gives_no_words(transcriber, tmp_path):
    io.save(tmp_path / "zeros.wav", torch.zeros(32000), 16000)
    io.save(tmp_path / "quiet.wav", 1e-4 * torch.randn(32000), 16000)
    assert hear(transcriber, *(Utterance(n, (str(tmp_path / f"{n}.wav"),)) for n in ("zeros", "quiet"))) == ["", ""]


def test_long_audio_is_cut_in_pieces_and_nothing_is_lost(transcriber, tmp_path):
    waves = [io.load(clip, 16000) for clip in CLIPS] * 6
    pause = torch.zeros(8000)
    long_S = torch.cat([part for wave in waves for part in (wave, pause)])
    io.save(tmp_path / "long.wav", long_S, 16000)
    found = next(iter(transcriber.transcribe([AudioInput("long", Utterance("long", (str(tmp_path / "long.wav"),)))])))
    assert len(found.segments) > 1
    assert found.segments[0].start == 0
    assert found.segments[-1].end == pytest.approx(len(long_S) / 16000)
    assert all(a.end == b.start for a, b in zip(found.segments, found.segments[1:], strict=False))
    assert len(found.text.split()) > 3 * len(CLIPS)


@pytest.mark.parametrize("source", LIMITS)
def test_word_error_rates_on_real_speech(transcriber, shared_data, source):
    utterances = read_source(source, root=shared_data)[:40]
    clean = normalize.get("plain")
    heard = hear(transcriber, *utterances)
    rate = wer.score([clean(u.text or "") for u in utterances], [clean(text) for text in heard]).wer
    assert rate <= LIMITS[source], rate
