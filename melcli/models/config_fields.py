"""The types of what a SpeechLM's config.json says: transformers keeps whatever is there, and a word for a number would fail far from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from melcli.errors import CheckpointError


class Written(BaseModel):
    """The fields of SpeechLMConfig, each as it may stand in a file; those that are absent have its defaults."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    text_config: dict[str, Any] | None = None
    speech_input: dict[str, Any] | None = None
    mel: dict[str, Any] | None = None
    speech_attention: Literal["causal", "bidirectional"] = "causal"
    ctc_weight: float = Field(0.0, ge=0)
    ctc_alphabet: str | None = None
    ctc_rate: int = Field(1, ge=1, le=100)
    ctc_from: Literal["backbone", "speech-input"] = "backbone"
    ce_weight: float = Field(1.0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    prompt: str = ""
    prompts: dict[str, str] | None = None
    prompt_seconds: float = Field(3.0, gt=0)
    speech_token_id: NonNegativeInt = 0
    stop_token_ids: list[NonNegativeInt] | None = None
    end_token_ids: list[NonNegativeInt] | None = None
    pad_token_id: NonNegativeInt = 0
    max_seconds: float = Field(30.0, gt=0, le=86_400)
    lora: dict[str, Any] | None = None
    speech_output: dict[str, Any] | None = None
    speak_prompt: str = ""
    speak_temperature: float = Field(1.0, ge=0)
    spoken_token_id: NonNegativeInt | None = None
    spoken_pace: float = Field(0.0, ge=0)
    spoken_alphabet: str | None = None
    spoken_level: float | None = None
    spoken_lexicon: bool = False
    text_positions: Literal["plain", "spread"] = "plain"
    spoken_ctc_weight: float = Field(0.0, ge=0)


def check_fields(fields: Mapping[str, Any], where: str) -> None:
    """Raises CheckpointError, starting with `where`, for the first field of another type."""
    try:
        Written.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        given = "" if isinstance(first["input"], dict | list) else f", not {str(first['input'])[:60]!r}"
        raise CheckpointError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}{given}") from None
