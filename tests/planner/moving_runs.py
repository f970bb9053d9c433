"""A run that may move between two places with spot and on-demand, each at its own price."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from jobs.progress import CheckpointRef, Progress, StepTimes
from planner.deadline.controller import Mission
from planner.deadline.placement import Placement
from planner.moving.terms import MovingTerms, Site
from planner.offer_document import offer_document
from planner.runs import Attempt, utc_text
from providers.offers import Market, Offer
from tests.planner.run_factories import START

#: US dollars an hour by place and market.
PRICES: dict[str, dict[Market, float]] = {
    "bed-a": {"spot": 0.3, "on_demand": 1.0},
    "bed-b": {"spot": 0.4, "on_demand": 1.2},
}
A_SPOT, A_ON_DEMAND, B_SPOT = Placement(0, "spot"), Placement(0, "on_demand"), Placement(1, "spot")


def offer_at(region: str, market: Market, *, as_of_at: str | None = "2026-11-22") -> Offer:
    price = PRICES[region][market]
    return Offer("slurm", region, market, None, "A100", 1, 40.0, 4.0, 16.0, market, price, "test", as_of_at)


def moving(
    *,
    work_h: float = 4.0,
    deadline_h: float = 8.0,
    start_at: str = START,
    tick_h: float = 1 / 12,
    as_of_at: str | None = "2026-11-22",
    restart_h: float = 0.2,
    losses: tuple[tuple[float, str], ...] = (),
) -> MovingTerms:
    """Terms of a run; `losses` are the factor and its reasons by place."""
    sites = tuple(
        Site(
            f"slurm/{region}",
            offer_at(region, "spot", as_of_at=as_of_at),
            offer_at(region, "on_demand", as_of_at=as_of_at),
            why,
        )
        for region, why in zip(PRICES, [why for _, why in losses] or [""] * len(PRICES), strict=True)
    )
    mission = Mission(
        work_h,
        deadline_h,
        restart_h,
        tick_h,
        tuple(site.name for site in sites),
        tuple(prices["on_demand"] for prices in PRICES.values()),
        margin_h=0.05,
        loss_factors=tuple(factor for factor, _ in losses),
    )
    deadline = datetime.fromisoformat(start_at) + timedelta(hours=deadline_h)
    return MovingTerms(start_at, utc_text(deadline), 1, work_h, 0.0, sites, mission, {})


def attempt_at(number: int, region: str, market: Market, **changes: Any) -> Attempt:
    offer = offer_at(region, market)
    values: dict[str, Any] = {"intent_at": START, "backend_id": "77", "started_at": START, **changes}
    return Attempt(number, json.dumps(offer_document(offer)), round(1e6 * PRICES[region][market]), **values)


def progress(step: int, *, committed: int = 0, resumed: int = 0, max_steps: int = 1000) -> str:
    ref = CheckpointRef(committed, START, "file:///none", 1, "0" * 64) if committed else None
    return Progress(
        "run-1",
        1,
        state="training",
        step=step,
        max_steps=max_steps,
        last_checkpoint=ref,
        resumed_from_step=resumed,
        step_time_s=StepTimes(10.0, 14.4, 20.0),
    ).to_json()


def later(hours: float, since: str = START) -> str:
    return utc_text(datetime.fromisoformat(since) + timedelta(hours=hours))
