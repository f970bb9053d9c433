"""A purchase happens once or is seen not to have happened, whatever is killed, lost, locked or full."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from planner.reserve.book import ReservationBook
from planner.reserve.purchase import Buyer
from planner.reserve.undo import settle
from tests.capacity.server import Capacity
from tests.planner.reserve.kills import at_every_point
from tests.planner.reserve.lives import OURS, Life, Seller, adapter, warm
from tests.planner.reserve.lives import run as run_lives
from tests.planner.reserve.rounds import Outcome, audit, play, record


@pytest.fixture(autouse=True)
def clients(capacity: Capacity) -> None:
    """Made once the environment leads to the server."""
    warm("us-east-1")


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: thousands of commits to disk would only wait for the disk."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else tmp_path) as name:
        yield Path(name)


@pytest.mark.parametrize("seller", ["block", pytest.param("plan", marks=pytest.mark.long)])
def test_a_kill_at_some_points(capacity: Capacity, memory_path: Path, seller: Seller) -> None:
    at_every_point(memory_path, seller, capacity, every=7)


@pytest.mark.long
@pytest.mark.parametrize("seller", ["block", "plan", "google", "azure"])
def test_a_kill_at_every_point(
    request: pytest.FixtureRequest, capacity: Capacity, memory_path: Path, seller: Seller
) -> None:
    server = request.getfixturevalue(seller) if seller in ("google", "azure") else capacity
    at_every_point(memory_path, seller, server, every=1)


@pytest.mark.parametrize("fault", ["ok", "lose_after", "lose_before", "error_after", "refuse"])
def test_two_daemons_at_once(capacity: Capacity, memory_path: Path, fault: str) -> None:
    reservation = record(memory_path / "plan.db", f"two-{fault}")
    capacity.order(faults={reservation.token: [fault]})
    for lives in ((Life(), Life()), (Life(),)):
        run_lives(
            memory_path / "plan.db", reservation.reservation_id, *lives, seller="block", server=capacity
        )
    audit(memory_path / "plan.db", capacity, reservation, Outcome())


@pytest.mark.parametrize("decide_in_s", [3600.0, 2.0])
@pytest.mark.parametrize("seller", ["block", "plan"])
def test_a_ledger_that_was_put_back_from_a_copy_buys_nothing_again(
    capacity: Capacity, memory_path: Path, seller: Seller, decide_in_s: float
) -> None:
    ledger, name = memory_path / "plan.db", f"copied-{seller}-{decide_in_s:g}"
    reservation = record(ledger, name, seller=seller, decide_in_s=decide_in_s)
    capacity.order()
    with closing(sqlite3.connect(ledger)) as now, closing(sqlite3.connect(memory_path / "copy.db")) as copy:
        now.backup(copy)
    run_lives(ledger, name, Life(), seller=seller, server=capacity)
    (memory_path / "copy.db").replace(ledger)
    for end in ("-wal", "-shm"):
        ledger.with_name(ledger.name + end).unlink(missing_ok=True)
    late = Life(clock_s=decide_in_s if decide_in_s < 60 else 0.0)
    assert run_lives(ledger, name, late, Life(), seller=seller, server=capacity) == [0, 0]
    (sold,) = capacity.sold(reservation.token)
    with ReservationBook(ledger) as book:
        found = book.get(name)
        told = " ".join(notice.text for notice in book.untold())
    assert found.state in ("bought", "active") and f"{found.state}:" in told
    assert (found.provider_ref or "").endswith(sold["ref"])
    assert found.offer is not None  # by which it is looked at from now on
    assert (found.offer.nodes, found.offer.machine.gpus_per_node) == (1, 8)
    assert found.offer.usable_h > 20
    assert 0 < (found.offer.usd_per_hour or 0) <= 800 / 20  # without a price no run could be started in it


def test_what_was_bought_after_all_is_not_settled_as_not_bought(
    capacity: Capacity, memory_path: Path
) -> None:
    ledger = memory_path / "plan.db"
    reservation = record(ledger, "settled")
    capacity.order(faults={reservation.token: ["lose_after"]}, hidden_looks=1)
    run_lives(ledger, "settled", Life(), seller="block", server=capacity)
    with ReservationBook(ledger) as book:
        assert book.get("settled").state == "unknown"  # and it is not in the console yet
        api = adapter("block", capacity, lambda: datetime.now(UTC), OURS)
        row = settle(Buyer(book, lambda _: api, lambda: datetime.now(UTC)), "settled", None)
        (sold,) = capacity.sold(reservation.token)
        assert (row.state in ("bought", "active"), row.provider_ref) == (True, sold["ref"])


def test_random_rounds(capacity: Capacity, memory_path: Path) -> None:
    outcome = Outcome()
    for seed in range(6):
        play(memory_path, {"block": capacity, "plan": capacity}, seed, outcome)
    assert outcome.ends.total() == 6


@pytest.mark.long
def test_campaign(
    capacity: Capacity,
    google: Capacity,
    azure: Capacity,
    memory_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rounds, first = int(os.environ.get("PURCHASES", "1000")), int(os.environ.get("SEED", "1")) * 1_000_000
    servers: dict[Seller, Capacity] = {"block": capacity, "plan": capacity, "google": google, "azure": azure}
    outcome = Outcome()
    for seed in range(first, first + rounds):
        play(memory_path, servers, seed, outcome)
        for file in memory_path.glob(f"{seed}.db*"):
            file.unlink()
    with capsys.disabled():
        ends = dict(sorted(outcome.ends.items()))
        print(f"\n{rounds} rounds from seed {first}: ends {ends}, lives {dict(outcome.faults)}")
    assert outcome.ends.total() == rounds
