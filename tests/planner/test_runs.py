"""States: which may follow which, and that nothing is a dead end."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.ledger import cost_micro_usd
from planner.runs import (
    FINAL,
    MOVES,
    RESUMABLE,
    STATES,
    check_move,
    check_run_id,
    new_run_id,
    seconds_between,
    utc_text,
)
from providers.errors import TuneplanError, UsageError
from tests.planner.run_factories import START, attempt_of, run_of, terms_of


def test_the_table_knows_every_state_and_no_other() -> None:
    assert set(MOVES) == set(STATES)
    assert set().union(*MOVES.values()) <= set(STATES)


@pytest.mark.parametrize("state", STATES)
def test_a_state_may_stay(state: str) -> None:
    check_move(state, state)  # type: ignore[arg-type]
    assert state not in MOVES[state]  # type: ignore[index]


@pytest.mark.parametrize("state", sorted(FINAL))
def test_what_is_over_changes_only_by_a_resume(state: str) -> None:
    allowed = {"queued"} if state in RESUMABLE else set()
    assert MOVES[state] == allowed  # type: ignore[index]


def test_success_is_for_ever() -> None:
    for state in STATES:
        if state != "succeeded":
            with pytest.raises(TuneplanError, match="cannot go from succeeded"):
                check_move("succeeded", state)


@pytest.mark.parametrize("state", sorted(set(STATES) - FINAL))
def test_whatever_is_under_way_can_end(state: str) -> None:
    reached, todo = set(), [state]
    while todo:
        here = todo.pop()
        reached.add(here)
        todo += [after for after in MOVES[here] if after not in reached]  # type: ignore[index]
    assert reached >= FINAL


def test_a_cancel_that_was_asked_for_is_not_forgotten() -> None:
    assert MOVES["cancelling"].isdisjoint({"running", "queued", "provisioning", "recovering"})


def test_run_ids_are_names_and_differ() -> None:
    ids = {new_run_id("goat") for _ in range(200)}
    assert len(ids) == 200
    assert all(re.fullmatch(r"goat-[0-9a-z]{5}", run_id) for run_id in ids)
    assert all(check_run_id(run_id) == run_id for run_id in ids)


@pytest.mark.parametrize("text", ["", "..", "a/b", "a b", "-a", "a\n", "é", "a" * 129, "$(x)"])
def test_what_cannot_name_a_file_is_no_run_id(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be a run id"):
        check_run_id(text)


@given(st.integers(946_684_800_000, 4_102_444_800_000), st.integers(-12, 12))
def test_times_of_any_zone_become_utc_and_sort_as_text(epoch_ms: int, offset_h: int) -> None:
    local = datetime.fromtimestamp(epoch_ms / 1000, timezone(timedelta(hours=offset_h)))
    later = local + timedelta(milliseconds=2)
    assert utc_text(local) < utc_text(later)
    assert abs(datetime.fromisoformat(utc_text(local)) - local.astimezone(UTC)) < timedelta(milliseconds=1)
    assert seconds_between(utc_text(local), utc_text(later)) == pytest.approx(0.002, abs=0.0011)


def test_a_clock_that_was_set_back_gives_no_negative_time() -> None:
    assert seconds_between("2026-01-01T00:00:10Z", "2026-01-01T00:00:00Z") == 0.0


@given(st.integers(0, 10**12), st.floats(0, 10**7))
def test_cost_is_never_rounded_below_price_times_time(price: int, seconds: float) -> None:
    cost = cost_micro_usd(price, seconds)
    assert cost is not None
    exact = price * round(seconds * 1000) / 3_600_000
    assert exact - 1e-6 * exact <= cost <= exact + 1 + 1e-6 * exact


def test_cost_of_a_run_is_the_sum_of_its_attempts_or_unknown() -> None:
    paid = attempt_of(1, started_at="2026-01-01T00:00:00Z", cost_micro_usd=5)
    more = attempt_of(2, started_at="2026-01-01T00:00:00Z", cost_micro_usd=7)
    never_started = attempt_of(3)
    unknown = attempt_of(4, started_at="2026-01-01T00:00:00Z", micro_usd_per_hour=None)
    assert run_of("running", paid, more, never_started).cost_micro_usd == 12
    assert run_of("running", paid, unknown).cost_micro_usd is None
    assert run_of("queued", never_started).cost_micro_usd == 0


def test_only_a_run_without_a_monitor_waits_for_a_person() -> None:
    lost = attempt_of(started_at=START, ended_at=START, outcome="preempted")
    alone = run_of("preempted", lost)
    watched = run_of("preempted", lost, terms=terms_of(monitor="service"))
    assert (alone.resting, alone.stuck) == (True, True)
    assert (watched.resting, watched.stuck) == (True, False)
    assert not run_of("running").resting
