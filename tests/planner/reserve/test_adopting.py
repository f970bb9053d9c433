"""What was bought is found again and taken over for what it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from planner.reserve.book import ReservationBook, Terms
from planner.reserve.purchase import Buyer, advance
from planner.reserve.reservations import Reservation, Want
from planner.runs import utc_text
from providers.reservation_inhouse import OwnMachines, Pool
from providers.reservations import Machine, SlurmPlace
from tests.capacity import slurm

MACHINE = Machine("H100:8", "H100", 8, 80.0)


def now() -> datetime:
    return datetime.now(UTC)


PLACE = SlurmPlace("lab", "gpu", "alice")


def pool(name: str, place: SlurmPlace | None) -> Pool:
    return Pool(name, MACHINE, 2, 280_000, 4, 10_200, 0.15, 0.7, place)


def reconciled(
    folder: Path, monkeypatch: pytest.MonkeyPatch, old: Pool, meanwhile: Callable[[], None] = lambda: None
) -> Reservation:
    """A purchase in the first of two pools whose answer is lost: it is looked for in both, and then looked at."""

    def step(text: str) -> None:
        if text == "send the purchase":
            meanwhile()

    cluster = slurm.install(folder / "bin", nodes={"n1": "idle", "n2": "idle"}, jobs=[])
    monkeypatch.setenv("PATH", str(cluster.parent), prepend=":")
    cluster.write_text(json.dumps(json.loads(cluster.read_text()) | {"faults": {"tp-r": "lose_after"}}))
    machines = OwnMachines(folder / "calendar.json", [pool("new", PLACE), old], now)
    want = Want(1, 5.0, now(), now() + timedelta(days=9), ("new", "old"), (MACHINE,))
    ends = utc_text(now() + timedelta(hours=1))
    terms = Terms("r", "inhouse", "tp-r", want, 10**9, utc_text(now()), ends)
    with ReservationBook(folder / "plan.db") as book:
        assert book.record(terms, utc_text(now()), "for a test")
        advance(Buyer(book, lambda _: machines, now, step), "r")
        found = advance(Buyer(book, lambda _: machines, now), "r")
    assert (found.state, found.provider_ref) == ("active", "slurm/lab/tp-r")
    return found


def test_one_booking_that_two_pools_of_a_cluster_know_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reconciled(tmp_path, monkeypatch, pool("old", PLACE)).warning is None


def test_two_bookings_are_told_as_long_as_the_reservation_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"start_at": now().isoformat(), "end_at": (now() + timedelta(hours=6)).isoformat()}
    row = {"ref": "old-1", "token": "tp-r", "pool": "old", "nodes": 1, **times}

    def bought_by_another_process() -> None:
        (tmp_path / "calendar.json").write_text(json.dumps([row]))

    found = reconciled(tmp_path, monkeypatch, pool("old", None), bought_by_another_process)
    assert found.warning == "2 purchases carry this reservation's token: old-1, slurm/lab/tp-r"
