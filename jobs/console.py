"""The worker's log: one line for each stage and every few steps, on stdout."""

from __future__ import annotations

import sys
import time
from contextlib import suppress

_muted = False


def mute() -> None:
    """From here on nothing is said: one process of several speaks for all."""
    global _muted
    _muted = True


def say(text: str) -> None:
    """Write one line with the time of day (UTC) and send it off at once."""
    if _muted:
        return
    with suppress(OSError):  # the log's disk may be full, which must not keep the worker from its work
        sys.stdout.write(f"{time.strftime('%H:%M:%S', time.gmtime())} {text}\n")
        sys.stdout.flush()


def duration(seconds: float) -> str:
    """Seconds as a person reads them.

    >>> duration(5), duration(65), duration(3725)
    ('5 s', '1 min 05 s', '1 h 02 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
