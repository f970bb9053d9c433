"""`plan find --try`: rents a plan's machines one by one to see which can be had; asked for, capped and on record."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from planner.cli.context import App
from planner.cli.desk import clock, open_register
from planner.cli.interrupting import sigterm_interrupts
from planner.cli.output import confirm, echo_err
from planner.money import micro_usd, usd_text_of_micro
from planner.units import parse_duration_s, parse_usd
from providers.errors import LaunchError, StorageError, UsageError
from providers.process_lock import held

if TYPE_CHECKING:
    from planner.candidates import Candidate
    from planner.spec import FineTuneSpec
    from planner.try_book import Try
    from planner.trying import Tryable, TryDesk, TryRules


def try_them(
    app: App,
    spec: FineTuneSpec,
    candidates: Sequence[Candidate],
    *,
    cap: str | None,
    wait: str,
    every: bool,
    yes: bool,
    store_uri: str | None,
) -> list[Try]:
    """Show what a try may cost, ask, end what earlier tries left, and try.

    Raises:
        UsageError: There is no cap, or nobody agreed.
        LaunchError: None of the machines may be tried.
        OverBudgetError: The project's budget does not allow it.
        CleanupPendingError: Something that was rented is not known to be gone.
    """
    from planner.surroundings import Surroundings
    from planner.trying import affordable, end_open_tries, try_machines, tryable

    rules = _rules(cap, wait, every, spec.project)
    around = Surroundings(os.environ, Path.home(), app.now(), app.config.prices.max_age_s)
    possible, against = tryable(candidates, around, spec.where.max_usd_per_hour)
    chosen = affordable(possible, rules)
    for row in against:
        echo_err(f"not tried: {row}" + (f"; {row.hint}" if row.hint else ""))
    if not chosen:
        dear = "the cap is too small for one try" if possible else "none of the machines may be tried"
        raise LaunchError(dear, hint=_why_none(possible, rules), code="no_offer")
    echo_err(_terms(chosen, possible, rules))
    budget = _Budget(app, store_uri, spec.owner)
    budget.check(spec.project, chosen[0].most_micro_usd(rules.limit_s))
    confirm(f"Try {len(chosen)} machines?", yes=yes)
    with _desk(app, budget) as desk, sigterm_interrupts():
        end_open_tries(desk)
        return try_machines(desk, chosen, rules)


def end_cut_off(app: App, store_uri: str | None) -> None:
    """End whatever tries that were cut off have left.

    Raises:
        TuneplanError: Something of one is not known to be gone.
    """
    from planner.trying import end_open_tries

    with _desk(app, _Budget(app, store_uri, None)) as desk:
        ended = end_open_tries(desk)
    if not ended:
        echo_err("no try was cut off")


class _Budget:
    """The register's budgets, of which each try holds its worst case until it is over."""

    def __init__(self, app: App, store_uri: str | None, owner: str | None) -> None:
        self._register = open_register(app, store_uri)[0]
        self._owner = owner
        self._now = clock(app)

    def check(self, project: str, micro_usd: int) -> None:
        """Refuse before anybody is asked what not even the first try may cost.

        Raises:
            OverBudgetError: The project's budget does not allow it.
        """
        from planner.errors import OverBudgetError
        from planner.register import read_book, refusal

        why = refusal(read_book(self._register, project), "", micro_usd, self._now()[:7])
        if why is not None:
            hint = "wait until a run is over, or raise it: `plan budget set`"
            raise OverBudgetError(why.replace("this run", "one try"), hint=hint, code="project_budget")

    def hold(self, one: Try, micro_usd: int) -> None:
        """As `TryDesk.hold`."""
        from planner.register import hold

        hold(self._register, one.try_id, one.project, self._owner, micro_usd, one.asked_at[:7])

    def settle(self, one: Try) -> None:
        """As `TryDesk.settle`; a register that cannot be reached now is settled by the next command that reads it."""
        from planner.register import settle

        with suppress(StorageError):
            settle(self._register, one.project, (), [one])


@contextmanager
def _desk(app: App, budget: _Budget) -> Iterator[TryDesk]:
    from planner.places import Places
    from planner.try_book import TryBook
    from planner.trying import TryDesk
    from providers.skypilot_tries import SkyPilotTrier

    with TryBook(Places(app.directories.state).ledger) as book, _alone(app.directories.state):
        yield TryDesk(book, SkyPilotTrier(), clock(app), echo_err, budget.hold, budget.settle)


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Hold a lock that ends with the process: whatever is open in the book is cut off, and not at work elsewhere."""
    message = "another `plan find --try` of this ledger is under way"
    with held(state / "tries.lock", UsageError(message, hint="wait until it has ended", code="busy")):
        yield


def _rules(cap: str | None, wait: str, every: bool, project: str) -> TryRules:
    from planner.trying import TryRules

    if cap is None:
        raise UsageError("a try costs money and needs a cap", hint="--cap USD", code="no_cap")
    try:
        return TryRules(parse_duration_s(wait), micro_usd(parse_usd(cap)), every, project)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _why_none(possible: Sequence[Tryable], rules: TryRules) -> str | None:
    if not possible:
        return None
    least = usd_text_of_micro(possible[0].most_micro_usd(rules.limit_s))
    return f"the first one may cost ${least}: raise --cap, or wait less with --wait"


def _terms(chosen: Sequence[Tryable], possible: Sequence[Tryable], rules: TryRules) -> str:
    """What would be rented and what it may cost, for the person who is asked to agree."""
    lines = []
    for number, one in enumerate(chosen, start=1):
        offer = one.offer
        place = "/".join(part for part in (offer.cloud, offer.region, offer.zone) if part)
        price = usd_text_of_micro(one.micro_usd_per_hour)
        worst = usd_text_of_micro(one.most_micro_usd(rules.limit_s))
        machine = f"{one.nodes} x {offer.instance_type or 'machine'} ({offer.gpus_per_node} x {offer.gpu})"
        lines.append(f"{number:>3}.  {place}  {machine}  ${price}/h, at most ${worst}")
    total = sum(one.most_micro_usd(rules.limit_s) for one in chosen)
    until = "each of them" if rules.all else "until one is had"
    lines.append(
        f"in this order, {until}: at most ${usd_text_of_micro(total)} of ${usd_text_of_micro(rules.cap_micro_usd)}"
    )
    lines.append("not in that: a seller's least time of billing, disks and traffic")
    if len(chosen) < len(possible):
        lines.append(f"{len(possible) - len(chosen)} more would pass the cap and are not tried")
    return "\n".join(lines)
