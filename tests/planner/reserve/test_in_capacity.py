"""A run in reserved capacity: which machines, for how long, and what SkyPilot is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from planner import rented
from planner.cli.context import App
from planner.cli.reserve_launch import CHECKPOINT_S, reserved
from planner.places import Places
from planner.reserve.book import ReservationBook, Terms
from planner.reserve.reservations import Want
from planner.runs import utc_text
from providers.errors import UsageError
from providers.launcher import LaunchRequest
from providers.reservations import CapacityOffer, Machine

NOW = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)
P5 = Machine("p5.48xlarge", "H100", 8, 80.0)


def offer() -> CapacityOffer:
    start = NOW - timedelta(hours=1)
    end = start + timedelta(hours=24)
    price = (Decimal("755.14"), Decimal("31.464"), False, "test", "2026-12-01T00:00:00Z")
    place = ("aws_capacity_block", "cb-1", P5, 1, "us-east-1", "us-east-1a")
    return CapacityOffer(*place, start, end, end - timedelta(minutes=30), *price)


@pytest.fixture
def app(plan_home: Path) -> App:
    app = App(now=lambda: NOW)
    want = Want(1, 20.0, NOW, NOW + timedelta(days=1), ("us-east-1",), (P5,), offer())
    at = utc_text(NOW)
    with ReservationBook(Places(app.directories.state).ledger) as book:
        assert book.record(Terms("r", "aws_capacity_block", "tp-1", want, 10**9, at, at), at, "test")
        row = book.move(book.get("r"), "intent", "buying", at, offer=offer(), upfront_micro_usd=755_140_000)
        assert row is not None
        assert book.move(row, "bought", "bought", at, provider_ref="cr-1")
    return app


def test_the_run_has_the_rest_of_the_block_less_a_checkpoint(app: App) -> None:
    found = reserved(app, "r")
    assert found.provider_ref == "cr-1"
    assert found.left_s == 22.5 * 3600 - CHECKPOINT_S
    (only,) = found.snapshot().offers
    assert (only.instance_type, only.market, only.price_usd_per_hour) == ("p5.48xlarge", "reserved", 31.464)
    assert (found.overrides().nodes, found.overrides().market) == (1, "reserved")


@pytest.mark.parametrize(("hours", "said"), [(-2, "begins at"), (23, "is over")])
def test_outside_its_time_nothing_is_launched(app: App, hours: int, said: str) -> None:
    app.now = lambda: NOW + timedelta(hours=hours)
    with pytest.raises(UsageError, match=said):
        reserved(app, "r")


def test_the_request_names_the_reservation() -> None:
    request = LaunchRequest("r", Path("bundle"), ())
    terms = {"alternatives": [], "max_usd_per_hour": None, "python": None, "setup": []}
    assert rented.complete(request, {**terms, "reservations": ["cr-1"]}).reservations == ("cr-1",)
    assert rented.complete(request, terms).reservations == ()
