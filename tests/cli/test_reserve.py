"""`plan reserve` against an AWS that sells capacity: what is shown, what is agreed to, what is bought once."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result

from planner.cli.schema import schema_text
from planner.places import Places
from planner.reserve import plan_purchase
from planner.reserve.book import ReservationBook
from planner.reserve.lock import buying
from planner.reserve.reservations import Reservation
from planner.store import Store
from providers.errors import LaunchError
from providers.reservation_aws_block import CapacityBlocks
from tests.capacity import slurm
from tests.capacity.server import Capacity
from tests.planner.run_factories import attempt_of, terms_of

RunPlan = Callable[..., Result]

SPEC = """
name: support
model: meta-llama/Llama-3.1-8B
data: {format: messages, samples: 200000, tokens_per_sample: 700}
train: {epochs: 3, sequence_length: 4096, packing: true}
where: {clouds: aws, regions: us-east-1}
"""
BLOCKS = ("--provider", "aws_capacity_block")
FAR = f"{datetime.now(UTC) + timedelta(days=40):%Y-%m-%d}"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return path


def answer(result: Result, code: int = 0) -> dict[str, Any]:
    assert result.exit_code == code, (result.stdout, result.stderr)
    document: dict[str, Any] = json.loads(result.stdout)
    name = document["schema"].removeprefix("tuneplan/")
    jsonschema.validate(document, json.loads(schema_text(name)))
    return document


def cheapest(run_plan: RunPlan, spec: Path) -> dict[str, Any]:
    offers = answer(run_plan("reserve", "offers", spec, "--by", FAR, *BLOCKS, "-o", "json"))["offers"]
    found: dict[str, Any] = offers[0]
    return found


def only(result: Result, code: int = 0) -> dict[str, Any]:
    (row,) = answer(result, code)["reservations"]
    return dict(row)


def test_offers_are_for_this_job(capacity: Capacity, run_plan: RunPlan, spec: Path) -> None:
    document = answer(run_plan("reserve", "offers", spec, "--by", FAR, *BLOCKS, "-o", "json"))
    need, first = document["need"], document["offers"][0]
    assert need["hours_p50"] < need["hours_p90"]
    assert first["usable_h"] >= need["hours_p90"] + need["margin_h"]
    assert first["usable_h"] == 23.5  # machines are ended half an hour before the block
    costs = [float(row["upfront_usd"]) for row in document["offers"]]
    assert costs == sorted(costs)
    per_useful = costs[0] / (need["hours_p50"] * need["gpus_total"])
    assert float(first["usd_per_useful_gpu_h"]) == pytest.approx(per_useful, abs=1e-5)
    assert first["offer"]["market"] == "reserved" and first["refundable"] is False
    assert float(first["compare"]["on_demand_cost_usd"]) > float(first["compare"]["spot_cost_usd"]) > 0
    assert {row["status"] for row in document["sources"]} >= {"ok"}
    bare = answer(run_plan("reserve", "offers", spec, "--by", FAR, *BLOCKS, "--margin", "0", "-o", "json"))
    assert bare["need"]["margin_h"] == 0 < need["margin_h"]


def test_the_calendar_has_dates_and_regions(
    capacity: Capacity, run_plan: RunPlan, spec: Path, tmp_path: Path
) -> None:
    drawn = tmp_path / "calendar.svg"
    regions = ("--region", "us-east-1", "--region", "us-west-2")
    result = run_plan(
        "reserve", "offers", spec, "--by", FAR, *BLOCKS, *regions, "--calendar", "--plot", drawn
    )
    head, *rows = result.stdout.splitlines()
    assert head.split() == ["start", "us-east-1", "us-west-2"]
    assert len(rows) > 4 and "$" in result.stdout
    assert "<svg" in drawn.read_text()


def test_nothing_for_sale_is_exit_3(capacity: Capacity, run_plan: RunPlan, spec: Path) -> None:
    capacity.order(none=True)
    document = run_plan("reserve", "offers", spec, "--by", FAR, *BLOCKS, "-o", "json")
    assert document.exit_code == 3
    assert answer(document, 3)["offers"] == []


@pytest.mark.parametrize("words", [(), ("--confirm-usd", "1")])
def test_nothing_is_bought_without_the_exact_amount(
    capacity: Capacity, run_plan: RunPlan, spec: Path, words: tuple[str, ...]
) -> None:
    offer = cheapest(run_plan, spec)["offer_id"]
    refused = run_plan("reserve", "buy", spec, "--by", FAR, *BLOCKS, "--offer", offer, *words)
    assert refused.exit_code == (5 if words else 2)
    assert "--confirm-usd" in refused.stderr or "nothing was bought" in refused.stderr
    assert answer(run_plan("reserve", "list", "-o", "json"))["reservations"] == []


def test_an_offer_is_bought_once_however_often_it_is_asked_for(
    capacity: Capacity, run_plan: RunPlan, spec: Path, plan_home: Path
) -> None:
    offer = cheapest(run_plan, spec)
    buy = ("reserve", "buy", spec, "--by", FAR, *BLOCKS, "--offer", offer["offer_id"])
    first = only(run_plan(*buy, "--confirm-usd", offer["upfront_usd"], "-o", "json"))
    assert (first["state"], first["price_cap_usd"]) == ("bought", offer["upfront_usd"])
    assert [row["state"] for row in first["history"]] == ["planned", "intent", "bought"]
    again = run_plan(*buy, "--confirm-usd", offer["upfront_usd"], "-o", "json")
    assert only(again)["provider_ref"] == first["provider_ref"]
    assert "nothing else is bought" in again.stderr
    (listed,) = answer(run_plan("reserve", "list", "-o", "json"))["reservations"]
    assert listed["paid_usd"] == offer["upfront_usd"]
    shown = run_plan("reserve", "show", first["reservation_id"])
    assert first["provider_ref"] in shown.stdout
    with ReservationBook(Places(plan_home / "state").ledger) as book:
        token = book.get(first["reservation_id"]).token
    assert [row["ref"] for row in capacity.sold(token)] == [first["provider_ref"]]
    refused = run_plan("reserve", "cancel", first["reservation_id"], "--yes")
    assert refused.exit_code == 6 and "cannot be cancelled" in refused.stderr


def test_a_price_that_moved_is_not_paid(capacity: Capacity, run_plan: RunPlan, spec: Path) -> None:
    offer = cheapest(run_plan, spec)
    capacity.order(price_factor=1.2)
    agreed = ("--confirm-usd", offer["upfront_usd"])
    refused = run_plan("reserve", "buy", spec, "--by", FAR, *BLOCKS, "--offer", offer["offer_id"], *agreed)
    assert refused.exit_code == 5
    assert "nothing was bought" in refused.stderr


def test_a_login_that_may_not_buy_is_exit_4_and_leaves_nothing_to_buy_later(
    capacity: Capacity, run_plan: RunPlan, spec: Path
) -> None:
    offer = cheapest(run_plan, spec)
    capacity.order(unauthorized=True)
    buy = ("reserve", "buy", spec, "--by", FAR, *BLOCKS, "--offer", offer["offer_id"])
    refused = run_plan(*buy, "--confirm-usd", offer["upfront_usd"])
    assert refused.exit_code == 4 and "UnauthorizedOperation" in refused.stderr
    (row,) = answer(run_plan("reserve", "list", "-o", "json"))["reservations"]
    assert row["state"] == "cancelled"


def test_a_purchase_that_could_not_be_made_is_not_made_later(
    capacity: Capacity, run_plan: RunPlan, spec: Path, plan_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = cheapest(run_plan, spec)
    buy = ("reserve", "buy", spec, "--by", FAR, *BLOCKS, "--offer", offer["offer_id"], "--name", "later")
    agreed = ("--confirm-usd", offer["upfront_usd"])
    with monkeypatch.context() as patch:
        patch.setattr(CapacityBlocks, "requote", unreachable)
        refused = run_plan(*buy, *agreed)
    assert refused.exit_code == 6
    run_plan("scheduler", "tick")
    ledger = Places(plan_home / "state").ledger
    with ReservationBook(ledger) as book:
        assert (book.get("later").state, capacity.sold(book.get("later").token)) == ("cancelled", [])
    assert "nothing was bought, and later will not be either" in refused.stderr
    with buying(ledger), monkeypatch.context() as patch:
        patch.setattr("planner.cli.reserve_buy._WAIT_S", 0.1)
        busy = run_plan(*buy[:-1], "busy", *agreed)
    assert busy.exit_code == 1 and "another process is buying" in busy.stderr
    (row,) = answer(run_plan("reserve", "list", "-o", "json"))["reservations"]
    assert row["reservation_id"] == "later"


def unreachable(*_: object) -> None:
    raise LaunchError("AWS cannot be reached")


def test_the_same_purchase_by_two_commands_at_once_is_one(
    capacity: Capacity, run_plan: RunPlan, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = cheapest(run_plan, spec)
    buy = ("reserve", "buy", spec, "--by", FAR, *BLOCKS, "--offer", offer["offer_id"])
    agreed = ("--confirm-usd", offer["upfront_usd"], "-o", "json")
    first = only(run_plan(*buy, *agreed))
    looked, before = [], plan_purchase.bought_before

    def looked_a_moment_before(*values: Any) -> Reservation | None:
        looked.append(values)
        return before(*values) if len(looked) > 1 else None

    monkeypatch.setattr(plan_purchase, "bought_before", looked_a_moment_before)
    assert only(run_plan(*buy, *agreed))["provider_ref"] == first["provider_ref"]
    assert len(answer(run_plan("reserve", "list", "-o", "json"))["reservations"]) == 1


def test_a_standing_order_is_recorded_and_cancelled(
    capacity: Capacity, run_plan: RunPlan, spec: Path
) -> None:
    words = ("reserve", "schedule", spec, "--by", FAR, *BLOCKS, "--cap", "90usd", "--name", "may")
    assert run_plan(*words).exit_code == 2
    row = only(run_plan(*words, "--confirm-usd", "90", "-o", "json"))
    assert (row["reservation_id"], row["state"], row["price_cap_usd"]) == ("may", "planned", "90")
    assert row["decide_by_at"] < f"{FAR}T23:59:59Z"
    assert run_plan(*words, "--confirm-usd", "90").exit_code == 2
    assert only(run_plan("reserve", "cancel", "may", "--yes", "-o", "json"))["state"] == "cancelled"


def test_advice_names_its_price(capacity: Capacity, run_plan: RunPlan, spec: Path) -> None:
    spec.write_text(SPEC.replace("samples: 200000", "samples: 150000"))  # a part of a block's time
    words = ("reserve", "advise", spec, "--by", FAR, *BLOCKS, "-o", "json")
    plain = answer(run_plan(*words))
    assert plain["verdict"] == "do_not_reserve" and "--late-cost" in plain["reason"]
    hurried = answer(run_plan(*words, "--late-cost", "50000usd"))
    assert hurried["verdict"] == "buy_now" and hurried["pays_from_shortage"] < 0.1
    assert {row["cost_usd"] for row in hurried["wrong"]} >= {hurried["reserve_cost_usd"], "50000"}
    capacity.order(none=True)
    assert answer(run_plan(*words))["verdict"] == "wait"


def test_advice_needs_a_date(capacity: Capacity, run_plan: RunPlan, spec: Path) -> None:
    result = run_plan("reserve", "advise", spec)
    assert result.exit_code == 2 and "--by" in result.stderr


BASEMENT = (
    "inhouse: [{name: basement, gpu: H100, gpus: 1, gpu_memory_gib: 80, machines: 2, capex: 35000usd,"
    " watts: 1400, usd_per_kwh: 0.15, utilisation: 70%}]\n"
)


def test_what_can_be_had_at_once_is_dated_now_and_priced_by_the_hour(
    run_plan: RunPlan, spec: Path, plan_home: Path
) -> None:
    (plan_home / "config.yaml").write_text(BASEMENT)
    spec.write_text(SPEC.replace("where: {clouds: aws, regions: us-east-1}\n", ""))
    before = datetime.now(UTC).replace(microsecond=0)
    words = (spec, "--by", FAR, "--provider", "inhouse")
    advice = answer(run_plan("reserve", "advise", *words, "-o", "json"))
    assert datetime.fromisoformat(advice["decide_by_at"]) >= before
    told = run_plan("reserve", "advise", *words).stdout
    (offer,) = answer(run_plan("reserve", "offers", *words, "-o", "json"))["offers"]
    job, held = float(advice["reserve_cost_usd"]), math.ceil(float(offer["upfront_usd"]) * 100) / 100
    assert f"from now, ${job:,.2f} for this job; ${held:,.2f} if it is held to its end" in told
    table = run_plan("reserve", "offers", *words).stdout
    assert f"{float(offer['offer']['price_usd_per_h']):,.2f}/h" in table and f"{job:,.2f}" in table
    assert "up-front" not in table


def test_own_machines_are_booked_and_given_back(run_plan: RunPlan, spec: Path, plan_home: Path) -> None:
    (plan_home / "config.yaml").write_text(BASEMENT)
    spec.write_text(SPEC.replace("where: {clouds: aws, regions: us-east-1}\n", ""))
    words = ("--by", FAR, "--provider", "inhouse")
    (offer,) = answer(run_plan("reserve", "offers", spec, *words, "-o", "json"))["offers"]
    assert offer["refundable"] and offer["offer"]["market"] == "inhouse"
    buy = ("reserve", "buy", spec, *words, "--offer", offer["offer_id"], "--name", "own", "-o", "json")
    refused = run_plan(*buy, "--confirm-usd", offer["upfront_usd"])
    assert refused.exit_code == 2 and "--infra local" in refused.stderr
    row = only(run_plan(*buy, "--infra", "local", "--confirm-usd", offer["upfront_usd"]))
    assert (row["state"], row["paid_usd"]) == ("active", None)
    with Store(plan_home / "state" / "plan.db") as store:
        rented = json.loads(terms_of().candidate_json) | {"rented": {"reservations": [row["provider_ref"]]}}
        store.create("goat-1", terms_of(candidate_json=json.dumps(rented)), attempt_of())
    refused = run_plan("reserve", "cancel", "own", "--yes")
    assert refused.exit_code == 2 and "--under-its-runs" in refused.stderr
    assert "in its capacity: goat-1 (queued); without it they lose their machines" in refused.stderr
    assert only(run_plan("reserve", "show", "own", "-o", "json"))["state"] == "active"
    done = run_plan("reserve", "cancel", "own", "--yes", "--under-its-runs", "-o", "json")
    assert only(done)["state"] == "cancelled"


def test_own_machines_with_no_run_in_them_are_given_back_at_once(
    run_plan: RunPlan, spec: Path, plan_home: Path
) -> None:
    (plan_home / "config.yaml").write_text(BASEMENT)
    spec.write_text(SPEC.replace("where: {clouds: aws, regions: us-east-1}\n", ""))
    words = ("--by", FAR, "--provider", "inhouse")
    (offer,) = answer(run_plan("reserve", "offers", spec, *words, "-o", "json"))["offers"]
    buy = ("reserve", "buy", spec, *words, "--offer", offer["offer_id"], "--name", "own", "--infra", "local")
    assert run_plan(*buy, "--confirm-usd", offer["upfront_usd"]).exit_code == 0
    assert only(run_plan("reserve", "cancel", "own", "--yes", "-o", "json"))["state"] == "cancelled"


def test_a_slurm_cluster_is_booked_like_own_machines(
    run_plan: RunPlan, spec: Path, plan_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = slurm.install(tmp_path / "bin", nodes={"n1": "idle", "n2": "mixed"})
    monkeypatch.setenv("PATH", str(file.parent), prepend=":")
    config = (
        "inhouse: [{name: lab, gpu: H100, gpus: 1, gpu_memory_gib: 80, machines: 2, capex: 35000usd,"
        " watts: 1400, usd_per_kwh: 0.15, utilisation: 70%, slurm: {partition: gpu, user: USER, here: true}}]\n"
    )
    spec.write_text(SPEC.replace("where: {clouds: aws, regions: us-east-1}\n", ""))
    words = ("--by", FAR, "--provider", "inhouse")
    (plan_home / "config.yaml").write_text(config.replace("USER", "'a; b'"))
    assert run_plan("reserve", "offers", spec, *words).exit_code == 2
    (plan_home / "config.yaml").write_text(config.replace("USER", "alice"))
    (offer,) = answer(run_plan("reserve", "offers", spec, *words, "-o", "json"))["offers"]
    place = ("slurm", "lab", "gpu", "inhouse")
    assert tuple(offer["offer"][name] for name in ("cloud", "region", "zone", "market")) == place
    buy = ("reserve", "buy", spec, *words, "--offer", offer["offer_id"], "--name", "own", "-o", "json")
    row = only(run_plan(*buy, "--confirm-usd", offer["upfront_usd"]))
    assert row["state"] == "active" and row["provider_ref"].startswith("slurm/lab/tp-")
    (made,) = json.loads(file.read_text())["reservations"]
    assert (made["Users"], made["NodeCnt"]) == ("alice", "1")
    assert only(run_plan("reserve", "cancel", "own", "--yes", "-o", "json"))["state"] == "cancelled"
    assert json.loads(file.read_text())["reservations"] == []
