"""Google Cloud and Azure through their official clients against loopback servers, and the commands on top of them.

Every document that was asked or answered is held against the clients' own types when a test ends
(`tests.capacity.official`).
One file, because importing both clients takes seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result

from planner.cli.schema import schema_text
from planner.reserve.book import ReservationBook
from providers import azure_compute, gcp_compute
from providers.azure_compute import Azure
from providers.errors import CredentialsError, LaunchError, MissingExtraError, UsageError
from providers.gcp_compute import Gcp
from providers.reservation_azure import CapacityReservationGroups
from providers.reservation_gcp_calendar import CalendarReservations
from providers.reservation_gcp_flex import FlexStart
from providers.reservations import (
    CapacityNeed,
    Machine,
    PurchaseOrder,
    PurchaseRefusedError,
    PurchaseUnclearError,
    ReservationApi,
)
from tests.capacity.server import Capacity
from tests.planner.reserve.kills import at_every_point
from tests.planner.reserve.lives import Life, live
from tests.planner.reserve.lives import Seller as Seller_
from tests.planner.reserve.rounds import record

NOW = datetime.now(UTC).replace(microsecond=0)
A3 = Machine("a3-highgpu-8g", "H100", 8, 80.0)
ND = Machine("Standard_ND96isr_H100_v5", "H100", 8, 80.0)


def google_api(now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> CalendarReservations:
    return CalendarReservations(lambda machine, region: 88.0, now)


def azure_api(now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> CapacityReservationGroups:
    return CapacityReservationGroups(lambda machine, region: 98.0, now)


class Seller:
    """One of the two, with what is asked of it."""

    def __init__(
        self, server: Capacity, api: ReservationApi, machine: Machine, region: str, money: str
    ) -> None:
        self.server, self.api, self.machine, self.region, self.money = server, api, machine, region, money

    def order(self, token: str) -> PurchaseOrder:
        need = CapacityNeed(self.machine, 2, 20.0, NOW, NOW + timedelta(days=30), (self.region,))
        offer = self.api.offers(need, self.region)[0]
        again = self.api.requote(offer)
        assert again is not None and again.offer_id == offer.offer_id
        return PurchaseOrder(token, 1, again)

    def spent(self, token: str) -> list[dict[str, Any]]:
        """Requests that would have bought this."""
        method, _, end = self.money.partition(" ")
        return [
            row
            for row in self.server.exchanges()
            if row["method"] == method
            and row["path"].endswith(end.format(token=token))
            and token in json.dumps(row)
        ]


@pytest.fixture(params=["google", "azure"])
def seller(request: pytest.FixtureRequest) -> Seller:
    server = request.getfixturevalue(request.param)
    if request.param == "google":
        return Seller(server, google_api(), A3, "us-central1", "POST /futureReservations")
    return Seller(server, azure_api(), ND, "eastus", "PUT /capacityReservations/{token}")


def test_a_purchase_is_found_by_its_token(seller: Seller) -> None:
    order = seller.order("tp-plain")
    seller.api.rehearse(order)
    assert seller.server.sold("tp-plain") == []
    bought = seller.api.purchase(order)
    (found,) = seller.api.find("tp-plain", seller.region)
    assert found.provider_ref == bought.provider_ref
    assert (found.nodes, found.instance_type) == (2, seller.machine.instance_type)
    assert found.end_at == order.offer.end_at
    assert seller.api.find("tp-plain", "elsewhere1") == () or not seller.api.find("tp-plain", "elsewhere1")
    assert not seller.api.find("tp-nobody", seller.region)
    assert len(seller.server.sold("tp-plain")) == 1


@pytest.mark.parametrize(
    ("fault", "error", "sold"),
    [
        ("lose_after", PurchaseUnclearError, 1),
        ("lose_before", PurchaseUnclearError, 0),
        ("error_after", PurchaseUnclearError, 1),
        ("refuse", PurchaseRefusedError, 0),
    ],
)
def test_the_client_sends_a_purchase_once(
    seller: Seller, fault: str, error: type[Exception], sold: int
) -> None:
    token = f"tp-{fault.replace('_', '-')}"
    order = seller.order(token)
    seller.server.order(faults={token: [fault]})
    with pytest.raises(error):
        seller.api.purchase(order)
    assert len(seller.spent(token)) == 1  # however the library would like to repeat it
    assert len(seller.server.sold(token)) == sold == len(seller.api.find(token, seller.region))


def test_what_was_taken_and_does_not_show_yet_is_not_refused(seller: Seller) -> None:
    order = seller.order("tp-hidden")
    seller.server.order(hidden_looks=1)
    with pytest.raises(PurchaseUnclearError):
        seller.api.purchase(order)
    assert len(seller.server.sold("tp-hidden")) == 1 == len(seller.api.find("tp-hidden", seller.region))


def test_the_same_purchase_again_is_the_same(seller: Seller) -> None:
    order = seller.order("tp-again")
    first = seller.api.purchase(order)
    assert seller.api.purchase(order).provider_ref == first.provider_ref
    assert len(seller.server.sold("tp-again")) == 1


def test_a_login_without_the_right_is_told_before(seller: Seller) -> None:
    order = seller.order("tp-right")
    seller.server.order(unauthorized=True)
    with pytest.raises(CredentialsError, match=r"futureReservations\.create|capacityReservations/write"):
        seller.api.rehearse(order)


def test_idle_machines_are_counted(seller: Seller) -> None:
    order = seller.order("tp-idle")
    bought = seller.api.purchase(order)
    seller.api.look(bought.provider_ref, seller.region)
    seller.server.order(in_use=1, shift_s=40 * 86400)
    later = google_api(lambda: order.offer.start_at) if seller.machine is A3 else azure_api()
    held = later.look(bought.provider_ref, seller.region)
    assert held is not None and (held.state, held.free_nodes) == ("active", 1)


def test_a_taken_name_of_google_is_not_a_refusal(google: Capacity) -> None:
    api = google_api()
    need = CapacityNeed(A3, 1, 20.0, NOW, NOW + timedelta(days=30), ("us-central1",))
    offer = api.offers(need, "us-central1")[0]
    api.purchase(PurchaseOrder("tp-name", 1, offer))
    with pytest.raises(PurchaseUnclearError):
        api.purchase(PurchaseOrder("tp-name", 2, offer))  # another try has another request id
    assert len(google.sold("tp-name")) == 1


def test_google_refuses_in_the_operation(google: Capacity) -> None:
    api = google_api()
    need = CapacityNeed(A3, 1, 20.0, NOW, NOW + timedelta(days=30), ("us-central1",))
    order = PurchaseOrder("tp-later", 1, api.offers(need, "us-central1")[0])
    google.order(faults={"tp-later": ["refuse_later"]})
    with pytest.raises(PurchaseRefusedError, match="POOL_EXHAUSTED"):
        api.purchase(order)
    assert google.sold("tp-later") == []


def test_google_names_several_times(google: Capacity) -> None:
    api = google_api()
    need = CapacityNeed(A3, 2, 30.0, NOW, NOW + timedelta(days=30), ("us-central1",))
    offers = api.offers(need, "us-central1")
    assert [one.start_at for one in offers] == sorted({one.start_at for one in offers}) and len(offers) == 4
    assert {one.end_at - one.start_at for one in offers} == {timedelta(days=2)}
    assert {one.zone for one in offers} <= {"us-central1-a", "us-central1-b"}
    assert all(not one.refundable and float(one.upfront_usd or 0) == 88 * 2 * 48 for one in offers)
    google.order(none=True)
    assert api.requote(offers[0]) is None


def test_google_takes_back_until_it_has_approved(google: Capacity) -> None:
    api = google_api()
    need = CapacityNeed(A3, 1, 20.0, NOW, NOW + timedelta(days=30), ("us-central1",))
    offer = api.offers(need, "us-central1")[0]
    google.order(procurement="PENDING_APPROVAL")
    early = api.purchase(PurchaseOrder("tp-early", 1, offer))
    assert (early.state, api.cancel(early.provider_ref, "us-central1").state) == ("pending", "cancelled")
    google.order()
    late = api.purchase(PurchaseOrder("tp-late", 1, offer))
    held = api.look(late.provider_ref, "us-central1")
    assert held is not None and held.state == "scheduled"
    with pytest.raises(LaunchError, match="lock time"):
        api.cancel(late.provider_ref, "us-central1")


def test_azure_is_given_back_with_its_group(azure: Capacity) -> None:
    api = azure_api()
    need = CapacityNeed(ND, 1, 2.0, NOW, NOW + timedelta(days=30), ("eastus",))
    order = PurchaseOrder("tp-back", 1, api.offers(need, "eastus")[0])
    bought = api.purchase(order)
    assert (bought.state, bought.end_at) == ("active", order.offer.end_at)
    assert api.cancel(bought.provider_ref, "eastus").state == "cancelled"
    assert api.look(bought.provider_ref, "eastus") is None
    deleted = [
        row["path"] for row in azure.exchanges() if row["method"] == "DELETE" and "tp-back" in row["path"]
    ]
    assert len(deleted) == 2


def test_azure_is_not_billed_after_its_end(azure: Capacity, tmp_path: Path) -> None:
    ledger = tmp_path / "plan.db"
    reservation = record(ledger, "over", seller="azure")
    run = {"seller": "azure", "server": azure}
    for clock_s in (0.0, 0.0, 1000.0):
        live(ledger, "over", Life(clock_s=clock_s), **run)
    with ReservationBook(ledger) as book:
        held = book.get("over")
    assert (held.state, held.warning) == ("active", "1 of 1 paid machines are idle")
    live(ledger, "over", Life(clock_s=2 * 86400.0), **run)
    with ReservationBook(ledger) as book:
        over = book.get("over")
    assert (over.state, over.state_reason) == ("ended", "its time is over, it was given back")
    assert not azure_api().find(reservation.token, "eastus")


def test_azure_needs_its_resource_group(azure: Capacity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_DEFAULTS_GROUP", "elsewhere")
    with pytest.raises(LaunchError, match="resource group"):
        Azure().may("Microsoft.Compute/capacityReservationGroups/write")
    monkeypatch.delenv("AZURE_DEFAULTS_GROUP")
    with pytest.raises(UsageError, match="resource group"):
        Azure()


@pytest.mark.parametrize("name", ["google", "azure"])
def test_nothing_is_bought_where_nobody_listens(
    request: pytest.FixtureRequest, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = request.getfixturevalue(name)
    if name == "google":
        order = Seller(server, google_api(), A3, "us-central1", "").order("tp-nobody")
    else:
        order = Seller(server, azure_api(), ND, "eastus", "").order("tp-nobody")
    for variable in ("CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE", "AZURE_RESOURCE_MANAGER_URL"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(PurchaseRefusedError):
        (google_api() if name == "google" else azure_api()).purchase(order)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="logged in"):
        Gcp({}, tmp_path)
    with pytest.raises(CredentialsError, match="project"):
        Gcp({"CLOUDSDK_AUTH_ACCESS_TOKEN": "t"}, tmp_path)
    with pytest.raises(CredentialsError, match="subscription"):
        Azure({})
    monkeypatch.setattr(gcp_compute, "_installed", lambda: False)
    monkeypatch.setattr(azure_compute, "_installed", lambda module: False)
    for make, extra in ((lambda: Gcp({}), "reserve-gcp"), (lambda: Azure({}), "reserve-azure")):
        with pytest.raises(MissingExtraError) as caught:
            make()
        assert caught.value.hint == f"pip install 'tuneplan[{extra}]'" and caught.value.exit_code == 2


def test_a_place_in_the_queue_costs_nothing_and_promises_nothing() -> None:
    api = FlexStart(lambda machine, region: 88.0, lambda: NOW)
    need = CapacityNeed(A3, 2, 20.0, NOW, NOW + timedelta(days=30), ("us-central1",))
    (offer,) = api.offers(need, "us-central1")
    assert offer.refundable and offer.upfront_usd == 88 * 2 * 20
    held = api.purchase(PurchaseOrder("tp-q", 1, offer))
    assert (held.nodes, held.instance_type, held.end_at) == (2, "a3-highgpu-8g", offer.end_at)
    assert "nothing is promised" in held.reason and api.look(held.provider_ref, "us-central1") == held
    assert api.cancel(held.provider_ref, "us-central1").state == "cancelled"
    long = CapacityNeed(A3, 2, 200.0, NOW, NOW + timedelta(days=30), ("us-central1",))
    assert not api.offers(long, "us-central1")


RunPlan = Callable[..., Result]
SPEC = """
name: support
model: meta-llama/Llama-3.1-8B
data: {{format: messages, samples: 200000, tokens_per_sample: 700}}
train: {{epochs: 3, sequence_length: 4096, packing: true}}
where: {{clouds: {cloud}}}
"""
FAR = f"{datetime.now(UTC) + timedelta(days=40):%Y-%m-%d}"
PLACES = {
    "gcp_calendar": ("google", "gcp", "us-central1"),
    "gcp_flex_start": ("google", "gcp", "us-central1"),
    "azure_crg": ("azure", "azure", "eastus"),
    "sagemaker_training_plan": ("capacity", "aws", "us-east-1"),
}


def answer(result: Result, code: int = 0) -> dict[str, Any]:
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    document: dict[str, Any] = json.loads(result.stdout)
    name = document["schema"].removeprefix("tuneplan/")
    jsonschema.validate(document, json.loads(schema_text(name)))
    return document


@pytest.mark.parametrize("provider", list(PLACES))
def test_the_commands_from_offer_to_purchase(
    request: pytest.FixtureRequest, run_plan: RunPlan, tmp_path: Path, provider: str
) -> None:
    server_name, cloud, region = PLACES[provider]
    server = request.getfixturevalue(server_name)
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(cloud=cloud))
    words = (spec, "--by", FAR, "--provider", provider, "--region", region)
    offers = answer(run_plan("reserve", "offers", *words, "-o", "json"))["offers"]
    offer = next(row for row in offers if row["upfront_usd"] is not None)
    if provider == "gcp_calendar":
        drawn = tmp_path / "calendar.svg"
        table = run_plan("reserve", "offers", *words, "--calendar", "--plot", drawn)
        assert region in table.stdout and drawn.stat().st_size > 1000
    assert answer(run_plan("reserve", "advise", *words, "-o", "json"))["provider"] in (None, provider)
    buy = (
        "reserve",
        "buy",
        *words,
        "--offer",
        offer["offer_id"],
        "--name",
        f"{provider}-r".replace("_", "-"),
    )
    runs_there = provider not in ("azure_crg", "sagemaker_training_plan")
    if not runs_there:
        refused = run_plan(*buy, "--confirm-usd", offer["upfront_usd"])
        assert refused.exit_code == 2 and "--no-launch" in refused.stderr
    end = () if runs_there else ("--no-launch",)
    done = run_plan(*buy, *end, "--confirm-usd", offer["upfront_usd"], "-o", "json")
    (row,) = answer(done)["reservations"]
    assert row["state"] in ("bought", "active") and row["price_cap_usd"] == offer["upfront_usd"]
    assert row["provider"] == provider and row["provider_ref"]
    again = run_plan(*buy, *end, "--confirm-usd", offer["upfront_usd"], "-o", "json")
    assert answer(again)["reservations"][0]["provider_ref"] == row["provider_ref"]
    shown = run_plan("reserve", "show", row["reservation_id"])
    token = next(line.split()[1] for line in shown.stdout.splitlines() if line.startswith("token"))
    assert len(server.sold(token)) == (0 if provider == "gcp_flex_start" else 1)


@pytest.mark.parametrize("name", ["google", "azure"])
def test_a_kill_at_some_points(request: pytest.FixtureRequest, tmp_path: Path, name: Seller_) -> None:
    at_every_point(tmp_path, name, request.getfixturevalue(name), every=23)
