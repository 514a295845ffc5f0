"""What a user may ask of a recogniser beside the text, and tell it beforehand."""

from __future__ import annotations

from dataclasses import dataclass

from melcli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Hints:
    """word_times: when each word is said. prompt: an instruction for models whose prompt takes one. hotwords: words or phrases that are likely."""

    word_times: bool = False
    prompt: str | None = None
    hotwords: tuple[str, ...] = ()

    def refuse(self, what: str, *, word_times: str = "", prompt: str = "", hotwords: str = "") -> None:
        """Raise UsageError for what was asked of a model that cannot do it: `what` it is, and for each hint why not ("" where it can)."""
        if self.word_times and word_times:
            raise UsageError(f"--timestamps word: {what} {word_times}")
        if self.prompt is not None and prompt:
            raise UsageError(f"--prompt: {what} {prompt}")
        if self.hotwords and hotwords:
            raise UsageError(f"--hotwords: {what} {hotwords}")


NONE = Hints()
