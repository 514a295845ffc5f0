"""Configurations of transformers that a recipe writes down: a model_type and its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig

from melcli.errors import ConfigError, nearest
from melcli.models.extent import check_extent

ROTARY = ("rope_theta", "rope_scaling", "partial_rotary_factor", "rotary_pct")  # kept under rope_parameters, and taken beside it


def check_fields(fields: Mapping[str, Any], key: str) -> None:
    """Raises ConfigError for a field that this model_type has not: transformers would keep it, and nothing would read it. key: where they stand."""
    kind = fields["model_type"]
    config = AutoConfig.for_model(kind)
    known = {*config.to_dict(), *config.attribute_map}
    known |= set(ROTARY) if "rope_parameters" in known else set()
    check_extent(fields, key, ConfigError)
    for field in fields:
        if field not in known:
            raise ConfigError(f"{key}.{field} is unknown for {kind}.{nearest(field, known)}")
