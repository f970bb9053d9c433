"""`plan why`: what the moving policy decided for a run, from what, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.desk import open_ledger
from planner.cli.output import emit_json, output_option
from planner.cli.run_text import state_text
from providers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from planner.runs import Run, RunEvent

_EVENTS = ("moved", "moved_badly", "not_released", "cap_warning", "give_up")


@click.command("why", epilog="\b\nExamples:\n  plan why goat-1\n  plan why goat-1 --all -o json")
@click.argument("run", shell_complete=complete_run)
@click.option("--all", "every", is_flag=True, help="Every tick, not only those that changed something.")
@output_option("table", "json")
@pass_app
def command(app: App, run: str, every: bool, output: str) -> None:
    """Show why RUN is where it is: time, what was known, the choice and what else was weighed.

    For runs launched with `--move`. Nothing outside the ledger is asked.
    """
    from planner.moving.decision import document

    with open_ledger(app) as store:
        found = store.find(run)
        decisions = [document(row) for row in store.decisions(found.run_id)]
        events = [event for event in store.events(found.run_id) if event.kind in _EVENTS]
    if found.terms.moving_json is None:
        hint = f"`plan status {found.run_id}` says why it is {found.state}"
        raise UsageError(f"run {found.run_id} does not move by itself", hint=hint, code="not_moving")
    shown = decisions if every else _changes(decisions)
    if output == "json":
        emit_json("why", _document(found, shown, events), now=app.now())
    else:
        click.echo(_text(found, shown, events))


def _changes(decisions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that did something, the first of a wait or stay, and the newest."""
    kept = []
    before = None
    for row in decisions:
        key = (row["action"], row["choice"]["where"])
        if key != before:
            kept.append(row)
        before = key
    return kept if not decisions or kept[-1] is decisions[-1] else [*kept, decisions[-1]]


def _document(run: Run, decisions: Sequence[Mapping[str, Any]], events: Sequence[RunEvent]) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "state": run.state,
        "deadline_at": decisions[-1]["deadline_at"] if decisions else None,
        "decisions": list(decisions),
        "events": [{"at": event.at, "kind": event.kind, "text": event.reason} for event in events],
    }


def _text(run: Run, decisions: Sequence[Mapping[str, Any]], events: Sequence[RunEvent]) -> str:
    """The newest decision in full, what came before as one line each."""
    head = f"{run.run_id}  {state_text(run.state)}"
    if not decisions:
        return f"{head}: nothing was decided yet (`plan monitor run` decides)"
    *earlier, newest = decisions
    lines = [f"{head}  to be done by {newest['deadline_at']}", "", f"{newest['at']}  {newest['reason']}"]
    known = newest["known"]
    lines.append(
        f"  known    step {known['step']} of {known['max_steps'] or '?'}, {known['work_left_h']:.2f} h of work and "
        f"{newest['time_left_h']:.2f} h left, ${known['spent_usd'] or '?'} spent, runs: {known['current']['where']}"
    )
    for site in known["sites"]:
        spot = {True: "up", False: "down", None: "unknown"}[site["spot"]]
        lines.append(
            f"           {site['name']}: spot {spot} ({site['why']}) {_usd(site['spot_usd_per_h'])}, "
            f"on-demand {_usd(site['on_demand_usd_per_h'])}"
        )
    for number, option in enumerate(newest["alternatives"]):
        sign = "->" if option["chosen"] else "  "
        lead = "  weighed  " if number == 0 else " " * 11
        lines.append(f"{lead}{sign} {option['where']}: ${float(option['expected_cost_usd']):.2f} from here")
    rows = [(row["at"], row["reason"]) for row in earlier] + [(event.at, event.reason) for event in events]
    lines += ["", "before:", *(f"  {at}  {text}" for at, text in sorted(rows))] if rows else []
    return "\n".join(lines)


def _usd(text: str | None) -> str:
    return "not to be had" if text is None else f"${text}/h"
