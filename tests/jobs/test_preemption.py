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


def test_the_last_step_and_the_end_of_the_machine_are_kept_free() -> None:
    one = stop(80, max_duration_s=100, reserve_s=5)
    one.step_s = 14
    assert one.reason() is None
    one.step_s = 16
    assert one.reason() == ("capped", "time limit of 100 s reached")


def test_machines_before_this_one_count_towards_the_cap() -> None:
    one = stop(1800, cap_usd=5, usd_per_hour=2, spent_usd=1)
    one.carry_over(None, 10)
    assert one.cost_usd() == pytest.approx(2, abs=0.001)
    one.carry_over(3.5, 900)  # earlier launches included, and a quarter of an hour unseen
    assert one.cost_usd() == pytest.approx(5, abs=0.001)
    assert one.reason() == ("capped", "cap of 5 US dollars reached")


def test_the_price_is_that_of_the_place() -> None:
    limits = LimitsJob(cap_usd=5, usd_per_hour=2, prices_usd_per_hour={"aws/east": 2.0, "aws/west": 3.0})
    assert limits.priced_at("aws/east").usd_per_hour == 2.0
    assert limits.priced_at("aws/elsewhere").usd_per_hour == limits.priced_at(None).usd_per_hour == 3.0
    assert LimitsJob(usd_per_hour=2).priced_at("aws/west").usd_per_hour == 2
