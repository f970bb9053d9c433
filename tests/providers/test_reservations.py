"""Adapters that reserve: EC2 over real HTTP with answers in AWS's own shapes, and a calendar of our own machines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from providers.errors import CorruptDataError, CredentialsError
from providers.reservation_aws_block import CapacityBlocks
from providers.reservation_aws_odcr import OnDemandReservations
from providers.reservation_inhouse import OwnMachines, Pool
from providers.reservation_sagemaker import TrainingPlans
from providers.reservations import (
    CapacityNeed,
    CapacityOffer,
    Machine,
    PurchaseOrder,
    PurchaseRefusedError,
    PurchaseUnclearError,
    ReservationApi,
)
from tests.capacity.server import Capacity

P5 = Machine("p5.48xlarge", "H100", 8, 80.0)
REGION = "us-east-1"
NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = NOW.replace(minute=0, second=0)


def need(hours: float = 20.0, ahead: timedelta = timedelta(0), nodes: int = 2) -> CapacityNeed:
    start = NOW + ahead
    return CapacityNeed(P5, nodes, hours, start, start + timedelta(days=30), (REGION,))


def odcr() -> OnDemandReservations:
    return OnDemandReservations(lambda machine, region: 55.0)


def first(api: ReservationApi, wanted: CapacityNeed, region: str = REGION) -> CapacityOffer:
    offer = api.offers(wanted, region)[0]
    again = api.requote(offer)
    assert again is not None and again.offer_id == offer.offer_id
    return again


@pytest.mark.parametrize("make", [CapacityBlocks, odcr, TrainingPlans])
def test_a_purchase_is_found_by_its_token(capacity: Capacity, make: Callable[[], ReservationApi]) -> None:
    api = make()
    order = PurchaseOrder(f"tp-{api.provider}", 1, first(api, need()))
    api.rehearse(order)
    assert capacity.sold(order.token) == []
    bought = api.purchase(order)
    found = api.find(order.token, REGION)
    assert [one.provider_ref for one in found] == [bought.provider_ref]
    assert (found[0].nodes, found[0].instance_type, found[0].zone) == (2, "p5.48xlarge", order.offer.zone)
    assert api.look(bought.provider_ref, REGION) is not None
    assert api.look("cr-0123456789abcdef0", REGION) is None
    assert not api.find(order.token, "us-west-2")


@pytest.mark.parametrize("make", [CapacityBlocks, odcr, TrainingPlans])
@pytest.mark.parametrize(
    ("fault", "error", "sold"),
    [
        ("lose_after", PurchaseUnclearError, 1),
        ("lose_before", PurchaseUnclearError, 0),
        ("refuse", PurchaseRefusedError, 0),
    ],
)
def test_a_lost_answer_is_not_a_refusal(
    capacity: Capacity, make: Callable[[], ReservationApi], fault: str, error: type[Exception], sold: int
) -> None:
    api = make()
    order = PurchaseOrder(f"tp-{api.provider}-{fault}", 1, first(api, need()))
    capacity.order(faults={order.token: [fault]})
    with pytest.raises(error):
        api.purchase(order)
    assert len(capacity.sold(order.token)) == sold  # one request, however the SDK would like to repeat it


def test_nothing_is_bought_where_nobody_listens(monkeypatch: pytest.MonkeyPatch, capacity: Capacity) -> None:
    order = PurchaseOrder("tp-nobody", 1, first(CapacityBlocks(), need()))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(PurchaseRefusedError, match="not sent"):
        CapacityBlocks().purchase(order)


@pytest.mark.parametrize("make", [CapacityBlocks, odcr, TrainingPlans])
def test_a_login_without_the_right_is_told_before(
    capacity: Capacity, make: Callable[[], ReservationApi]
) -> None:
    api = make()
    order = PurchaseOrder("tp-right", 1, first(api, need()))
    capacity.order(unauthorized=True)
    with pytest.raises(CredentialsError, match=r"UnauthorizedOperation|AccessDenied"):
        api.rehearse(order)


def test_a_block_lasts_whole_days_and_ends_half_an_hour_early(capacity: Capacity) -> None:
    offer = first(CapacityBlocks(), need(hours=23.6))
    assert offer.end_at - offer.start_at == timedelta(hours=48)
    assert offer.usable_h == 47.5
    assert not CapacityBlocks().offers(need(hours=5000), REGION)
    assert not CapacityBlocks().offers(need(nodes=65), REGION)


def test_on_demand_capacity_of_now_ends_and_can_be_given_back(capacity: Capacity) -> None:
    api = odcr()
    offer = first(api, need())
    assert offer.refundable and offer.usable_h == 21
    assert offer.upfront_usd is not None and float(offer.upfront_usd) == pytest.approx(21 * 55 * 2)
    order = PurchaseOrder("tp-now", 1, offer)
    bought = api.purchase(order)
    assert (bought.state, bought.end_at) == ("active", offer.end_at.replace(microsecond=0))
    assert api.purchase(order).provider_ref == bought.provider_ref  # its own token makes it one
    assert api.cancel(bought.provider_ref, REGION).state == "cancelled"


def test_on_demand_capacity_of_a_date_commits(capacity: Capacity) -> None:
    api = odcr()
    offer = first(api, need(ahead=timedelta(days=20)))
    assert not offer.refundable
    assert offer.end_at - offer.start_at == timedelta(days=14)
    bought = api.purchase(PurchaseOrder("tp-date", 1, offer))
    assert (bought.state, bought.start_at) == ("pending", offer.start_at)
    assert offer.open_ended and bought.end_at == offer.end_at + timedelta(
        days=1
    )  # not for ever, whoever sleeps
    assert "not promised" in bought.reason
    assert not api.offers(need(ahead=timedelta(days=2)), REGION)
    assert not api.offers(need(ahead=timedelta(days=130)), REGION)


@pytest.fixture
def own(tmp_path: Path) -> OwnMachines:
    pool = Pool("basement", Machine("H100:8", "H100", 8, 80.0), 3, 280_000, 4, 10_200, 0.15, 0.7)
    return OwnMachines(tmp_path / "calendar.json", [pool], lambda: HOUR)


def ours(hours: float, nodes: int) -> CapacityNeed:
    machine = Machine("H100:8", "H100", 8, 80.0)
    return CapacityNeed(machine, nodes, hours, HOUR, HOUR + timedelta(days=30), ("basement",))


def test_own_machines_are_booked_where_they_are_free(own: OwnMachines) -> None:
    one = first(own, ours(10, 2), "basement")
    assert (one.start_at, one.usd_per_hour) == (HOUR, pytest.approx(Decimal("25.89"), rel=Decimal("0.001")))
    booked = own.purchase(PurchaseOrder("tp-a", 1, one))
    assert own.purchase(PurchaseOrder("tp-a", 2, one)).provider_ref == booked.provider_ref
    assert first(own, ours(5, 1), "basement").start_at == HOUR  # one is left
    later = first(own, ours(5, 2), "basement")
    assert later.start_at == one.end_at
    assert own.requote(one) is None
    with pytest.raises(PurchaseRefusedError):
        own.purchase(PurchaseOrder("tp-b", 1, one))
    assert own.cancel(booked.provider_ref, "basement").state == "cancelled"
    assert first(own, ours(5, 3), "basement").start_at == HOUR
    assert not own.offers(ours(5, 4), "basement")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        '[{"pool": "basement"}]',
        '{"pool": 1}',
        '[{"ref": "a", "token": "b", "nodes": "x"}]',
        "null",
    ],
)
def test_what_is_no_calendar_is_neither_read_past_nor_written_over(
    own: OwnMachines, tmp_path: Path, text: str
) -> None:
    order = PurchaseOrder("tp-a", 1, first(own, ours(10, 2), "basement"))
    calendar = tmp_path / "calendar.json"
    calendar.write_text(text)
    asks = (
        lambda: own.offers(ours(10, 2), "basement"),
        lambda: own.purchase(order),
        lambda: own.find("tp-a", "basement"),
        lambda: own.cancel("basement-1", "basement"),
    )
    for ask in asks:
        with pytest.raises(CorruptDataError, match=r"calendar\.json is no calendar of bookings") as refused:
            ask()
        assert refused.value.hint is not None
    assert calendar.read_text() == text
