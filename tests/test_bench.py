"""Benchmarks run and end with one line of JSON; what they measure is not a test's business."""

from __future__ import annotations

import json

import pytest
from ray import serve as ray_serve

from cluster.bench import roundtrip


def test_roundtrip_reports(ray_cluster: None, capsys: pytest.CaptureFixture[str]) -> None:
    roundtrip.main(100)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    ray_serve.shutdown()  # Serve's HTTP options are fixed by its first start; other tests bring their own
    assert {"p50_ms", "p99_ms", "handle_p50_ms", "ratio", "provenance"} <= figures.keys()
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
