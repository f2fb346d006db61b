"""Packing: the tokens of many sequences as one row `[1, T]`, with what attention needs to tell them apart.

    spans         A: 3 tokens after 10 cached      B: 1 token after 7 cached
    input_ids     [ a10 a11 a12 b7 ]               position_ids [ 10 11 12 7 ]
    write_slots   where each of the T tokens stores its K and V
    groups        spans alike in width and length, padded only for attention: queries [B, N], keys [B, L]

The tokens lie in the order of the groups, so that a group's are a slice of the T.

Shape suffixes: T tokens of the step, B spans of a group, N queries a span (padded), Q queries without padding,
K blocks and L keys a span (padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from common.engine.cache import BLOCK_SIZE
from common.engine.sequence import CachedSequence, slots

_NARROW = 16
"""Spans up to this wide share a group whatever their widths: padding costs less than another kernel call a layer."""
_FEW_BLOCKS = 64
"""Spans with no more blocks than these in all, padding included, share a group whatever their lengths: likewise."""


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """Tokens to run for one sequence, right after those it has cached."""

    sequence: CachedSequence
    tokens: Sequence[int]
    wanted: int
    """How many of the last tokens' logits are wanted."""

    def span(self) -> Span:
        assert len(self.tokens) <= self.sequence.room, "a sequence is grown before it is run"
        start = self.sequence.length
        return Span(start, self.tokens, self.wanted, self.sequence.blocks_of(start + len(self.tokens)))


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """A feed in plain numbers: all that a forward pass must know of it."""

    start: int
    """Tokens of its sequence that are cached before it."""
    tokens: Sequence[int]
    wanted: int
    """As in `Feed`."""
    blocks: list[int]
    """Those that hold its keys, the cached ones included."""

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    @property
    def width(self) -> int:
        return len(self.tokens)


@dataclass(slots=True)
class Group:
    """Spans whose attention is one kernel call."""

    rows: slice
    """The group's tokens among the step's T."""
    positions_BN: Tensor
    blocks_BK: Tensor
    """The blocks that hold each span's keys; padding repeats its first, and is masked."""
    length: int
    """L: keys of the longest."""
    padded_BN: Tensor | None
    """Index into the group's tokens of each query, where a span's last is repeated; None if all are equally wide."""
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
    """Indices into T of the rows whose logits are wanted, span after span."""
    groups: tuple[Group, ...]


def pack(spans: Sequence[Span], device: torch.device, *, max_blocks: int) -> PackedBatch:
    """Lay the spans side by side; no group gathers more than `max_blocks` blocks of keys, padding included."""
    parts = [part for alike in _like_widths(spans) for part in _like_lengths(alike, max_blocks)]
    ordered = [span for part in parts for span in part]
    tokens_T, positions_T, slots_T = torch.tensor(
        [
            [token for span in ordered for token in span.tokens],
            [position for span in ordered for position in range(span.start, span.end)],
            [slot for span in ordered for slot in slots(span.blocks, span.start, span.end, BLOCK_SIZE)],
        ],
        device=device,
    )
    ends = dict(zip(ordered, accumulate(span.width for span in ordered), strict=True))
    wanted = [row for span in spans for row in range(ends[span] - span.wanted, ends[span])]
    return PackedBatch(
        input_ids=tokens_T.unsqueeze(0),
        position_ids=positions_T.unsqueeze(0),
        write_slots=slots_T,
        logit_rows=torch.tensor(wanted, dtype=torch.int64, device=device),
        groups=tuple(_group(part, slice(ends[part[0]] - part[0].width, ends[part[-1]]), positions_T) for part in parts),
    )


def _like_widths(spans: Sequence[Span]) -> list[list[Span]]:
    """Narrow spans (verifications, single tokens) together; wide ones (prompts) with those less than twice as wide."""
    groups: dict[int, list[Span]] = {}
    for span in spans:
        groups.setdefault((max(span.width, _NARROW) - 1).bit_length(), []).append(span)
    return list(groups.values())


def _like_lengths(spans: Sequence[Span], max_blocks: int) -> list[list[Span]]:
    """Long sequences apart from short ones, where padding would more than double the blocks to gather."""
    parts: list[list[Span]] = []
    longest = real = 0
    for span in sorted(spans, key=lambda span: span.end, reverse=True):
        num_blocks = len(span.blocks)
        real += num_blocks
        padded = (len(parts[-1]) + 1) * longest if parts else 0
        if not parts or padded > min(max_blocks, max(_FEW_BLOCKS, 2 * real)):
            parts.append([])
            longest = real = num_blocks
        parts[-1].append(span)
    return parts


def _group(spans: Sequence[Span], rows: slice, positions_T: Tensor) -> Group:
    blocks, device = [span.blocks for span in spans], positions_T.device
    most = max(map(len, blocks))
    padded_BN, real_Q = _padding([span.width for span in spans], device)
    positions_Q = positions_T[rows]
    return Group(
        rows=rows,
        positions_BN=positions_Q.view(len(spans), -1) if padded_BN is None else positions_Q[padded_BN],
        blocks_BK=torch.tensor([each + each[:1] * (most - len(each)) for each in blocks], device=device),
        length=max(span.end for span in spans),
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
