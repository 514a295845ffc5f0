"""A key-value cache that grows in place.

transformers' dynamic cache copies everything it holds at every step; this one writes into room reserved beforehand.
Shapes: B rows, H heads, S positions held, Q new positions, E width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

MOST_ROOM = 32  # steps reserved for at a time: a copy every so many costs nothing, and few rows need all that they may have


class RoomyLayer(DynamicLayer):
    """One layer's keys and values [B, H, S, E], views into buffers with room for up to `reserve` further steps."""

    def __init__(self, reserve: int) -> None:
        super().__init__()
        self.reserve = min(reserve, MOST_ROOM)
        self._buffers: tuple[Tensor, Tensor] | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._buffers = None

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        end = held + key_states.shape[-2]
        if self._buffers is None or self._buffers[0].shape[-2] < end or self._buffers[0].shape[0] != key_states.shape[0]:
            step = key_states.shape[-2] if held else 1
            self._make_room(key_states, value_states, held, end + step * self.reserve)
        keys, values = self._buffers
        keys[:, :, held:end] = key_states
        values[:, :, held:end] = value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def _make_room(self, key_states: Tensor, value_states: Tensor, held: int, room: int) -> None:
        fresh = []
        for old, new in ((self.keys, key_states), (self.values, value_states)):
            buffer = new.new_empty(*new.shape[:2], room, new.shape[-1])
            if held:
                buffer[:, :, :held] = old
            fresh.append(buffer)
        self._buffers = (fresh[0], fresh[1])

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may come several times."""
        if held := self.get_seq_length():
            self._buffers = tuple(_chosen(buffer, rows, held) for buffer in self._buffers)  # type: ignore[assignment]
            self.keys, self.values = (buffer[:, :, :held] for buffer in self._buffers)

    def keep(self, places_BS: Tensor) -> None:
        """Keep these of the positions, each row its own, in this order."""
        row_B1 = torch.arange(len(places_BS), device=places_BS.device)[:, None]
        self.keys, self.values = (held.transpose(1, 2)[row_B1, places_BS].transpose(1, 2) for held in (self.keys, self.values))
        self._buffers = (self.keys, self.values)

    batch_select_indices = select
    reorder_cache = select

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.get_seq_length():
            self.select(torch.arange(len(self.keys), device=self.keys.device).repeat_interleave(repeats))


def _chosen(buffer: Tensor, rows: Tensor, held: int) -> Tensor:
    """These rows of a buffer; its free room stays untouched, and so costs no memory."""
    fresh = buffer.new_empty(len(rows), *buffer.shape[1:])
    fresh[:, :, :held] = buffer[rows, :, :held]
    return fresh


def roomy_cache(layers: int, reserve: int) -> Cache:
    """A cache for a backbone of so many attention layers, all of which keep everything: our masks hide what lies before a layer's window."""
    return Cache(layers=[RoomyLayer(reserve) for _ in range(layers)])
