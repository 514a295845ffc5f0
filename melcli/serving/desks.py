"""The models that are served, by the names that clients call them by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from melcli.errors import UsageError
from melcli.models.hints import Hints
from melcli.serving.ears import Ears
from melcli.serving.faults import Fault, wrong
from melcli.serving.mouth import Mouth

if TYPE_CHECKING:
    from melcli.models.speaker import VoicePrompt

T = TypeVar("T")
OWN_VOICE = "default"
STOCK_VOICES = ("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse")
"""OpenAI's names, which clients send because they must send one: they stand for the model's own voice."""


@dataclass
class Desks:
    """ears, mouths: by name, the default first. voices: recordings to speak like, by mouth and name. since: seconds since 1970 at the start."""

    ears: dict[str, Ears] = field(default_factory=dict)
    mouths: dict[str, Mouth] = field(default_factory=dict)
    voices: dict[str, Mapping[str, VoicePrompt]] = field(default_factory=dict)
    since: int = 0

    def ear(self, name: object) -> Ears:
        """The recogniser of that name. Raises Fault."""
        return self._find(name, self.ears, self.mouths, "speaks and does not transcribe")

    def mouth(self, name: object) -> Mouth:
        """The voice of that name. Raises Fault."""
        return self._find(name, self.mouths, self.ears, "transcribes and does not speak")

    def voice(self, mouth: str, name: object) -> VoicePrompt | None:
        """The recording that a voice's name stands for; None for the model's own voice. Raises Fault."""
        if isinstance(name, Mapping):
            name = name.get("id")
        known = self.voices.get(mouth, {})
        if name is None or name == OWN_VOICE:
            return None
        if isinstance(name, str) and name in known:
            return known[name]
        if name in STOCK_VOICES:
            return None
        raise wrong("voice", f"There is no voice {str(name)[:80]!r}; there is: {', '.join((OWN_VOICE, *known))}.", "voice_not_found")

    def listed(self) -> list[dict[str, object]]:
        """The objects of /v1/models: OpenAI's fields, and what the page needs to know."""
        found = []
        for name, ears in self.ears.items():
            found.append(self._model(name) | {"task": "transcription", "word_times": _can_time_words(ears)})
        for name in self.mouths:
            found.append(self._model(name) | {"task": "speech", "voices": [OWN_VOICE, *self.voices.get(name, {})]})
        return found

    def _model(self, name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": self.since, "owned_by": "melcli"}

    @staticmethod
    def _find(name: object, here: Mapping[str, T], there: Mapping[str, object], does: str) -> T:
        if name is None:
            raise wrong("model", "The field model is missing.", "missing_required_parameter")
        if isinstance(name, str) and name in here:
            return here[name]
        if isinstance(name, str) and name in there:
            raise wrong("model", f"The model {name!r} {does}; those that do: {', '.join(here) or 'none'}.")
        message = f"The model {str(name)[:80]!r} does not exist; there is: {', '.join(here) or 'none'}."
        raise Fault(404, message, param="model", code="model_not_found")


def _can_time_words(ears: Ears) -> bool:
    try:
        ears.told(Hints(word_times=True))
    except UsageError:
        return False
    return True
