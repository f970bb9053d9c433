"""The answer of `plan reserve advise`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.context import App
from planner.cli.output import emit_json, usd_text
from planner.cli.reserve_desk import asked, job_of, parsed
from planner.errors import NothingFitsError
from planner.runs import utc_text
from planner.units import parse_usd
from providers.errors import UsageError

if TYPE_CHECKING:
    from planner.reserve.advice import Advice

_TITLES = {"buy_now": "buy now", "wait": "wait", "do_not_reserve": "do not reserve"}


def answer(
    app: App, spec: Path, late_cost: str | None, shortage: float, output: str, window: dict[str, Any]
) -> None:
    """Ask, weigh and print.

    Raises:
        UsageError: There is no date to plan backwards from.
        NothingFitsError: The job fits on nothing that can be reserved.
    """
    from planner.reserve.advice import Case, advise

    job = job_of(app, spec, window)
    if job.deadline is None:
        raise UsageError(
            "there is no date to plan backwards from", hint="--by TIME, or goal.deadline in the spec"
        )
    sized = [one for sizes in job.sized.values() for one in sizes]
    if not sized:
        raise NothingFitsError("the job fits on no machine that can be reserved and that the spec allows")
    found, sources = asked(app, job, window)
    late = None if late_cost is None else parsed("--late-cost", parse_usd, late_cost)
    advice = advise(Case(sized[0], found, job.others, job.deadline, late, app.now(), shortage))
    if output == "json":
        document = {**advice_document(advice), "assumed_shortage": shortage}
        document["sources"] = [asdict(row) for row in sources]
        emit_json("reserve_advise", document, now=app.now())
    else:
        click.echo(render_advice(advice, app.now()))


def advice_document(advice: Advice) -> dict[str, Any]:
    """`tuneplan/reserve_advise` below its common first keys."""
    best = advice.best
    return {
        "verdict": advice.verdict,
        "reason": advice.reason,
        "latest_start_at": utc_text(advice.latest_start_at),
        "decide_by_at": None if advice.decide_by_at is None else utc_text(advice.decide_by_at),
        "offer_id": None if best is None else best.offer.offer_id,
        "provider": None if best is None else best.offer.provider,
        "reserve_cost_usd": usd_text(advice.reserve_usd),
        "on_demand_cost_usd": usd_text(advice.on_demand_usd),
        "pays_from_shortage": advice.pays_from_shortage,
        "wrong": [{"what": row.what, "cost_usd": usd_text(row.cost_usd)} for row in advice.wrong],
    }


def render_advice(advice: Advice, now: datetime) -> str:
    """For a person."""
    return "\n".join(_lines(advice, now))


def _lines(advice: Advice, now: datetime) -> Iterator[str]:
    from planner.cli.reserve_text import held_text, start_text

    yield f"{_TITLES[advice.verdict]}: {advice.reason}"
    yield ""
    yield f"latest start   {advice.latest_start_at:%Y-%m-%d %H:%M} UTC (p90, margin and a day of slack before the date)"
    if advice.decide_by_at is not None:
        yield f"decide by      {_until(advice.decide_by_at, now)}"
    if advice.best is not None:
        offer = advice.best.offer
        starts = start_text(offer, now) + ("" if offer.start_at <= now else " UTC")
        held = f"; {text}" if (text := held_text(offer)) else ""
        yield (
            f"reservation    {offer.offer_id}: {offer.nodes} x {offer.machine.instance_type} in"
            f" {offer.zone or offer.region} from {starts}, ${advice.reserve_usd:,.2f} for this job{held}"
        )
    if advice.on_demand_usd is not None:
        yield f"on demand      about ${advice.on_demand_usd:,.2f}, if machines can be had that day"
    if advice.pays_from_shortage is not None:
        yield f"break-even     pays if no machine can be had in {advice.pays_from_shortage:.0%} of cases or more"
    yield "to be wrong:"
    for row in advice.wrong:
        cost = "unknown (--late-cost)" if row.cost_usd is None else f"${row.cost_usd:,.2f}"
        yield f"  {cost}: {row.what}"


def _until(moment: datetime, now: datetime) -> str:
    return "now" if moment <= now else f"{moment:%Y-%m-%d %H:%M} UTC"
