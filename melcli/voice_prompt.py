"""A recording to speak like: checked, turned into mel frames, with its transcript where there is one.

Shapes: T mel frames, M mel bins, S samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from melcli.audio import io as audio_io
from melcli.audio.mel import log_mel
from melcli.audio.mel_spec import MelSpec
from melcli.audio.segment import is_silent
from melcli.data.folders import read_text
from melcli.data.speakable import passages
from melcli.errors import AudioError, UsageError

if TYPE_CHECKING:
    from melcli.models.speaker import VoicePrompt

SECONDS = (1.0, 30.0)
"""A shorter recording does not tell a voice, a longer one leaves no room for speech."""


def read_voice(path: Path, spec: MelSpec, alphabet: str, *, text: str | None = None, flag: str = "--voice") -> VoicePrompt:
    """The recording as a prompt for a model that reads `spec` and knows the letters of `alphabet`.

    text: what is said in it; None for the .txt file beside the recording, or unknown where there is none. Raises UsageError where it cannot be
    used: it is not audio, too short or too long, silent, or has NaN samples.
    """
    from melcli.models.speaker import VoicePrompt

    try:
        _check_length(path, audio_io.probe(path).duration, flag)
        wave_S = audio_io.load(path, spec.rate, end=None)
    except AudioError as error:
        raise UsageError(f"{flag} {error}") from None
    _check_length(path, len(wave_S) / spec.rate, flag)
    if is_silent(wave_S, spec.rate):
        raise UsageError(f"{flag} {path}: is silent; give a recording of somebody speaking.")
    beside = path.with_suffix(".txt")
    if text is None and beside.is_file():
        text = read_text(str(beside))
    said = None if text is None else " ".join(piece.text for piece in passages(text, alphabet) if piece.text)
    return VoicePrompt(log_mel(spec, wave_S), said or None)


def _check_length(path: Path, seconds: float | None, flag: str) -> None:
    if seconds is not None and not SECONDS[0] <= seconds <= SECONDS[1]:
        length = f"{seconds:.2g} s" if seconds < 60 else f"{seconds / 60:.1f} min"
        raise UsageError(f"{flag} {path}: is {length} long; a voice is shown by {SECONDS[0]:g} to {SECONDS[1]:g} s, best by 3 to 10.")
