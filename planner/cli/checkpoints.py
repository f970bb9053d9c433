"""`plan checkpoints`: what a run has committed, whether it is intact, and what may be deleted."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import click

from jobs.checkpoint import CheckpointStore
from jobs.committed import verify_files
from jobs.manifest import Head
from jobs.progress import read_progress
from planner.cli.checkpoint_place import Entry, choose, committed_head, entries, open_place
from planner.cli.checkpoint_text import Checked, checkpoints_document, checkpoints_table, files_table
from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.output import confirm, emit_json, output_option
from planner.units import parse_duration_s
from providers.errors import CorruptDataError, UsageError
from providers.object_store import ObjectStore

_ENDED = ("done", "regressed", "failed", "preempted", "capped")
_SILENT = timedelta(minutes=10)  # a worker that says nothing for so long is dead

_place = click.argument("place", metavar="RUN|URI", shell_complete=complete_run)


@click.group(
    "checkpoints",
    epilog="\b\nExample:\n  plan checkpoints verify s3://bucket/runs/my-run",
    short_help="Look at, verify and tidy up what a run has committed",
)
def command() -> None:
    """Look at, verify and tidy up what a run has committed: a RUN of this machine, or the URI of any."""


@command.command("ls", epilog="\b\nExample:\n  plan checkpoints ls my-run -o json")
@_place
@output_option("table", "json")
@pass_app
def list_command(app: App, place: str, output: str) -> None:
    """List the finished model and the committed checkpoints, newest first."""
    store, run = open_place(app, place)
    head = committed_head(store, run)
    _answer(app, store, head, [_unchecked(entry) for entry in entries(store, head)], output)


@command.command("show", epilog="\b\nExample:\n  plan checkpoints show my-run --step 200")
@_place
@click.option("--step", type=click.IntRange(0), help="Default: the finished model, else the newest.")
@output_option("table", "json")
@pass_app
def show(app: App, place: str, step: int | None, output: str) -> None:
    """Show the files of one checkpoint."""
    store, run = open_place(app, place)
    head = committed_head(store, run)
    chosen = _unchecked(choose(store, entries(store, head), step))
    if output == "json":
        emit_json("checkpoints", checkpoints_document(store.uri, head, [chosen], files=True), now=app.now())
    else:
        click.echo(files_table(chosen))


@command.command("verify", epilog="\b\nExample:\n  plan checkpoints verify my-run --step 200")
@_place
@click.option("--step", type=click.IntRange(0), help="Default: all of them.")
@output_option("table", "json")
@pass_app
def verify(app: App, place: str, step: int | None, output: str) -> None:
    """Download and hash every file; ends with exit code 1 if one is missing or damaged."""
    store, run = open_place(app, place)
    head = committed_head(store, run)
    found = entries(store, head)
    if step is not None:
        found = [entry for entry in found if entry.pointer.step == step] or [choose(store, found, step)]
    rows = [_verified(store, entry) for entry in found]
    _answer(app, store, head, rows, output)
    damaged = [row.entry.pointer.step for row in rows if row.damage is not None]
    if damaged:
        steps = ", ".join(map(str, damaged))
        hint = "a resumed run passes over them by itself and goes on from the newest intact one"
        raise CorruptDataError(f"damaged in {store.uri}: step {steps}", hint=hint)


@command.command("gc", epilog="\b\nExample:\n  plan checkpoints gc my-run --yes")
@_place
@click.option("--grace", default="1d", show_default=True, help="Leave what is younger than this.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@output_option("table", "json")
@pass_app
def collect(app: App, place: str, grace: str, yes: bool, output: str) -> None:
    """Delete stored files that no committed checkpoint names: left over by attempts that were killed."""
    try:
        grace_s = parse_duration_s(grace)
    except ValueError as error:
        raise UsageError(f"--grace: {error}") from error
    store, run = open_place(app, place)
    committed_head(store, run)
    _refuse_living(store, app.now())
    confirm(f"Delete what no checkpoint in {store.uri} names and is older than {grace}?", yes=yes)
    owner = CheckpointStore(store, run.run_id if run else "")
    owner.take_over()  # an attempt that lives all the same ends instead of losing what it just sent
    deleted = owner.sweep(grace_s=grace_s, now_s=app.now().timestamp())
    if output == "json":
        emit_json("checkpoints_gc", {"uri": store.uri, "objects_deleted": deleted}, now=app.now())
    else:
        click.echo(f"{deleted} objects deleted")


def _answer(app: App, store: ObjectStore, head: Head, rows: Sequence[Checked], output: str) -> None:
    if output == "json":
        emit_json("checkpoints", checkpoints_document(store.uri, head, rows, files=False), now=app.now())
    else:
        click.echo(checkpoints_table(store.uri, head, rows))


def _unchecked(entry: Entry) -> Checked:
    """As far as reading the manifest tells."""
    return Checked(entry, "unchecked" if entry.damage is None else "damaged", entry.damage)


def _verified(store: ObjectStore, entry: Entry) -> Checked:
    if entry.manifest is None:
        return _unchecked(entry)
    try:
        with tempfile.TemporaryDirectory(prefix="plan-verify-") as scratch:
            verify_files(store, entry.manifest, Path(scratch))
    except CorruptDataError as error:
        return Checked(entry, "damaged", error.message)
    return Checked(entry, "ok", None)


def _refuse_living(store: ObjectStore, now: datetime) -> None:
    progress = read_progress(store)
    if progress is None or progress.state in _ENDED or progress.heartbeat_at is None:
        return
    if now - datetime.fromisoformat(progress.heartbeat_at) < _SILENT:
        hint = "cancel the run or wait until it is over; a run tidies up by itself when it starts"
        raise UsageError(f"a run is writing to {store.uri}", hint=hint, code="run_active")
