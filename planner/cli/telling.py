"""Tells on a terminal how far a long command has come, in one line that goes when it is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

_EVERY_S = 0.5


@contextmanager
def telling(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A function that takes how many are done; nothing is written where stderr is no terminal.

    Args:
        what: They are called, as in "records".
        total: How many there will be, None if that is not known; then the first line waits until something is done.
    """
    started = time.monotonic()
    told: float | None = None

    def line(done: int, now: float) -> None:
        of = "" if total is None else f" of {total:,}"
        click.echo(f"\r{done:,}{of} {what} in {now - started:.0f} s", err=True, nl=False)

    def tell(done: int) -> None:
        nonlocal told
        now = time.monotonic()
        if sys.stderr.isatty() and now - (started if told is None else told) >= _EVERY_S:
            told = now
            line(done, now)

    if total is not None and sys.stderr.isatty():
        told = started
        line(0, started)
    try:
        yield tell
    finally:
        if told is not None:
            click.echo("\r\033[K", err=True, nl=False)
