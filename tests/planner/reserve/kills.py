"""kill -9 at the points of a purchase in which nothing else goes wrong, one after the other."""

from __future__ import annotations

from pathlib import Path

from tests.capacity.server import Capacity
from tests.planner.reserve.lives import Life, Points, Seller, live, run, warm
from tests.planner.reserve.rounds import Outcome, audit, record


def points_of(folder: Path, seller: Seller, server: Capacity) -> list[str]:
    """All points of a purchase: statements of SQL, calls of the provider, steps."""
    record(folder / "whole.db", f"whole-{seller}", seller=seller)
    points = Points(None)
    assert live(folder / "whole.db", f"whole-{seller}", Life(), points, seller=seller, server=server) == 0
    if seller in ("block", "plan"):
        warm("us-east-1")  # its connections are this process's own
    return points.passed


def at_every_point(folder: Path, seller: Seller, server: Capacity, *, every: int) -> None:
    """Kill at each so-manieth point, go on, and look at what is left."""
    points = points_of(folder, seller, server)
    assert len(points) > 40
    assert {"before purchase", "after purchase", "intent recorded"} <= set(points)
    outcome = Outcome()
    for number in range(1, len(points) + 1, every):
        ledger = folder / f"{number}.db"
        reservation = record(ledger, f"kill-{seller}-{number}", seller=seller)
        name = reservation.reservation_id
        assert run(ledger, name, Life(dies_at=number), seller=seller, server=server) == [-9], points[
            number - 1
        ]
        for life in (Life(), Life(), Life(clock_s=7200.0)):
            run(ledger, name, life, seller=seller, server=server)
        audit(ledger, server, reservation, outcome, seller)
    assert {end.partition(" ")[2] for end in outcome.ends} <= {"bought", "unknown"}
    # between the commit that says "sent" and the request itself nobody can know: a read of three statements, two steps
    assert outcome.ends[f"{seller} unknown"] <= 5
