"""Asks for a plan's machines one by one to see which can be had, gives each back at once, and keeps what came of it.

A try is on record before anybody is asked, and open until it is known that nothing of it is left: whoever is killed in
between leaves a record that the next try, or `plan find --end-tries`, ends first.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from planner.candidates import Candidate
from planner.errors import Finding
from planner.filters import costs_more
from planner.ledger import cost_micro_usd
from planner.money import micro_usd
from planner.runs import seconds_between
from planner.surroundings import Surroundings, missing_login, stale_price
from planner.try_book import Try, TryBook, TryState
from providers.errors import TuneplanError
from providers.offers import Offer
from providers.skypilot_task import CLOUDS
from providers.trying import Trier, TryRequest

#: What giving back may take beyond the limit, and is paid for.
RELEASE_S = 300.0


class Tryable(NamedTuple):
    """A machine that may be tried.

    Attributes:
        micro_usd_per_hour: Of all nodes.
    """

    offer: Offer
    nodes: int
    micro_usd_per_hour: int

    def most_micro_usd(self, limit_s: float) -> int:
        """What one try can cost at most."""
        return cost_micro_usd(self.micro_usd_per_hour, limit_s + RELEASE_S) or 0


@dataclass(frozen=True, slots=True)
class TryRules:
    """How far a search may go.

    Attributes:
        limit_s: How long to wait for each machine.
        cap_micro_usd: No try begins that could take the sum over this.
        all: Also go on after a machine was had.
        project: Whose money it is.
    """

    limit_s: float
    cap_micro_usd: int
    all: bool
    project: str


@dataclass(frozen=True, slots=True)
class TryDesk:
    """What it takes to try.

    Attributes:
        now: RFC 3339 UTC.
        tell: Gets a line for each step.
        hold: Takes the most that a try may cost, in micro-dollars, from its project's budget, or refuses.
        settle: Puts what it has cost in place of that.
    """

    book: TryBook
    trier: Trier
    now: Callable[[], str]
    tell: Callable[[str], None]
    hold: Callable[[Try, int], None] = lambda _, __: None
    settle: Callable[[Try], None] = lambda _: None


def tryable(
    candidates: Iterable[Candidate], around: Surroundings, most_usd_per_hour: float | None
) -> tuple[list[Tryable], list[Finding]]:
    """The machines that may be tried, each once in their order, and why the others may not.

    Args:
        candidates: What an estimate found, the best first.
        around: Logins and the age from which a price is too old.
        most_usd_per_hour: Of all machines of a job together, None for no limit.
    """
    found: list[Tryable] = []
    refused: dict[str, Finding] = {}
    for candidate in candidates:
        offer = candidate.offer
        price = offer.price_usd_per_hour
        against = list(_against(offer, candidate.nodes, around, most_usd_per_hour))
        if price is not None and not against:
            one = Tryable(offer, candidate.nodes, micro_usd(price) * candidate.nodes)
            found += [one] if one not in found else []
        refused |= {str(row): row for row in against}
    return found, list(refused.values())


def _against(
    offer: Offer, nodes: int, around: Surroundings, most_usd_per_hour: float | None
) -> Iterator[Finding]:
    price = offer.price_usd_per_hour
    if offer.cloud not in CLOUDS:
        yield Finding(f"SkyPilot rents nothing of {offer.cloud}", code="no_offer", path="where.clouds")
    elif price is None:
        yield Finding(f"a machine of {offer.cloud} has no known price", code="no_price")
    elif costs_more(offer, nodes, most_usd_per_hour):
        what = (
            f"a machine of {offer.cloud} costs" if nodes == 1 else f"{nodes} machines of {offer.cloud} cost"
        )
        message = f"{what} more than ${most_usd_per_hour:g} an hour"
        yield Finding(message, code="too_dear", path="where.max_usd_per_hour")
    else:
        yield from missing_login(offer, around)
        yield from stale_price(offer, around)


def affordable(machines: Sequence[Tryable], rules: TryRules) -> list[Tryable]:
    """The first of them that fit below the cap together, at their worst."""
    chosen: list[Tryable] = []
    left = rules.cap_micro_usd
    for one in machines:
        left -= one.most_micro_usd(rules.limit_s)
        if left < 0:
            break
        chosen.append(one)
    return chosen


def try_machines(desk: TryDesk, machines: Sequence[Tryable], rules: TryRules) -> list[Try]:
    """Ask for the machines in this order, until one was had unless the rules say otherwise.

    Raises:
        OverBudgetError: The project's budget does not allow the next one.
        CleanupPendingError: Something that was rented is not known to be gone; the record of it stays open.
    """
    done: list[Try] = []
    left = rules.cap_micro_usd
    for machine in machines:
        if machine.most_micro_usd(rules.limit_s) > left:  # giving back took longer than was allowed for
            desk.tell("no further try: what the tries so far may have cost leaves too little below the cap")
            break
        one = _try(desk, machine, rules)
        done.append(one)
        left -= one.cost_micro_usd or 0
        if one.state == "released" and not rules.all:
            break
    return done


def end_open_tries(desk: TryDesk) -> list[Try]:
    """End whatever cut-off tries have left, oldest first; one that resists does not keep the others.

    Raises:
        TuneplanError: Something of one is not known to be gone; it stays open.
    """
    ended: list[Try] = []
    errors: list[TuneplanError] = []
    for one in desk.book.open_tries():
        try:
            ended.append(_ended(desk, one, "cut off"))
        except TuneplanError as error:
            desk.tell(f"{one.try_id}: not ended: {error.message}")
            errors.append(error)
    if errors:
        raise errors[0]
    return ended


def _try(desk: TryDesk, machine: Tryable, rules: TryRules) -> Try:
    offer, micro = machine.offer, machine.micro_usd_per_hour
    one = Try(
        f"plan-try-{secrets.token_hex(5)}",
        rules.project,
        offer,
        machine.nodes,
        micro,
        rules.limit_s,
        "asked",
        "",
        desk.now(),
    )
    desk.book.record(one)
    try:
        desk.hold(one, machine.most_micro_usd(rules.limit_s))
    except TuneplanError as error:
        refused = replace(one, state="failed", reason=error.message, ended_at=desk.now(), cost_micro_usd=0)
        desk.book.update(refused)
        raise
    place = "/".join(part for part in (offer.cloud, offer.region, offer.zone) if part)
    desk.tell(f"{one.try_id}: asking for {machine.nodes} x {offer.gpus_per_node} x {offer.gpu} in {place}")
    request = TryRequest(one.try_id, offer, machine.nodes, rules.limit_s, {"project": rules.project})
    try:
        answer = desk.trier.acquire(request)
    except TuneplanError as error:
        return _ended(desk, one, error.message)
    except BaseException:  # interrupted: nothing shall be left, and the interruption goes on
        _ended(desk, one, "interrupted")
        raise
    one = replace(one, answered_at=desk.now(), reason=answer.reason)
    if answer.had:
        one = replace(one, state="had")
        desk.book.update(one)
        desk.tell(f"{one.try_id}: had after {seconds_between(one.asked_at, one.answered_at or ''):.0f} s")
    return _ended(desk, one, answer.reason, unsure=answer.unsure)


def _ended(desk: TryDesk, one: Try, reason: str, *, unsure: bool = False) -> Try:
    """Release whatever there is of it, then close its record.

    What it cost runs from asking to the end, unless it is sure that there was no machine: what a seller bills is less.
    """
    desk.trier.release(one.try_id)
    end = desk.now()
    was_had = one.state == "had"
    refused = one.answered_at is not None and not was_had
    cost = (
        0
        if refused and not unsure
        else cost_micro_usd(one.micro_usd_per_hour, seconds_between(one.asked_at, end))
    )
    state: TryState = "released" if was_had else "stock_out" if refused else "failed"
    closed = replace(one, state=state, reason=reason, ended_at=end, cost_micro_usd=cost)
    desk.book.update(closed)
    desk.settle(closed)
    said = {"released": "given back", "stock_out": f"refused: {reason}", "failed": f"not tried: {reason}"}[
        state
    ]
    desk.tell(f"{one.try_id}: {said}")
    return closed
