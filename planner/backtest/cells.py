"""Cells of the run table: text and numbers as published tables write them."""

from __future__ import annotations

import re
from collections.abc import Mapping

Row = Mapping[str, str]
_NUMBER = re.compile(r"(-\s*)?(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?:[eE]\+?(\d{1,2})\b)?(?:\s?([kKmMbBgG])\b)?")
_NEGATIVE = frozenset({"false", "none", "no", "0", "off", "disabled", "n/a", "na", "-", "without"})
_KILO_TOKENS = 1024  # lengths are powers of two: 8k is 8192
_LENGTHS = frozenset({"seq_len"})
#: Columns of counts, where a letter means thousands, millions or billions; elsewhere it is a unit ("80 GB", "7B").
_COUNTS = frozenset({"dataset_tokens", "steps"})
_BEYOND = 1e16  # tokens, the largest count: the longest pre-trainings took some 1e14
_MOST = 10**8  # GPUs, rows of a micro-batch, tokens of a row
_SHOWN = 60  # characters of a cell in a reason
_TIMES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}


class UnsupportedRunError(ValueError):
    """A row does not state enough, or states what the model cannot express; the message says what."""


def cell(row: Row, column: str) -> str:
    """Lower-case text, empty if blank or missing."""
    return (row.get(column) or "").strip().lower()


def denied(text: str) -> bool:
    """Whether a cell says no, in one of the words that tables use; an empty one says nothing.

    >>> denied("false"), denied("off"), denied("selective"), denied("")
    (True, True, False, False)
    """
    return text in _NEGATIVE


def number(row: Row, column: str) -> float | None:
    """The first number of the cell, None if there is none.

    >>> number({"seq_len": "500 in/ ~100 out"}, "seq_len")
    500.0
    >>> number({"seq_len": "32k"}, "seq_len"), number({"seq_len": "32,768"}, "seq_len")
    (32768.0, 32768.0)
    >>> number({"dataset_tokens": "1.5e9"}, "dataset_tokens"), number({"dataset_tokens": "15M"}, "dataset_tokens")
    (1500000000.0, 15000000.0)
    >>> number({"steps": "1k"}, "steps"), number({"params_b": "7B"}, "params_b"), number({"seq_len": "-5"}, "seq_len")
    (1000.0, 7.0, None)
    """
    match = _NUMBER.search(row.get(column) or "")
    if match is None:
        return None
    sign, whole, fraction, exponent, letter = match.groups()
    if sign and not (row.get(column) or "")[: match.start()].strip():
        return None  # no count is negative; a dash between two numbers is none
    value = float(f"{whole.replace(',', '')}{fraction or ''}e{exponent or 0}")
    value *= _times(column, (letter or "").lower())
    return value if value < _BEYOND else None


def _times(column: str, letter: str) -> float:
    """What a letter behind a number multiplies it by."""
    if column in _COUNTS:
        return _TIMES.get(letter, 1.0)
    if letter != "k":
        return 1.0
    return _KILO_TOKENS if column in _LENGTHS else 1e3


def required(row: Row, column: str) -> int:
    """A positive whole number.

    Raises:
        UnsupportedRunError: If there is none.
    """
    value, text = number(row, column), (row.get(column) or "").strip()[:_SHOWN]
    if value is None or not 1 <= value <= _MOST or value != round(value):
        raise UnsupportedRunError(
            f"{column} {text!r} is no whole number that a run can have" if text else f"{column} is not stated"
        )
    return round(value)


def dated_before(row: Row, day: str) -> bool:
    """Whether the row is older than a day (ISO); rows without a date are new."""
    return (row.get("date") or "9") < day


def begun_before(row: Row, day: str) -> bool:
    """Whether the row may be older than a day: of a range of dates the first counts.

    >>> row = {"date": "2025/2026"}
    >>> dated_before(row, "2025-11"), begun_before(row, "2025-11")
    (False, True)
    """
    return (row.get("date") or "9").split("/")[0] < day
