"""One rank of models that are divided among two processes; `test_ranks.py` starts both and tells them what to do.

Lines on standard input: at first, for rank 1, the port of rank 0; then the folder of a model, which becomes the current
one; for rank 0 also `write`, which is answered by a line of JSON: the texts that the current model writes, at
temperature 0 without drafts and with them, then at 1, and how many were preempted.
"""

from __future__ import annotations

import json
import sys

import tiny
import torch

from common.engine import ranks
from common.engine.decoding import Decoder
from common.engine.engine import Engine
from common.engine.runner import ModelRunner
from common.engine.verification import Verification
from common.models import load_model

HOST = "127.0.0.1"
RANKS = 2
KV_TOKENS = 112
"""Too few for all texts at once: some are preempted, and blocks are lent anew."""
TEXTS = 6
MAX_TOKENS = 24


class Writer:
    """Rank 0 of one model."""

    def __init__(self, folder: str) -> None:
        model = ranks.load_part(folder, ranks=RANKS, dtype="float64")
        runner = ModelRunner(model, kv_tokens=KV_TOKENS, tell=ranks.tell)
        self.target = Engine(runner, Verification(), prefill_chunk=8)
        self.drafter = tiny.drafter(tiny.perturbed(load_model(folder, dtype="float64"), 0.05))

    def texts(self, temperature: float, *, speculative: bool) -> list[tuple[int, ...]]:
        decoder = Decoder(self.target, self.drafter if speculative else None, draft_length=4, concurrency=TEXTS)
        written = decoder.generate(tiny.requests(TEXTS, temperature=temperature, max_tokens=MAX_TOKENS))
        self.target.check_integrity()
        if speculative:
            assert sum(each.stats.accepted_tokens for each in written), "nothing that was drafted was right"
        return [each.output for each in written]


def answer(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def lead() -> None:
    store = ranks.invite(HOST)
    answer(store.port)
    ranks.join(store, rank=0, ranks=RANKS, gpu=False)
    writer: Writer | None = None
    for line in map(str.strip, sys.stdin):
        if line != "write":
            if writer is not None:
                ranks.tell([])
            writer = Writer(line)
            continue
        assert writer is not None
        ways = [(temperature, speculative) for temperature in (0.0, 1.0) for speculative in (False, True)]
        answer([[writer.texts(t, speculative=s) for t, s in ways], writer.target.memory.preemptions])
    if writer is not None:
        ranks.tell([])


def follow() -> None:
    store = ranks.reach(HOST, int(sys.stdin.readline()))
    ranks.join(store, rank=1, ranks=RANKS, gpu=False)
    for folder in map(str.strip, sys.stdin):
        ranks.follow(ranks.load_part(folder, ranks=RANKS, dtype="float64"), kv_tokens=KV_TOKENS)


if __name__ == "__main__":
    torch.set_num_threads(1)
    (lead if sys.argv[1] == "0" else follow)()
