"""How often spot is taken to be lost: what the policy makes of it, and that it is what the estimate takes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.calibration import Calibration
from planner.candidates import Candidate
from planner.deadline import DeadlinePolicy, Placement
from planner.deadline.controller import ControllerState, Mission, Observation, step
from planner.deadline.loss_factors import LEAST, MOST, loss_factors
from planner.deadline.models import DOWN, UP, shipped_models, with_losses
from planner.deadline.own_loss import kept
from planner.deadline.replay import DeadlineJob, replay
from planner.estimate import build_estimate
from planner.hazards import OwnSpell, over_prior, prior
from planner.moving.terms import MovingTerms, moving_terms
from planner.plan import make_plan
from planner.question import Question
from planner.spot_signals import Said, SpotSignals
from planner.spot_sizes import sizes
from providers.offers import Offer
from tests.planner.factories import offer_of, question_of, snapshot_of, spec_of
from tests.planner.moving_runs import moving
from tests.planner.spot_markets import invented

_H = 3600
_FACTORS = st.floats(0.01, 100.0)
_ZONES = ("us-east-1a", "us-east-1b")
_UNIT = "share of machines interrupted in the month before, a band"
_TWO = Mission(4.0, 6.0, 0.2, 1 / 6, ("aws us-east-1a", "gcp us-central1-c"), (1.0, 1.2))


def _policy(losses: list[float | None] | None = None, regions: int = 2) -> DeadlinePolicy:
    return DeadlinePolicy(8, 14, 0.2, 1 / 6, [1.0] * regions, losses=losses)


def _costs(policy: DeadlinePolicy, spot_usd: float = 0.3, regions: int = 2) -> dict[Placement | None, float]:
    decision = policy.weigh(0, 8, [True] * regions, [spot_usd] * regions, None, 0.0)
    return {option.placement: option.cost_usd for option in decision.options}


@pytest.mark.parametrize("regions", [1, 3])
@pytest.mark.parametrize("losses", [1.0, None])
def test_nothing_known_is_the_models_to_the_last_digit(regions: int, losses: float | None) -> None:
    record = invented(60, 600, regions, 5)
    without, with_ones = _policy(regions=regions), _policy([losses] * regions, regions)
    for tick in range(60):
        seen = (record.up[tick].tolist(), record.spot_usd_per_h[tick].tolist())
        one, other = (policy.weigh(tick / 6, 7.0, *seen, None, 0.0) for policy in (without, with_ones))
        assert one == other


@given(st.lists(st.none() | _FACTORS, min_size=1, max_size=9))
def test_regions_keep_their_ratios_and_the_market_is_between_them(given: list[float | None]) -> None:
    market, regions = loss_factors(given, len(given))
    clipped = [None if factor is None else min(max(factor, LEAST), MOST) for factor in given]
    known = [(one, factor) for one, factor in zip(regions, clipped, strict=True) if factor is not None]
    assert all(math.isclose(one / known[0][0], factor / known[0][1]) for one, factor in known)
    assert all(math.isclose(one / factor, known[0][0] / known[0][1]) for one, factor in known)
    if known:
        assert all(2**-0.126 < one / factor < 2**0.126 for one, factor in known)  # half a step of the grid
    assert all(
        one == pytest.approx(market) for one, factor in zip(regions, given, strict=True) if factor is None
    )


def test_factors_that_differ_little_share_models_and_so_tables() -> None:
    near = [with_losses(shipped_models(), loss_factors([one], 1).market) for one in (1.38, 1.4, 1.45)]
    assert near[0] is near[1] is near[2] is not shipped_models()
    assert with_losses(shipped_models(), 1.0) is shipped_models()
    doubled = with_losses(shipped_models(), 2.0).hazard_per_h
    assert np.array_equal(doubled[:, UP], 2 * shipped_models().hazard_per_h[:, UP])
    assert np.array_equal(doubled[:, DOWN], shipped_models().hazard_per_h[:, DOWN])


@pytest.mark.parametrize("regions", [1, 2])
def test_the_more_is_lost_the_more_spot_is_expected_to_cost(regions: int) -> None:
    here = Placement(0, "spot")
    costs = [_costs(_policy([factor] * regions, regions), regions=regions) for factor in (0.5, 1.0, 2.0, 4.0)]
    assert all(one[here] < other[here] for one, other in pairwise(costs))
    assert kept(0, 4.0, 2.0) < kept(0, 4.0) < kept(0, 4.0, 0.5)


def test_a_zone_that_is_worse_is_avoided_even_if_it_is_a_little_cheaper() -> None:
    seen = ([True, True], [0.30, 0.31])
    assert _policy().decide(0, 8, *seen, None, 0.0) == Placement(0, "spot")
    assert _policy([1.4, 0.7]).decide(0, 8, *seen, None, 0.0) == Placement(1, "spot")
    assert _policy([0.7, 1.4]).decide(0, 8, *seen, None, 0.0) == Placement(0, "spot")


def test_a_zone_that_is_worse_is_left_for_a_price_that_alone_does_not_pay_for_a_start() -> None:
    here, seen = Placement(0, "spot"), ([True, True], [0.30, 0.25])

    def chosen(losses: list[float | None] | None) -> Placement | None:
        policy = DeadlinePolicy(8, 14, 0.1, 1 / 6, [1.0, 1.0], losses=losses)
        return policy.decide(0, 8, *seen, here, 0.0)

    assert chosen(None) == chosen([0.7, 1.4]) == here
    assert chosen([1.4, 0.7]) == Placement(1, "spot")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(_FACTORS | st.none(), min_size=1, max_size=4),
    st.integers(0, 10**6),
    st.sampled_from([0.2, 1.0, 5.0]),
    st.sampled_from([1.07, 1.3, 2.0]),
)
def test_no_factor_makes_a_job_late(
    losses: list[float | None], seed: int, preempt: float, slack: float
) -> None:
    job = DeadlineJob(3 * _H, 600, round(3 * _H * slack + 1200))
    record = invented(job.deadline_s // 600, 600, len(losses), seed, preempt=preempt)
    policy = DeadlinePolicy(3.0, job.deadline_s / _H, 1 / 6, 1 / 6, [1.0] * len(losses), losses=losses)
    assert not replay(job, record, policy).late


def test_a_mission_keeps_its_factors_and_an_older_one_has_none() -> None:
    state = ControllerState.begin(replace(_TWO, loss_factors=(1.3, None)))
    document = json.loads(json.dumps(state.to_document()))
    assert ControllerState.from_document(document) == state
    del document["mission"]["loss_factors"]
    assert ControllerState.from_document(document).mission == _TWO
    for wrong in ((1.0,), (1.0, 0.0), (math.nan, 1.0), (math.inf, 1.0)):
        with pytest.raises(ValueError, match="loss_factors"):
            replace(_TWO, loss_factors=wrong)


def test_terms_of_the_first_version_are_read_and_know_nothing_of_losses() -> None:
    terms = moving()
    document = json.loads(terms.to_json())
    del document["mission"]["loss_factors"]
    for site in document["sites"]:
        del site["losses_why"]
    assert MovingTerms.from_json(json.dumps(document | {"version": 1})) == terms
    assert terms.loss_factors == (None, None)


def test_the_figure_of_hazards_is_the_factor_on_the_prior() -> None:
    assert over_prior(prior()) == 1.0
    assert over_prior(prior().times(3.0)) == 3.0


def _offers() -> list[Offer]:
    one = offer_of("H100", 8, 30.0, instance_type="p5.48xlarge", gpu_mem_gib=80.0)
    return [
        one._replace(zone=zone, market=market, price_usd_per_hour=usd)
        for zone in _ZONES
        for market, usd in (("spot", 12.0), ("on_demand", 30.0))
    ]


def _said(zone: str, band: str) -> Said:
    return Said(
        "aws", "us-east-1", zone, "p5.48xlarge", None, "interruption_band", band, _UNIT, "Advisor",
        "2026-11-20T00:00:00Z",
    )  # fmt: skip


def _terms(question: Question) -> MovingTerms:
    """Terms of a launch of the plan of the question, which goes through its file's JSON."""
    offers = _offers()
    plan = make_plan(
        spec_of(), Path(), build_estimate(question, snapshot_of(*offers)), "2026-11-22T00:00:00Z"
    )
    same: list[Candidate] = [row for row in plan.candidates if row.nodes == 1]
    chosen = next(row for row in same if row.offer.market == "on_demand")
    return MovingTerms.from_json(
        moving_terms(
            chosen, same, start_at="2026-11-22T00:00:00Z", deadline_at="2026-11-23T00:00:00Z"
        ).to_json()
    )


def _first(terms: MovingTerms) -> Placement | None:
    """Where the live policy begins if spot can be had everywhere at one price."""
    mission = replace(terms.mission, work_h=8.0, deadline_h=14.0, restart_overhead_h=0.2)
    count = len(mission.zones)
    _, advice = step(ControllerState.begin(mission), Observation(0.0, 8.0, (True,) * count, (12.0,) * count))
    return advice.placement


def _place(terms: MovingTerms, zone: str) -> int:
    return next(i for i, site in enumerate(terms.sites) if site.spot is not None and site.spot.zone == zone)


@pytest.mark.parametrize("worse", _ZONES)
def test_signals_and_own_runs_reach_the_live_policy(worse: str) -> None:
    question, better = question_of(), next(zone for zone in _ZONES if zone != worse)
    plain = _terms(question)
    assert plain.loss_factors[0] == plain.loss_factors[1] == pytest.approx(sizes().factor(1, 8), abs=1e-4)
    assert all(site.losses_why == "8 GPUs" for site in plain.sites)

    signals = SpotSignals([_said(worse, ">20%"), _said(better, "<5%")])
    told = _terms(question._replace(spot_signals=signals))
    at, other = _place(told, worse), _place(told, better)
    assert told.loss_factors[other] < told.loss_factors[at]  # type: ignore[operator]
    assert told.sites[other].losses_why == "8 GPUs, Advisor <5% (2026-11-20)"
    assert _first(told) == Placement(other, "spot")

    lost = tuple(OwnSpell("aws", worse, "H100", 1, 0.3, True, 8) for _ in range(6))
    long = tuple(OwnSpell("aws", better, "H100", 1, 20.0, False, 8) for _ in range(6))
    own = _terms(question._replace(calibration=Calibration(spells=lost + long)))
    at, other = _place(own, worse), _place(own, better)
    assert own.loss_factors[at] > 1.5 * own.loss_factors[other]  # type: ignore[operator]
    assert "6 interruptions in 121.8 h of your own spot runs" in own.sites[at].losses_why
    assert _first(own) == Placement(other, "spot")
