"""The scheduler as a process: a timer, a heartbeat and one look into the ledger; the work is done by a child.

APScheduler is the timer and nothing else: it holds two jobs in memory, and losing them loses nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from planner.reserve.agenda import is_due
from planner.reserve.schedule_book import Heartbeat, ScheduleBook
from planner.runs import utc_text
from providers.errors import MissingExtraError, TuneplanError, UsageError
from providers.process_lock import held

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often what is done.

    Attributes:
        every_s: The ledger is looked at.
        reservations_s: Open reservations are looked at, which asks their providers.
    """

    every_s: float = 15.0
    reservations_s: float = 300.0


@contextlib.contextmanager
def only_one(ledger: Path) -> Iterator[None]:
    """One daemon for a ledger; the lock goes with the process.

    Raises:
        UsageError: There is another.
    """
    path = ledger.with_name(ledger.name + ".scheduler")
    hint = "`plan scheduler status` shows it"
    with held(path, UsageError("a scheduler runs for this ledger already", hint=hint)):
        yield


class Daemon:
    """Beats, looks and lets a child work.

    Args:
        ledger: The ledger's file.
        work: Does everything that is due; says how it ended. Runs in a child process.
        rhythm: How often.
        tell: Takes lines for the log.
    """

    def __init__(self, ledger: Path, work: Callable[[], int], rhythm: Rhythm, tell: Tell) -> None:
        """Nothing is opened yet."""
        self._ledger, self._work, self._rhythm, self._tell = ledger, work, rhythm, tell
        self._looked_at: datetime | None = None
        now = utc_text(datetime.now(UTC))
        host = socket.gethostname()
        self._beat = Heartbeat(f"{host}:{os.getpid()}", os.getpid(), host, now, now, rhythm.every_s, None)

    def once(self) -> None:
        """One turn; errors are said, the next turn tries again."""
        now = datetime.now(UTC)
        try:
            if not is_due(self._ledger, now, self._looked_at, self._rhythm.reservations_s):
                return
            code = self._work()
            self._looked_at = now
            if code != 0:
                self._tell(f"a tick ended with exit {code}")
        except TuneplanError as error:
            self._tell(f"error: {error.message}")

    def beat(self) -> None:
        """Say that we live, also while a child works."""
        try:
            self._write(replace(self._beat, beat_at=utc_text(datetime.now(UTC))))
        except TuneplanError as error:
            self._tell(f"error: {error.message}")

    def run(self, stop: threading.Event) -> None:
        """Turn until told to stop.

        Raises:
            MissingExtraError: APScheduler is not installed.
        """
        scheduler = _timer()
        for job in (self.beat, self.once):
            scheduler.add_job(
                job, "interval", seconds=self._rhythm.every_s, next_run_time=datetime.now(UTC),
                coalesce=True, max_instances=1, misfire_grace_time=None,
            )  # fmt: skip
        scheduler.start()
        try:
            stop.wait()
        finally:
            scheduler.shutdown(wait=True)
            ended = utc_text(datetime.now(UTC))
            self._write(replace(self._beat, beat_at=ended, ended_at=ended))

    def _write(self, heartbeat: Heartbeat) -> None:
        with ScheduleBook(self._ledger) as book:
            book.beat(heartbeat)


def stopped_by_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _timer() -> Any:
    try:
        from apscheduler.schedulers.background import BackgroundScheduler
    except ModuleNotFoundError as error:
        raise MissingExtraError("schedule", "`plan scheduler run`") from error
    logging.getLogger("apscheduler").setLevel(logging.ERROR)  # a turn that takes long is nothing to warn of
    return BackgroundScheduler(timezone=UTC, daemon=True)
