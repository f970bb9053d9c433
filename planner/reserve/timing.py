"""When a schedule is due: cron expressions, single moments, windows, on the clock of a place through its changes.

A cron expression is matched on the wall clock. Where the clock jumps forward, what would be due in the gap is due
when the gap ends; where it is set back, what names an hour is due once, at the first of the two. An expression whose
hour is a wildcard goes by elapsed time: it is due in both of the repeated hours and not in the missing one.
(So do Vixie cron and its heirs.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from providers.errors import MissingExtraError, UsageError

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_WINDOW = re.compile(r"(?:([a-z,-]+)\s+)?(\d{1,2}:\d{2})-(\d{1,2}:\d{2})")
_WINDOW_NAMES = {"nights": ("22:00-06:00",), "weekends": ("fri 22:00-24:00", "sat,sun 00:00-24:00")}
#: Longer than any clock is ever set back.
_AROUND = timedelta(hours=3)
#: Nothing that a person schedules is further off; an expression like the 30th of February is due never.
_HORIZON = timedelta(days=366 * 9)


def zone(name: str) -> ZoneInfo:
    """A time zone by its name.

    Raises:
        UsageError: There is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        hint = "use a name of the tz database, as in Europe/Berlin or UTC"
        raise UsageError(f"there is no time zone {name!r}", hint=hint, path="--tz") from error


def to_utc(wall: datetime, place: ZoneInfo, *, fold: int = 0) -> datetime:
    """The moment of a wall-clock time; in a gap the moment after it, in a repeated hour the first unless fold is 1.

    >>> to_utc(datetime(2027, 3, 28, 2, 30), ZoneInfo("Europe/Berlin")).isoformat()  # the clock jumps from 2 to 3
    '2027-03-28T01:00:00+00:00'
    >>> to_utc(datetime(2026, 10, 25, 2, 30), ZoneInfo("Europe/Berlin")).isoformat()  # 2:30 comes twice
    '2026-10-25T00:30:00+00:00'
    """
    moment = wall.replace(tzinfo=place, fold=fold).astimezone(UTC)
    if _is_gap(wall, place):
        return _end_of_gap(wall, place)
    return moment


def _is_gap(wall: datetime, place: ZoneInfo) -> bool:
    moment = wall.replace(tzinfo=place).astimezone(UTC)
    return moment.astimezone(place).replace(tzinfo=None) != wall


def _end_of_gap(wall: datetime, place: ZoneInfo) -> datetime:
    """The moment at which the clock jumped over this time."""
    before = wall.replace(tzinfo=place, fold=1).astimezone(UTC)
    after = wall.replace(tzinfo=place, fold=0).astimezone(UTC)
    low, high = min(before, after) - timedelta(hours=1), max(before, after)
    offset = low.astimezone(place).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        if middle.astimezone(place).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)


class Cron:
    """A cron expression of five fields on the clock of a place.

    Args:
        expression: minute, hour, day of month, month, day of week (0 and 7 are Sunday, or names); or @monthly and
            the like. Where both day fields are restricted, either is enough, as in cron.
        place: Whose clock.
    """

    def __init__(self, expression: str, place: ZoneInfo) -> None:
        """Parse it.

        Raises:
            UsageError: It is not a cron expression, or never due.
            MissingExtraError: APScheduler is not installed.
        """
        self.expression, self._place = expression, place
        fields = _NAMED.get(expression.strip().lower(), expression).split()
        if len(fields) != 5:
            raise _not_cron(expression, "it has not five fields")
        self._elapsed = fields[1].startswith("*")
        self._triggers = list(_triggers(expression, fields))

    def after(self, moment: datetime) -> datetime | None:
        """The first time that is due after a moment, UTC; None if there is none in years."""
        here = moment.astimezone(self._place).replace(tzinfo=None)
        found = self._next_wall(here)
        if found is not None and found < here + _HORIZON and self._is_steady(moment, found):
            return to_utc(found, self._place)
        return self._through_changes(moment, here - _AROUND, here + _HORIZON)

    def _is_steady(self, moment: datetime, wall: datetime) -> bool:
        """Whether the clock changes neither shortly before or after these two, nor between them by another offset."""
        due = to_utc(wall, self._place)
        times = (moment - _AROUND, moment + _AROUND, due - _AROUND, due, due + _AROUND)
        return len({one.astimezone(self._place).utcoffset() for one in times}) == 1

    def _through_changes(self, moment: datetime, wall: datetime, last: datetime) -> datetime | None:
        """The same from a wall-clock time well before the moment, taking each match for what it is there."""
        best: datetime | None = None
        while wall < last:
            found = self._next_wall(wall)
            if found is None:
                break
            if best is not None and found > best.astimezone(self._place).replace(tzinfo=None) + _AROUND:
                break
            due = [one for one in self._moments(found) if one > moment]
            best = min([*due, *([] if best is None else [best])], default=None)
            wall = found
        return best

    def _moments(self, wall: datetime) -> list[datetime]:
        """When a wall-clock time is: once, twice in a repeated hour for what goes by elapsed time, or not."""
        if not self._elapsed:
            return [to_utc(wall, self._place)]
        if _is_gap(wall, self._place):
            return []
        return [to_utc(wall, self._place), to_utc(wall, self._place, fold=1)]

    def _next_wall(self, wall: datetime) -> datetime | None:
        """The first match after a wall-clock time; the trigger works in UTC, which has no clock changes."""
        start = (wall + timedelta(seconds=1)).replace(tzinfo=UTC)
        found = [trigger.get_next_fire_time(None, start) for trigger in self._triggers]
        due = [one.replace(tzinfo=None) for one in found if one is not None]
        return min(due, default=None)


@lru_cache(maxsize=256)
def _cron(expression: str, tz: str) -> Cron:
    return Cron(expression, zone(tz))


def _triggers(expression: str, fields: list[str]) -> Iterator[Any]:
    try:
        from apscheduler.triggers.cron import CronTrigger
    except ModuleNotFoundError as error:
        raise MissingExtraError("schedule", "a schedule") from error
    minute, hour, day, month, weekday = fields
    both = not day.startswith("*") and not weekday.startswith("*")
    days = [(day, "*"), ("*", weekday)] if both else [(day, weekday)]
    for day_field, weekday_field in days:
        try:
            yield CronTrigger(
                minute=minute,
                hour=hour,
                day=day_field,
                month=month.lower(),
                day_of_week=_weekdays(weekday_field),
                timezone=UTC,
            )
        except (ValueError, IndexError, KeyError) as error:
            raise _not_cron(expression, str(error)) from error


def _weekdays(field: str) -> str:
    """Cron's days of the week as names: APScheduler counts from Monday, cron from Sunday.

    >>> _weekdays("0"), _weekdays("1-5"), _weekdays("5-7"), _weekdays("*/2"), _weekdays("mon,Fri")
    ('sun', 'mon,tue,wed,thu,fri', 'fri,sat,sun', 'sun,tue,thu,sat', 'mon,fri')
    """
    if field == "*":
        return field
    names: list[str] = []
    for part in field.lower().split(","):
        span, _, step = part.partition("/")
        low, _, high = ("0-6" if span == "*" else span).partition("-")
        first, last = _weekday(low), _weekday(high or ("6" if step else low))
        if last < first:
            last += 7
        names += [_DAYS[number % 7] for number in range(first, last + 1, int(step or 1))]
    return ",".join(dict.fromkeys(names))


def _weekday(text: str) -> int:
    if text in _DAYS:
        return _DAYS.index(text)
    if not text.isascii() or not text.isdigit() or not 0 <= int(text) <= 7:
        raise ValueError(f"{text!r} is no day of the week")
    return int(text)


def _not_cron(expression: str, why: str) -> UsageError:
    return UsageError(
        f"{expression!r} is not a cron expression: {why}",
        hint='minute hour day month weekday, as in "0 2 1 * *" for 2 o\'clock on the first of each month',
        path="--cron",
    )


@dataclass(frozen=True, slots=True)
class Window:
    """A span of the day on some days of the week; it may go past midnight.

    Attributes:
        days: 0 is Sunday.
        start: First minute.
        minutes: Length.
    """

    days: frozenset[int]
    start: time
    minutes: int

    def holds(self, wall: datetime) -> bool:
        """Whether a wall-clock time lies in it."""
        for back in (0, 1):
            day = wall - timedelta(days=back)
            opened = datetime.combine(day.date(), self.start)
            if day.isoweekday() % 7 in self.days and opened <= wall < opened + timedelta(
                minutes=self.minutes
            ):
                return True
        return False


def parse_windows(text: str) -> tuple[Window, ...]:
    """Windows of `22:00-06:00`, `mon-fri 20:00-07:00`, `nights`, `weekends`, or several with semicolons.

    Raises:
        UsageError: It is none.
    """
    parts = [part.strip().lower() for part in text.split(";") if part.strip()]
    spelled = [one for part in parts for one in _WINDOW_NAMES.get(part, (part,))]
    if not spelled:
        raise _not_window(text)
    return tuple(_window(one, text) for one in spelled)


def _window(part: str, text: str) -> Window:
    match = _WINDOW.fullmatch(part)
    if match is None:
        raise _not_window(text)
    try:
        days = _weekdays(match[1] or "0-6")
        start, end = _minutes(match[2]), _minutes(match[3])
    except ValueError:
        raise _not_window(text) from None
    length = (end - start) % 1440 or 1440
    numbers = frozenset(_DAYS.index(name) for name in days.split(","))
    return Window(numbers, time(start // 60 % 24, start % 60), length)


def _minutes(text: str) -> int:
    hour, minute = (int(part) for part in text.split(":"))
    if not (0 <= hour <= 24 and 0 <= minute < 60 and hour * 60 + minute <= 1440):
        raise ValueError(text)
    return hour * 60 + minute


def _not_window(text: str) -> UsageError:
    hint = "as in nights, weekends, 22:00-06:00 or 'mon-fri 20:00-07:00; weekends'"
    return UsageError(f"{text!r} is not a window", hint=hint, path="--window")


@dataclass(frozen=True, slots=True)
class Timing:
    """When a schedule is due.

    Attributes:
        cron: An expression, or None for one single time.
        at: That time, UTC; None with a cron expression.
        tz: Name of the place whose clock counts.
        window: Starts only happen within it, None for any time.
        until: Nothing is due after it, None for no end.
    """

    cron: str | None
    at: datetime | None
    tz: str
    window: str | None = None
    until: datetime | None = None

    def check(self) -> None:
        """Parse everything.

        Raises:
            UsageError: Something of it means nothing.
        """
        place = zone(self.tz)
        if self.cron is not None:
            Cron(self.cron, place)
        if self.window is not None:
            parse_windows(self.window)

    def after(self, moment: datetime) -> datetime | None:
        """The first due time after a moment, UTC; None if there is none."""
        if self.cron is None:
            found = self.at if self.at is not None and self.at > moment else None
        else:
            found = _cron(self.cron, self.tz).after(moment)
        if found is not None and self.until is not None and found > self.until:
            return None
        return found

    def opens(self, moment: datetime) -> datetime:
        """The moment itself if it lies in the window, else when the window opens next.

        Raises:
            UsageError: It never does.
        """
        if self.window is None:
            return moment
        place, windows = zone(self.tz), parse_windows(self.window)
        if any(window.holds(moment.astimezone(place).replace(tzinfo=None)) for window in windows):
            return moment
        today = moment.astimezone(place).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
        starts = [
            to_utc(datetime.combine((today + timedelta(days=ahead)).date(), window.start), place)
            for ahead in range(9)
            for window in windows
            if (today + timedelta(days=ahead)).isoweekday() % 7 in window.days
        ]
        return min(start for start in starts if start > moment)

    def document(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "cron": self.cron,
            "at": None if self.at is None else self.at.isoformat(),
            "tz": self.tz,
            "window": self.window,
            "until": None if self.until is None else self.until.isoformat(),
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Timing:
        """Read back what `document` wrote."""
        times = {name: document[name] for name in ("at", "until")}
        parsed = {
            name: None if text is None else datetime.fromisoformat(text) for name, text in times.items()
        }
        return cls(document["cron"], parsed["at"], document["tz"], document["window"], parsed["until"])
