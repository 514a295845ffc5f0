"""Hypotheses that share a prompt, as branches of its one row: what they have in common is held and read once, and no cache is reordered.

Each new token of a branch takes a place of its own in the row, and sees the prompt and its own ancestors among the tokens (tree attention, Miao et
al. 2023, arXiv 2305.09781). Now and then the places of branches that ended are dropped.
Shapes: U prompts, N branches of all, W most branches of a prompt, S places of tokens in a row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from melcli.models.cache import MOST_ROOM
from melcli.models.decoding.rows import Rows


class Tree:
    """Branches of prompts that were read, at first one each, of no tokens. All grow by a token at a time."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.row_of = list(range(len(rows.next_B)))
        self.ancestors_NS = torch.zeros(len(self.row_of), 0, dtype=torch.bool, device=rows.next_B.device)
        self.depth_US = torch.zeros(len(self.row_of), 0, dtype=torch.long, device=rows.next_B.device)
        self.depth = 0

    def grow(self, parents: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Logits [N, V] after new branches: of each the number of the branch it goes on from, and its token. Those of a prompt stand together; those
        that nothing goes on from end, and prompts without any leave."""
        rows, device = self.rows, self.depth_US.device
        owners = [self.row_of[parent] for parent in parents]
        kept = sorted(set(owners))
        if len(kept) < len(rows.next_B):
            rows.select(torch.tensor(kept, device=device))
            self.depth_US = self.depth_US[kept]
        row_of = [kept.index(owner) for owner in owners]
        slot_of = [i - row_of.index(row) for i, row in enumerate(row_of)]
        width = max(slot_of) + 1
        row_N, slot_N = torch.tensor(row_of, device=device), torch.tensor(slot_of, device=device)
        block_UW = torch.zeros(len(kept), width, dtype=torch.long, device=device)  # a row of fewer branches has places that nobody looks at
        block_UW[row_N, slot_N] = torch.tensor(tokens, device=device)
        ancestors_NS = self.ancestors_NS[torch.tensor(parents, device=device)]
        if self.depth and self.depth % MOST_ROOM == 0:  # the cache's room is used up, and what it holds is copied anyway
            ancestors_NS = self._prune(ancestors_NS, row_N)
        seen_UWS = ancestors_NS.new_zeros(len(kept), width, ancestors_NS.shape[1])
        seen_UWS[row_N, slot_N] = ancestors_NS
        itself_WW = torch.eye(width, dtype=torch.bool, device=device)
        at_U1 = rows.next_B[:, None]
        at_UW = (at_U1 + self.depth).expand(-1, width)
        among_UWS = torch.cat([seen_UWS, itself_WW.expand(len(kept), -1, -1)], -1)
        logits_UWV = rows.read(block_UW, among_UWS, at_UW, torch.cat([at_U1 + self.depth_US, at_UW], 1))
        self.row_of = row_of
        self.ancestors_NS = torch.cat([ancestors_NS, itself_WW[slot_N]], 1)
        self.depth_US = torch.cat([self.depth_US, self.depth_US.new_full((len(kept), width), self.depth)], 1)
        self.depth += 1
        return logits_UWV[row_N, slot_N]

    def _prune(self, ancestors_NS: Tensor, row_N: Tensor) -> Tensor:
        """Drop the places that no branch looks at; which it looks at of those left. Rows with fewer of them than others keep some in vain."""
        used_US = torch.zeros_like(self.depth_US).index_add_(0, row_N, ancestors_NS.long()) > 0
        places_US = (~used_US).long().argsort(dim=1, stable=True)[:, : int(used_US.sum(1).amax())]
        self.rows.keep(places_US)
        self.depth_US = self.depth_US.gather(1, places_US)
        return ancestors_NS.gather(1, places_US[row_N])
