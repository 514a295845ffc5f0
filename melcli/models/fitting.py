"""Batches that memory does not hold are done in halves, and those after them begin smaller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from melcli import console
from melcli.errors import UsageError, is_out_of_memory

Item = TypeVar("Item")
Result = TypeVar("Result")


class Fitting:
    """Does batches in as few parts as memory holds. what: that is in a batch, in words; remedy: what to do where not even one fits.

    most: the largest sum of sizes that is tried, None until a batch did not fit; said once.
    """

    def __init__(self, what: str, remedy: str = "try --dtype bfloat16, or --device cpu") -> None:
        self.what, self.remedy = what, remedy
        self.most: float | None = None

    def __call__(self, do: Callable[[list[Item]], list[Result]], items: Sequence[Item], sizes: Sequence[float]) -> list[Result]:
        """What `do` gives of the items, in their order. sizes: what each takes, in any unit that stays the same.

        Raises UsageError where memory does not hold one item alone.
        """
        items, size = list(items), sum(sizes)
        if len(items) == 1 or self.most is None or size <= self.most:
            try:
                return do(items)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(items) == 1:
                    raise UsageError(f"the memory is too small for this model: {self.remedy}") from None
            # outside of the `except`, where the error would keep what was computed alive
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if self.most is None:
                console.warn(f"the memory does not hold {len(items)} {self.what} at once; going on with fewer (--batch-size sets how many)")
            self.most = size / 2
        half = len(items) // 2
        return [*self(do, items[:half], sizes[:half]), *self(do, items[half:], sizes[half:])]
