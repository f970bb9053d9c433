"""What a moving run's policy is told, what it answers, and what is written down."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from planner.deadline.placement import Placement
from planner.moving.decision import decide, document, is_due, target
from planner.moving.guide import guide
from planner.moving.order import beyond_cap
from planner.moving.terms import MovingTerms, sites_of
from planner.moving.view import View, identity, look
from planner.price_age import PriceLimit
from planner.runs import Run
from planner.store import Change, Store
from providers.offers import Offer
from providers.skypilot_jobs import NO_CAPACITY
from tests.planner.moving_runs import (
    A_ON_DEMAND,
    A_SPOT,
    B_SPOT,
    attempt_at,
    later,
    moving,
    offer_at,
    progress,
)
from tests.planner.run_factories import START, run_of, terms_of

LIMIT = PriceLimit()


def _run(state: str, *attempts: Any, terms: MovingTerms | None = None, **changes: Any) -> Run:
    kept = terms_of(moving_json=(terms or moving()).to_json())
    return run_of(state, *attempts, terms=kept, **changes)  # type: ignore[arg-type]


def _look(run: Run, hours: float, prices: tuple[Offer, ...] = (), terms: MovingTerms | None = None) -> View:
    return look(run, terms or moving(), {identity(row): row for row in prices}, LIMIT, later(hours))


def test_terms_come_back_from_json() -> None:
    terms = moving()
    assert MovingTerms.from_json(terms.to_json()) == terms
    with pytest.raises(ValueError, match="version 9"):
        MovingTerms.from_json(json.dumps(json.loads(terms.to_json()) | {"version": 9}))


def test_where_it_runs_is_up_and_the_work_is_what_it_measured() -> None:
    run = _run("running", attempt_at(1, "bed-a", "spot", first_step=0), progress_json=progress(500))
    view = _look(run, 1.0)
    assert (view.current, view.overhead_left_h, view.step) == (A_SPOT, 0.0, 500)
    assert view.work_left_h == pytest.approx(500 * 14.4 * 1.05 / 3600)
    assert [(site.spot, site.why) for site in view.sites] == [
        (True, "our machine is there"),
        (True, "sold, by its price"),
    ]


def test_what_is_not_committed_is_work_for_whoever_leaves() -> None:
    at = attempt_at(1, "bed-a", "spot", first_step=0)
    run = _run("running", at, progress_json=progress(500, committed=400))
    view = _look(run, 1.0)
    assert view.uncommitted_h == pytest.approx(100 * 14.4 * 1.05 / 3600)
    assert view.observation().uncommitted_h == view.uncommitted_h
    lost = _look(_run("preempted", replace(at, ended_at=later(1)), progress_json=run.progress_json), 1.0)
    assert lost.work_left_h == pytest.approx(view.work_left_h + view.uncommitted_h)
    assert lost.uncommitted_h == 0.0
    assert _look(_run("running", at, progress_json=progress(400, committed=400)), 1.0).uncommitted_h == 0.0


def test_after_a_loss_the_place_is_down_for_a_while_and_work_counts_from_the_commit() -> None:
    lost = attempt_at(1, "bed-a", "spot", first_step=0, ended_at=later(0.5), outcome="preempted")
    run = _run("preempted", lost, progress_json=progress(500, committed=400))
    view = _look(run, 0.51)
    assert (view.current, view.step, view.committed_step) == (None, 400, 400)
    assert [site.spot for site in view.sites] == [False, True]
    assert "lost at" in view.sites[0].why
    assert _look(run, 0.75).sites[0].spot is True
    assert view.situation != _look(run, 0.75).situation


def test_each_loss_in_a_row_doubles_the_pause() -> None:
    lost = [
        attempt_at(
            n, "bed-a", "spot", started_at=later(n / 10), ended_at=later(n / 10 + 0.05), outcome="preempted"
        )
        for n in (1, 2)
    ]
    run = _run("preempted", *lost)
    assert _look(run, 0.25 + 0.17).sites[0].spot is False
    assert _look(run, 0.25 + 0.34).sites[0].spot is True


def test_a_price_that_is_too_old_is_no_probe() -> None:
    terms = moving(as_of_at="2026-01-01")
    view = _look(_run("preempted", attempt_at(1, "bed-b", "on_demand", ended_at=START)), 0.1, terms=terms)
    assert [site.spot for site in view.sites] == [None, None]
    assert "days old" in view.sites[0].why
    fresh = _look(_run("running", attempt_at(1, "bed-b", "spot")), 0.1, (offer_at("bed-a", "spot"),), terms)
    assert [site.spot for site in fresh.sites] == [True, True]


def test_a_machine_that_does_not_come_was_refused() -> None:
    asked = attempt_at(1, "bed-a", "spot", started_at=None)
    assert _look(_run("provisioning", asked), 0.3).current == A_SPOT
    assert _look(_run("provisioning", asked, state_reason=NO_CAPACITY), 0.1).current is None
    view = _look(_run("provisioning", asked), 0.4)
    assert (view.current, view.sites[0].spot) == (None, False)
    asked = attempt_at(1, "bed-a", "on_demand", started_at=None)
    view = _look(_run("provisioning", asked), 0.4)
    assert [site.on_demand_usd_per_h for site in view.sites] == [None, 1.2]


def test_the_policy_is_asked_once_a_tick_and_answers_alike() -> None:
    terms, run = moving(), _run("running", attempt_at(1, "bed-a", "spot", first_step=0))
    view = _look(run, 0.5)
    once, again = (decide(run, terms, view, None) for _ in range(2))
    assert once == again and target(once) == A_SPOT
    assert not is_due(terms, view, once)
    assert is_due(terms, replace(view, elapsed_h=0.5 + 1 / 11), once)
    assert is_due(terms, replace(view, current=None), once)
    following = decide(run, terms, replace(view, elapsed_h=0.5 + 1 / 11), once)
    assert following.tick == once.tick + 2 or following.tick == once.tick + 1


def test_what_losses_are_expected_is_told_with_the_decision() -> None:
    losses = ((1.4, "8 GPUs"), (0.9, "8 GPUs, Advisor <5% (2026-11-20)"))
    for terms, known in ((moving(losses=losses), list(losses)), (moving(), [(None, "")] * 2)):
        run = _run("running", attempt_at(1, "bed-a", "spot", first_step=0), terms=terms)
        told = document(decide(run, terms, _look(run, 0.5, terms=terms), None))
        assert [(site["losses_factor"], site["losses_why"]) for site in told["known"]["sites"]] == known


def test_pressed_by_the_deadline_it_moves_to_on_demand_and_says_so() -> None:
    terms = moving(work_h=4.0, deadline_h=4.4)
    run = _run("running", attempt_at(1, "bed-a", "spot"), terms=terms)
    told = document(decide(run, terms, _look(run, 0.05, terms=terms), None))
    assert (told["action"], told["choice"]["where"]) == ("move", "on-demand in slurm/bed-a")
    assert told["reason"].startswith("Moves to on-demand in slurm/bed-a: ")
    assert told["choice"]["usd_per_h"] == "1"


def test_a_dearer_zone_is_left_for_one_that_got_cheap() -> None:
    cheap = offer_at("bed-b", "spot")._replace(price_usd_per_hour=0.05)
    terms, run = moving(), _run("running", attempt_at(1, "bed-a", "spot", first_step=0))
    assert target(decide(run, terms, _look(run, 1.0, (cheap,)), None)) == B_SPOT


def test_on_demand_refused_everywhere_is_asked_for_where_it_is_cheapest() -> None:
    terms = moving(work_h=4.0, deadline_h=4.2)
    refused = [
        attempt_at(n, region, "on_demand", started_at=None, ended_at=later(0.01), outcome="stock_out")
        for n, region in ((1, "bed-a"), (2, "bed-b"))
    ]
    run = _run("preempted", *refused, terms=terms)
    assert target(decide(run, terms, _look(run, 0.05, terms=terms), None)) == A_ON_DEMAND


def test_more_than_the_cap_is_told() -> None:
    terms = moving()
    kept = terms_of(moving_json=terms.to_json(), cap_micro_usd=100_000)
    run = run_of("running", attempt_at(1, "bed-a", "spot", cost_micro_usd=50_000), terms=kept)
    assert float(document(decide(run, terms, _look(run, 0.5), None))["over_cap_usd"]) > 0


def test_who_agrees_is_told_if_the_cap_comes_before_the_deadline() -> None:
    mission = moving(work_h=4.0).mission  # 4.2 hours at a dollar, if all of it is on demand
    assert beyond_cap(mission, None) == beyond_cap(mission, 4_200_000) == ""
    assert "may cost $4.20, above the cap of $4:" in beyond_cap(mission, 4_000_000)


def test_sites_have_the_cheapest_spot_first_and_the_cheapest_on_demand_among_them() -> None:
    def offer(region: str, zone: str | None, market: Any, price: float) -> Offer:
        return offer_at("bed-a", market)._replace(region=region, zone=zone, price_usd_per_hour=price)

    spots = [offer("r1", f"r1-{n}", "spot", 1.0 + n / 100) for n in range(12)]
    sites = sites_of([*spots, offer("r1", None, "on_demand", 3.0), offer("r2", "r2-a", "on_demand", 2.0)])
    assert len(sites) == 10
    assert [site.spot.price_usd_per_hour for site in sites[:2] if site.spot] == [1.0, 1.01]
    assert all(site.on_demand and site.on_demand.region == "r1" for site in sites[:9])
    assert sites[9].spot is None and sites[9].on_demand is not None and sites[9].on_demand.region == "r2"
    assert [site.name for site in sites_of([offer("r", None, "on_demand", 1.0)])] == ["slurm/r"]


class _Backend:
    """Says whether the machine before is given back, and must not be asked for anything else."""

    def __init__(self, released: bool) -> None:
        self.is_released = released

    def released(self, run_id: str, *, before_attempt: int | None = None) -> bool:
        assert before_attempt == 2
        return self.is_released


@pytest.mark.parametrize(
    ("first_step", "released", "hours", "kind"),
    [
        (400, True, 1.0, "moved"),
        (300, True, 1.0, "moved_badly"),
        (400, False, 1.0, None),
        (400, False, 2.0, "not_released"),
    ],
)
def test_a_move_is_verified(
    tmp_path: Any, first_step: int, released: bool, hours: float, kind: str | None
) -> None:
    from planner.launch import Desk
    from planner.places import Places

    terms = moving()
    before = attempt_at(
        1, "bed-b", "spot", first_step=0, last_step=400, ended_at=later(0.6), outcome="cancelled"
    )
    newest = attempt_at(
        2, "bed-a", "spot", intent_at=later(0.6), started_at=later(0.9), first_step=first_step
    )
    old = _run(
        "running", attempt_at(1, "bed-b", "spot", first_step=0), progress_json=progress(400, committed=400)
    )
    with Store(tmp_path / "plan.db") as store:
        store.create("run-1", old.terms, attempt_at(1, "bed-b", "spot"))
        store.record_decision("run-1", decide(old, terms, _look(old, 0.5), None))
        run = _run("running", before, newest, progress_json=progress(500, resumed=first_step, committed=400))
        desk = Desk(store, _Backend(released), Places(tmp_path), lambda: later(hours))  # type: ignore[arg-type]
        guide(desk, run, dict, LIMIT)
        guide(desk, run, dict, LIMIT)
        noted = [event for event in store.events("run-1") if event.kind not in ("launch", "stop")]
    assert [event.kind for event in noted] == ([] if kind is None else [kind])


def test_a_decision_of_an_earlier_tick_is_not_recorded(tmp_path: Any) -> None:
    terms, run = moving(), _run("running", attempt_at(1, "bed-a", "spot"))
    early, late = (decide(run, terms, _look(run, hours), None) for hours in (0.5, 1.0))
    with Store(tmp_path / "plan.db") as store:
        store.create("run-1", run.terms, attempt_at(1, "bed-a", "spot"))
        assert [store.record_decision("run-1", row) for row in (late, early, late)] == [True, False, True]
        assert store.decisions("run-1") == [late, late]
        assert store.decisions("run-1", newest=1) == [late]


def test_placements_are_found_by_machine() -> None:
    terms = moving()
    assert terms.placement_of(offer_at("bed-b", "spot")) == Placement(1, "spot")
    assert terms.placement_of(offer_at("bed-b", "spot")._replace(gpu="H100")) is None


def test_a_machine_that_was_refused_is_asked_for_again_at_the_next_tick_not_at_the_next_look(
    tmp_path: Any,
) -> None:
    from planner.launch import Desk
    from planner.places import Places

    terms = moving(work_h=4.0, deadline_h=4.2)
    lost = attempt_at(1, "bed-b", "on_demand", ended_at=later(0.02), outcome="preempted")
    vain = attempt_at(2, "bed-a", "on_demand", started_at=None, ended_at=later(0.03), outcome="stock_out")
    before, run = _run("preempted", lost, terms=terms), _run("preempted", lost, vain, terms=terms)
    made = decide(before, terms, _look(before, 0.03, terms=terms), None)
    assert target(made) == A_ON_DEMAND and not is_due(terms, _look(run, 0.04, terms=terms), made)
    with Store(tmp_path / "plan.db") as store:
        store.create("run-1", run.terms, attempt_at(1, "bed-b", "on_demand"))
        store.record_decision("run-1", made)
        desk = Desk(store, None, Places(tmp_path), lambda: later(0.04))  # type: ignore[arg-type]
        assert guide(desk, run, dict, LIMIT) == run
        assert len(store.decisions("run-1")) == 1


def test_a_place_that_took_the_machine_of_another_run_is_left_alone(tmp_path: Any) -> None:
    from planner.launch import Desk
    from planner.places import Places

    run = _run("running", attempt_at(1, "bed-b", "spot", first_step=0))
    cheap = offer_at("bed-a", "spot")._replace(price_usd_per_hour=0.05)
    assert target(decide(run, moving(), _look(run, 1.0, (cheap,)), None)) == A_SPOT
    theirs = attempt_at(1, "bed-a", "spot")
    with Store(tmp_path / "plan.db") as store:
        store.create("run-1", run.terms, attempt_at(1, "bed-b", "spot"))
        store.create("run-2", terms_of(run_id="run-2", infra="skypilot"), theirs)
        other = store.get("run-2")
        assert other is not None
        ended = replace(theirs, ended_at=later(0.95), outcome="preempted")
        assert store.apply(other, Change("preempted", "taken away", ended, later(0.95), kind="loss"))
        desk = Desk(store, None, Places(tmp_path), lambda: later(1.0))  # type: ignore[arg-type]
        guide(desk, run, lambda: {identity(cheap): cheap}, LIMIT)
        decision = store.decisions("run-1", newest=1)[0]
    assert target(decision) == B_SPOT
    site = document(decision)["known"]["sites"][0]
    assert site["spot"] is False
    assert site["why"].startswith("avoided until") and "preempted 3 min ago" in site["why"]


def _guided(tmp_path: Any, run: Run, hours: float) -> tuple[Run, list[tuple[str, str]]]:
    """The run after a look of its monitor, and what was noted."""
    from planner.launch import Desk
    from planner.places import Places

    with Store(tmp_path / "plan.db") as store:
        store.create("run-1", run.terms, run.attempts[0])
        kept = store.find("run-1")
        change = Change(run.state, "", run.current, run.observed_at, progress_json=run.progress_json)
        assert store.apply(kept, change)
        desk = Desk(store, _Backend(True), Places(tmp_path), lambda: later(hours))  # type: ignore[arg-type]
        found = guide(desk, store.find("run-1"), dict, LIMIT)
        noted = [(event.kind, event.reason) for event in store.events("run-1")]
    return found, noted


def _capped(state: str, cap: int, tmp_path: Any, **attempt: Any) -> Run:
    terms = moving(work_h=4.0, deadline_h=4.4)
    at = attempt_at(1, "bed-a", "spot", cost_micro_usd=100_000, **attempt)
    kept = terms_of(
        moving_json=terms.to_json(), cap_micro_usd=cap, checkpoint_uri=(tmp_path / "run").as_uri()
    )
    return run_of(state, at, terms=kept)  # type: ignore[arg-type]


def test_a_move_that_the_cap_does_not_pay_for_is_refused_and_told(tmp_path: Any) -> None:
    run = _capped("running", 380_000, tmp_path)  # a start on demand is 0.2 h and a tick, at a dollar
    found, noted = _guided(tmp_path, run, 0.05)
    assert (found.state, len(found.attempts)) == ("running", 1)
    text = "stays where it is: what is left of the cap of $0.38 does not pay for a start on on-demand in slurm/bed-a"
    assert ("move_refused", f"{text} at $1 an hour") in noted
    assert "cap_warning" in dict(noted)


def test_a_run_at_rest_that_its_cap_cannot_start_again_in_time_is_over(tmp_path: Any) -> None:
    lost = {"ended_at": later(0.04), "outcome": "preempted"}
    found, noted = _guided(tmp_path, _capped("preempted", 380_000, tmp_path, **lost), 0.05)
    assert found.state == "capped" and "does not pay for a start" in found.state_reason
    assert noted[-1][0] == "give_up"


def test_that_nothing_is_in_time_any_more_is_noted_once(tmp_path: Any) -> None:
    terms = moving(work_h=4.0, deadline_h=3.0)
    kept = terms_of(moving_json=terms.to_json(), checkpoint_uri=(tmp_path / "run").as_uri())
    run = run_of("running", attempt_at(1, "bed-a", "on_demand"), terms=kept)
    _, noted = _guided(tmp_path, run, 0.05)
    text = f"it may miss its deadline {terms.deadline_at}: on a cautious count nothing is in time any more"
    assert noted.count(("deadline", text)) == 1
