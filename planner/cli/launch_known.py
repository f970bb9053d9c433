"""A run that is on record already: held to what was agreed to then, and agreed to again where that was long ago."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.cli.output import confirm, echo_err
from planner.money import usd_text_of_micro
from planner.runs import Run, seconds_between
from providers.errors import UsageError

if TYPE_CHECKING:
    from planner.cli.context import App
    from planner.launch import Desk
    from planner.proposal import Order

#: For so long what was agreed to is taken to be what is wanted still, at the price that was shown.
_AGREED_FOR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line names of a run's terms.

    Attributes:
        options: Parameters of the command that were named; others have their defaults.
    """

    candidate: str | None
    options: frozenset[str]


def is_unconfirmed(run: Run) -> bool:
    """Whether a launch was recorded, and nobody knows that the backend heard of it."""
    return run.state == "queued" and run.current.backend_id is None


def refuse_other_terms(run: Run, order: Order, given: Given) -> None:
    """Refuse to go on under other terms than were asked for now: those on record are the ones that would hold.

    Raises:
        UsageError: Some of them differ.
    """
    differences = list(_differences(run, order, given))
    if not differences:
        return
    then, now = (" and ".join(texts) for texts in zip(*differences, strict=True))
    hint = "launch it as before, or choose another --run-id"
    if is_unconfirmed(run):
        hint = f"launch it as before, or end it (`plan cancel {run.run_id}`) and launch anew under another id"
    raise UsageError(
        f"run {run.run_id} exists already and was launched with {then}, not {now}",
        hint=hint,
        code="run_exists",
    )


def _differences(run: Run, order: Order, given: Given) -> Iterator[tuple[str, str]]:
    """What is on record and what was asked for now, in words."""
    terms, choices = run.terms, order.choices
    if given.candidate not in (None, terms.candidate_id) and terms.moving_json is None:
        yield f"candidate {terms.candidate_id}", f"{given.candidate}"
    # a cap that was raised since is no other one, unless the launch is still to be made
    budget = order.plan.spec.goal.budget is not None and is_unconfirmed(run)
    caps = terms.cap_micro_usd, order.cap_micro_usd
    if caps[0] != caps[1] and (budget or given.options & {"cap", "no_cap"}):
        yield _cap(caps[0]), _cap(caps[1])
    limits = terms.max_duration_s, choices.max_duration_s
    if limits[0] != limits[1] and "max_duration" in given.options and choices.reservation_ref is None:
        yield _limit(limits[0]), _limit(limits[1])
    if "monitor" in given.options and choices.monitor != terms.monitor:
        yield f"--monitor {terms.monitor}", f"--monitor {choices.monitor}"
    if "move" in given.options and terms.moving_json is None:
        yield "no --move", "--move"


def _cap(micro: int | None) -> str:
    return "no cap" if micro is None else f"a cap of ${usd_text_of_micro(micro)}"


def _limit(limit_s: float | None) -> str:
    return "no --max-duration" if limit_s is None else f"--max-duration {limit_s:g}s"


def agree_again(app: App, desk: Desk, run: Run, tolerance: float, *, yes: bool) -> None:
    """Say what an interrupted launch goes on with; ask once more, at prices that still hold, if it is an old one.

    Raises:
        OverBudgetError: A machine that it may get costs more than was agreed to, or is not to be had any more.
        UsageError: Nobody can be asked.
    """
    if not is_unconfirmed(run):
        return  # nothing is started
    terms, at = run.terms, run.current.intent_at
    limit = "" if terms.max_duration_s is None else f" and {_limit(terms.max_duration_s)}"
    echo_err(f"{run.run_id} was to be launched at {at}; it goes on with {_cap(terms.cap_micro_usd)}{limit}")
    if seconds_between(at, desk.now()) < _AGREED_FOR_S:
        return
    _check_prices(app, run, tolerance)
    confirm(f"Launch {run.run_id} as it was agreed to then?", yes=yes)


def _check_prices(app: App, run: Run, tolerance: float) -> None:
    from planner.repricing import is_reserved, machines_asked_for, repriced, todays_prices

    machines = machines_asked_for(run)
    if is_reserved(run):
        return
    today = todays_prices(app.snapshot(run.terms.infra).offers, machines)
    hint = f"end it (`plan cancel {run.run_id}`) and launch anew"
    for offer in machines:
        repriced(offer, today, tolerance, hint=hint)
