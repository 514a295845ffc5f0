"""lhotse cut manifests (`cuts.jsonl`, `cuts.jsonl.gz`) read as the plain JSON they are; lhotse itself is not needed.

A cut is a stretch of one recording with its supervisions (texts). What would need lhotse's own signal processing, mixed and padded cuts, recordings
with transforms such as speed perturbation, or audio out of a command or a web address, is refused rather than read as something else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from melcli.data.rows import seconds_in, string_in
from melcli.data.utterance import Utterance
from melcli.errors import ManifestError

_KINDS = ("MonoCut", "MultiCut", "MixedCut", "PaddingCut", "Cut")


def is_cut(row: Mapping[str, Any]) -> bool:
    """Whether a JSON row is a lhotse cut, or another lhotse object that `from_cut` then names in its refusal."""
    if "audio" in row or "audio_filepath" in row:
        return False
    return row.get("type") in _KINDS or {"recording", "start"} <= row.keys() or {"sources", "sampling_rate"} <= row.keys() or "recording_id" in row


def _objects(row: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    """A list of objects, empty where there is none."""
    found = row.get(key) or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ManifestError(f"{where}: '{key}' of a lhotse cut is {json.dumps(found)[:60]}, expected a list of objects")
    return found


def _begins(supervision: Mapping[str, Any], where: str) -> float:
    """Where a supervision begins in its cut; before it, where it was cut short."""
    value = supervision.get("start", 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ManifestError(f"{where}: 'start' of a supervision is {json.dumps(value)[:60]}, expected a number of seconds")
    return value


def _path(source: Mapping[str, Any], folder: str, where: str) -> str:
    if source.get("type") != "file":
        raise ManifestError(f"{where}: audio of type '{source.get('type')}' in a lhotse recording; only 'file' can be read")
    name = string_in(source, "source", where) or ""
    if not name or "\0" in name:
        raise ManifestError(f"{where}: 'source' of a lhotse recording is {json.dumps(name)}, expected a path")
    beside = os.path.normpath(os.path.join(folder, name))
    # lhotse's own paths are relative to the working folder; ours to the manifest. The one that exists is meant.
    return beside if os.path.exists(beside) or not os.path.exists(name) else os.path.abspath(name)


def from_cut(row: Mapping[str, Any], folder: str, where: str) -> Utterance:
    """The utterance of one cut. Several supervisions are joined in the order they are spoken."""
    kind = row.get("type", "MonoCut")
    if kind not in ("MonoCut", "Cut", "MultiCut"):
        raise ManifestError(f"{where}: a lhotse {kind} needs lhotse to be mixed; save it with cut.save_audio() and list the files")
    recording = row.get("recording")
    if not isinstance(recording, dict):
        what = "a recording or supervision" if "recording_id" in row or "sources" in row else "a cut without a recording"
        raise ManifestError(f"{where}: {what} of lhotse where a cut with its recording belongs; make cuts with `lhotse cut simple`")
    if recording.get("transforms"):
        raise ManifestError(f"{where}: a lhotse recording with transforms; save it with cut.save_audio() and list the files")
    sources = _objects(recording, "sources", where)
    if len(sources) != 1:
        raise ManifestError(f"{where}: a lhotse recording of {len(sources)} sources, expected one file")
    spoken = sorted(_objects(row, "supervisions", where), key=lambda supervision: _begins(supervision, where))
    texts = [text.strip() for supervision in spoken if (text := string_in(supervision, "text", where))]
    speakers = {str(supervision["speaker"]) for supervision in spoken if supervision.get("speaker") is not None}
    start, duration = seconds_in(row, "start", where) or 0.0, seconds_in(row, "duration", where)
    of_all = seconds_in(recording, "duration", where)
    whole = start == 0.0 and (duration is None or of_all is None or abs(duration - of_all) < 1e-3)
    custom = row.get("custom")
    return Utterance(
        id=str(row.get("id", recording.get("id"))),
        audio=(_path(sources[0], folder, where),),
        text=" ".join(texts) if texts else None,
        duration=duration,
        speaker=speakers.pop() if len(speakers) == 1 else None,
        start=None if whole else start,
        end=None if whole or duration is None else start + duration,
        extra=dict(custom) if isinstance(custom, dict) else {},
    )
