"""What stands between agreeing to a launch and its start: the team's register, then the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from planner.cli.context import App
from planner.cli.desk import entered_here, open_register, settle_here
from providers.errors import StorageError

if TYPE_CHECKING:
    from planner.errors import Finding
    from planner.launch import Desk
    from planner.moving.order import MovingOrder
    from planner.proposal import Order
    from planner.runs import Run, RunTerms
    from providers.object_store import ObjectStore


def over_budget(app: App, desk: Desk, order: Order, store_uri: str | None) -> list[Finding]:
    """The project's budget, which is looked at again when the run is entered."""
    from planner.entry_book import cut_off
    from planner.errors import Finding
    from planner.register import read_book, refusal, settled, without

    project = order.plan.spec.project
    register, uri = open_register(app, store_uri)
    now = desk.now()
    book = without(read_book(register, project), cut_off(desk.store.path, uri, project, now))
    book = settled(book, project, *entered_here(desk.store, register, uri, book, now))
    why = refusal(book, order.run_id, _most(order), now[:7])
    hint = "lower the cap, wait until a run is over, or raise it: `plan budget set`"
    return [] if why is None else [Finding(why, code="project_budget", hint=hint)]


def launch_order(
    app: App, desk: Desk, order: Order, store_uri: str | None, moving: MovingOrder | None = None
) -> tuple[Run, bool]:
    """Take the run's id and hold its cap, record it and start it; whether this call created it.

    Raises:
        UsageError: Somebody else has the id.
        OverBudgetError: The project's budget does not allow it.
        LaunchError: Nothing was started.
    """
    from planner.entry_book import Entry, entering
    from planner.launch import launch
    from planner.proposal import run_terms

    register, uri = open_register(app, store_uri)
    terms = replace(run_terms(order, desk.places, zone_names_of(order), app.now()), register_uri=uri)
    if moving is not None:
        terms = replace(terms, moving_json=moving.terms.to_json())
    settle_here(app, desk.store, register, uri, terms.project)
    entry = Entry(order.run_id, terms.project, uri, desk.now())
    with (
        _leaving_project(app, desk, register, order.run_id, terms),
        entering(desk.store.path, register, entry),
    ):
        _enter(desk, order, register)
        first = None if moving is None else moving.first
        return launch(desk, order.run_id, terms, order.micro_usd_per_hour, first)


@contextmanager
def _leaving_project(
    app: App, desk: Desk, register: ObjectStore, run_id: str, terms: RunTerms
) -> Iterator[None]:
    """Around a launch: one that came to nothing holds only of the project that it was launched under last."""
    known = desk.store.get(run_id)
    try:
        yield
    finally:
        run = desk.store.get(run_id)
        if known is not None and run is not None:
            for project in {known.terms.project, terms.project} - {run.terms.project}:
                with suppress(StorageError):  # who looks at that project's budget from here settles it
                    settle_here(app, desk.store, register, terms.register_uri or "", project)


def _enter(desk: Desk, order: Order, register: ObjectStore) -> None:
    from planner.ledger_identity import identity_of
    from planner.register import enter

    known = desk.store.get(order.run_id)
    if known is not None and known.came_to_nothing:  # it is launched anew, as ordered now
        known = None
    if known is not None and known.final:
        return
    spec, most = order.plan.spec, _most(order)
    if known is not None:  # it goes on with its own terms
        most = 0 if known.current.micro_usd_per_hour == 0 else known.terms.cap_micro_usd
    enter(
        register,
        order.run_id,
        spec.project,
        spec.owner,
        ledger=identity_of(desk.store.path),
        cap_micro_usd=most,
        at=desk.now(),
    )


def _most(order: Order) -> int | None:
    """What the run may cost, None without a cap."""
    return 0 if order.micro_usd_per_hour == 0 else order.cap_micro_usd


def zone_names_of(order: Order) -> dict[str, str]:
    """Asked once, before the run is on record, so that ledger and backend speak of the same zones."""
    if order.infra == "local":
        return {}
    from planner.rented import alternatives
    from providers.aws_zones import zone_names

    return zone_names((order.candidate.offer, *alternatives(order.plan, order.candidate)))
