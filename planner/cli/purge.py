"""`plan purge`: gives back the disk space of runs that are over, and of what can be fetched again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from planner.cli.context import App, pass_app
from planner.cli.desk import open_ledger
from planner.cli.output import confirm, echo_err, emit_json, output_option
from planner.places import Places
from planner.units import parse_duration_s
from providers.errors import UsageError

if TYPE_CHECKING:
    from planner.purge import Leftover
    from planner.runs import Run

_EXAMPLE = """\b
Examples:
  plan purge --dry-run
  plan purge goat-1 --checkpoints
  plan purge --older-than 30d --cache --yes
"""


@click.command("purge", epilog=_EXAMPLE)
@click.argument("names", metavar="[RUN]...", nargs=-1)
@click.option(
    "--older-than", metavar="DURATION", help="Only runs that have been over for so long, as in 30d."
)
@click.option("--checkpoints", is_flag=True, help="Also checkpoints and models below the state directory.")
@click.option("--cache", is_flag=True, help="Also fetched prices, data and model facts.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, remove nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output_option("table", "json")
@pass_app
def command(
    app: App,
    names: tuple[str, ...],
    older_than: str | None,
    checkpoints: bool,
    cache: bool,
    dry_run: bool,
    yes: bool,
    output: str,
) -> None:
    """Remove workers' directories and bundles of runs that are over: all, or the RUNs named.

    What they cost stays on record. Nothing of a run that is not over is touched, and nothing outside tuneplan's own
    directories: checkpoints in a bucket or a directory of yours stay (`plan checkpoints gc`).
    """
    from planner.purge import leftovers_of_cache, remove

    found = list(_of_runs(app, names, older_than, checkpoints))
    if cache:
        found += leftovers_of_cache(app.directories.cache)
    total = sum(leftover.bytes for leftover in found)
    if output == "table" or not (dry_run or yes):
        for leftover in found:
            echo_err(f"{leftover.bytes:>15,} bytes  {leftover.what:<12}{leftover.path}")
    if found and not dry_run:
        confirm(f"Remove {len(found)} directories with {total:,} bytes?", yes=yes)
        found = _not_resumed(app, found)
        total = sum(leftover.bytes for leftover in found)
        for leftover in found:
            remove(leftover)
    if output == "json":
        rows = [_document(leftover) for leftover in found]
        emit_json("purge", {"dry_run": dry_run, "bytes": total, "removed": rows}, now=app.now())
    else:
        done = "would be freed" if dry_run else "freed"
        click.echo(f"{total:,} bytes {done}" if found else "there is nothing to remove")


def _of_runs(app: App, names: tuple[str, ...], older_than: str | None, checkpoints: bool) -> list[Leftover]:
    from planner.purge import is_older, leftovers_of

    try:
        seconds = None if older_than is None else parse_duration_s(older_than)
    except ValueError as error:
        raise UsageError(f"--older-than: {error}") from None
    places = Places(app.directories.state)
    if not places.ledger.exists() and not names:
        return []
    with open_ledger(app) as store:
        runs = [store.find(name) for name in names] if names else store.all_runs()
    for run in runs:
        if names and not run.final:
            raise UsageError(f"{run.run_id} is not over", hint=f"plan cancel {run.run_id}")
    chosen = [run for run in runs if seconds is None or is_older(run, app.now(), seconds)]
    mine = [run for run in chosen if run.final and not _is_anothers(app, run)]
    return [one for run in mine for one in leftovers_of(run, places, checkpoints=checkpoints)]


def _not_resumed(app: App, found: list[Leftover]) -> list[Leftover]:
    """Without what runs need again that were resumed while a person was asked."""
    if all(leftover.run_id is None for leftover in found):
        return found
    with open_ledger(app) as store:
        resumed = {run.run_id for run in store.active_runs()}
    for run_id in sorted(resumed & {leftover.run_id for leftover in found if leftover.run_id is not None}):
        echo_err(f"left alone: {run_id} was resumed meanwhile")
    return [leftover for leftover in found if leftover.run_id not in resumed]


def _is_anothers(app: App, run: Run) -> bool:
    """Whether another ledger has adopted it, whose worker and checkpoints may still lie here; a doubt counts as yes."""
    from planner.ledger_identity import identity_of
    from planner.record import adopter
    from providers.errors import TuneplanError
    from providers.stores import open_store

    uri = run.terms.checkpoint_uri
    if run.terms.infra != "local" and not uri.startswith("file:"):
        return False  # nothing of it that another ledger could use lies below our directories
    try:
        owner = adopter(open_store(uri), identity_of(Places(app.directories.state).ledger))
    except TuneplanError as error:
        echo_err(
            f"left alone: {run.run_id}: whether another ledger has adopted it cannot be told: {error.message}"
        )
        return True
    if owner is not None:
        echo_err(f"left alone: {run.run_id} was adopted by {owner}")
    return owner is not None


def _document(leftover: Leftover) -> dict[str, object]:
    return {
        "what": leftover.what,
        "run_id": leftover.run_id,
        "path": str(leftover.path),
        "bytes": leftover.bytes,
    }
