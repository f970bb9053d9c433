"""`plan schedule`: runs that start by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.context import App, pass_app
from planner.cli.output import confirm, echo_err, emit_json, output_option
from planner.money import micro_usd, usd_text_of_micro
from planner.places import Places
from planner.runs import check_run_id, new_run_id, utc_text
from planner.units import parse_deadline, parse_duration_s, parse_usd
from providers.errors import TuneplanError, UsageError

if TYPE_CHECKING:
    from planner.reserve.schedule_book import ScheduleBook
    from planner.reserve.schedules import Firing, Schedule
    from planner.reserve.timing import Timing
    from planner.specfile import LoadedSpec

_EXAMPLE = """\b
Examples:
  plan schedule add spec.yaml --cron "0 2 1 * *" --tz Europe/Berlin --budget-per-period 300usd
  plan schedule add spec.yaml --in 2h --budget-per-period 20usd --window nights
  plan schedule history monthly
"""


@click.group("schedule", epilog=_EXAMPLE, short_help="Runs that start by themselves, once or again and again")
def command() -> None:
    """Runs that start by themselves, once or again and again; `plan scheduler` starts them."""


def _ids(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    try:
        with _open(context.ensure_object(App)) as book:
            names = [row.schedule_id for row in book.all()]
    except TuneplanError:
        return []
    return [name for name in names if name.startswith(incomplete)]


_schedule = click.argument("schedule", shell_complete=_ids)


@command.command("add", epilog=_EXAMPLE)
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--cron", metavar="EXPR", help="Minute hour day month weekday, or @monthly and the like.")
@click.option("--at", metavar="TIME", help="Once, as in 2027-01-15T02:00 on the clock of --tz.")
@click.option("--in", "in_", metavar="DURATION", help="Once, so long from now, as in 2h.")
@click.option("--window", help="Start only then: nights, weekends, 'mon-fri 20:00-07:00'.")
@click.option("--tz", default="UTC", show_default=True, help="Whose clock counts, as in Europe/Berlin.")
@click.option("--until", metavar="TIME", help="The last day, or moment.")
@click.option("--budget-per-period", metavar="USD", help="For all runs from one due time to the next.")
@click.option("--no-cap", is_flag=True, help="Go without a budget.")
@click.option(
    "--late", default="6h", show_default=True, metavar="DURATION", help="Later than this is missed."
)
@click.option(
    "--skip-if-met",
    is_flag=True,
    help="First measure the newest model on the data of now: while it meets goal.metric, start nothing.",
)
@click.option(
    "--infra",
    type=click.Choice(["skypilot", "local"]),
    default="skypilot",
    show_default=True,
    help="As of launch.",
)
@click.option("--name", help="Name of the schedule and beginning of its runs' names; default: the spec's.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output_option("table", "json")
@pass_app
def add(
    app: App, /, spec: Path, budget_per_period: str | None, no_cap: bool, yes: bool, output: str, **asked: Any
) -> None:
    """Start SPEC at its times. The spec is read again at every start, so that new data is used."""
    from planner.cli.schedule_checks import doubts
    from planner.specfile import load_spec

    loaded = load_spec(spec)
    schedule = _new(app, loaded, budget_per_period, no_cap, asked)
    echo_err(_order_text(schedule))
    budget = schedule.budget_micro_usd
    for doubt in doubts(app, loaded, schedule.infra, None if budget is None else budget / 1e6):
        echo_err(f"warning: {doubt}")
    confirm(f"Add schedule {schedule.schedule_id}?", yes=yes)
    with _open(app) as book:
        book.add(schedule)
    _answer(app, [schedule], output)
    echo_err("`plan scheduler run` (or `plan scheduler tick` from cron) starts it")


@command.command("list", epilog="\b\nExample:\n  plan schedule list -o json")
@click.option("--all", "every", is_flag=True, help="Also those that are over.")
@output_option("table", "json")
@pass_app
def list_command(app: App, every: bool, output: str) -> None:
    """List schedules, the next due first."""
    with _open(app) as book:
        rows = [row for row in book.all() if every or row.state != "ended"]
    _answer(app, rows, output)


@command.command("pause", epilog="\b\nExample:\n  plan schedule pause monthly")
@_schedule
@output_option("table", "json")
@pass_app
def pause(app: App, schedule: str, output: str) -> None:
    """Stop starting runs; times that come meanwhile are passed over."""
    _change(app, schedule, "paused", "paused by the user", output)


@command.command("resume", epilog="\b\nExample:\n  plan schedule resume monthly")
@_schedule
@output_option("table", "json")
@pass_app
def resume(app: App, schedule: str, output: str) -> None:
    """Go on with the next time that comes."""
    _change(app, schedule, "active", "resumed by the user", output)


@command.command("rm", epilog="\b\nExample:\n  plan schedule rm monthly --yes")
@_schedule
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output_option("table", "json")
@pass_app
def remove(app: App, schedule: str, yes: bool, output: str) -> None:
    """End a schedule; runs that have started go on, its history stays."""
    with _open(app) as book:
        row = book.get(schedule)
        confirm(f"End schedule {row.schedule_id}?", yes=yes)
        book.remove(row.schedule_id, utc_text(app.now()))
        row = book.get(row.schedule_id)
    if output == "json":
        _answer(app, [row], output)
        return
    click.echo(f"{schedule}: ended")


@command.command("run-now", epilog="\b\nExample:\n  plan schedule run-now monthly --yes")
@_schedule
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output_option("table", "json")
@pass_app
def run_now(app: App, schedule: str, yes: bool, output: str) -> None:
    """Start one run now, from what is left of this period's budget; the exit code is that of `plan launch`."""
    from planner.cli.schedule_checks import raise_unless_started
    from planner.reserve.children import PlanStarter
    from planner.reserve.firing import Firer, extra

    ledger = Places(app.directories.state).ledger
    with _open(app) as book:
        row = book.get(schedule)
        confirm(f"Start a run of {row.schedule_id} now?", yes=yes)
        starter = PlanStarter(ledger)
        done = extra(Firer(book, starter, app.now), row)
        _answer_history(app, [done], output)
    raise_unless_started(done, starter.last)


@command.command("history", epilog="\b\nExample:\n  plan schedule history monthly -o json")
@_schedule
@output_option("table", "json")
@pass_app
def history(app: App, schedule: str, output: str) -> None:
    """Every time that was due, and what became of it; newest first."""
    with _open(app) as book:
        rows = book.firings(book.get(schedule).schedule_id)
    _answer_history(app, rows, output)


@contextmanager
def _open(app: App) -> Iterator[ScheduleBook]:
    from planner.reserve.schedule_book import ScheduleBook

    with ScheduleBook(Places(app.directories.state).ledger) as book:
        yield book


def _new(app: App, loaded: LoadedSpec, budget: str | None, no_cap: bool, asked: dict[str, Any]) -> Schedule:
    from planner.cli.reserve_desk import parsed
    from planner.cli.schedule_checks import refuse_what_never_starts
    from planner.reserve.schedules import Schedule

    if (budget is None) != no_cap:
        raise UsageError("say one of --budget-per-period USD and --no-cap")
    refuse_what_never_starts(loaded, asked["infra"])
    if asked["skip_if_met"] and (loaded.spec.goal.metric is None or loaded.spec.data.eval is None):
        raise UsageError(
            "--skip-if-met needs a goal and data to measure on", hint="give goal.metric and data.eval"
        )
    timing = _timing(app, asked)
    first = timing.after(app.now())
    if first is None:
        raise UsageError("this is never due", hint="look at --cron, --at and --until")
    name = asked["name"] or (loaded.spec.name if timing.cron else new_run_id(loaded.spec.name))
    now = utc_text(app.now())
    return Schedule(
        schedule_id=check_run_id(name),
        created_at=now,
        spec=str(loaded.path.absolute()),
        infra=asked["infra"],
        timing=timing,
        budget_micro_usd=None
        if budget is None
        else micro_usd(parsed("--budget-per-period", parse_usd, budget)),
        state="active",
        state_reason="waits for its time",
        state_since_at=now,
        next_at=utc_text(first),
        revision=1,
        late_s=parsed("--late", parse_duration_s, asked["late"]),
        skip_if_met=asked["skip_if_met"],
    )


def _timing(app: App, asked: dict[str, Any]) -> Timing:
    from planner.cli.reserve_desk import parsed
    from planner.reserve.timing import Timing

    if sum(asked[name] is not None for name in ("cron", "at", "in_")) != 1:
        raise UsageError("say one of --cron, --at and --in")
    at = None
    if asked["in_"] is not None:
        at = app.now() + timedelta(seconds=parsed("--in", parse_duration_s, asked["in_"]))
    elif asked["at"] is not None:
        at = _moment(asked["at"], asked["tz"])
    until = None if asked["until"] is None else parsed("--until", parse_deadline, asked["until"])
    if (
        at is not None and at.microsecond
    ):  # the ledger's clock is coarser: whole seconds are the same everywhere
        at = at.replace(microsecond=0) + timedelta(seconds=1)
    timing = Timing(asked["cron"], at, asked["tz"], asked["window"], until)
    timing.check()
    return timing


def _moment(text: str, tz: str) -> datetime:
    """A time with its own zone, or on the clock of a place."""
    from planner.reserve.timing import to_utc, zone

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        hint = "write it as in 2027-01-15T02:00 or 2027-01-15T02:00:00+01:00"
        raise UsageError(f"--at: {text!r} is not a time", hint=hint) from None
    return to_utc(moment, zone(tz)) if moment.tzinfo is None else moment.astimezone(UTC)


def _change(app: App, schedule_id: str, state: Any, reason: str, output: str) -> None:
    with _open(app) as book:
        row = book.get(schedule_id)
        if row.state == "ended":
            raise UsageError(f"schedule {schedule_id} is over: {row.state_reason}")
        following = row.timing.after(app.now()) if state == "active" else None
        if state == "active" and following is None:
            raise UsageError(f"schedule {schedule_id} is never due again")
        next_at = None if following is None else utc_text(following)
        if not book.change(row, state, reason, utc_text(app.now()), next_at):
            raise UsageError(
                f"schedule {schedule_id} was changed by somebody else just now", hint="try again"
            )
        row = book.get(schedule_id)
    _answer(app, [row], output)


def _order_text(row: Schedule) -> str:
    budget = (
        "none" if row.budget_micro_usd is None else f"${usd_text_of_micro(row.budget_micro_usd)} a period"
    )
    timing = row.timing
    when = f"cron {timing.cron} in {timing.tz}" if timing.cron else "once"
    if timing.window:
        when += f", only within {timing.window} ({timing.tz})"
    return f"schedule {row.schedule_id}: {when}; first at {row.next_at}; on {row.infra}; budget {budget}"


def _answer(app: App, rows: Sequence[Schedule], output: str) -> None:
    if output == "json":
        emit_json("schedule_list", {"schedules": [schedule_document(row) for row in rows]}, now=app.now())
        return
    from planner.cli.price_text import table_text

    cells = [
        (
            row.schedule_id,
            row.state,
            row.timing.cron or "once",
            row.timing.tz,
            row.next_at or "-",
            "none" if row.budget_micro_usd is None else usd_text_of_micro(row.budget_micro_usd),
        )
        for row in rows
    ]
    head = ("schedule", "state", "when", "clock", "next (UTC)", "$ a period")
    click.echo(table_text(head, cells, ("$ a period",)) if rows else "no schedules")


def schedule_document(row: Schedule) -> dict[str, Any]:
    """One schedule as JSON types."""
    timing = row.timing
    return {
        "schedule_id": row.schedule_id,
        "state": row.state,
        "state_reason": row.state_reason,
        "state_since_at": row.state_since_at,
        "created_at": row.created_at,
        "spec": row.spec,
        "infra": row.infra,
        "cron": timing.cron,
        "at": None if timing.at is None else utc_text(timing.at),
        "tz": timing.tz,
        "window": timing.window,
        "until_at": None if timing.until is None else utc_text(timing.until),
        "next_at": row.next_at,
        "budget_per_period_usd": None
        if row.budget_micro_usd is None
        else usd_text_of_micro(row.budget_micro_usd),
        "late_s": row.late_s,
        "skip_if_met": row.skip_if_met,
    }


def _answer_history(app: App, rows: Sequence[Firing], output: str) -> None:
    if output == "json":
        emit_json("schedule_history", {"firings": [firing_document(row) for row in rows]}, now=app.now())
        return
    from planner.cli.price_text import table_text

    cells = [(row.due_at, row.state, row.run_id or "-", row.reason) for row in rows]
    click.echo(
        table_text(("due (UTC)", "state", "run", "reason"), cells, ()) if rows else "nothing was due yet"
    )


def firing_document(row: Firing) -> dict[str, Any]:
    """One firing as JSON types."""
    return {
        "schedule_id": row.schedule_id,
        "due_at": row.due_at,
        "state": row.state,
        "reason": row.reason,
        "at": row.at,
        "run_id": row.run_id,
        "tries": row.tries,
    }
