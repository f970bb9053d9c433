"""What benchmarks measure with."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from benchmarks.scheduler import fill
from benchmarks.small_jobs import SmallJob
from planner.reserve.agenda import is_due


def test_the_scheduler_that_is_watched_has_nothing_to_do(tmp_path):
    now = datetime(2026, 12, 1, 13, 30, tzinfo=UTC)
    ledger = tmp_path / "state" / "plan.db"

    fill(ledger, now + timedelta(hours=2))

    assert not any(is_due(ledger, at, at, 300) for at in (now, now + timedelta(minutes=5)))
    assert is_due(ledger, now + timedelta(hours=3), now, 300)


def test_every_step_after_the_first_is_told_in_cpu_seconds(zygote, tmp_path):
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    base, log, told = tmp_path / "base", tmp_path / "log", tmp_path / "seconds.json"
    zygote.call("benchmarks.small_jobs:make_base", str(base), json.dumps(shape), log=log)
    document = SmallJob("sft", "full", 8, 8, steps=4).write(tmp_path, base)

    zygote.call("benchmarks.step_seconds:main", str(told), str(document), log=log)

    seconds = json.loads(told.read_text())
    assert len(seconds) == 3
    assert min(seconds) > 0
