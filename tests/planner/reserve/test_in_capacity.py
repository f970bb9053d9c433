"""A run in reserved capacity: which machines, for how long, and what SkyPilot is told."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from planner import rented
from planner.cli.context import App
from planner.cli.reserve_launch import reserved
from planner.errors import CapReachedError
from planner.launch import Desk, launch, resume
from planner.places import Places
from planner.reserve.agenda import Office, do_all
from planner.reserve.book import ReservationBook, Terms
from planner.reserve.children import PlanStarter
from planner.reserve.firing import Firer, Started
from planner.reserve.purchase import Buyer, advance
from planner.reserve.reservations import LaunchPlan, Want
from planner.reserve.rest import CHECKPOINT_S
from planner.reserve.schedule_book import ScheduleBook
from planner.reserve.schedules import Schedule
from planner.reserve.timing import Timing
from planner.runs import RunTerms, utc_text
from planner.service import Habits, look_at
from planner.store import Store
from providers.errors import CredentialsError, LaunchError, UsageError
from providers.launcher import BackendStatus, LaunchRequest
from providers.offers import Offer
from providers.reservations import CapacityOffer, Holding, HoldingState, Machine, PurchaseRefusedError
from tests.planner.run_factories import attempt_of, terms_of

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


@pytest.mark.parametrize(
    ("zone", "gpus", "said"),
    [
        ("us-east-1a", 8, None),
        (None, 8, None),
        ("us-east-1b", 8, "zone us-east-1b instead of us-east-1a"),
        ("us-east-1a", 4, "GPUs 4 instead of 8"),
    ],
)
def test_a_run_elsewhere_is_said(app: App, zone: str | None, gpus: int, said: str | None) -> None:
    ledger = Places(app.directories.state).ledger
    got = Offer(
        *("aws", "us-east-1", zone, None, "H100", gpus, None, None, None, "on_demand", None, "skypilot", None)
    )
    launch = LaunchPlan("spec.yaml", "skypilot", "r")
    with ReservationBook(ledger) as book, ScheduleBook(ledger) as schedules:
        row = book.move(book.get("r"), "active", "the capacity is there", utc_text(NOW))
        buyer = Buyer(book, lambda name: Held(), lambda: NOW)
        firer = Firer(schedules, PlanStarter(ledger), lambda: NOW)
        office = Office(ledger, buyer, firer, Path("no-hook"), lambda row: Started(0), lambda row: got)
        assert row is not None
        changed = do_all(office).reservations
        assert changed == ()  # no run was ordered for it
        book._db.execute("UPDATE reservations SET launch_json = ?", (json.dumps(asdict(launch)),))
        (first,) = do_all(office).reservations
        assert first.run_id == "r"
        assert (first.warning or "").endswith(said or "")
        assert (first.warning is None) == (said is None)
        assert ("what was bought: H100" in first.state_reason) == (said is None)
        assert do_all(office).reservations == ()  # and it stays said


class Held:
    """What EC2 says of a block that is at work."""

    state: HoldingState = "active"
    gone = False

    def look(self, provider_ref: str, region: str) -> Holding:
        place = (region, "us-east-1a", "p5.48xlarge", 1)
        return Holding(provider_ref, self.state, "the provider's word", *place, NOW, NOW, free_nodes=0)

    def cancel(self, provider_ref: str, region: str) -> Holding:
        self.gone = True
        return self.look(provider_ref, region)


class Committed(Held):
    """Capacity that is not taken back before its commitment is over."""

    is_over = False

    def cancel(self, provider_ref: str, region: str) -> Holding:
        if not self.is_over:
            raise PurchaseRefusedError("the commitment is not over")
        return super().cancel(provider_ref, region)


def test_a_run_that_cannot_be_started_is_told_once(app: App) -> None:
    ledger = Places(app.directories.state).ledger
    with ReservationBook(ledger) as book, ScheduleBook(ledger) as schedules:
        book.move(book.get("r"), "active", "the capacity is there", utc_text(NOW))
        book._db.execute(
            "UPDATE reservations SET launch_json = ?", (json.dumps(asdict(LaunchPlan("s", "skypilot", "r"))),)
        )
        buyer = Buyer(book, lambda name: Held(), lambda: NOW)
        firer = Firer(schedules, PlanStarter(ledger), lambda: NOW)
        office = Office(ledger, buyer, firer, Path("no-hook"), lambda row: Started(2, "no spec"))
        told = [done.told for _ in range(3) if (done := do_all(office)).errors]
        assert [len(notices) for notices in told] == [2, 0, 0]  # it began, and the run did not
        assert (book.get("r").warning or "").endswith("exit 2: no spec")


def test_a_provider_that_changes_something_is_no_way_back(app: App) -> None:
    held = Held()
    with ReservationBook(Places(app.directories.state).ledger) as book:
        book.move(book.get("r"), "active", "the capacity is there", utc_text(NOW))
        buyer = Buyer(book, lambda name: held, lambda: NOW)
        held.state = "pending"
        row = advance(buyer, "r")
        assert (row.state, row.warning) == ("active", "the provider's word")
        held.state = "active"
        assert advance(buyer, "r").warning is None


@pytest.mark.parametrize("state", ["active", "pending"])
def test_what_is_billed_until_it_is_given_back_ends_in_time(app: App, state: HoldingState) -> None:
    held = Held()
    held.state = state
    with ReservationBook(Places(app.directories.state).ledger) as book:
        refundable = replace(offer(), refundable=True)
        book.move(book.get("r"), "active", "the capacity is there", utc_text(NOW), offer=refundable)
        row = advance(Buyer(book, lambda name: held, lambda: offer().end_at), "r")
    assert (row.state, held.gone) == ("ended", True)


@pytest.mark.parametrize("known_as", ["open_ended", "bought before that was written down"])
def test_a_commitment_without_an_end_is_given_back_when_the_provider_lets_it(app: App, known_as: str) -> None:
    held = Committed()
    with ReservationBook(Places(app.directories.state).ledger) as book:
        open_ended = replace(offer(), provider="aws_odcr", open_ended=True)
        row = book.move(book.get("r"), "active", "the capacity is there", utc_text(NOW), offer=open_ended)
        assert row is not None and row.offer is not None
        if known_as != "open_ended":
            document = row.offer.document()
            del document["open_ended"]
            book._db.execute("UPDATE reservations SET offer_json = ?", (json.dumps(document),))
        buyer = Buyer(book, lambda name: held, lambda: offer().end_at)
        row = advance(
            buyer, "r"
        )  # delivered late, so that the commitment lasts longer than the time that was asked for
        assert (row.state, held.gone) == ("active", False)
        assert "billed on and cannot be given back: the commitment is not over" in (row.warning or "")
        held.is_over = True
        assert (advance(buyer, "r").state, held.gone) == ("ended", True)


class LoggedOut:
    """A provider whose login has ended."""

    def find(self, token: str, region: str) -> list[Holding]:
        raise CredentialsError("the login has ended", hint="log in again")


def test_a_standing_order_without_a_login_waits_and_is_told_once_until_it_is_missed(tmp_path: Path) -> None:
    want = Want(1, 20.0, NOW, NOW + timedelta(days=1), ("us-east-1",), (P5,))
    at, until = utc_text(NOW), utc_text(NOW + timedelta(hours=1))
    now = [NOW]
    with ReservationBook(tmp_path / "plan.db") as book:
        assert book.record(Terms("r", "aws_odcr", "tp-1", want, 10**9, at, until), at, "test")
        buyer = Buyer(book, lambda _: LoggedOut(), lambda: now[0])  # type: ignore[arg-type, return-value]
        for _ in range(3):
            row = advance(buyer, "r")
        assert (row.state, row.warning) == ("planned", "log in again")
        assert len(book.untold()) == 1
        now[0] += timedelta(hours=2)
        assert advance(buyer, "r").state == "missed"


def test_the_request_names_the_reservation() -> None:
    request = LaunchRequest("r", Path("bundle"), ())
    terms = {"alternatives": [], "max_usd_per_hour": None, "python": None, "setup": []}
    assert rented.complete(request, {**terms, "reservations": ["cr-1"]}).reservations == ("cr-1",)
    assert rented.complete(request, terms).reservations == ()


def test_a_start_that_is_repeated_asks_for_the_cap_on_record(
    plan_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, asked = Places(plan_home / "state").ledger, []

    def run_plan(words: list[str], *, timeout_s: float) -> CompletedProcess[str]:
        asked.append(words[words.index("--cap") + 1])
        return CompletedProcess(words, 0, "", "")

    monkeypatch.setattr("planner.reserve.children.run_plan", run_plan)
    schedule = Schedule(
        *("s", utc_text(NOW), "spec.yaml", "local", Timing("0 2 * * *", None, "UTC"), 5_000_000),
        *("active", "waits", utc_text(NOW), None, 1, 3600.0),
    )
    PlanStarter(ledger).start(schedule, "run-1", 5.0)
    with Store(ledger) as store:
        store.create("run-1", terms_of(cap_micro_usd=5_000_000), attempt_of())
    PlanStarter(ledger).start(schedule, "run-1", 3.0)  # other runs of the period have cost something since
    assert asked == ["5.000000", "5.000000"]


class TakenAway:
    """A backend that loses every machine; it starts others at their usual price once a reservation is over."""

    launches = 0

    def launch(self, request: LaunchRequest) -> BackendStatus:
        self.launches, self.limit_s = self.launches + 1, request.max_duration_s
        return self.status(request.run_id)

    def status(self, run_id: str) -> BackendStatus:
        if self.launches == 0:
            return BackendStatus("absent")
        at = utc_text(NOW)
        return BackendStatus("vanished", "7", "lost", attempt=self.launches, started_at=at, ended_at=at)


@pytest.fixture
def terms(tmp_path: Path) -> RunTerms:
    usual = {"alternatives": [], "max_usd_per_hour": None, "python": None, "setup": []}
    document = json.loads(terms_of().candidate_json) | {"rented": {**usual, "reservations": ["cr-1"]}}
    uri = (tmp_path / "checkpoints").as_uri()
    return terms_of(
        infra="cluster",
        secrets=(),
        monitor="service",
        candidate_json=json.dumps(document),
        checkpoint_uri=uri,
        max_duration_s=22 * 3600.0,
    )


def test_a_run_goes_on_in_its_reservation_for_as_long_as_that_lasts(app: App, terms: RunTerms) -> None:
    now, backend, places = [NOW], TakenAway(), Places(app.directories.state)
    with Store(places.ledger) as store:
        desk = Desk(store, backend, places, lambda: utc_text(now[0]))  # type: ignore[arg-type]
        run, _ = launch(desk, "run-1", terms, 1_000_000)
        now[0] = NOW + timedelta(hours=10)
        run = resume(desk, run)
        assert (backend.launches, backend.limit_s) == (2, 12.5 * 3600 - CHECKPOINT_S)
        now[0] = NOW + timedelta(
            hours=22.4
        )  # machines are still there, and would be ended before it can commit
        with pytest.raises(CapReachedError, match="the time of its reservation is over"):
            resume(desk, run)
        assert (backend.launches, store.find("run-1").state) == (2, "preempted")
        run = look_at(desk, store.find("run-1"), Habits(retry_delay_s=0.0))
        assert (run.state, run.state_reason) == ("capped", "the time of its reservation is over")
    assert backend.launches == 2


def test_a_launch_that_comes_after_its_reservation_has_failed(app: App, terms: RunTerms) -> None:
    backend, places = TakenAway(), Places(app.directories.state)
    with Store(places.ledger) as store:
        store.create("run-1", terms, attempt_of())  # and whoever recorded it was killed
        late = utc_text(NOW + timedelta(days=1))
        desk = Desk(store, backend, places, lambda: late)  # type: ignore[arg-type]
        with pytest.raises(LaunchError, match="the time of its reservation is over"):
            launch(desk, "run-1", terms, 1_000_000)
        assert (backend.launches, store.find("run-1").state) == (0, "failed")
