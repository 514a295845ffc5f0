"""Synthetic speech: addresses, the synthesisers, and plans."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
import torch

from melcli.data import synth, synth_plan
from melcli.data.synth import corpus, plan, speak
from melcli.data.voices import ESPEAK_ACCENTS, ESPEAK_VARIANTS, PACKAGES, Delivery, voice
from melcli.errors import AudioError, ManifestError, UsageError

TEXT = "the quick brown fox jumps over the lazy dog, and seven other animals."


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed (apt-get install {program})")


def seconds(delivery: Delivery, text: str = TEXT) -> float:
    wave_S, rate = speak(delivery.address(text))
    return len(wave_S) / rate


def pitch(wave_S: torch.Tensor, rate: int) -> float:
    """Median fundamental frequency of the loud frames, Hz, by autocorrelation."""
    size = rate // 25
    frames_FS = wave_S[: len(wave_S) // size * size].view(-1, size)
    level_F = frames_FS.square().mean(1)
    found = []
    for frame_S in frames_FS[level_F > level_F.max() / 4]:
        spectrum = torch.fft.rfft(frame_S - frame_S.mean(), 2 * size).abs().square()
        correlation = torch.fft.irfft(spectrum)
        low, high = rate // 400, rate // 60
        found.append(rate / (low + int(correlation[low:high].argmax())))
    return float(torch.tensor(found).median())


def test_an_address_comes_back() -> None:
    delivery = Delivery("espeak/en-gb-scotland+f2", stretch=1.1, pitch=0.9, shift=1.25, lead=0.0, tail=0.3)
    text = "what's 50% of it? #hash & co, naïve"
    address = delivery.address(text)
    assert address.startswith("synth:espeak/en-gb-scotland+f2?stretch=1.1&pitch=0.9&shift=1.25")
    assert " " not in address
    assert Delivery.parse(address) == (delivery, text)
    assert Delivery("flite/slt").address("hello") == "synth:flite/slt#hello"


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("flite/slt#hi", "no synth: address"),
        ("synth:flite/slt", "Nothing to say"),
        ("synth:flite/slt#%20", "Nothing to say"),
        ("synth:flite/slz#hi", "Did you mean 'flite/slt'"),
        ("synth:espeak/en-us+zorro#hi", "No synthetic voice"),
        ("synth:flite/slt?strech=1#hi", "Did you mean 'stretch'"),
        ("synth:flite/slt?stretch=fast#hi", "not a number"),
        ("synth:flite/slt?stretch=nan#hi", "out of range"),
        ("synth:flite/slt?shift=9#hi", "valid: 0.6 to 1.6"),
    ],
)
def test_bad_addresses(address: str, complaint: str) -> None:
    with pytest.raises(AudioError, match=complaint):
        speak(address)


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(AudioError, match="apt-get install flite"):
        speak("synth:flite/slt#hello")
    with pytest.raises(AudioError, match="apt-get install espeak-ng"):
        speak("synth:espeak/en-us#hello")


def test_a_program_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "TIMEOUT", 0.05)
    monkeypatch.setitem(synth._SPEAKERS, "flite", lambda one, delivery, text: synth._run(["sleep", "5"]))
    with pytest.raises(AudioError, match="was stopped"):
        speak("synth:flite/slt#hello")


@pytest.mark.parametrize("said", [b"", b"RIFF", b"not a wave file at all" * 10])
def test_no_sound_is_an_error(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setitem(synth._SPEAKERS, "flite", lambda one, delivery, text: said)
    with pytest.raises(AudioError, match="no sound"):
        speak("synth:flite/slt#hello")


def test_silence_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    header = b"RIFF" + bytes(20) + (16000).to_bytes(4, "little") + bytes(8) + b"data" + bytes(4)
    monkeypatch.setitem(synth._SPEAKERS, "flite", lambda one, delivery, text: header + bytes(64000))
    with pytest.raises(AudioError, match="gave silence"):
        speak("synth:flite/slt#hello")


@needs("flite")
@pytest.mark.parametrize("name", ["flite/slt", "flite/rms", "flite/awb", "flite/kal16"])
def test_flite_voices(name: str) -> None:
    wave_S, rate = speak(Delivery(name).address(TEXT))
    assert wave_S.dtype == torch.float32 and wave_S.ndim == 1 and rate == 16000
    assert 0.05 < wave_S.abs().max() <= 1
    assert torch.equal(wave_S, speak(Delivery(name).address(TEXT))[0]), "the same address is the same speech"
    assert len(wave_S) / rate == pytest.approx(Delivery(name).seconds(TEXT), rel=0.25)


@needs("flite")
def test_tempo_pitch_and_size() -> None:
    plain = seconds(Delivery("flite/slt"))
    assert seconds(Delivery("flite/slt", stretch=1.3)) == pytest.approx(1.3 * plain, rel=0.05)
    assert seconds(Delivery("flite/slt", shift=1.2)) == pytest.approx(plain, rel=0.05), "the tempo is made good"
    own = pitch(*speak(Delivery("flite/slt").address(TEXT)))
    assert pitch(*speak(Delivery("flite/slt", pitch=0.8).address(TEXT))) == pytest.approx(0.8 * own, rel=0.08)
    assert pitch(*speak(Delivery("flite/slt", shift=1.25).address(TEXT))) == pytest.approx(1.25 * own, rel=0.08)
    assert pitch(*speak(Delivery("flite/rms", shift=1.25).address(TEXT))) > 110, "rms takes no pitch, but a size"


@needs("flite")
def test_silence_around_the_speech() -> None:
    tight = seconds(Delivery("flite/slt", lead=0.0, tail=0.0))
    wave_S, rate = speak(Delivery("flite/slt", lead=0.5, tail=1.0).address(TEXT))
    assert len(wave_S) / rate == pytest.approx(tight + 1.5, abs=0.002)
    assert wave_S[: rate // 4].abs().max() < 0.01 * wave_S.abs().max()


@needs("flite")
def test_a_text_that_looks_like_an_option_is_spoken() -> None:
    assert seconds(Delivery("flite/slt"), "-o none") > 0.3


@needs("espeak-ng")
@pytest.mark.parametrize("name", ["espeak/en-us", "espeak/en-gb+f2", "espeak/en-gb-scotland+m3"])
def test_espeak_voices(name: str) -> None:
    wave_S, rate = speak(Delivery(name).address(TEXT))
    assert rate == 22000 and 0.05 < wave_S.abs().max() <= 1
    slow = seconds(Delivery(name, stretch=1.35))
    assert slow / seconds(Delivery(name, stretch=0.8)) == pytest.approx(1.35 / 0.8, rel=0.12)
    own = pitch(wave_S, rate)
    assert pitch(*speak(Delivery(name, pitch=1.2).address(TEXT))) == pytest.approx(1.2 * own, rel=0.1)


@needs("espeak-ng")
def test_every_espeak_voice_in_the_table_speaks() -> None:
    voices = [f"espeak/{accent}" for accent in ESPEAK_ACCENTS] + [f"espeak/en-us+{variant}" for variant in ESPEAK_VARIANTS]
    said = {name: seconds(Delivery(name), "seven") for name in voices}
    assert all(0.3 < duration < 2.0 for duration in said.values()), said


@needs("festival")
@pytest.mark.parametrize("name", ["festival/ked_diphone", "festival/kal_diphone", "festival/cmu_us_slt_arctic_hts"])
def test_festival_voices(name: str) -> None:
    try:
        wave_S, rate = speak(Delivery(name).address('he said "stop", (quit) and\\left.'))
    except AudioError as problem:
        if "Is the voice installed?" in str(problem):
            pytest.skip(str(problem))
        raise
    assert rate % 200 == 0 and 1.0 < len(wave_S) / rate < 4.0
    if voice(name).stretched:
        assert seconds(Delivery(name, stretch=1.3)) > 1.2 * seconds(Delivery(name))


@pytest.mark.parametrize("name", ["rhvoice/bdl", "rhvoice/clb", "rhvoice/slt", "pico/en-US", "pico/en-GB"])
def test_rhvoice_and_pico_voices(name: str) -> None:
    if shutil.which(voice(name).program) is None:
        pytest.skip(f"{voice(name).program} is not installed (apt-get install {PACKAGES[voice(name).program]})")
    wave_S, rate = speak(Delivery(name).address(TEXT))
    assert rate % 200 == 0 and 0.05 < wave_S.abs().max() <= 1
    plain = seconds(Delivery(name, lead=0, tail=0))
    for stretch in (0.8, 1.2, 1.35, 1.8):
        assert seconds(Delivery(name, stretch=stretch, lead=0, tail=0)) / plain == pytest.approx(stretch, rel=0.05)
    assert seconds(Delivery(name, shift=1.2, lead=0, tail=0)) == pytest.approx(plain, rel=0.05)
    own = pitch(wave_S, rate)
    assert own == pytest.approx(voice(name).f0, rel=0.15)
    assert pitch(*speak(Delivery(name, pitch=1.2).address(TEXT))) == pytest.approx(1.2 * own, rel=0.12)
    said = seconds(Delivery(name), "a <b> & \"c\" -x 'd'")
    assert 0.5 < said < 6, "marks of its own language are no text"


@needs("RHVoice-test")
def test_an_absent_rhvoice_voice_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(synth, "RHVOICE", (tmp_path,))
    with pytest.raises(AudioError, match=r"RHVoice has no voice bdl here: apt-get install rhvoice rhvoice-english"):
        speak(Delivery("rhvoice/bdl").address(TEXT))


@pytest.mark.parametrize("name", ["flite/slt", "pico/en-US"])
def test_texts_that_no_command_line_can_hold(name: str) -> None:
    if shutil.which(voice(name).program) is None:
        pytest.skip(f"{voice(name).program} is not installed")
    for text in ("a\0b", "long " * 50_000):
        with pytest.raises(AudioError, match="cannot be given the text"):
            speak(Delivery(name).address(text))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data root: three text collections and one test text."""
    folder = tmp_path_factory.mktemp("root")
    (folder / "text").mkdir()
    nouns = "cat dog house river teacher window garden apple story friend".split()
    verbs = "saw liked found wanted heard".split()
    lines = [f"The {a} {verb} the {b} near my {c} today." for a in nouns for b in nouns for c in nouns[:5] for verb in verbs]
    for name in ("books.txt.gz", "dialogues.txt.gz"):
        with gzip.open(folder / "text" / name, "wt") as file:
            file.write("\n".join(lines))
    with gzip.open(folder / "text" / "qa.jsonl.gz", "wt") as file:
        file.writelines(
            json.dumps({"question": f"Which {a} {verb} the {b}?", "answer": c}) + "\n" for a in nouns for b in nouns for c in nouns for verb in verbs
        )
    (folder / "speechocean762").mkdir()
    (folder / "speechocean762" / "dev.jsonl").write_text(json.dumps({"text": "the cat saw the dog near my house today"}) + "\n")
    return folder


def test_a_plan_is_pure_and_has_its_hours(root: Path) -> None:
    first = plan(root, 2.0, seed=5)
    assert first == plan(root, 2.0, seed=5)
    assert [one.audio for one in first[:50]] != [one.audio for one in plan(root, 2.0, seed=6)[:50]]
    assert sum(one.duration or 0.0 for one in first) == pytest.approx(7200, rel=0.02)
    assert len({one.id for one in first}) == len(first)
    hours = {kind: sum((one.duration or 0.0) for one in first if one.extra["kind"] == kind) / 7200 for kind in synth_plan.KINDS}
    assert hours == pytest.approx(synth_plan.KINDS, abs=0.01)
    speakers = [one.speaker for one in first]
    for name, share in synth_plan.VOICE_SHARES.items():
        assert sum(speaker.startswith(name) for speaker in speakers) / len(first) == pytest.approx(share, abs=0.04), name
    assert not any("the cat saw the dog near my house" in one.text for one in first), "a test text"


def test_a_plan_of_one_kind_and_one_voice(root: Path) -> None:
    utterances = plan(root, 0.2, seed=1, mix={"digits": 1}, voices={"flite/rms": 1})
    assert {one.speaker for one in utterances} == {"flite/rms"}
    joined = [one for one in utterances if len(one.audio) > 1]
    assert 0.2 < len(joined) / len(utterances) < 0.6
    assert all(len(one.audio) == len(one.text.split()) and one.gap > 0 for one in joined)
    assert all(Delivery.parse(address)[0].pitch == 1 for one in utterances for address in one.audio), "rms takes no pitch"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"hour": "2"}, "Did you mean 'hours'"),
        ({"hours": "many"}, "hours=60&seed=1"),
        ({"hours": "0"}, "cannot be"),
        ({"hours": "nan"}, "cannot be"),
        ({"mix": "boks:1"}, "Did you mean 'book'"),
        ({"mix": "book:0"}, "not all 0"),
        ({"voices": "flite/slz:1"}, "Did you mean 'flite/slt'"),
    ],
)
def test_bad_corpus_options(root: Path, options: dict[str, str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        corpus(options, root)


def test_a_corpus_needs_its_programs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UsageError, match="apt-get install espeak-ng"):
        corpus({"hours": "0.1", "voices": "espeak"}, root)


def test_a_kind_that_the_texts_do_not_have_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    for name in ("books.txt.gz", "dialogues.txt.gz"):
        with gzip.open(tmp_path / "text" / name, "wt") as file:
            file.write("No incomprehensible circumlocution whatsoever.\n" * 5)
    with pytest.raises(ManifestError, match="No sentence of the kind"):
        plan(tmp_path, 0.1, seed=1, mix={"child": 1})


def test_a_root_without_texts(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"books\.txt\.gz"):
        plan(tmp_path, 0.1, seed=1)


@needs("flite")
@needs("espeak-ng")
def test_planned_hours_are_spoken_hours(root: Path) -> None:
    utterances = plan(root, 0.05, seed=2, voices={"flite/slt": 2, "flite/rms": 1, "flite/awb": 1, "flite/kal16": 1, "espeak": 1})
    spoken = sum(sum(len(wave_S) / rate for wave_S, rate in map(speak, one.audio)) + one.gap * (len(one.audio) - 1) for one in utterances)
    assert spoken == pytest.approx(sum(one.duration or 0.0 for one in utterances), rel=0.15)
