"""Lives of processes that buy: each is forked, may be killed anywhere, and leaves only ledger and market behind."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from planner import database
from planner.reserve.book import ReservationBook
from planner.reserve.purchase import Buyer, advance
from providers.aws import Aws
from providers.errors import TuneplanError
from providers.reservation_aws_block import CapacityBlocks
from providers.reservation_sagemaker import TrainingPlans
from tests.capacity.server import Capacity

OK, REFUSED = 0, 3
Seller = Literal["block", "plan", "google", "azure"]
#: Made before the fork, without a connection: a client takes longer to make than a purchase.
AWS = Aws()
#: Clients of the process that forks.
OURS = Aws()


def warm(region: str) -> None:
    """Make what every life needs; once the environment leads to the server."""
    for aws in (AWS, OURS):
        aws._clients.clear()
    for spends in (False, True):
        for service in ("ec2", "sagemaker"):
            AWS.client(service, region, spends=spends)


def adapter(seller: Seller, server: Capacity, clock: Callable[[], datetime], aws: Aws) -> Any:
    """The adapter of a seller; the clients of Google and Azure are made anew in each process."""
    if seller == "block":
        return CapacityBlocks(clock, aws)
    if seller == "plan":
        return TrainingPlans(clock, aws)

    def price(usd: float) -> Callable[[Any, str], float]:
        return lambda machine, region: usd * float(server.orders().get("price_factor", 1.0))

    if seller == "google":
        from providers.reservation_gcp_calendar import CalendarReservations

        return CalendarReservations(price(31.464), clock)
    from providers.reservation_azure import CapacityReservationGroups

    return CapacityReservationGroups(price(36.0), clock)


@dataclass(frozen=True)
class Life:
    """How one process lives and ends.

    Attributes:
        dies_at: Number of the point at which it is killed, None to live on.
        dies_after_s: Or after that time.
        clock_s: How far its clock is off.
        busy_s: How long somebody else holds the ledger meanwhile.
        disk_bytes: Room left for the ledger's files, None for enough.
        looks: How often it searches for a lost purchase.
    """

    dies_at: int | None = None
    dies_after_s: float | None = None
    clock_s: float = 0.0
    busy_s: float = 0.0
    disk_bytes: int | None = None
    looks: int = 1


class Points:
    """Counts what could be interrupted: statements of SQL, calls of the provider, steps; kills at one of them."""

    def __init__(self, dies_at: int | None) -> None:
        self.dies_at = dies_at
        self.passed: list[str] = []

    def __call__(self, what: str) -> None:
        self.passed.append(" ".join(what.split())[:60])
        if len(self.passed) == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)


class Watched:
    """An adapter whose calls are points, before and after."""

    def __init__(self, api: Any, point: Callable[[str], None]) -> None:
        self._api, self._point = api, point

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._api, name)
        if not callable(found):
            return found

        def call(*values: Any) -> Any:
            self._point(f"before {name}")
            try:
                return found(*values)
            finally:
                self._point(f"after {name}")

        return call


def live(
    ledger: Path,
    reservation_id: str,
    life: Life,
    points: Points | None = None,
    *,
    seller: Seller,
    server: Capacity,
) -> int:
    """What a process does, in this process: bring one reservation forward."""
    point = points or Points(life.dies_at)
    connect = sqlite3.connect

    def traced(*values: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*values, **options)
        connection.set_trace_callback(point)
        return connection

    def clock() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=life.clock_s)

    sqlite3.connect = traced  # type: ignore[assignment]
    try:
        with ReservationBook(ledger) as book:
            api = Watched(adapter(seller, server, clock, AWS), point)
            advance(Buyer(book, lambda _: api, clock, point, life.looks, lambda _: None), reservation_id)
    except TuneplanError:
        return REFUSED
    finally:
        sqlite3.connect = connect  # type: ignore[assignment]
    return OK


def fork(ledger: Path, reservation_id: str, life: Life, seller: Seller, server: Capacity) -> int:
    """Start a life in a process of its own; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 9
    try:
        signal.alarm(0)
        database._BUSY_TIMEOUT_S = 0.3 if life.busy_s else 20.0
        if life.disk_bytes is not None:
            _limit_files(ledger, life.disk_bytes)
        if life.dies_after_s is not None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, life.dies_after_s)
        status = live(ledger, reservation_id, life, seller=seller, server=server)
    finally:
        os._exit(status)


def _limit_files(ledger: Path, left: int) -> None:
    """The disk is full but for a few bytes: writes beyond fail as they do there."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    files = [ledger, *(ledger.with_name(ledger.name + end) for end in ("-wal", "-shm"))]
    size = max(file.stat().st_size for file in files if file.exists())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + left, resource.RLIM_INFINITY))


def run(ledger: Path, reservation_id: str, *lives: Life, seller: Seller, server: Capacity) -> list[int]:
    """Lives at the same time; returns how each ended, negative for a signal."""
    holder = sqlite3.connect(ledger, isolation_level=None) if any(life.busy_s for life in lives) else None
    if holder is not None:
        holder.execute("BEGIN IMMEDIATE")
    pids = [fork(ledger, reservation_id, life, seller, server) for life in lives]
    if holder is not None:
        time.sleep(max(life.busy_s for life in lives))
        holder.execute("ROLLBACK")
        holder.close()
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
