"""`plan cancel`: checkpoint, then end."""

from __future__ import annotations

import click

from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.desk import open_desk_of, open_ledger
from planner.cli.output import echo_err, emit_json, output_option
from planner.cli.run_text import state_text
from planner.cli.waiting import wait_for_end
from planner.run_document import run_document
from planner.runs import Run


@click.command("cancel", epilog="\b\nExample:\n  plan cancel goat-1")
@click.argument("run", shell_complete=complete_run)
@click.option(
    "--grace", type=click.FloatRange(0), default=60, show_default=True, help="Seconds to checkpoint in."
)
@click.option("--no-wait", is_flag=True, help="Do not wait for the end, only until its backend is asked.")
@output_option("table", "json")
@pass_app
def command(app: App, run: str, grace: float, no_wait: bool, output: str) -> None:
    """Cancel RUN: its worker commits a checkpoint and ends. `plan resume` can go on from there."""
    from planner.launch import cancel

    with open_desk_of(app, run) as (desk, before):
        found = cancel(desk, before, grace_s=grace)
    _refuse_if_let_go(app, found)
    if before.final:
        echo_err(f"{found.run_id} was over already")
    if _is_committing(found):
        until = f"{found.next_try_at or ''}"[:19].replace("T", " ")
        echo_err(f"its worker commits a checkpoint and ends; its machine is ended then, or at {until} UTC")
    if not no_wait:
        found = wait_for_end(app, found.run_id)
    elif _is_committing(found):
        found = wait_for_end(app, found.run_id, enough=lambda run: not _is_committing(run))
    _refuse_if_let_go(app, found)
    if output == "json":
        emit_json("status", {"run": run_document(found, now=app.now())}, now=app.now())
    else:
        click.echo(f"{found.run_id}: {state_text(found.state)}")


def _refuse_if_let_go(app: App, run: Run) -> None:
    """Of a run that another ledger has, `cancelled` would be taken for the end of its machines."""
    from planner.monitor import was_let_go
    from planner.record import OtherLedgerError

    with open_ledger(app) as store:
        if was_let_go(store, run):
            raise OtherLedgerError(
                f"nothing was stopped: {run.state_reason}",
                hint=f"cancel it there, or take it back: plan runs adopt '{run.terms.checkpoint_uri}'",
            )


def _is_committing(run: Run) -> bool:
    """Whether the backend is not asked yet, since the worker has time."""
    return run.state == "cancelling" and run.next_try_at is not None
