"""A real Slurm keeps the calendar of a pool: booked once by its name, seen, used, given back."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from providers.reservation_slurm import SlurmCalendar
from providers.reservations import (
    CapacityOffer,
    Machine,
    PurchaseOrder,
    PurchaseRefusedError,
    SlurmPlace,
)
from tests.bed.bed import Bed
from tests.bed.slurm import PARTITIONS

pytestmark = [pytest.mark.slurm, pytest.mark.long]
MACHINE = Machine("A100:1", "A100", 1, 40.0)


@pytest.fixture
def calendar(slurm_bed: Bed) -> SlurmCalendar:
    def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        env = {**slurm_bed.slurm._env(), "TZ": "UTC", "SLURM_TIME_FORMAT": "standard"}
        return subprocess.run(list(command), env=env, capture_output=True, text=True, timeout=60, check=False)

    return SlurmCalendar(SlurmPlace("bed", PARTITIONS[0], slurm_bed.slurm.user, here=True), run)


def order(token: str, nodes: int, ahead: timedelta) -> PurchaseOrder:
    start = (datetime.now(UTC) + ahead).replace(microsecond=0)
    end = start + timedelta(hours=2)
    price = (Decimal(1), Decimal(1), True, "test", "2026-01-01T00:00:00Z")
    return PurchaseOrder(
        token,
        1,
        CapacityOffer("inhouse", None, MACHINE, nodes, "bed", PARTITIONS[0], start, end, end, *price),
    )


def test_a_reservation_is_made_once_seen_and_given_back(calendar: SlurmCalendar) -> None:
    most = calendar.machines(100)
    assert most >= 1
    later = order("tp-later", 1, timedelta(hours=5))
    booked = calendar.book(later, datetime.now(UTC))
    assert (booked.token, booked.nodes) == ("tp-later", 1)
    assert abs(booked.start_at - later.offer.start_at) <= timedelta(seconds=1)  # in UTC on both sides
    assert calendar.book(later, datetime.now(UTC)) == booked
    assert [row.token for row in calendar.bookings() if row.token] == ["tp-later"]
    assert calendar.used("tp-later") == 0
    with pytest.raises(PurchaseRefusedError):
        calendar.book(order("tp-all", most + 1, timedelta(hours=5)), datetime.now(UTC))
    calendar.cancel("tp-later")
    assert calendar.find("tp-later") is None


def test_one_from_now_on_is_active(calendar: SlurmCalendar) -> None:
    booked = calendar.book(order("tp-now", 1, -timedelta(minutes=20)), datetime.now(UTC))
    assert booked.start_at <= datetime.now(UTC) + timedelta(seconds=5)
    calendar.cancel("tp-now")
