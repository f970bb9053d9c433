"""A purchase happens once or is seen not to have happened, whatever is killed, lost, locked or full."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.capacity.server import Capacity
from tests.planner.reserve.lives import Life, Points, live, run, warm
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


def points_of(folder: Path) -> list[str]:
    """All points of a purchase in which nothing goes wrong."""
    record(folder / "whole.db", "whole", agreed=None, cap_usd=800)
    points = Points(None)
    assert live(folder / "whole.db", "whole", Life(), points) == 0
    warm("us-east-1")  # its connections are this process's own
    return points.passed


@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_kill_at_every_point(capacity: Capacity, memory_path: Path, long: bool) -> None:
    points = points_of(memory_path)
    assert len(points) > 40
    assert {"before purchase", "after purchase", "intent recorded"} <= set(points)
    outcome = Outcome()
    for number in range(1, len(points) + 1, 1 if long else 7):
        ledger = memory_path / f"{number}.db"
        reservation = record(ledger, f"kill-{number}", agreed=None, cap_usd=800)
        assert run(ledger, reservation.reservation_id, Life(dies_at=number)) == [-9], points[number - 1]
        for _ in range(2):
            run(ledger, reservation.reservation_id, Life())
        run(ledger, reservation.reservation_id, Life(clock_s=7200.0))
        audit(ledger, capacity, reservation, outcome)
    assert set(outcome.ends) <= {"bought", "unknown"}
    # between "it is sent" and the request itself nobody can know
    assert outcome.ends["unknown"] <= 3


@pytest.mark.parametrize("fault", ["ok", "lose_after", "lose_before", "error_after", "refuse"])
def test_two_daemons_at_once(capacity: Capacity, memory_path: Path, fault: str) -> None:
    reservation = record(memory_path / "plan.db", f"two-{fault}", agreed=None, cap_usd=800)
    capacity.order(faults={reservation.token: [fault]})
    run(memory_path / "plan.db", reservation.reservation_id, Life(), Life())
    run(memory_path / "plan.db", reservation.reservation_id, Life())
    audit(memory_path / "plan.db", capacity, reservation, Outcome())


def test_random_rounds(capacity: Capacity, memory_path: Path) -> None:
    outcome = Outcome()
    for seed in range(6):
        play(memory_path, capacity, seed, outcome)
    assert outcome.ends.total() == 6


@pytest.mark.long
def test_campaign(capacity: Capacity, memory_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rounds, first = int(os.environ.get("ROUNDS", "12")), int(os.environ.get("SEED", "1")) * 1_000_000
    outcome = Outcome()
    for seed in range(first, first + rounds):
        play(memory_path, capacity, seed, outcome)
        for file in memory_path.glob(f"{seed}.db*"):
            file.unlink()
    with capsys.disabled():
        print(f"\n{rounds} rounds from seed {first}: ends {dict(outcome.ends)}, lives {dict(outcome.faults)}")
    assert outcome.ends.total() == rounds
