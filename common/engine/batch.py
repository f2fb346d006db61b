"""Packing: the tokens of many sequences as one row `[1, T]`, with what attention needs to tell them apart.

    feeds         A: 3 tokens after 10 cached      B: 1 token after 7 cached
    input_ids     [ a10 a11 a12 b7 ]               position_ids [ 10 11 12 7 ]
    write_slots   where each of the T tokens stores its K and V
    groups        feeds alike in width and length, padded only for attention: queries [B, N], keys [B, L]

The tokens lie in the order of the groups, so that a group's are a slice of the T.

Shape suffixes: T tokens of the step, B feeds of a group, N queries a feed (padded), Q queries without padding,
K blocks and L keys a feed (padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from common.engine.sequence import CachedSequence

_NARROW = 16
"""Feeds up to this wide share a group whatever their widths: padding costs less than another kernel call a layer."""
_FEW_BLOCKS = 64
"""Feeds with no more blocks than these in all, padding included, share a group whatever their lengths: likewise."""


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """Tokens to run for one sequence, right after those it has cached."""

    sequence: CachedSequence
    tokens: Sequence[int]
    wanted: int
    """How many of the last tokens' logits are wanted."""

    @property
    def start(self) -> int:
        return self.sequence.length

    @property
    def end(self) -> int:
        return self.sequence.length + len(self.tokens)

    @property
    def width(self) -> int:
        return len(self.tokens)

    @property
    def blocks(self) -> list[int]:
        """Those that hold its keys."""
        return self.sequence.blocks_of(self.end)


@dataclass(slots=True)
class Group:
    """Feeds whose attention is one kernel call."""

    rows: slice
    """The group's tokens among the step's T."""
    positions_BN: Tensor
    blocks_BK: Tensor
    """The blocks that hold each feed's keys; padding repeats its first, and is masked."""
    length: int
    """L: keys of the longest."""
    padded_BN: Tensor | None
    """Index into the group's tokens of each query, where a feed's last is repeated; None if all are equally wide."""
    real_Q: Tensor | None
    """Index into the B x N queries of those that are not padding."""
    _masks: dict[int | None, Tensor] = field(default_factory=dict)

    def queries(self, query_THD: Tensor) -> Tensor:
        """[B, N, heads, head_dim]"""
        query_QHD = query_THD[self.rows]
        if self.padded_BN is None:
            return query_QHD.unflatten(0, self.positions_BN.shape)
        return query_QHD[self.padded_BN]

    def unpadded(self, output_BNHD: Tensor) -> Tensor:
        """[Q, heads, head_dim], in the order of the group's tokens."""
        output_QHD = output_BNHD.flatten(0, 1)
        return output_QHD if self.real_Q is None else output_QHD.index_select(0, self.real_Q)

    def mask(self, window: int | None) -> Tensor:
        """bool [B, 1, N, L]: a query sees keys up to its own position, the last `window` of them if given."""
        if window not in self._masks:
            keys_L = torch.arange(self.length, device=self.positions_BN.device)
            positions_BN1 = self.positions_BN.unsqueeze(-1)
            seen = keys_L <= positions_BN1
            if window is not None:
                seen &= keys_L > positions_BN1 - window
            self._masks[window] = seen.unsqueeze(1)
        return self._masks[window]


@dataclass(frozen=True, slots=True)
class PackedBatch:
    input_ids: Tensor
    """[1, T]"""
    position_ids: Tensor
    """[1, T]"""
    write_slots: Tensor
    """[T]"""
    logit_rows: Tensor
    """Indices into T of the rows whose logits are wanted, feed after feed."""
    groups: tuple[Group, ...]


def pack(feeds: Sequence[Feed], device: torch.device, *, max_blocks: int) -> PackedBatch:
    """Lay the feeds side by side; no group gathers more than `max_blocks` blocks of keys, padding included."""
    assert all(feed.width <= feed.sequence.room for feed in feeds), "a sequence is grown before it is run"
    parts = [part for alike in _like_widths(feeds) for part in _like_lengths(alike, max_blocks)]
    ordered = [feed for part in parts for feed in part]
    tokens_T, positions_T, slots_T = torch.tensor(
        [
            [token for feed in ordered for token in feed.tokens],
            [position for feed in ordered for position in range(feed.start, feed.end)],
            [slot for feed in ordered for slot in feed.sequence.slots(feed.start, feed.end)],
        ],
        device=device,
    )
    ends = dict(zip(ordered, accumulate(feed.width for feed in ordered), strict=True))
    wanted = [row for feed in feeds for row in range(ends[feed] - feed.wanted, ends[feed])]
    return PackedBatch(
        input_ids=tokens_T.unsqueeze(0),
        position_ids=positions_T.unsqueeze(0),
        write_slots=slots_T,
        logit_rows=torch.tensor(wanted, dtype=torch.int64, device=device),
        groups=tuple(_group(part, slice(ends[part[0]] - part[0].width, ends[part[-1]]), positions_T) for part in parts),
    )


def _like_widths(feeds: Sequence[Feed]) -> list[list[Feed]]:
    """Narrow feeds (verifications, single tokens) together; wide ones (prompts) with those less than twice as wide."""
    groups: dict[int, list[Feed]] = {}
    for feed in feeds:
        groups.setdefault((max(feed.width, _NARROW) - 1).bit_length(), []).append(feed)
    return list(groups.values())


def _like_lengths(feeds: Sequence[Feed], max_blocks: int) -> list[list[Feed]]:
    """Long sequences apart from short ones, where padding would more than double the blocks to gather."""
    parts: list[list[Feed]] = []
    longest = real = 0
    for feed in sorted(feeds, key=lambda feed: feed.end, reverse=True):
        num_blocks = len(feed.blocks)
        real += num_blocks
        padded = (len(parts[-1]) + 1) * longest if parts else 0
        if not parts or padded > min(max_blocks, max(_FEW_BLOCKS, 2 * real)):
            parts.append([])
            longest = real = num_blocks
        parts[-1].append(feed)
    return parts


def _group(feeds: Sequence[Feed], rows: slice, positions_T: Tensor) -> Group:
    blocks, device = [feed.blocks for feed in feeds], positions_T.device
    most = max(map(len, blocks))
    padded_BN, real_Q = _padding([feed.width for feed in feeds], device)
    positions_Q = positions_T[rows]
    return Group(
        rows=rows,
        positions_BN=positions_Q.view(len(feeds), -1) if padded_BN is None else positions_Q[padded_BN],
        blocks_BK=torch.tensor([each + each[:1] * (most - len(each)) for each in blocks], device=device),
        length=max(feed.end for feed in feeds),
        padded_BN=padded_BN,
        real_Q=real_Q,
    )


def _padding(widths: Sequence[int], device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """`Group.padded_BN` and `Group.real_Q`."""
    widest = max(widths)
    if min(widths) == widest:
        return None, None
    firsts = accumulate(widths, initial=0)
    padded = [[first + min(i, width - 1) for i in range(widest)] for first, width in zip(firsts, widths, strict=False)]
    real = [b * widest + i for b, width in enumerate(widths) for i in range(width)]
    return torch.tensor(padded, device=device), torch.tensor(real, device=device)
