from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import units
from planner.units import (
    Every,
    GpuFilter,
    duration_text,
    parse_count_range,
    parse_deadline,
    parse_duration_s,
    parse_every,
    parse_gpu_filter,
    parse_memory_gib,
    parse_memory_range_gib,
    parse_usd,
    written_duration,
)
from providers.gpus import CANONICAL_GPUS

PARSERS = (
    parse_duration_s,
    parse_usd,
    parse_deadline,
    parse_memory_gib,
    parse_memory_range_gib,
    parse_count_range,
    parse_gpu_filter,
    parse_every,
)
YAML_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers(), max_size=3),
    st.from_regex(r"[0-9.$:, a-zGB-]{1,30}", fullmatch=True),
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("15m", 900), ("15 min", 900), ("1h30m", 5400), ("1h 30m", 5400), ("2d", 172800),
        ("2 days", 172800), ("1w", 604800), ("24 hours", 86400), ("1.5h", 5400), ("1D", 86400), ("10 sec", 10),
    ],
)  # fmt: skip
def test_durations_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    "value", ["", "h", "1x", "1h foo", "-1h", "0s", "1e3s", "9999w", "9" * 400 + "h", True, None, []]
)
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration_s(value)


@pytest.mark.parametrize("value", [24, 1.5, "24"])
def test_a_duration_needs_a_unit(value: object) -> None:
    with pytest.raises(ValueError, match=f"has no unit, write it as in {value}h or {value}m"):
        parse_duration_s(value)


@given(st.floats(min_value=1e-3, max_value=units.MAX_DURATION_S))
def test_a_duration_survives_being_written(seconds: float) -> None:
    assert parse_duration_s(duration_text(seconds)) == seconds
    assert parse_duration_s(written_duration(duration_text(seconds))) == seconds


@given(st.integers(0, 20), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_parts_of_a_duration_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    total = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
    if total > 0:
        assert parse_duration_s(f"{days}d {hours}h{minutes}m {seconds}s") == total


@pytest.mark.parametrize(
    ("text", "usd"),
    [("50usd", 50), ("$50", 50), ("50", 50), (50, 50), (12.5, 12.5), ("1,000.50 USD", 1000.5), ("US$7", 7),
     ("50 dollars", 50), (".5", 0.5), ("0.000001", 1e-6)],
)  # fmt: skip
def test_money_as_people_write_it(text: object, usd: float) -> None:
    assert parse_usd(text) == usd


@pytest.mark.parametrize("text", ["50eur", "€50", "50 GBP", "£5", "100 CAD", "CHF 3", "¥100"])
def test_other_currencies_are_named_as_such(text: str) -> None:
    with pytest.raises(ValueError, match="another currency"):
        parse_usd(text)


@pytest.mark.parametrize(
    "value", ["", "usd", "fifty", "50,5", "5 0", "-5", 0, -1, math.nan, math.inf, 10**400, True, None]
)
def test_what_is_no_amount_of_money(value: object) -> None:
    with pytest.raises(ValueError, match="US dollars"):
        parse_usd(value)


@given(st.integers(1, 10**14))
def test_money_survives_being_written(micro: int) -> None:
    text = f"{micro // 10**6:,}.{micro % 10**6:06d}"
    assert parse_usd(f"${text}") == parse_usd(text + "usd") == float(text.replace(",", ""))


@given(
    st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=80_000)),
    st.integers(-14 * 60, 14 * 60),
)
def test_a_moment_with_a_zone_keeps_its_instant(since_1970: timedelta, offset_min: int) -> None:
    zone = timezone(timedelta(minutes=offset_min))
    moment = datetime(1970, 1, 1, tzinfo=zone) + since_1970
    assert parse_deadline(moment.isoformat()) == moment
    assert parse_deadline(moment.isoformat()).tzinfo is UTC


def test_a_date_means_its_end_in_utc() -> None:
    assert parse_deadline("2028-02-29") == datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC)
    assert parse_deadline("2028-03-01t12:00:00z") == datetime(2028, 3, 1, 12, tzinfo=UTC)


def test_a_moment_without_zone_is_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match=r"has no time zone, write it as in 2026-12-01T10:00:00Z"):
        parse_deadline("2026-12-01T10:00:00")


@pytest.mark.parametrize(
    "value", ["", "tomorrow", "2026-02-30", "2026-13-01", 20261201, None, "0001-01-01T00:00:00+23:00"]
)
def test_what_is_no_moment(value: object) -> None:
    with pytest.raises(ValueError, match=r"is not a moment|has no time zone"):
        parse_deadline(value)


def test_sellers_gb_are_gib() -> None:
    assert parse_memory_gib("80GB") == parse_memory_gib("80 GiB") == parse_memory_gib("80g") == 80
    assert parse_memory_gib("1.5TB") == 1536


@pytest.mark.parametrize("value", ["80", 80, "GB", "-1GB", "0GB", "9e9GB", "99999999TB", True, "80 GBps"])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_memory_gib(value)


@given(st.integers(1, 2000), st.integers(0, 2000), st.sampled_from(["GB", "GiB", " gb", "G"]))
def test_memory_ranges(least: int, more: int, unit: str) -> None:
    most = least + more
    assert parse_memory_range_gib(f"{least}{unit}..{most}{unit}") == (least, most)
    assert parse_memory_range_gib(f"{least}{unit} ..") == (least, math.inf)
    assert parse_memory_range_gib(f"..{most}{unit}") == (0, most)
    if more:
        with pytest.raises(ValueError, match="backwards"):
            parse_memory_range_gib(f"{most}{unit}..{least}{unit}")


@given(st.integers(1, 5000), st.integers(0, 5000))
def test_count_ranges(least: int, more: int) -> None:
    most = least + more
    assert parse_count_range(f"{least}..{most}") == (least, most)
    assert parse_count_range(most) == (most, most)
    assert parse_count_range(f"{least}..") == (least, None)


@pytest.mark.parametrize(
    "value", ["", "..", "0", 0, -1, "1...4", "a..b", 1.5, True, "10001", "1" * 5000, "٣", "4..1", None]
)
def test_what_is_no_count(value: object) -> None:
    with pytest.raises(ValueError, match="number"):
        parse_count_range(value)


@given(st.sampled_from(sorted(CANONICAL_GPUS)), st.integers(1, 64), st.none() | st.integers(0, 64))
def test_a_gpu_filter_survives_being_written(name: str, least: int, more: int | None) -> None:
    wanted = GpuFilter(name, least, None if more is None else least + more)
    assert parse_gpu_filter(str(wanted)) == wanted
    assert parse_gpu_filter(str(wanted).lower()) == wanted


def test_a_gpu_filter_matches_by_name_and_number() -> None:
    some = parse_gpu_filter("H100:2..4")
    assert [some.matches("H100", count) for count in (1, 2, 4, 5)] == [False, True, True, False]
    assert not some.matches("H200", 2)
    assert parse_gpu_filter("H100").matches("H100", 16)


def test_an_unknown_gpu_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="unknown GPU 'H10O', did you mean H100"):
        parse_gpu_filter("H10O:8")


def test_how_often() -> None:
    assert parse_every("1 step") == Every(steps=1)
    assert parse_every("15m") == Every(seconds=900)
    assert parse_every(" Auto ").is_auto
    for wrong in (200, "200", "0 steps", "steps", "9" * 13 + " steps", None, True):
        with pytest.raises(ValueError, match=r"unit|duration|steps"):
            parse_every(wrong)


@given(st.sampled_from(PARSERS), YAML_VALUES)
def test_whatever_yaml_holds_is_parsed_or_refused_in_one_short_line(parser: object, value: object) -> None:
    try:
        parser(value)  # type: ignore[operator]
    except ValueError as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 250
