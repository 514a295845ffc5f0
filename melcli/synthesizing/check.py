"""What a recogniser hears in speech that was made, beside the text it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from melcli.data.text import speakable, transcript
from melcli.data.utterance import Utterance
from melcli.errors import AudioError
from melcli.inputs import AudioInput
from melcli.scoring.wer import ErrorCounts, score_pair
from melcli.transcribe import Transcriber


@dataclass(frozen=True, slots=True)
class Heard:
    """text: what the recogniser wrote, as words; errors: against the text, as words too."""

    path: Path
    text: str
    errors: ErrorCounts


def listen(transcriber: Transcriber, spoken: Sequence[tuple[Path, str]]) -> list[Heard]:
    """What is heard in each (audio file, text), in this order.

    Both sides are put in words, lower case, without punctuation, so that "5" and "five" agree. Raises AudioError where a file cannot be read.
    """
    items = [AudioInput(str(number), Utterance(id=str(number), audio=(str(path),))) for number, (path, _) in enumerate(spoken)]
    found = {}
    for one in transcriber.transcribe(items):
        if one.error is not None:
            raise AudioError(one.error)
        found[int(one.name)] = transcript(speakable(one.text))
    return [Heard(path, found[number], score_pair(transcript(speakable(text)), found[number])) for number, (path, text) in enumerate(spoken)]


def verdict(heard: Sequence[Heard]) -> str:
    """The word error rate over all of them, in one line."""
    total = sum((one.errors for one in heard), ErrorCounts())
    wrong = total.sub + total.del_ + total.ins
    return f"WER {total.wer:.2f} % ({wrong} of {total.words} words)" if total.wer is not None else "WER unknown: the text has no words"
