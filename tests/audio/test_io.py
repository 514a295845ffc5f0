"""Reading every format, parts of files, streams, and every way in which an audio file can be bad."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from melcli.audio import decode
from melcli.audio.io import load, probe, save, stream
from melcli.audio.resample import Resampler, resample
from melcli.errors import AudioError

RATE = 16000
LIBSNDFILE = {"wav": {}, "flac": {}, "ogg": {"format": "OGG", "subtype": "VORBIS"}, "opus": {"format": "OGG", "subtype": "OPUS"}, "mp3": {}}
FFMPEG = {"m4a": "aac", "mp4": "aac", "webm": "libopus", "mka": "flac"}


def chirp(seconds: float = 3.0, rate: int = RATE) -> np.ndarray:
    """A rising tone, so that a shift in time is seen."""
    time = np.arange(int(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (200 + 300 * time) * time)).astype(np.float32)


def write_with_ffmpeg(path: Path, wave: np.ndarray, rate: int, codec: str, channels: int = 1) -> None:
    import av

    with av.open(str(path), "w") as container:
        layout = "mono" if channels == 1 else "stereo"
        stream_ = container.add_stream(codec, rate=rate, layout=layout)
        data = np.repeat(wave[None], channels, axis=0)
        data = (data * 32767).astype(np.int16) if codec == "flac" else data
        kind = "s16p" if codec == "flac" else "fltp"
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), format=kind, layout=layout)
        frame.rate, frame.pts = rate, 0
        for packet in [*stream_.encode(frame), *stream_.encode(None)]:
            container.mux(packet)


def similarity(wave_S: Tensor, expected: np.ndarray) -> float:
    """Correlation of the parts that both have."""
    count = min(len(wave_S), len(expected))
    return float(np.corrcoef(wave_S[:count].numpy(), expected[:count])[0, 1])


@pytest.mark.parametrize("suffix", list(LIBSNDFILE))
@pytest.mark.parametrize("rate", [16000, 44100])
def test_libsndfile_formats(tmp_path: Path, suffix: str, rate: int):
    if suffix == "opus" and rate == 44100:
        rate = 48000
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, chirp(3, rate), rate, **LIBSNDFILE[suffix])
    wave_S = load(path, RATE)
    assert wave_S.dtype == torch.float32 and wave_S.shape == (3 * RATE,)
    assert similarity(wave_S, chirp(3)) > 0.98
    info = probe(path)
    assert (info.rate, info.channels) == (rate, 1) and info.duration == pytest.approx(3)


@pytest.mark.parametrize("suffix", list(FFMPEG))
@pytest.mark.parametrize("channels", [1, 2])
def test_ffmpeg_formats(tmp_path: Path, suffix: str, channels: int):
    path = tmp_path / f"a.{suffix}"
    write_with_ffmpeg(path, chirp(3, 48000), 48000, FFMPEG[suffix], channels)
    wave_S = load(path, RATE)
    assert abs(len(wave_S) - 3 * RATE) < 0.05 * RATE
    assert similarity(wave_S, chirp(3)) > 0.98
    info = probe(path)
    assert (info.rate, info.channels) == (48000, channels) and info.duration == pytest.approx(3, abs=0.05)


@pytest.mark.parametrize("suffix", [*LIBSNDFILE, *FFMPEG])
def test_a_part_is_cut_out_of_the_whole(tmp_path: Path, suffix: str):
    path = tmp_path / f"a.{suffix}"
    if suffix in LIBSNDFILE:
        soundfile.write(path, chirp(6, 48000), 48000, **LIBSNDFILE[suffix])
    else:
        write_with_ffmpeg(path, chirp(6, 48000), 48000, FFMPEG[suffix])
    whole_S = load(path, 48000)
    part_S = load(path, 48000, start=3.5, end=4.25)
    assert len(part_S) == 36000
    # containers with a clock of milliseconds find a place to within one
    slack = 48 if suffix in ("webm", "mka") else 0
    assert max(similarity(part_S, whole_S[168000 + shift : 204000 + shift].numpy()) for shift in range(-slack, slack + 1)) > 0.999
    assert len(load(path, RATE, start=3.5)) == pytest.approx(2.5 * RATE, abs=0.05 * RATE)


def test_a_part_of_a_long_file_costs_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.tile(chirp(10), 60), RATE)
    decoded = []
    blocks = decode._SoundFile.blocks

    def counted(self, first, last):
        for block in blocks(self, first, last):
            decoded.append(len(block))
            yield block

    monkeypatch.setattr(decode._SoundFile, "blocks", counted)
    part_S = load(path, RATE, start=500.0, end=502.0)
    assert sum(decoded) == 2 * RATE
    torch.testing.assert_close(part_S, torch.from_numpy(chirp(10)[: 2 * RATE]), atol=1e-4, rtol=0)


def test_six_channels_at_96_khz_become_their_mean(tmp_path: Path):
    path = tmp_path / "six.wav"
    gains = np.array([1, 0.5, 0.25, 0, -0.5, 0.75], dtype=np.float32)
    soundfile.write(path, chirp(2, 96000)[:, None] * gains, 96000, subtype="FLOAT")
    wave_S = load(path, RATE)
    assert len(wave_S) == 2 * RATE
    assert np.abs(wave_S.numpy()[200:-200] - gains.mean() * chirp(2)[200:-200]).max() < 1e-3
    assert probe(path).channels == 6


def test_silence_is_audio(tmp_path: Path):
    path = tmp_path / "silence.wav"
    soundfile.write(path, np.zeros(RATE), RATE)
    assert not load(path, RATE).any()


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24000, 44100, 48000, 96000])
def test_resampling_equals_torchaudio(rate: int):
    import torchaudio

    for samples in (1, 2, 100, 4567, 30001):
        wave_S = torch.randn(samples, generator=torch.Generator().manual_seed(samples))
        expected_S = torchaudio.transforms.Resample(rate, RATE)(wave_S)
        torch.testing.assert_close(resample(wave_S, rate, RATE), expected_S, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000, 11127, 16001])
def test_resampling_in_blocks_equals_the_whole(rate: int):
    wave_S = torch.randn(20000, generator=torch.Generator().manual_seed(1))
    whole_S = resample(wave_S, rate, RATE)
    for size in (1, 7, 1000, 12345) if rate == 11127 else (333, 12345):
        resampler = Resampler(rate, RATE)
        parts = [resampler.push(block_S) for block_S in wave_S.split(size)]
        torch.testing.assert_close(torch.cat([*parts, resampler.finish()]), whole_S, atol=1e-5, rtol=0)


def test_rates_without_a_common_divisor_keep_pitch_and_length():
    wave_S = resample(torch.from_numpy(chirp(3, 11127)), 11127, RATE)  # an old Macintosh's rate: an exact filter would be 700 MB
    assert abs(len(wave_S) - 3 * RATE) <= 1
    assert np.abs(wave_S.numpy()[100:-100] - chirp(3)[100 : len(wave_S) - 100]).max() < 2e-2


@pytest.mark.parametrize("rate", [15995, 15999, 16001, 16005])
def test_rates_next_to_the_wanted_one(tmp_path: Path, rate: int):
    """A recorder with a clock of its own: no ratio of small numbers is nearer than 1."""
    soundfile.write(tmp_path / "a.wav", chirp(1, rate), rate)
    assert abs(len(load(tmp_path / "a.wav", RATE)) - RATE) <= 5


@pytest.mark.parametrize("suffix,rate", [("wav", 44100), ("opus", 48000), ("mp3", 16000), ("m4a", 48000)])
def test_streamed_equals_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, rate: int):
    path = tmp_path / f"a.{suffix}"
    if suffix == "m4a":
        write_with_ffmpeg(path, chirp(5, rate), rate, "aac")
    else:
        soundfile.write(path, chirp(5, rate), rate, **LIBSNDFILE[suffix])
    whole_S = load(path, RATE)
    monkeypatch.setattr(decode, "BLOCK_VALUES", 10007)
    blocks = list(stream(path, RATE, 0.37))
    assert all(len(block_S) == round(0.37 * RATE) for block_S in blocks[:-1])
    assert 0 < len(blocks[-1]) <= round(0.37 * RATE)
    torch.testing.assert_close(torch.cat(blocks), whole_S, atol=1e-5, rtol=0)
    part_S = torch.cat(list(stream(path, RATE, 0.5, start=1.0, end=2.2)))
    torch.testing.assert_close(part_S, load(path, RATE, start=1.0, end=2.2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("suffix", ["wav", "opus", "m4a"])
def test_open_files_and_pipes(tmp_path: Path, suffix: str):
    path = tmp_path / f"a.{suffix}"
    if suffix == "m4a":
        write_with_ffmpeg(path, chirp(), RATE, "aac")
    else:
        soundfile.write(path, chirp(), RATE, **LIBSNDFILE[suffix])
    expected_S = load(path, RATE)
    with open(path, "rb") as file:
        assert torch.equal(load(file, RATE), expected_S)
    assert torch.equal(load(io.BytesIO(path.read_bytes()), RATE), expected_S)
    reader, writer = os.pipe()

    def feed() -> None:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(path.read_bytes())

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reader, "rb") as pipe:
        assert torch.equal(load(pipe, RATE), expected_S)
    thread.join()


def make_bad(folder: Path, kind: str) -> Path:
    path = folder / "bad.wav"
    if kind == "directory":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("This is no sound, it is a récit.\n" * 50)
    elif kind == "noise":
        path.write_bytes(bytes(range(256)) * 40)
    elif kind == "no samples":
        soundfile.write(path, np.zeros(0), RATE)
    elif kind in ("nan", "infinite"):
        wave = chirp()
        wave[7777] = np.nan if kind == "nan" else -np.inf
        soundfile.write(path, wave, RATE, subtype="FLOAT")
    return path


BAD = {
    "missing": "no such file",
    "directory": "is a directory, not an audio file",
    "empty": "the file is empty",
    "text": "is text, not audio",
    "noise": "cannot be decoded: truncated, damaged, or not audio",
    "no samples": "holds no samples",
    "nan": "holds NaN or infinite samples",
    "infinite": "holds NaN or infinite samples",
}


@pytest.mark.parametrize("kind", list(BAD))
def test_bad_files_have_their_own_message(tmp_path: Path, kind: str):
    path = make_bad(tmp_path, kind)
    for read in (lambda: load(path, RATE), lambda: load(path, 8000), lambda: list(stream(path, RATE))):
        with pytest.raises(AudioError) as error:
            read()
        message = str(error.value)
        assert message.startswith(f"{path}: ") and BAD[kind] in message and "\n" not in message


@pytest.mark.parametrize("suffix", [*LIBSNDFILE, *FFMPEG])
def test_half_a_file_is_truncated(tmp_path: Path, suffix: str):
    path = tmp_path / f"a.{suffix}"
    if suffix in LIBSNDFILE:
        soundfile.write(path, chirp(8), RATE, **LIBSNDFILE[suffix])
    else:
        write_with_ffmpeg(path, chirp(8, 48000), 48000, FFMPEG[suffix])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match="truncated"):
        load(path, RATE)


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, chirp(), RATE)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    def no_sound(*args: object) -> None:
        raise soundfile.LibsndfileError(2)

    # the administrator may read everything, so that file modes prove nothing here
    monkeypatch.setattr(decode, "open", refuse, raising=False)
    monkeypatch.setattr(decode, "_Sound", no_sound)
    with pytest.raises(AudioError, match=r"a\.wav: cannot be read: Permission denied"):
        load(path, RATE)


def test_a_wav_of_unknown_length_is_not_truncated(tmp_path: Path):
    """Programs that write wav to a pipe leave the sizes at their greatest."""
    path = tmp_path / "piped.wav"
    soundfile.write(path, chirp(), RATE)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(data)
    assert len(load(path, RATE)) == 3 * RATE


def test_a_wav_whose_size_counts_its_header_is_not_truncated(tmp_path: Path):
    path = tmp_path / "sloppy.wav"
    soundfile.write(path, chirp(), RATE)
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("<I", len(data))
    path.write_bytes(data)
    assert len(load(path, RATE)) == 3 * RATE


def test_probing_needs_no_torch(tmp_path: Path):
    path = tmp_path / "a.flac"
    soundfile.write(path, chirp(), RATE)
    code = f"import sys; from melcli.audio.decode import probe; print(probe({str(path)!r}).duration, 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert result.stdout.split() == ["3.0", "False"]


def test_a_header_that_lies_costs_no_memory(tmp_path: Path):
    """A flac whose header claims 70 hours: only blocks that are really there are decoded."""
    path = tmp_path / "a.flac"
    soundfile.write(path, chirp(), RATE)
    data = bytearray(path.read_bytes())
    claimed = 70 * 3600 * RATE
    assert data[:4] == b"fLaC" and claimed < 2**32
    data[22:26] = struct.pack(">I", claimed)  # the lower 32 bits of the sample count in STREAMINFO
    path.write_bytes(data)
    with pytest.raises(AudioError, match="truncated"):
        load(path, RATE)


@pytest.mark.parametrize(
    "start,end,message",
    [
        (5.0, None, "start 5 s is after its end at 3.00 s"),
        (0.0, 9.0, "end 9 s is after its end at 3.00 s"),
        (2.0, 1.0, "start 2 s and end 1 s"),
        (-1.0, 1.0, "start -1 s"),
    ],
)
def test_times_outside_the_file(tmp_path: Path, start: float, end: float | None, message: str):
    path = tmp_path / "a.wav"
    soundfile.write(path, chirp(), RATE)
    with pytest.raises(AudioError, match=message):
        load(path, RATE, start=start, end=end)


def test_an_end_rounded_up_is_the_end(tmp_path: Path):
    path = tmp_path / "a.wav"
    soundfile.write(path, chirp(), RATE)
    assert len(load(path, RATE, start=1.0, end=3.1)) == 2 * RATE


@pytest.mark.parametrize("suffix", list(LIBSNDFILE))
def test_what_is_saved_can_be_loaded(tmp_path: Path, suffix: str):
    path = tmp_path / "folder" / f"a.{suffix}"
    save(path, torch.from_numpy(chirp()), RATE)
    assert similarity(load(path, RATE), chirp()) > 0.98
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_saving_clips_and_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.wav"
    save(path, torch.tensor([0.0, 3.0, -3.0]), RATE)
    assert load(path, RATE).tolist() == pytest.approx([0, 1, -1], abs=1e-4)
    before = path.read_bytes()
    with pytest.raises(AudioError, match="NaN or infinite"):
        save(path, torch.tensor([0.0, float("nan")]), RATE)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("melcli.audio.io.soundfile.write", full)
    with pytest.raises(AudioError, match="No space left on device"):
        save(path, torch.zeros(100), RATE)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(AudioError, match=r"cannot write '\.xyz'"):
        save(tmp_path / "a.xyz", torch.zeros(100), RATE)


def test_every_corpus_file_kind_loads(shared_data: Path):
    for pattern in ("digits/**/*.flac", "librispeech/**/*.mp3", "librispeech/**/*.opus", "speechocean762/**/*.opus", "robotutor/**/*.opus"):
        paths = sorted(shared_data.glob(pattern))
        assert paths, pattern
        for path in paths[:: max(1, len(paths) // 8)]:
            info, wave_S = probe(path), load(path, RATE)
            assert len(wave_S) == pytest.approx(info.duration * RATE, abs=RATE / 50)
