"""The benchmark of kills in small: it still runs, and what was killed ends with the same bits."""

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture
def kills(monkeypatch):
    spec = importlib.util.spec_from_file_location("kills", HERE / "kills.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kills", module)
    spec.loader.exec_module(module)
    return module


def test_killed_runs_end_with_the_bits_of_one_that_was_not(kills, tmp_path):
    done = kills.measure(
        tmp_path / "kills", kills=2, seed=1, settings=kills.SMALL, num_comparisons=40
    )
    assert len(done) == 2
    for kill in done:
        assert set(kill.equal) >= {"kept_weights", "optimizer", "generators", "metrics.jsonl"}
        assert all(kill.equal.values()), kill
        assert kill.resumed_at % kills.CHECKPOINT_EVERY == 0
