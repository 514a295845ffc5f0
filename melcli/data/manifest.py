"""Sources of utterances: everything that can stand where a command or recipe says SOURCE.

    talks.jsonl              a manifest of ours, NeMo's or the leaderboard's rows, lhotse cuts (also .gz)
    FOLDER                   LibriSpeech's, LibriTTS's, LJSpeech's layout, a Kaldi folder, a saved HF data set, or audio with .txt files beside it
    talk.wav                 one file
    digits:train             a corpus by name (data/corpora.py), looked for under the data root, else fetched
    synth:en?hours=60        synthetic speech out of the texts under the data root, spoken when it is loaded
    hf:REPO[:CONFIG][:SPLIT] a data set of the Hugging Face hub

and behind each `?key=value&...` (data/selection.py).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from melcli.data import selection
from melcli.data.corpora import CORPORA
from melcli.data.durations import fill_durations
from melcli.data.folders import AUDIO_SUFFIXES, is_audio, read_folder, read_text
from melcli.data.rows import ADDRESSES, read_jsonl, to_row
from melcli.data.utterance import Utterance
from melcli.errors import ManifestError, nearest
from melcli.files import replacing

DEFAULT_ROOT = Path("~/.cache/melcli/data")


def _is_manifest(path: Path) -> bool:
    return path.name.endswith((".jsonl", ".json", ".jsonl.gz", ".json.gz"))


def _read_path(path: Path) -> list[Utterance]:
    if path.is_dir():
        return read_folder(path)
    if _is_manifest(path):
        return read_jsonl(path)
    if is_audio(path.name):
        beside = path.with_suffix(".txt")
        text = read_text(str(beside)) if beside.is_file() else None
        return [Utterance(id=path.stem, audio=(str(path.absolute()),), text=text)]
    raise ManifestError(f"{path}: neither a manifest (.jsonl), nor a folder, nor audio ({', '.join(AUDIO_SUFFIXES[:8])}, ...)")


def _unknown(base: str) -> ManifestError:
    name = base.partition(":")[0]
    if "/" in base or os.sep in base or _is_manifest(Path(base)) or is_audio(base):
        return ManifestError(f"{base}: no such file or folder")
    return ManifestError(f"{base}: neither a file nor a corpus; the corpora are {', '.join(CORPORA)}.{nearest(name, CORPORA)}")


def read_source(source: str, *, root: Path | None = None, offline: bool = False, durations: bool = True) -> list[Utterance]:
    """The utterances of a SOURCE, in a fixed order.

    root: where corpora by name are looked for and fetched to (`data.root`); DEFAULT_ROOT where None.
    offline: a corpus that is not under `root` is an error rather than a download.
    durations: fill in unknown durations from the file headers; they stay None for what cannot be read.
    Raises ManifestError where the source is not there, holds nothing, or a line of it is broken (with file and line).
    """
    base, _, options_text = source.rpartition("?") if "?" in source and not os.path.exists(source) else (source, "", "")
    name, colon, split = base.partition(":")
    corpus = CORPORA.get(name) if not os.path.exists(base) else None
    options = selection.parse(options_text, source, corpus.options if corpus else ())
    if corpus is not None:
        at = (root if root is not None else DEFAULT_ROOT).expanduser()
        utterances = corpus.utterances(split if colon else None, at, options, source, offline)
    elif base.startswith("hf:"):
        from melcli.data.hf import read_hf

        utterances = selection.select(read_hf(base), options, source)
    elif os.path.exists(os.path.expanduser(base)):
        utterances = selection.select(_read_path(Path(os.path.expanduser(base))), options, source)
    else:
        raise _unknown(base)
    return fill_durations(utterances) if durations else utterances


def _common(utterances: Sequence[Utterance]) -> str | None:
    folders = {os.path.dirname(part) for utterance in utterances for part in utterance.audio if not part.startswith(ADDRESSES)}
    try:
        return os.path.commonpath(folders) if folders else None
    except ValueError:  # paths on several drives, or relative ones among absolute ones
        return None


def fingerprint(utterances: Sequence[Utterance]) -> str:
    """A SHA-256 of what the utterances are, order included. The folder above all of them does not count, so moved data keeps its fingerprint."""
    folder, state = _common(utterances), hashlib.sha256()
    for utterance in utterances:
        state.update(json.dumps(to_row(utterance, folder), sort_keys=True, ensure_ascii=False, default=str).encode())
        state.update(b"\n")
    return state.hexdigest()


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write a JSONL manifest, paths relative to it where they lie below its folder; to a temporary name first, then renamed."""
    folder = str(path.resolve().parent)
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(to_row(utterance, folder), ensure_ascii=False) + "\n" for utterance in utterances)
