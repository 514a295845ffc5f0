"""How a language model of transformers wants to be asked and how it stops: its chat template, and the tokens it ends with."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from melcli.errors import CheckpointError, ConfigError, first_line
from melcli.models.config import SPEECH_TOKEN
from melcli.untrusted import parse_json

TRANSCRIBE = "<|transcribe|>"
PLAIN = f"{SPEECH_TOKEN}{TRANSCRIBE}"
ANSWER = "melcli"
TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
DATE = datetime(2024, 7, 26)  # for templates that write today's: with that, a training resumed tomorrow would be another one


def has_template(tokenizer: Any) -> bool:
    """Whether a tokenizer knows how its model is talked to."""
    return bool(tokenizer.chat_template)


def chat_prompt(tokenizer: Any, instruction: str, name: str) -> str:
    """The chat template around <|speech|> and an instruction, up to where the model answers. Raises ConfigError.

    A model that can think aloud first is told not to (`enable_thinking`).
    """
    if not has_template(tokenizer):
        raise ConfigError(f"model.prompt chat: {name} has no chat template; write the prompt out, with <|speech|> where the audio goes")
    text = _rendered(tokenizer, [{"role": "user", "content": f"{SPEECH_TOKEN}{instruction}"}], name, add_generation_prompt=True)
    if text.count(SPEECH_TOKEN) != 1:
        raise ConfigError(f"model.prompt chat: the chat template of {name} does not keep <|speech|>; write the prompt out")
    return text


def _rendered(tokenizer: Any, messages: list[dict[str, str]], name: str, **options: Any) -> str:
    try:
        template = TODAY.sub(lambda call: repr(DATE.strftime(call[2])), tokenizer.get_chat_template())
        return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, enable_thinking=False, **options)
    except Exception as error:  # a template is a program of the checkpoint's
        reason = first_line(error)
        raise ConfigError(f"model.prompt chat: the chat template of {name} cannot be used ({reason}); write the prompt out") from None


def instructed(prompt: str, tokenizer: Any, instruction: str, name: str) -> str | None:
    """A model's prompt with another instruction in the place of its own; None for a prompt that holds none."""
    before, _, after = prompt.partition(SPEECH_TOKEN)
    marks = [at for token in {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()} if (at := after.find(token)) >= 0]
    own = after[: min(marks, default=0)]
    if not own.strip():
        return None
    if has_template(tokenizer):
        asked = chat_prompt(tokenizer, instruction, name)
        if asked.startswith(before + SPEECH_TOKEN):
            return asked
    return f"{before}{SPEECH_TOKEN}{instruction}{after[len(own) :]}"


def plain_prompt(tokenizer: Any) -> str:
    """The prompt for a model that was never talked to; with the token that texts begin with, where its tokenizer puts one."""
    first = tokenizer("")["input_ids"][:1]
    return f"{tokenizer.bos_token}{PLAIN}" if first and first == [tokenizer.bos_token_id] else PLAIN


def stop_ids(tokenizer: Any, folder: Path, config: PretrainedConfig, chat: bool, name: str) -> list[int]:
    """The tokens that end an answer, that to be learnt first: what closes the assistant's turn, else generation_config's or config's own."""
    found = [*_ids(_generation_fields(folder).get("eos_token_id")), *_ids(getattr(config, "eos_token_id", None)), *_ids(tokenizer.eos_token_id)]
    if chat:
        turn = [{"role": "user", "content": "?"}, {"role": "assistant", "content": ANSWER}]
        after = tokenizer(_rendered(tokenizer, turn, name).rpartition(ANSWER)[2], add_special_tokens=False)["input_ids"]
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} | set(found)
        found = [*[i for i in after if i in special][:1], *found]
    known = _within(tokenizer)
    return [i for i in dict.fromkeys(found) if known(i)]


def _ids(value: Any) -> list[int]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _within(tokenizer: Any) -> Callable[[int], bool]:
    there = set(tokenizer.get_vocab().values())
    return lambda i: i in there


def _generation_fields(folder: Path) -> dict[str, Any]:
    path = folder / "generation_config.json"
    if not path.exists():
        return {}
    try:
        return dict(parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from None
