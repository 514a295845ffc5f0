"""Folders of audio: LibriSpeech's layout, LibriTTS's, LJSpeech's, and plain folders with a .txt beside each file.

Every reader takes any of AUDIO_SUFFIXES, so that re-coded copies of a corpus are read like the original.
"""

from __future__ import annotations

import os
from pathlib import Path

from melcli.data.utterance import Utterance
from melcli.errors import ManifestError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".mp4", ".aac", ".webm", ".mka", ".mkv", ".mov", ".aiff", ".aif", ".au", ".wma")


def walk(folder: Path) -> list[str]:
    """Paths of all files below a folder, relative to it, sorted; hidden files and folders are left out, and pipes named like audio, which would be
    waited for."""
    found: list[str] = []
    seen: set[str] = set()
    for base, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(base)
        if real in seen:  # a link back up would be followed until the name is too long
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = os.path.relpath(base, folder)
        files = [name for name in files if not (name.startswith(".") or (is_audio(name) and Path(base, name).is_fifo()))]
        found.extend(name if inside == "." else os.path.join(inside, name) for name in files)
    return sorted(found)


def is_audio(name: str) -> bool:
    """Whether a file's name ends as audio does."""
    return os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES


def read_text(path: str) -> str:
    """A text file as one line. Raises ManifestError."""
    try:
        return " ".join(Path(path).read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read as text, {error}") from None


def read_librispeech(folder: Path, files: list[str] | None = None) -> list[Utterance]:
    """LibriSpeech's layout: SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt with lines 'ID TEXT', the audio files named by their ids beside it.

    The text, upper case in the corpus, is lower-cased. A transcript without its file is kept, with the path where the file should be, so that
    whoever loads it reports it. Audio without a transcript is left out.
    """
    files = walk(folder) if files is None else files
    audio = {os.path.splitext(name)[0]: name for name in files if is_audio(name)}
    root, utterances = str(folder.resolve()), []
    suffix = os.path.splitext(next(iter(audio.values())))[1] if audio else ".flac"
    for listing in (name for name in files if name.endswith(".trans.txt")):
        inside = os.path.dirname(listing)
        try:
            lines = (folder / listing).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"{folder / listing}: cannot be read, {error}") from None
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            key, _, text = line.strip().partition(" ")
            if not text:
                raise ManifestError(f"{folder / listing}:{number}: '{key}' without a text, expected 'ID TEXT'")
            stem = os.path.join(inside, key)
            path = os.path.join(root, audio.get(stem, stem + suffix))
            utterances.append(Utterance(id=key, audio=(path,), text=text.strip().lower(), speaker=key.split("-")[0]))
    return utterances


def read_libritts(folder: Path, files: list[str] | None = None) -> list[Utterance]:
    """LibriTTS's layout: SPEAKER/CHAPTER/ID.wav with ID.normalized.txt beside it: numbers written out, case and punctuation kept."""
    files = walk(folder) if files is None else files
    listed, root, utterances = set(files), str(folder.resolve()), []
    for name in filter(is_audio, files):
        stem = os.path.splitext(name)[0]
        beside = f"{stem}.normalized.txt"
        if beside in listed:
            key = os.path.basename(stem)
            text = read_text(os.path.join(root, beside))
            utterances.append(Utterance(id=key, audio=(os.path.join(root, name),), text=text, speaker=key.split("_")[0]))
    return utterances


def read_ljspeech(folder: Path) -> list[Utterance]:
    """LJSpeech: metadata.csv with lines ID|text|text with numbers written out (the one taken), audio in wavs/. One speaker."""
    listing, root = folder / "metadata.csv", str(folder.resolve())
    audio = {os.path.splitext(name)[0]: name for name in walk(folder / "wavs") if is_audio(name)}
    utterances = []
    try:
        lines = listing.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{listing}: cannot be read, {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = line.split("|")
        if len(fields) < 2:
            raise ManifestError(f"{listing}:{number}: expected ID|text|normalised text")
        key, text = fields[0], fields[2] if len(fields) > 2 and fields[2] else fields[1]
        path = os.path.join(root, "wavs", audio.get(key, f"{key}.wav"))
        utterances.append(Utterance(id=key, audio=(path,), text=text.strip(), speaker="lj"))
    if not utterances:
        raise ManifestError(f"{listing}: empty")
    return utterances


def read_plain(folder: Path, files: list[str] | None = None) -> list[Utterance]:
    """Every audio file below a folder; the text is that of the .txt of the same name beside it, None where there is none."""
    files = walk(folder) if files is None else files
    listed, root = set(files), str(folder.resolve())
    utterances = []
    for name in filter(is_audio, files):
        stem = os.path.splitext(name)[0]
        text = read_text(os.path.join(root, f"{stem}.txt")) if f"{stem}.txt" in listed else None
        utterances.append(Utterance(id=stem, audio=(os.path.join(root, name),), text=text))
    return utterances


def read_folder(folder: Path) -> list[Utterance]:
    """The utterances of a folder in whichever of the known layouts it is. ManifestError where it holds no audio."""
    from melcli.data import hf, kaldi

    if hf.is_saved(folder):
        return hf.read_saved(folder)
    if (folder / "wav.scp").is_file():
        return kaldi.read_kaldi(folder)
    if (folder / "metadata.csv").is_file() and (folder / "wavs").is_dir():
        return read_ljspeech(folder)
    files = walk(folder)
    if odd := next((name for name in files if is_audio(name) and name.encode(errors="ignore").decode() != name), None):
        raise ManifestError(f"{folder}: the name {odd!a} is not UTF-8; rename the file")
    if any(name.endswith(".trans.txt") for name in files):
        utterances = read_librispeech(folder, files)
    elif any(name.endswith(".normalized.txt") for name in files):
        utterances = read_libritts(folder, files)
    else:
        utterances = read_plain(folder, files)
    if not utterances and "features.json" not in files and any(name.startswith("shard-") and name.endswith(".safetensors") for name in files):
        raise ManifestError(f"{folder}: holds features that were not finished: run the same `melcli featurize` again")
    if not utterances and "features.json" in files:
        raise ManifestError(f"{folder}: holds features, and audio is read here: give the source they were made of")
    if not utterances:
        raise ManifestError(f"{folder}: no audio in this folder (looked for {', '.join(AUDIO_SUFFIXES[:8])} and more)")
    return utterances
