"""How people write durations, sizes, money and ranges, and what they mean."""

from __future__ import annotations

import re
from typing import Any

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration_s(value: Any) -> float:
    """Seconds of `90s`, `15m`, `1h30m`, `2d`.

    Raises:
        ValueError: If it is not a duration; a bare number has no unit and is refused.

    >>> parse_duration_s("1h30m")
    5400.0
    """
    text = str(value).strip().lower()
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text).strip():
        raise ValueError(f"{value!r} is not a duration, write it as in 90s, 15m, 1h30m or 2d")
    return float(sum(float(number) * _SECONDS[unit] for number, unit in parts))


def parse_usd(value: Any) -> float:
    """US dollars of `50usd`, `$50`, `50 USD` or `50`.

    Raises:
        ValueError: If it is not an amount of US dollars.

    >>> parse_usd("50usd")
    50.0
    """
    text = str(value).strip().lower().removeprefix("$").removesuffix("usd").strip().replace(",", "")
    try:
        amount = float(text)
    except ValueError:
        raise ValueError(f"{value!r} is not an amount in US dollars, write it as in 50usd") from None
    if not 0 < amount < 1e9:
        raise ValueError(f"{value!r} is not an amount between 0 and 1e9 US dollars")
    return amount
