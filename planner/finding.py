"""Which machines of a plan can be had now: what sellers say, what was seen here before, and the order to try. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from planner.avoidance import Avoided, Sighting, avoided_places, place_of, preferred
from planner.candidates import Candidate
from planner.money import usd_text_of_micro
from planner.offer_document import offer_document
from planner.price_age import age_text
from planner.queue_times import QueueTime, queue_time
from planner.runs import seconds_between, utc_text
from planner.try_book import Try
from providers.availability import Answered, Signal, Wanted
from providers.offers import Offer


class Login(NamedTuple):
    """Whether a cloud's login is here.

    Attributes:
        found: Names of the variables and files that are there; never what is in them.
        hint: How to get one.
    """

    found: tuple[str, ...]
    hint: str


class Seen(NamedTuple):
    """What was seen of a place here, over all time.

    Attributes:
        last: The newest sighting.
    """

    had: int
    stock_outs: int
    preemptions: int
    last: Sighting


@dataclass(frozen=True, slots=True)
class Found:
    """One candidate.

    Attributes:
        signals: What sellers say of it now; none if nobody could be asked.
        avoided: Why it is tried late, None if it is not.
        seen: What was seen here, None if nothing was.
        queue: Of own tries, None without one.
    """

    candidate: Candidate
    signals: tuple[Signal, ...]
    avoided: Avoided | None
    seen: Seen | None
    queue: QueueTime | None

    @property
    def against(self) -> tuple[str, ...]:
        """Why it cannot be had now, in the sellers' words; empty if nothing is known to stand against it."""
        return tuple(f"{row.source}: {row.text}" for row in self.signals if row.enough is False)


def wanted_of(candidate: Candidate) -> Wanted:
    """The machines of a candidate."""
    return Wanted(candidate.offer, candidate.nodes)


def found_machines(
    candidates: Sequence[Candidate],
    answered: Iterable[Answered],
    sightings: Sequence[Sighting],
    tries: Sequence[Try],
    now: datetime,
) -> list[Found]:
    """The candidates in the order in which a launch would try them: the plan's, avoided places last."""
    signals: dict[Wanted, tuple[Signal, ...]] = {}
    for answer in answered:
        for wanted, rows in answer.signals.items():
            signals[wanted] = (*signals.get(wanted, ()), *rows)
    avoided = avoided_places(sightings, now)
    late = {place_of(offer) for offer in _moved([row.offer for row in candidates], avoided)}
    found = [
        Found(
            candidate,
            signals.get(wanted_of(candidate), ()),
            avoided.get(place_of(candidate.offer)),
            _seen(candidate.offer, sightings),
            queue_time(candidate.offer, tries),
        )
        for candidate in candidates
    ]
    return sorted(found, key=lambda row: place_of(row.candidate.offer) in late)


def _moved(offers: Sequence[Offer], avoided: dict[Any, Avoided]) -> list[Offer]:
    places = {row.place for row in preferred(offers, avoided)[1]}
    return [offer for offer in offers if place_of(offer) in places]


def _seen(offer: Offer, sightings: Iterable[Sighting]) -> Seen | None:
    rows = [row for row in sightings if row.place == place_of(offer)]
    if not rows:
        return None
    kinds = [row.what for row in rows]
    return Seen(kinds.count("had"), kinds.count("stock_out"), kinds.count("preempted"), rows[-1])


def find_document(
    found: Sequence[Found],
    answered: Sequence[Answered],
    open_tries: Sequence[Try],
    not_asked: Mapping[str, str],
    logins: Mapping[str, Login],
    done: Sequence[Try] = (),
) -> dict[str, Any]:
    """The answer of `plan find` as JSON types; what nobody tells is null or missing, never zero.

    Args:
        found: In the order to try.
        answered: What became of asking each source.
        open_tries: Tries that were cut off: something of them may cost money.
        not_asked: Why nobody was asked, by cloud.
        logins: By cloud.
        done: Tries that were made just now.
    """
    return {
        "machines": [_machine_document(order, row) for order, row in enumerate(found, start=1)],
        "sources": [
            {
                "source": row.source.name,
                "cloud": row.source.cloud,
                "about": row.source.about,
                "status": "ok" if row.problem is None else "unknown",
                "message": row.problem,
                "hint": row.hint,
            }
            for row in answered
        ],
        "not_asked": [{"cloud": cloud, "reason": reason} for cloud, reason in sorted(not_asked.items())],
        "logins": [{"cloud": cloud, **login._asdict()} for cloud, login in sorted(logins.items())],
        "open_tries": [one.try_id for one in open_tries],
        "tries": [_try_document(one) for one in done],
    }


def _try_document(one: Try) -> dict[str, Any]:
    answered_s = None if one.answered_at is None else seconds_between(one.asked_at, one.answered_at)
    return {
        "try_id": one.try_id,
        "state": one.state,
        "reason": one.reason,
        "offer": offer_document(one.offer),
        "nodes": one.nodes,
        "asked_at": one.asked_at,
        "answered_after_s": answered_s,
        "ended_at": one.ended_at,
        "cost_usd": None if one.cost_micro_usd is None else usd_text_of_micro(one.cost_micro_usd),
    }


def _machine_document(order: int, row: Found) -> dict[str, Any]:
    avoided, seen, queue = row.avoided, row.seen, row.queue
    return {
        "order": order,
        "candidate_id": row.candidate.candidate_id,
        "nodes": row.candidate.nodes,
        "offer": offer_document(row.candidate.offer),
        "signals": [signal._asdict() for signal in row.signals],
        "against": list(row.against),
        "avoided": None
        if avoided is None
        else {"until_at": utc_text(avoided.until), "reason": avoided.reason, "basis": avoided.basis},
        "seen": None
        if seen is None
        else {
            "had": seen.had,
            "stock_outs": seen.stock_outs,
            "preemptions": seen.preemptions,
            "last": seen.last.what,
            "last_at": utc_text(seen.last.at),
        },
        "queue": None if queue is None else queue._asdict(),
    }


def render_found(
    found: Sequence[Found],
    answered: Sequence[Answered],
    not_asked: Mapping[str, str],
    logins: Mapping[str, Login],
    now: datetime,
) -> str:
    """The same for a person."""
    lines: list[str] = []
    for order, row in enumerate(found, start=1):
        lines += [
            _headline(order, row, now),
            *(f"      {name:<16} {text}" for name, text in _facts(row, now)),
        ]
    problems = [row for row in answered if row.problem is not None]
    missing = {cloud: login.hint for cloud, login in sorted(logins.items()) if not login.found}
    if problems or not_asked or missing:
        lines.append("")
    lines += [f"no login for {cloud} here: {hint}" for cloud, hint in missing.items()]
    for answer in problems:
        hint = f"; {answer.hint}" if answer.hint else ""
        lines.append(f"unknown: {answer.source.about} of {answer.source.cloud}: {answer.problem}{hint}")
    lines += [f"unknown: {cloud}: {reason}" for cloud, reason in sorted(not_asked.items())]
    return "\n".join(lines)


def _headline(order: int, row: Found, now: datetime) -> str:
    offer, nodes = row.candidate.offer, row.candidate.nodes
    price = (
        "price unknown" if offer.price_usd_per_hour is None else f"${offer.price_usd_per_hour * nodes:,.2f}/h"
    )
    age = "undated" if offer.as_of_at is None else f"{age_text(offer.as_of_at, now)} old"
    machine = f"{nodes} x {offer.instance_type or 'machine'} ({offer.gpus_per_node} x {offer.gpu})"
    where = place_of(offer).text()
    return (
        f"{order:>3}.  {where}  {machine}  {offer.market.replace('_', '-')}  {price}, {offer.source}, {age}"
    )


def _facts(row: Found, now: datetime) -> list[tuple[str, str]]:
    facts = [
        (
            signal.kind.replace("_", " "),
            f"{_verdict(signal)}{signal.text} [{signal.source}, {_age(signal, now)}]",
        )
        for signal in row.signals
    ]
    if row.avoided is not None:
        facts.append(("avoided", f"{row.avoided.text().removeprefix('avoided ')}; {row.avoided.basis}"))
    if row.seen is not None:
        seen = row.seen
        counts = f"had {seen.had}, refused {seen.stock_outs}, taken away {seen.preemptions} times"
        facts.append(("seen here", f"{counts}, last {utc_text(seen.last.at)[:16].replace('T', ' ')} UTC"))
    if row.queue is None:
        facts.append(("queue time", "unknown: never tried (`plan find --try`)"))
    else:
        facts.append(("queue time", row.queue.text()))
    return facts


def _verdict(signal: Signal) -> str:
    return "NO: " if signal.enough is False else ""


def _age(signal: Signal, now: datetime) -> str:
    seconds = (now - datetime.fromisoformat(signal.as_of_at)).total_seconds()
    return "now" if seconds < 90 else f"{age_text(signal.as_of_at, now)} ago"
