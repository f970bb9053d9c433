"""The bill, line by line."""

from __future__ import annotations

from datetime import datetime

from planner.candidate_document import cost_micro_usd
from planner.candidates import Candidate
from planner.egress import AS_OF, SOURCE
from planner.explain.terms import Section, Term, Value
from planner.price_age import age_days
from planner.pricing import STORAGE_SOURCE, STORAGE_USD_PER_GB_MONTH, WRITES_USD_PER_THOUSAND, Priced
from planner.quantiles import Quantiles
from providers.offers import FLAGS


def cost(candidate: Candidate, priced: Priced, now: datetime) -> Section:
    """Cost lines of one candidate; those that are unknown are not in the total."""
    offer, line = priced.offer, priced.solved.line
    hours = {
        "compute": line.compute_h,
        "rework": line.rework_h,
        "reprovision": line.reprovision_h,
        "idle": line.idle_h,
    }
    lines, three = cost_micro_usd(candidate)
    terms = tuple(
        Term(name, _usd(micro), "USD", *_how(name, hours.get(name), priced), source=_source(name, priced))
        for name, micro in lines.items()
    )
    spread = Quantiles(*(micro / 1e6 for micro in three))
    total = Term("total", spread.p50, "USD", "sum of the known lines", interval=spread)
    age: dict[str, Value] = {"as of": offer.as_of_at, "days old": age_days(offer.as_of_at, now)}
    price = Term(
        "price of a machine",
        offer.price_usd_per_hour,
        "USD/h",
        "list price before tax",
        {**age, "machines": priced.nodes},
        source=offer.source,
        error="; ".join(FLAGS.get(flag, flag) for flag in offer.flags),
    )
    return Section("cost", "cost", offer.source, terms, total, (price,))


def _how(name: str, hours: float | None, priced: Priced) -> tuple[str, dict[str, Value]]:
    if hours is not None:
        inputs: dict[str, Value] = {
            "hours": hours,
            "machines": priced.nodes,
            "USD/h": priced.offer.price_usd_per_hour,
        }
        return "hours x machines x price", inputs
    if name == "egress" and priced.egress_usd is not None:
        moved = priced.solved.traffic
        inputs = {"GB read by machines": moved.read_gb, "GB written by them": moved.written_gb}
        return "GB x price of a GB from that place to this one", inputs
    return _FIXED[name]


_FIXED: dict[str, tuple[str, dict[str, Value]]] = {
    "storage": ("checkpoints kept x price of a GB-month x time", {"USD/GB-month": STORAGE_USD_PER_GB_MONTH}),
    "requests": ("objects written x price of a thousand", {"USD/1000": WRITES_USD_PER_THOUSAND}),
    "egress": ("unknown until the place of the checkpoints and its prices are", {}),
    "controller": ("no controller machine is rented", {}),
}


def _source(name: str, priced: Priced) -> str:
    if name in ("storage", "requests") and priced.offer.market != "local":
        return STORAGE_SOURCE
    if name == "egress" and priced.egress_usd:
        return f"{SOURCE}, {AS_OF}"
    return ""


def _usd(micro: int | None) -> float | None:
    return None if micro is None else micro / 1e6
