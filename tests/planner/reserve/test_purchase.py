"""A purchase happens once or is seen not to have happened, whatever is killed, lost, locked or full."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.capacity.server import Capacity
from tests.planner.reserve.kills import at_every_point
from tests.planner.reserve.lives import Life, Seller, warm
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
