"""Packing: the tokens of many sequences as one row `[1, T]`, with what attention needs to tell them apart.

    feeds         A: 3 tokens after 10 cached      B: 1 token after 7 cached
    input_ids     [ a10 a11 a12 b7 ]               position_ids [ 10 11 12 7 ]
    write_slots   where each of the T tokens stores its K and V
    groups        feeds of like width, padded only for attention: queries [B, N], keys [B, L]
Shape suffixes: T tokens of the step, B feeds of a group, N queries a feed (padded), Q queries without padding,
L keys a feed (padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from common.engine.sequence import CachedSequence

_NARROW = 16
"""Feeds up to this wide share a group whatever their widths: padding costs less than another kernel call a layer."""


@dataclass(frozen=True, slots=True)
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


@dataclass(slots=True)
class Group:
    """Feeds whose attention is one kernel call."""

    queries_BN: Tensor
    """Index into the step's T tokens of each query; padding repeats the feed's last."""
    positions_BN: Tensor
    kv_slots_BL: Tensor
    """Slot of each key; padding repeats slot of the feed's first, and is masked."""
    real_Q: Tensor
    """Index into the B x N queries of those that are not padding."""
    rows_Q: Tensor
    """Index into the step's T tokens of the same queries."""
    _masks: dict[int | None, Tensor] = field(default_factory=dict)

    def mask(self, window: int | None) -> Tensor:
        """bool [B, 1, N, L]: a query sees keys up to its own position, the last `window` of them if given."""
        if window not in self._masks:
            keys_L = torch.arange(self.kv_slots_BL.shape[1], device=self.kv_slots_BL.device)
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


def pack(feeds: Sequence[Feed], device: torch.device, *, max_keys: int) -> PackedBatch:
    """Lay the feeds side by side; no group gathers more than `max_keys` keys, padding included."""
    tokens: list[int] = []
    positions: list[int] = []
    wanted: list[int] = []
    offsets: list[int] = []
    for feed in feeds:
        assert len(feed.tokens) <= feed.sequence.room, "a sequence is grown before it is run"
        offsets.append(len(tokens))
        tokens.extend(feed.tokens)
        positions.extend(range(feed.start, feed.end))
        wanted.extend(range(len(tokens) - feed.wanted, len(tokens)))
    return PackedBatch(
        input_ids=torch.tensor([tokens], device=device),
        position_ids=torch.tensor([positions], device=device),
        write_slots=torch.cat([f.sequence.slots[f.start : f.end] for f in feeds]),
        logit_rows=torch.tensor(wanted, dtype=torch.int64, device=device),
        groups=tuple(
            _group(members, device) for alike in _like_widths(feeds, offsets) for members in _bounded(alike, max_keys)
        ),
    )


def _like_widths(feeds: Sequence[Feed], offsets: Sequence[int]) -> list[list[tuple[Feed, int]]]:
    """Narrow feeds (verifications, single tokens) together; wide ones (prompts) with those less than twice as wide."""
    groups: dict[int, list[tuple[Feed, int]]] = {}
    for feed, offset in zip(feeds, offsets, strict=True):
        size = (max(len(feed.tokens), _NARROW) - 1).bit_length()
        groups.setdefault(size, []).append((feed, offset))
    return list(groups.values())


def _bounded(members: list[tuple[Feed, int]], max_keys: int) -> list[list[tuple[Feed, int]]]:
    """Split a group, longest sequences apart from short ones, so that no part gathers more than `max_keys` keys."""
    if len(members) * max(feed.end for feed, _ in members) <= max_keys:
        return [members]
    parts: list[list[tuple[Feed, int]]] = []
    for member in sorted(members, key=lambda member: -member[0].end):
        # The first of a part is its longest.
        if not parts or (len(parts[-1]) + 1) * parts[-1][0][0].end > max_keys:
            parts.append([])
        parts[-1].append(member)
    return parts


def _group(members: Sequence[tuple[Feed, int]], device: torch.device) -> Group:
    widths_B1 = torch.tensor([[len(feed.tokens)] for feed, _ in members])
    starts_B1 = torch.tensor([[feed.start] for feed, _ in members])
    offsets_B1 = torch.tensor([[offset] for _, offset in members])
    steps_N = torch.arange(int(widths_B1.max()))
    inside_BN = steps_N.minimum(widths_B1 - 1)
    length = int((starts_B1 + widths_B1).max())
    queries_BN = offsets_B1 + inside_BN
    real_BN = steps_N < widths_B1
    return Group(
        queries_BN=queries_BN.to(device),
        positions_BN=(starts_B1 + inside_BN).to(device),
        kv_slots_BL=torch.stack([_padded(feed.sequence.slots, length) for feed, _ in members]),
        real_Q=real_BN.flatten().nonzero().squeeze(1).to(device),
        rows_Q=queries_BN[real_BN].to(device),
    )


def _padded(slots: Tensor, length: int) -> Tensor:
    if len(slots) >= length:
        return slots[:length]
    return torch.cat([slots, slots[:1].expand(length - len(slots))])
