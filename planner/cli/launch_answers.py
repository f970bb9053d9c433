"""What `plan launch` answers: how the run is, or what a launch would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from planner.cli.output import echo_err, emit_json
from planner.cli.run_text import state_text
from planner.runs import RESUMABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from planner.cli.context import App
    from planner.errors import Finding
    from planner.launch import Desk
    from planner.proposal import Order
    from planner.runs import Run

    Refuse = Callable[[Iterable[Finding]], None]


def answer(app: App, run: Run, created: bool, output: str) -> None:
    """Tell of a run that was launched now or before."""
    from planner.run_document import launch_document

    if output == "json":
        emit_json("launch", launch_document(run, created=created), now=app.now())
        return
    known = "" if created else ", which was launched before"
    click.echo(f"{run.run_id}: {state_text(run.state)}{known}")
    if run.state in RESUMABLE:
        echo_err(f"`plan resume {run.run_id}` goes on from the last committed checkpoint")
        return
    echo_err(f"`plan status {run.run_id}` and `plan logs -f {run.run_id}` show how it goes")


def answer_dry_run(
    app: App,
    desk: Desk,
    order: Order,
    found: list[Finding],
    output: str,
    refuse: Refuse,
    *,
    optimizer: bool = False,
) -> None:
    """Show what would be launched; only an order that is wrong itself is an error."""
    from planner.proposal import backend_document, dry_run_document, goes_on

    shown = goes_on(found)
    notes = _opinion(order) if optimizer and shown else []
    if output == "json":
        document = dry_run_document(order, desk.places, found)
        emit_json("launch", document | {"warnings": [*document["warnings"], *notes]}, now=app.now())
    if not shown:
        refuse(found)
    for note in notes:
        echo_err(note["message"])
    for row in found:
        echo_err(f"in the way of a launch: {row}" + (f"\nhint: {row.hint}" if row.hint else ""))
    if output == "json":
        return
    yaml = backend_document(order, desk.places)
    if yaml is not None:
        click.echo(yaml, nl=False)
    told = f"{len(found)} things stand against it" if found else "nothing stands against it"
    click.echo(f"{order.run_id}: {told}; dry run, nothing was started", err=yaml is not None)


def _opinion(order: Order) -> list[dict[str, str]]:
    """What SkyPilot's optimizer says; nothing of a run that it has no part in."""
    if order.infra == "local":
        return []
    from planner.cli.launch_opinion import opinion_text

    return [{"code": "optimizer", "message": opinion_text(order)}]
