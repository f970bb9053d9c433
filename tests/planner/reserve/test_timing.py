"""Due times on the clocks of places, through their changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.reserve.timing import Cron, Timing, parse_windows, zone
from providers.errors import UsageError

BERLIN = ZoneInfo("Europe/Berlin")


def due(expression: str, start: datetime, number: int, place: ZoneInfo = BERLIN) -> list[str]:
    cron, found, moment = Cron(expression, place), [], start
    for _ in range(number):
        following = cron.after(moment)
        assert following is not None
        moment = following
        found.append(moment.astimezone(place).strftime("%m-%d %H:%M %Z"))
    return found


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        # the clock jumps from 2:00 to 3:00 on 2027-03-28: what names the missing hour is due when it is over
        ("30 2 * * *", datetime(2027, 3, 27, 12, tzinfo=UTC), ["03-28 03:00 CEST", "03-29 02:30 CEST"]),
        # it is set back from 3:00 to 2:00 on 2026-10-25: once, at the first of the two
        ("30 2 * * *", datetime(2026, 10, 24, 12, tzinfo=UTC), ["10-25 02:30 CEST", "10-26 02:30 CET"]),
        # by elapsed time: no missing hour, both repeated ones
        ("0 * * * *", datetime(2027, 3, 27, 23, 30, tzinfo=UTC), ["03-28 01:00 CET", "03-28 03:00 CEST"]),
        (
            "0 * * * *",
            datetime(2026, 10, 24, 23, 30, tzinfo=UTC),
            ["10-25 02:00 CEST", "10-25 02:00 CET", "10-25 03:00 CET"],
        ),
        ("0 2 1 * *", datetime(2026, 11, 25, tzinfo=UTC), ["12-01 02:00 CET", "01-01 02:00 CET"]),
        ("@monthly", datetime(2026, 11, 25, tzinfo=UTC), ["12-01 00:00 CET", "01-01 00:00 CET"]),
        # both day fields: either is enough
        ("0 0 13 * 5", datetime(2026, 12, 5, tzinfo=UTC), ["12-11 00:00 CET", "12-13 00:00 CET"]),
        # Sunday is 0 and 7
        ("0 0 * * 0", datetime(2026, 12, 1, tzinfo=UTC), ["12-06 00:00 CET", "12-13 00:00 CET"]),
        ("0 0 * * 7", datetime(2026, 12, 1, tzinfo=UTC), ["12-06 00:00 CET", "12-13 00:00 CET"]),
        ("0 0 * * 6-7", datetime(2026, 12, 1, tzinfo=UTC), ["12-05 00:00 CET", "12-06 00:00 CET"]),
    ],
)
def test_due_times(expression: str, start: datetime, expected: list[str]) -> None:
    assert due(expression, start, len(expected)) == expected


def test_a_place_whose_clock_changes_by_half_an_hour() -> None:
    found = due("15 2 * * *", datetime(2026, 10, 3, 12, tzinfo=UTC), 1, ZoneInfo("Australia/Lord_Howe"))
    assert found == ["10-04 02:30 +11"]  # from 2:00 to 2:30


def test_what_is_never_due() -> None:
    assert Cron("0 0 30 2 *", BERLIN).after(datetime(2026, 1, 1, tzinfo=UTC)) is None
    leap = Cron("0 0 29 2 *", BERLIN).after(datetime(2026, 1, 1, tzinfo=UTC))
    assert leap is not None and leap.astimezone(BERLIN).date().isoformat() == "2028-02-29"


@given(
    st.sampled_from(
        ["0 * * * *", "30 2 * * *", "*/20 1-3 * * *", "0 2 1 * *", "5 4 * * sun", "15 */6 * * *"]
    ),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC", "Asia/Kathmandu"]),
    st.integers(0, 2 * 365 * 24 * 60),
)
@settings(max_examples=60, deadline=None)
def test_times_only_go_forward_and_none_is_passed_over(expression: str, place: str, minutes: int) -> None:
    cron = Cron(expression, zone(place))
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    first = cron.after(moment)
    assert first is not None and first > moment
    # asked a moment later, or an hour earlier, the same time is still ahead
    assert cron.after(first - timedelta(seconds=1)) == first
    again = cron.after(moment - timedelta(hours=1))
    assert again is not None and again <= first
    following = cron.after(first)
    assert following is not None and following > first


@pytest.mark.parametrize(
    "text", ["", "* * * *", "61 * * * *", "a b c d e", "* * * * 8", "* * 0 * *", "0 0 * * 1-9"]
)
def test_what_is_no_cron_expression_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="cron expression"):
        Cron(text, BERLIN)


def test_an_unknown_place_is_said() -> None:
    with pytest.raises(UsageError, match="time zone"):
        Timing("0 0 * * *", None, "Europe/Atlantis").check()


@pytest.mark.parametrize(
    ("window", "moment", "opens"),
    [
        ("nights", "2026-12-01T12:00", "2026-12-01T21:00"),  # 22:00 in Berlin
        ("nights", "2026-12-01T23:00", "2026-12-01T23:00"),
        ("nights", "2026-12-02T04:59", "2026-12-02T04:59"),  # past midnight
        ("nights", "2026-12-02T05:00", "2026-12-02T21:00"),
        ("weekends", "2026-12-01T12:00", "2026-12-04T21:00"),
        ("weekends", "2026-12-06T22:30", "2026-12-06T22:30"),
        ("mon-fri 20:00-07:00", "2026-12-05T12:00", "2026-12-07T19:00"),
        ("mon-fri 20:00-07:00", "2026-12-05T05:30", "2026-12-05T05:30"),  # Friday's window goes on
        ("sun 02:30-03:30", "2027-03-27T12:00", "2027-03-28T01:00"),  # opens in the missing hour
    ],
)
def test_windows(window: str, moment: str, opens: str) -> None:
    timing = Timing("0 0 * * *", None, "Europe/Berlin", window)
    found = timing.opens(datetime.fromisoformat(moment + "+00:00"))
    assert found.strftime("%Y-%m-%dT%H:%M") == opens


@pytest.mark.parametrize("text", ["", "nightly", "22-06", "25:00-06:00", "foo 22:00-06:00"])
def test_what_is_no_window_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="window"):
        parse_windows(text)


def test_nothing_is_due_after_the_end() -> None:
    timing = Timing("0 2 1 * *", None, "UTC", None, datetime(2026, 12, 31, tzinfo=UTC))
    assert timing.after(datetime(2026, 11, 30, tzinfo=UTC)) == datetime(2026, 12, 1, 2, tzinfo=UTC)
    assert timing.after(datetime(2026, 12, 2, tzinfo=UTC)) is None


def test_a_timing_is_read_as_it_was_written() -> None:
    once = Timing(None, datetime(2027, 1, 1, tzinfo=UTC), "Europe/Berlin", "nights", None)
    assert Timing.from_document(once.document()) == once
    assert once.after(datetime(2026, 1, 1, tzinfo=UTC)) == once.at
    assert once.after(datetime(2027, 1, 1, tzinfo=UTC)) is None
