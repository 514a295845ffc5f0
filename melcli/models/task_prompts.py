"""What a model reads before it writes or speaks, by task, and the special tokens of that."""

from __future__ import annotations

import re
from collections.abc import Callable

from melcli.data.tasks import ANSWER, ASKS, SPOKEN
from melcli.models import chat
from melcli.models.config import SPEAK_PROMPT, TEXT_MARK
from melcli.recipe import ModelSection, Recipe


def tokens_of(prompt: str) -> list[str]:
    """The special tokens that a prompt is written with."""
    return re.findall(r"<\|[^|]+\|>", prompt)


def task_prompts(recipe: Recipe, plain: str, talks: Callable[[], str], kept: dict[str, str] | None = None) -> dict[str, str]:
    """What precedes what is written, of each task of a recipe that has a prompt of its own, with what is read before speech that is said.

    plain: the model's prompt for transcripts, if it was never talked to. talks: the chat template around the instruction. kept: those of a model
    begun from.
    """
    section, found = recipe.model, dict(kept or {})
    for task in recipe.tasks:
        if task not in ASKS:
            continue
        prompt = section.prompts.get(task, found.get(task, "auto"))
        if prompt in ("auto", "chat"):
            prompt = talks() if prompt == "chat" else plain.replace(chat.TRANSCRIBE, ASKS[task])
        if section.speech_output is not None and TEXT_MARK not in prompt:
            prompt += TEXT_MARK + (section.speak_prompt or SPEAK_PROMPT).partition(TEXT_MARK)[2]
        found[task] = prompt
    return found


def prompt_tokens(prompts: dict[str, str]) -> list[str]:
    """The special tokens that the prompts of tasks, and what these write, are written with."""
    tokens = [token for prompt in prompts.values() for token in tokens_of(prompt) if token != TEXT_MARK]
    return [*dict.fromkeys([*tokens, *([ANSWER] if "answer" in prompts else [])])]


def speaking_tokens(section: ModelSection) -> list[str]:
    """The special tokens of speech that is said, where the model has a speech output."""
    return [] if section.speech_output is None else [SPOKEN, *tokens_of((section.speak_prompt or SPEAK_PROMPT).replace(TEXT_MARK, ""))]
