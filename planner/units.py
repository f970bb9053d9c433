"""How people write durations, money, moments and ranges, and what they mean.

Every function takes what YAML gave (text or a number) and raises ValueError with a sentence for that person.
GPU memory: sellers write 80GB for a board of 80 GiB, so GB and GiB mean the same here, 2^30 bytes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, NamedTuple

from providers.gpus import canonical_gpu, suggest_gpus

MAX_DURATION_S = 10 * 365 * 86400.0
MAX_USD = 1e9
MAX_COUNT = 10_000
_SHOWN_CHARS = 40

_DURATION_PART = re.compile(
    r"(\d+(?:\.\d+)?)\s*(w|weeks?|d|days?|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)(?![a-z])"
)
_SECONDS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_MONEY = re.compile(
    r"(?:us\$|\$|usd)?\s*(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)\s*(?:usd|(?:us )?dollars?|\$)?"
)
_OTHER_CURRENCY = re.compile(r"[€£¥₹]|(?<![a-z])(?:eur|euros?|gbp|jpy|cny|rmb|chf|inr|cad|aud)(?![a-z])")
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*(mib|mb|m|gib|gb|g|tib|tb|t)")
_GIB = {"m": 1 / 1024, "g": 1.0, "t": 1024.0}
_WHOLE_SECONDS = re.compile(r"(\d{1,12})s")
#: Shorter ones are written in seconds.
_SHORT_S, _DAY_S = 120, 86400
_STEPS = re.compile(r"(\d+)\s*steps?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def shown(value: Any) -> str:
    """A value as an error message may quote it: on one line, printable and short."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."


@dataclass(frozen=True, slots=True)
class GpuFilter:
    """A GPU and how many of it a machine may have.

    Attributes:
        name: Canonical name (`providers.gpus`).
        least: Fewest in one machine.
        most: Most in one machine, None for any number.
    """

    name: str
    least: int = 1
    most: int | None = None

    def matches(self, gpu: str, count: int) -> bool:
        """Whether a machine with this many of that GPU (canonical name) is meant."""
        return gpu == self.name and self.least <= count and (self.most is None or count <= self.most)

    def __str__(self) -> str:
        """As one would write it in the spec."""
        if self.most is None:
            return self.name if self.least == 1 else f"{self.name}:{self.least}.."
        return (
            f"{self.name}:{self.least}"
            if self.least == self.most
            else f"{self.name}:{self.least}..{self.most}"
        )


class Every(NamedTuple):
    """How often: by optimizer steps, by time, or (both None) as tuneplan finds best."""

    steps: int | None = None
    seconds: float | None = None

    @property
    def is_auto(self) -> bool:
        """Neither steps nor time were named."""
        return self.steps is None and self.seconds is None


def parse_duration_s(value: Any) -> float:
    """Seconds of `90s`, `15m`, `1h30m`, `2 days`.

    Raises:
        ValueError: If it is not a duration above zero and up to ten years; a bare number has no unit.

    >>> parse_duration_s("1h30m"), parse_duration_s("2 days"), parse_duration_s("1.5h")
    (5400.0, 172800.0, 5400.0)
    """
    text = str(value).strip().lower()
    if isinstance(value, bool) or len(text) > _SHOWN_CHARS:
        raise ValueError(f"{shown(value)} is not a duration, write it as in 90s, 15m, 1h30m or 2d")
    parts = _DURATION_PART.findall(text)
    if re.fullmatch(r"\d+(\.\d+)?", text):
        raise ValueError(f"{shown(value)} has no unit, write it as in {text}h or {text}m")
    if not parts or _DURATION_PART.sub("", text).strip():
        raise ValueError(f"{shown(value)} is not a duration, write it as in 90s, 15m, 1h30m or 2d")
    seconds = float(sum(float(number) * _SECONDS[unit[0]] for number, unit in parts))
    if not 0 < seconds <= MAX_DURATION_S:
        raise ValueError(f"{shown(value)} is not a duration above zero and up to ten years")
    return seconds


def duration_text(seconds: float) -> str:
    """A duration that `parse_duration_s` reads back as the same number of seconds.

    >>> duration_text(5400.0), duration_text(0.25)
    ('5400s', '0.25s')
    """
    return f"{int(seconds) if seconds == int(seconds) else seconds}s"


def written_duration(text: str) -> str:
    """A duration of `duration_text` as a person writes it, read back as the same; any other text as it is.

    >>> [written_duration(text) for text in ("43200s", "5400s", "86400s", "172800s", "90s", "0.25s", "5 steps")]
    ['12h', '1h30m', '24h', '2d', '90s', '0.25s', '5 steps']
    """
    match = _WHOLE_SECONDS.fullmatch(text)
    if match is None or int(match[1]) < _SHORT_S:
        return text
    seconds = int(match[1])
    if seconds % _DAY_S == 0 and seconds > _DAY_S:
        return f"{seconds // _DAY_S}d"
    parts = ((seconds // 3600, "h"), (seconds % 3600 // 60, "m"), (seconds % 60, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number)


def hours_text(hours: float) -> str:
    """Hours for a person, or minutes or seconds where an hour is too coarse.

    >>> hours_text(1.93), hours_text(36), hours_text(1 / 60), hours_text(0.004)
    ('1.9 h', '36 h', '1 min', '14.4 s')
    """
    units = (("h", 1), ("min", 60), ("s", 3600))
    unit, size = next((unit, size) for unit, size in units if hours * size >= 1 - 1e-9 or unit == "s")
    return f"{hours * size:,.1f}".removesuffix(".0") + f" {unit}"


def parse_usd(value: Any) -> float:
    """US dollars of `50usd`, `$50`, `50 USD`, `1,000.50` or the number 50.

    Raises:
        ValueError: If it is not an amount of US dollars above zero and below 10^9.

    >>> parse_usd("50usd"), parse_usd("$1,000.50"), parse_usd(50)
    (50.0, 1000.5, 50.0)
    """
    amount = (
        _number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else _money(value)
    )
    if not 0 < amount < MAX_USD:
        raise ValueError(f"{shown(value)} is not an amount above zero and below 10^9 US dollars")
    return amount


def _number(value: float) -> float:
    """A float of any number; one beyond floats is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _money(value: Any) -> float:
    text = str(value).strip().lower()
    if _OTHER_CURRENCY.search(text):
        raise ValueError(f"{shown(value)} is in another currency, convert it to US dollars as in 50usd")
    match = _MONEY.fullmatch(text)
    if match is None or len(text) > _SHOWN_CHARS:
        raise ValueError(f"{shown(value)} is not an amount of US dollars, write it as in 50usd or $50")
    return float(match[1].replace(",", ""))


def parse_share(value: Any) -> float:
    """A share from 0 up.

    Raises:
        ValueError: It is none.

    >>> parse_share("15%"), parse_share(0.15), parse_share("0")
    (0.15, 0.15, 0.0)
    """
    text = str(value).strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if isinstance(value, bool) or not 0 <= share < math.inf:
        raise ValueError(f"{shown(value)} is not a share, write it as in 15% or 0.15")
    return share


def parse_discount(value: Any) -> float:
    """A share that leaves something to pay.

    Raises:
        ValueError: It is none.
    """
    try:
        share = parse_share(value)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise ValueError(f"{shown(value)} is not a discount, write it as in 15% or 0.15")
    return share


def parse_deadline(value: Any) -> datetime:
    """The moment in UTC of an RFC 3339 time with zone, or of a date: its last second in UTC.

    Raises:
        ValueError: If it is neither, or has no time zone.

    >>> parse_deadline("2026-12-01T18:00:00+01:00").isoformat(), parse_deadline("2026-12-01").isoformat()
    ('2026-12-01T17:00:00+00:00', '2026-12-01T23:59:59+00:00')
    """
    text = str(value).strip()
    try:
        if _DATE.fullmatch(text):
            return datetime.combine(date.fromisoformat(text), time(23, 59, 59), UTC)
        moment = datetime.fromisoformat(text.upper())
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        usual = "write it as in 2026-12-01T18:00:00Z or 2026-12-01"
        raise ValueError(f"{shown(value)} is not a moment, {usual}") from None
    raise ValueError(f"{shown(value)} has no time zone, write it as in {text}Z for UTC or {text}+02:00")


def parse_memory_gib(value: Any) -> float:
    """GiB of `24GB`, `24 GiB`, `24G`, `512MB`; GB and GiB mean the same.

    Raises:
        ValueError: If it is not a size above zero and below a PiB.

    >>> parse_memory_gib("80GB"), parse_memory_gib("80GiB"), parse_memory_gib("512MB")
    (80.0, 80.0, 0.5)
    """
    text = str(value).strip().lower()
    match = _MEMORY.fullmatch(text)
    if match is None or len(text) > _SHOWN_CHARS:
        raise ValueError(f"{shown(value)} is not a size, write it as in 24GB")
    gib = float(match[1]) * _GIB[match[2][0]]
    if not 0 < gib < 2**20:
        raise ValueError(f"{shown(value)} is not a size above zero and below a million GB")
    return gib


def parse_memory_range_gib(value: Any) -> tuple[float, float]:
    """Least and most GiB of `24GB..80GB`, `24GB..`, `..80GB` or `80GB` (exactly); the open end is infinite.

    Raises:
        ValueError: If it is not such a range.

    >>> parse_memory_range_gib("24GB..80GB"), parse_memory_range_gib("24GB.."), parse_memory_range_gib("80GB")
    ((24.0, 80.0), (24.0, inf), (80.0, 80.0))
    """
    least, dots, most = str(value).partition("..")
    if not dots:
        return parse_memory_gib(value), parse_memory_gib(value)
    if not least.strip() and not most.strip():
        raise ValueError(f"{shown(value)} is not a range, write it as in 24GB..80GB")
    low = parse_memory_gib(least) if least.strip() else 0.0
    high = parse_memory_gib(most) if most.strip() else math.inf
    if low > high:
        raise ValueError(f"{shown(value)} runs backwards, write the smaller size first")
    return low, high


def parse_count_range(value: Any) -> tuple[int, int | None]:
    """Least and most of `4`, `1..4`, `2..` (None: no upper end) or `..4`.

    Raises:
        ValueError: If it is not such a range of whole numbers from 1 to 10,000.

    >>> parse_count_range(4), parse_count_range("1..4"), parse_count_range("2.."), parse_count_range("..4")
    ((4, 4), (1, 4), (2, None), (1, 4))
    """
    least, dots, most = str(value).partition("..")
    if isinstance(value, (bool, float)) or not (least.strip() or most.strip()):
        raise ValueError(f"{shown(value)} is not a number or range, write it as in 4 or 1..4")
    low = _count(least, value) if least.strip() else 1
    high = _count(most, value) if most.strip() else (None if dots else low)
    if high is not None and low > high:
        raise ValueError(f"{shown(value)} runs backwards, write the smaller number first")
    return low, high


def _count(text: str, value: Any) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{shown(value)} is not a number or range, write it as in 4 or 1..4")
    if len(text) > len(str(MAX_COUNT)) or not 1 <= int(text) <= MAX_COUNT:
        raise ValueError(f"{shown(value)} is not a number between 1 and {MAX_COUNT}")
    return int(text)


def parse_gpu_filter(value: Any) -> GpuFilter:
    """GPU and number in a machine of `H100`, `H100:8`, `H100:1..8`; any usual spelling of the name.

    Raises:
        ValueError: If the GPU is not known or the range is none.

    >>> str(parse_gpu_filter("h100:1..8")), str(parse_gpu_filter("A100-SXM4-80GB"))
    ('H100:1..8', 'A100-80GB')
    """
    name, colon, counts = str(value).partition(":")
    canonical = canonical_gpu(name)
    if canonical is None:
        close = " or ".join(suggest_gpus(name[:_SHOWN_CHARS]))
        raise ValueError(f"unknown GPU {shown(name.strip())}" + (f", did you mean {close}?" if close else ""))
    least, most = parse_count_range(counts) if colon else (1, None)
    return GpuFilter(canonical, least, most)


def parse_every(value: Any) -> Every:
    """How often: `auto`, `200 steps` or `30m`.

    Raises:
        ValueError: If it is none of these.

    >>> parse_every("200 steps"), parse_every("30m"), parse_every("auto").is_auto
    (Every(steps=200, seconds=None), Every(steps=None, seconds=1800.0), True)
    """
    text = str(value).strip().lower()
    if text == "auto":
        return Every()
    if isinstance(value, (int, float)):
        raise ValueError(f"{shown(value)} has no unit, write it as in {shown(value)} steps or 30m")
    match = _STEPS.fullmatch(text)
    if match is None:
        return Every(seconds=parse_duration_s(value))
    if len(match[1]) > 12 or int(match[1]) < 1:
        raise ValueError(f"{shown(value)} is not a number of steps from 1 to 10^12")
    return Every(steps=int(match[1]))
