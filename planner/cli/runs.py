"""`plan runs`: every run."""

from __future__ import annotations

import click

from planner.cli.context import App, pass_app
from planner.cli.desk import open_desk, open_ledger, refresh
from planner.cli.output import confirm, echo_err, emit_json, output_option
from planner.cli.run_text import render_runs, state_text
from planner.run_document import run_document
from planner.runs import STATES, Run
from providers.errors import UsageError

_EXAMPLE = """\b
Examples:
  plan runs --project support -o json
  plan runs adopt s3://models/runs/goat-1
"""


@click.group("runs", epilog=_EXAMPLE, invoke_without_command=True)
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only these; repeatable.")
@click.option("--active", is_flag=True, help="Only runs that are not over.")
@click.option("--project", help="Only this project.")
@click.option("--owner", help="Only this owner.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most this many.")
@output_option("table", "json")
@pass_app
@click.pass_context
def command(
    ctx: click.Context,
    app: App,
    states: tuple[str, ...],
    active: bool,
    project: str | None,
    owner: str | None,
    limit: int,
    output: str,
) -> None:
    """List runs, newest first."""
    if ctx.invoked_subcommand is not None:
        return

    def wanted(run: Run) -> bool:
        return (
            (not states or run.state in states)
            and not (active and run.final)
            and (project is None or run.terms.project == project)
            and (owner is None or run.terms.owner == owner)
        )

    with open_ledger(app) as store:
        fresh = [refresh(app, store, run) for run in store.all_runs()]
    found = [(run, pids) for run, pids in fresh if wanted(run)][:limit]
    if output == "json":
        documents = [run_document(run, now=app.now(), pids=pids, attempts=False) for run, pids in found]
        emit_json("runs", {"runs": documents}, now=app.now())
    else:
        click.echo(render_runs([run for run, _ in found], app.now()))


@command.command(
    "adopt",
    epilog="\b\nExamples:\n  plan runs adopt s3://models/runs/goat-1\n  plan runs adopt plan-goat-1-1",
)
@click.argument("place", metavar="URI|JOB")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output_option("table", "json")
@pass_app
def adopt_command(app: App, place: str, yes: bool, output: str) -> None:
    """Take a run into this ledger: one that was lost with a ledger, or that another ledger has.

    URI is the run's own prefix of checkpoints; JOB is the name or number of SkyPilot's managed job, or the id of a run
    that was launched from here. What was paid so far comes from the run's record in that prefix. The former ledger can
    change nothing any more; the machines are not touched.
    """
    from planner.adopt import adopt, check_place
    from planner.ledger_identity import identity_of
    from planner.places import Places
    from planner.record import is_own, read_record
    from providers.stores import open_store

    uri = _uri(app, place)
    store = open_store(uri)
    record = read_record(store)
    if record is not None:
        check_place(record, uri)
        if not is_own(record, identity_of(Places(app.directories.state).ledger)):
            owner = record.run.terms.owner or "nobody in particular"
            told = f"owned by {owner}, ledger on {record.host}, last written {record.written_at}"
            confirm(f"Take {record.run.run_id} over ({told})?", yes=yes)
    with open_desk(app, "local" if record is None else record.run.terms.infra) as desk:
        run = adopt(desk, store)
    if output == "json":
        emit_json("status", {"run": run_document(run, now=app.now())}, now=app.now())
        return
    click.echo(f"{run.run_id}: {state_text(run.state)}, {len(run.attempts)} attempts")
    if not run.final:
        echo_err(f"`plan status {run.run_id}` shows how it goes, `plan resume {run.run_id}` starts it again")


def _uri(app: App, place: str) -> str:
    """The run's prefix that a URI, a job of SkyPilot or a run's id means."""
    if "://" in place:
        return place
    bundles = [] if "/" in place else sorted((app.directories.state / "bundles" / place).glob("*/job.json"))
    if bundles:
        from jobs.spec import JobSpec

        return JobSpec.load(bundles[-1]).checkpoints.uri
    from jobs.lease import STORE_VARIABLE
    from providers.skypilot import SkyPilotLauncher

    found = SkyPilotLauncher().variable_of(place, STORE_VARIABLE)
    if found is None:
        raise UsageError(
            f"neither this machine nor SkyPilot knows {place!r}",
            hint="give the URI of the run's checkpoints",
            code="run_unknown",
        )
    return found
