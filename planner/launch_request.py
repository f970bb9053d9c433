"""Job document and request of one attempt, both held to cap and duration."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from jobs.lease import STORE_VARIABLE
from jobs.spec import JobSpec, LimitsJob
from planner import rented
from planner.asking import offers_to_ask
from planner.candidate_document import candidate_from_document
from planner.limits import exit_reserve_s, stop_grace_s, time_limit_s
from planner.money import micro_usd
from planner.offer_document import offer_from_document
from planner.runs import Run, RunTerms
from planner.store import Store
from providers.launcher import LaunchRequest


def job_of(run: Run) -> JobSpec:
    """The job document of the newest attempt; it holds limits, the run's terms do not."""
    price, cap = run.current.micro_usd_per_hour, run.terms.cap_micro_usd
    limit_s = time_limit_s(run)
    limits = LimitsJob(
        max_duration_s=run.terms.max_duration_s,
        cap_usd=cap / 1e6 if cap is not None and price else None,
        usd_per_hour=price / 1e6 if price else None,
        spent_usd=(run.cost_micro_usd or 0) / 1e6,
        launch=run.launches,
        launched_at=run.launched_at,
        reserve_s=0.0 if limit_s is None else stop_grace_s(limit_s) + exit_reserve_s(limit_s),
        prices_usd_per_hour=_prices_elsewhere(run),
    )
    return replace(JobSpec.from_json(run.terms.job_json), limits=limits)


def _prices_elsewhere(run: Run) -> dict[str, float]:
    """What the machine costs by place, where the backend chooses the place."""
    if run.terms.moving_json is not None:
        return {}
    return rented.prices_by_region(json.loads(run.terms.candidate_json))


def request_for(store: Store, run: Run, bundle: Path, now: str) -> LaunchRequest:
    """What the backend is asked for the newest attempt.

    Args:
        store: The ledger, which says what places did lately.
        run: As read from it.
        bundle: The attempt's.
        now: RFC 3339 UTC.
    """
    request = request_of(run.run_id, run.terms, bundle)
    if run.terms.moving_json is not None:  # where it goes is the policy's to choose, one place an attempt
        request = replace(request, offers=(offer_from_document(json.loads(run.current.offer_json)),))
    elif run.terms.infra != "local":
        request = replace(request, offers=offers_to_ask(store, run, request.offers, now))
    limit_s, by_place_s = time_limit_s(run), _limits_by_place_s(run, request)
    if by_place_s and limit_s is not None:
        limit_s = min(limit_s, *by_place_s.values())
    return replace(
        request,
        attempt=run.launches,
        max_duration_s=limit_s,
        limits_by_place_s=by_place_s if set(by_place_s.values()) - {limit_s} else {},
        stop_grace_s=stop_grace_s(limit_s),
    )


def _limits_by_place_s(run: Run, request: LaunchRequest) -> dict[str, float]:
    """Seconds by "cloud/region" for which the cap pays there, at the dearest machine that may be taken in it.

    The backend may take any of the offers; the machine's own timer must hold the cap at the price of the one it took.
    """
    limits: dict[str, float] = {}
    if run.terms.infra == "local":
        return limits
    dearest = request.max_usd_per_hour
    for offer in request.offers:
        price = offer.price_usd_per_hour
        if price is None or (dearest is not None and price > dearest):
            continue
        limit_s = time_limit_s(run, micro_usd(price) * request.nodes)
        place = f"{offer.cloud}/{offer.region}".lower()
        if limit_s is not None:
            limits[place] = min(limit_s, limits.get(place, limit_s))
    return limits


def request_of(run_id: str, terms: RunTerms, bundle: Path) -> LaunchRequest:
    """What the backend is asked for the first attempt, without what the cap leaves of its time."""
    document = json.loads(terms.candidate_json)
    candidate = candidate_from_document(document)
    owner = {} if terms.owner is None else {"owner": terms.owner}
    request = LaunchRequest(
        run_id=run_id,
        bundle=bundle,
        offers=(candidate.offer,),
        nodes=candidate.nodes,
        processes_per_node=candidate.processes // candidate.nodes,
        disk_gib=candidate.disk_gib,
        max_duration_s=terms.max_duration_s,
        env={**terms.env, STORE_VARIABLE: terms.checkpoint_uri},
        secrets=terms.secrets,
        labels={**terms.labels, "project": terms.project, **owner},
    )
    return request if terms.infra == "local" else rented.complete(request, document["rented"])
