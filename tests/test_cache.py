"""The cache: blocks are never leaked or lent twice, and what a sequence reads is its own text, whoever wrote it."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from common.engine.cache import BlockPool, CacheIntegrityError
from common.engine.sequence import CachedSequence, slots

SIZE = 4

texts = st.lists(st.integers(0, 1), min_size=1, max_size=24)
"""Few tokens, so that texts often begin alike."""


def sequence_in(pool: BlockPool, tokens: list[int]) -> CachedSequence:
    """One that has run all of `tokens`, and registered them."""
    sequence = CachedSequence(pool)
    assert sequence.grow(len(tokens))
    sequence.cached += tokens
    sequence.register(len(tokens))
    return sequence


def adopted(pool: BlockPool, tokens: list[int]) -> int:
    sequence = CachedSequence(pool)
    gained = sequence.adopt(tokens)
    sequence.release()
    return gained


@dataclass(eq=False)
class _Text:
    sequence: CachedSequence
    tokens: list[int]
    """What is to be run next begins with what is cached."""
    cached: list[int]
    """What the sequence must hold, as it was told."""


class Cache(RuleBasedStateMachine):
    """A slot's "keys and values" are modelled as the whole text up to its token: that is what they depend on."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(10 * SIZE, SIZE)
        self.written: dict[int, tuple[int, ...]] = {}
        self.texts: list[_Text] = []

    @rule(target=running, tokens=texts)
    def begin(self, tokens: list[int]) -> _Text:
        sequence = CachedSequence(self.pool)
        gained = sequence.adopt(tokens)
        assert gained == sequence.length < len(tokens)
        self.texts.append(_Text(sequence, tokens, tokens[:gained]))
        return self.texts[-1]

    @rule(text=running, num_tokens=st.integers(1, 8))
    def run(self, text: _Text, num_tokens: int) -> None:
        start = text.sequence.length
        tokens = text.tokens[start : start + num_tokens]
        needed = self.pool.blocks_for(start + len(tokens)) - len(text.sequence.blocks)
        fits = needed <= self.pool.available_blocks
        assert text.sequence.grow(len(tokens)) == fits
        if fits:
            for position, slot in enumerate(slots(text.sequence.blocks, start, start + len(tokens), SIZE), start):
                self.written[slot] = tuple(text.tokens[: position + 1])
            text.sequence.cached += tokens
            text.cached = text.tokens[: start + len(tokens)]

    @rule(text=running, length=st.integers(0, 24))
    def register(self, text: _Text, length: int) -> None:
        text.sequence.register(length)
        known = min(length, len(text.cached)) // SIZE * SIZE
        assert adopted(self.pool, [*text.cached[:known], 0]) >= known

    @rule(text=running)
    def adopt(self, text: _Text) -> None:
        gained = text.sequence.adopt(text.tokens)
        text.cached = text.tokens[: len(text.cached) + gained]

    @rule(text=running, length=st.integers(0, 24))
    def roll_back(self, text: _Text, length: int) -> None:
        before = len(text.cached)
        text.sequence.rollback(length)
        kept = text.sequence.length
        assert min(length, before) - SIZE < kept <= min(length, before)
        text.cached = text.cached[:kept]

    @rule(text=running, tokens=texts)
    def go_on_otherwise(self, text: _Text, tokens: list[int]) -> None:
        text.tokens = tokens
        text.sequence.keep_common_prefix(tokens, agreed=0)
        text.cached = tokens[: text.sequence.length]
        assert text.sequence.length < len(tokens)

    @rule(target=running, text=running, tokens=texts)
    def fork(self, text: _Text, tokens: list[int]) -> _Text:
        fork = text.sequence.fork()
        assert len(fork.blocks) * SIZE == fork.length <= len(text.cached)
        self.texts.append(_Text(fork, [*fork.cached, *tokens], text.cached[: fork.length]))
        return self.texts[-1]

    @rule(text=consumes(running))
    def end(self, text: _Text) -> None:
        self.texts.remove(text)
        text.sequence.release()

    @invariant()
    def every_block_is_accounted_for(self) -> None:
        self.pool.check_integrity(Counter(block for text in self.texts for block in text.sequence.blocks))

    @invariant()
    def every_sequence_reads_its_own_text(self) -> None:
        for text in self.texts:
            assert text.sequence.cached == text.cached
            for position, slot in enumerate(slots(text.sequence.blocks, 0, text.sequence.length, SIZE)):
                assert self.written[slot] == tuple(text.cached[: position + 1])

    def teardown(self) -> None:
        for text in self.texts:
            text.sequence.release()
        self.pool.check_integrity({})


TestCache = Cache.TestCase
TestCache.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(
    cached=st.lists(st.integers(0, 2), max_size=8),
    tokens=st.lists(st.integers(0, 2), min_size=1, max_size=8),
    known=st.integers(0, 8),
)
def test_only_the_common_prefix_is_kept_and_never_the_last_token(
    cached: list[int], tokens: list[int], known: int
) -> None:
    common = sum(itertools.takewhile(bool, (int(a == b) for a, b in zip(cached, tokens, strict=False))))
    sequence = CachedSequence(BlockPool(16))
    assert sequence.grow(len(cached))
    sequence.cached += cached
    sequence.keep_common_prefix(tokens, agreed=min(known, common))
    kept = sequence.length
    assert sequence.cached == tokens[:kept] == cached[:kept] and kept < len(tokens)
    assert kept == len(tokens) - 1 or kept == len(cached) or cached[kept] != tokens[kept]


def test_a_registered_text_is_shared_block_by_block_while_held_and_after() -> None:
    pool = BlockPool(16 * SIZE, SIZE)
    first = sequence_in(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    second = CachedSequence(pool)
    assert second.adopt([1, 2, 3, 4, 5, 6, 7, 8]) == 4, "the last token is to be run"
    assert second.adopt([1, 2, 3, 4, 5, 6, 7, 8, 9]) == 4
    assert second.blocks == first.blocks[:2]
    first.release()
    second.release()
    assert (pool.held_blocks, pool.cached_blocks, pool.free_blocks) == (0, 2, 14)
    assert adopted(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]) == 8
    assert adopted(pool, [1, 2, 3, 4, 5, 6, 7, 7, 9, 9]) == 4


def test_two_that_ran_the_same_text_share_it_once_it_is_registered() -> None:
    pool = BlockPool(16 * SIZE, SIZE)
    both = [sequence_in(pool, [1] * 9), sequence_in(pool, [1] * 9)]
    assert both[0].blocks[:2] == both[1].blocks[:2] and both[0].blocks[2] != both[1].blocks[2]
    assert pool.held_blocks == 4
    assert slots(both[0].blocks, 0, 8, SIZE) == slots(both[1].blocks, 0, 8, SIZE)


def test_texts_whose_hashes_collide_are_not_taken_for_each_other() -> None:
    assert hash((-1,) * SIZE) == hash((-2,) * SIZE)
    pool = BlockPool(16 * SIZE, SIZE)
    sequence_in(pool, [-1] * 8).release()
    assert adopted(pool, [-2] * 9) == 0
    assert adopted(pool, [-1] * 9) == 8


def test_the_end_of_the_text_that_was_longest_unused_is_evicted_first() -> None:
    pool = BlockPool(6 * SIZE, SIZE)
    for token in (1, 2):
        sequence_in(pool, [token] * 12).release()
    assert adopted(pool, [1] * 13) == 12  # used again
    for evicted, left in ((1, {1: 3, 2: 2}), (2, {1: 3, 2: 0}), (1, {1: 2, 2: 0})):
        assert pool.take(evicted) is not None
        assert {token: len(list(pool.root.longest([token] * 12, 0, 12, SIZE))) for token in left} == left


def test_a_registered_block_is_not_rewritten_but_run_anew_elsewhere() -> None:
    pool = BlockPool(16 * SIZE, SIZE)
    sequence = sequence_in(pool, [1] * 8)
    registered = list(sequence.blocks)
    sequence.rollback(6)
    assert sequence.length == 4
    assert sequence.grow(2)
    assert sequence.blocks[0] == registered[0] and sequence.blocks[1] != registered[1]
    assert adopted(pool, [1] * 9) == 8


def test_growth_is_refused_whole_and_leaves_the_spare_blocks() -> None:
    pool = BlockPool(4 * SIZE, SIZE)
    sequence = CachedSequence(pool)
    assert not sequence.grow(2 * SIZE, spare=3)
    assert sequence.blocks == [] and sequence.room == 0
    assert sequence.grow(2 * SIZE, spare=2) and sequence.room == 2 * SIZE
    assert not sequence.grow(5 * SIZE)
    assert pool.available_blocks == 2


def test_a_leak_is_seen() -> None:
    pool = BlockPool(4 * SIZE, SIZE)
    assert pool.take(1) is not None
    with pytest.raises(CacheIntegrityError):
        pool.check_integrity({})


def test_releasing_twice_is_seen() -> None:
    pool = BlockPool(4 * SIZE, SIZE)
    blocks = pool.take(2)
    assert blocks is not None
    pool.release(blocks)
    with pytest.raises(CacheIntegrityError):
        pool.release(blocks)


def test_sharing_a_block_that_may_be_written_is_seen() -> None:
    pool = BlockPool(4 * SIZE, SIZE)
    blocks = pool.take(1)
    assert blocks is not None
    pool._holders[blocks[0]] = 2
    with pytest.raises(CacheIntegrityError, match="shared"):
        pool.check_integrity({blocks[0]: 2})


def test_a_text_cut_off_from_its_beginning_is_seen() -> None:
    pool = BlockPool(4 * SIZE, SIZE)
    sequence = sequence_in(pool, [1] * 8)
    pool.root.children.clear()
    with pytest.raises(CacheIntegrityError, match="cut off"):
        pool.check_integrity(Counter(sequence.blocks))


def test_a_budget_below_one_block_is_refused() -> None:
    with pytest.raises(ValueError, match="kv_tokens"):
        BlockPool(SIZE - 1, SIZE)


def test_what_is_known_to_agree_may_be_more_than_is_cached() -> None:
    sequence = CachedSequence(BlockPool(256))
    tokens = list(range(150))
    assert sequence.grow(100)
    sequence.cached.extend(tokens[:100])
    sequence.keep_common_prefix(tokens, agreed=120)
    assert sequence.cached == tokens[:100]
