"""What `melcli doctor` tries out: each format of audio written and read, a recording heard, and a sentence spoken and heard.

Shapes: S samples.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from melcli.errors import first_line

RATE, SECONDS, HERTZ = 16000, 1.0, 440.0  # of the clip that goes through the formats
BY_SOUNDFILE = ("wav", "flac", "ogg", "opus", "mp3")
BY_AV = {"m4a": ("mp4", "aac"), "mp4": ("mp4", "aac"), "webm": ("webm", "libopus"), "mkv": ("matroska", "libopus")}  # suffix: container, coding
SPOKEN = "Nine zero four, seven six two."

Trial = tuple[str, bool, str]
"""What was tried, whether it is broken, and what came of it."""


def trials() -> Iterator[Trial]:
    """One after the other, each whatever became of those before."""
    with tempfile.TemporaryDirectory() as folder:
        for name, attempt in (
            ("decode (soundfile)", lambda: _formats(Path(folder), dict.fromkeys(BY_SOUNDFILE, _save), _libsndfile())),
            ("decode (PyAV)", lambda: _formats(Path(folder), dict.fromkeys(BY_AV, _mux), _libavcodec())),
            ("torchaudio build", _torchaudio),
            ("hears (tiny-en)", _hears),
            ("speaks (tiny-voice)", _speaks),
        ):
            try:
                yield (name, *attempt())
            except Exception as error:  # whatever it is: that is what doctor is asked about
                yield name, True, f"{type(error).__name__}: {first_line(error)}"


def _tone() -> Any:
    import torch

    return 0.5 * torch.sin(2 * torch.pi * HERTZ * torch.arange(int(RATE * SECONDS)) / RATE)


def _libsndfile() -> str:
    import soundfile

    return f"libsndfile {soundfile.__libsndfile_version__}"


def _libavcodec() -> str:
    import av

    return f"FFmpeg's libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"


def _formats(folder: Path, writers: dict[str, Callable[[Path], None]], library: str) -> tuple[bool, str]:
    """Write the tone in each format, read it as every command does, and listen for the tone."""
    right, wrong = [], []
    for suffix, write in writers.items():
        path = folder / f"tone.{suffix}"
        try:
            write(path)
        except Exception as error:  # this build cannot write it, which says nothing about reading
            wrong.append(f"{suffix} could not be tried ({first_line(error)})")
            continue
        complaint = _complaint(path)
        right += [suffix] if complaint is None else []
        wrong += [] if complaint is None else [f"{suffix} {complaint}"]
    tried = f"{', '.join(right) or 'nothing'} written and read ({library})"
    return not right, "; ".join([tried, *wrong])


def _complaint(path: Path) -> str | None:
    """What is wrong with the tone in a file: None where its length and its pitch are those that were written."""
    import torch

    from melcli.audio import io
    from melcli.errors import AudioError

    try:
        wave_S = io.load(path, RATE)
    except AudioError as error:
        return f"cannot be read ({first_line(error)})"
    heard = torch.fft.rfft(wave_S).abs().argmax().item() * RATE / len(wave_S)
    seconds = len(wave_S) / RATE
    right = abs(seconds - SECONDS) < 0.1 and abs(heard - HERTZ) < 5
    return None if right else f"came back as {seconds:.2f} s of {heard:.0f} Hz instead of {SECONDS:.2f} s of {HERTZ:.0f} Hz"


def _save(path: Path) -> None:
    from melcli.audio import io

    io.save(path, _tone(), RATE)


def _mux(path: Path) -> None:
    import av
    from av.audio.resampler import AudioResampler

    container, coding = BY_AV[path.suffix[1:]]
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(coding, rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray((_tone().numpy() * 32767).astype("int16")[None], format="s16", layout="mono")
        frame.rate = RATE
        resampler = AudioResampler(stream.format, "mono", 48000, frame_size=stream.codec_context.frame_size or None)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))


def _torchaudio() -> tuple[bool, str]:
    from melcli import torchaudio_guard

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchaudio.functional import resample

    resample(_tone(), RATE, RATE // 2)
    if not torchaudio_guard.mismatch():
        return False, "usable as it is"
    return (
        False,
        "usable without its compiled part, which is made for CUDA beside a CPU-only torch; to be rid of this install both from the same index",
    )


def _hears(spoken: tuple[Path, str] | None = None) -> tuple[bool, str]:
    """The model in the box hears a recording, with the VAD, as `melcli transcribe` does: the one in the package, or (path, text)."""
    from melcli import registry
    from melcli.synthesizing.check import listen
    from melcli.transcribe import Transcriber

    clip = registry.PACKAGE / "assets" / "clips" / "digits-slt.wav"
    path, text = spoken or (clip, clip.with_suffix(".txt").read_text(encoding="utf-8").strip())
    began = time.perf_counter()
    transcriber = Transcriber.load("tiny-en", offline=True, vad=True)
    loaded = time.perf_counter()
    (heard,) = listen(transcriber, [(path, text)])
    took = f"{loaded - began:.1f} s to load, {time.perf_counter() - loaded:.1f} s to hear {_seconds(path):.1f} s"
    wrong = heard.errors.sub + heard.errors.del_ + heard.errors.ins
    return 2 * wrong > heard.errors.words, f"heard '{heard.text}'{f', {wrong} of {heard.errors.words} words wrong' if wrong else ''}; {took}"


def _speaks() -> tuple[bool, str]:
    """The voice in the box says a sentence, and the model in the box hears it."""
    from melcli.audio import io
    from melcli.synthesize import Request, Synthesizer

    began = time.perf_counter()
    synthesizer = Synthesizer.load("tiny-voice", offline=True)
    (speech,) = synthesizer.speak([Request("doctor", SPOKEN)])
    took = time.perf_counter() - began
    if speech.error is not None:
        return True, speech.error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spoken.wav"
        io.save(path, speech.wave_S, speech.rate)
        broken, heard = _hears((path, SPOKEN))
    return broken, f"said {speech.seconds:.1f} s in {took:.1f} s; tiny-en {heard.partition(';')[0]}"


def _seconds(path: Path) -> float:
    from melcli.audio.io import probe

    return probe(path).duration or 0.0
