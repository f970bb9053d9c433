"""What a run would have cost on demand, undisturbed, on the machines that it had. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable

from jobs.progress import Progress
from planner.offer_document import offer_from_document
from planner.runs import Run, seconds_between
from providers.offers import Offer

#: Stages of the worker before its first step: what every restart pays again.
START_UP = ("environment", "download", "data", "setup", "load", "tokenise")


def on_demand_cost_usd(
    run: Run, lost_steps: int, progress: Progress, offers: Iterable[Offer]
) -> float | None:
    """The run's machine hours at the lowest on-demand price of the same machine in the same region.

    Steps that were computed twice and the worker's repeated starts are taken off, as last measured. What a cloud takes
    to bring a machine back is not, so that with preemptions this is somewhat high.

    Args:
        run: Of rented machines.
        lost_steps: Steps that were computed again.
        progress: What the newest worker said.
        offers: Prices to go by; those of a reservation are none.

    Returns:
        None where a machine had no end yet, or has no on-demand price.
    """
    nodes = json.loads(run.terms.candidate_json)["nodes"]
    prices = _lowest(offers)
    total_s = usd = 0.0
    for attempt in run.attempts:
        if attempt.started_at is None:
            continue
        price = prices.get(_machine(offer_from_document(json.loads(attempt.offer_json))))
        if price is None or attempt.ended_at is None:
            return None
        seconds = seconds_between(attempt.started_at, attempt.ended_at)
        total_s += seconds
        usd += seconds * price * nodes / 3600
    if not total_s:
        return None
    step_s = progress.step_time_s.p50 if progress.step_time_s is not None else 0.0
    again_s = sum(progress.stage_seconds.get(stage, 0.0) for stage in START_UP)
    starts = sum(attempt.first_step is not None for attempt in run.attempts)
    repeated_s = lost_steps * step_s + max(starts - 1, 0) * again_s
    return usd * max(total_s - repeated_s, 0.0) / total_s


def _lowest(offers: Iterable[Offer]) -> dict[tuple[object, ...], float]:
    prices: dict[tuple[object, ...], float] = {}
    for offer in offers:
        price = offer.price_usd_per_hour
        if offer.market == "on_demand" and price is not None:
            prices[_machine(offer)] = min(price, prices.get(_machine(offer), price))
    return prices


def _machine(offer: Offer) -> tuple[object, ...]:
    return offer.cloud, offer.region, offer.instance_type, offer.gpu, offer.gpus_per_node
