"""When a worker stops by itself."""

from __future__ import annotations

import os
import signal
import time

import pytest

from jobs.preemption import StopSignal
from jobs.spec import LimitsJob


def stop(elapsed_s: float, **limits: float) -> StopSignal:
    """A stop signal of a process that has run for so long."""
    return StopSignal(LimitsJob(**limits), time.monotonic() - elapsed_s)


def test_without_limits_it_goes_on() -> None:
    one = stop(10**9)
    assert one.reason() is None
    assert one.cost_usd() is None


def test_the_time_limit_leaves_time_to_save_and_upload() -> None:
    one = stop(70, max_duration_s=100)
    assert one.reason() is None
    one.save_s, one.upload_s = 10, 21
    assert one.reason() == ("capped", "time limit of 100 s reached")


def test_the_cap_counts_earlier_attempts_and_the_last_upload() -> None:
    one = stop(1800, cap_usd=5, usd_per_hour=2, spent_usd=3)
    assert one.cost_usd() == pytest.approx(4, abs=0.001)
    assert one.reason() is None
    one.upload_s = 1801
    assert one.reason() == ("capped", "cap of 5 US dollars reached")


def test_sigterm_comes_before_everything_else() -> None:
    before = signal.getsignal(signal.SIGTERM)
    one = stop(200, max_duration_s=100)
    try:
        one.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        assert one.reason() == ("preempted", "told to stop by SIGTERM")
    finally:
        signal.signal(signal.SIGTERM, before)
