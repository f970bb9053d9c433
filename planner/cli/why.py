"""`plan why`: what happened to a run, and what the moving policy decided for it, from what, and why."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

import click

from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.desk import open_ledger
from planner.cli.output import emit_json, output_option
from planner.cli.run_text import state_text
from planner.run_document import TROUBLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from planner.runs import Run, RunEvent

_EVENTS = ("moved", "give_up", "refused", *TROUBLE)
#: States that a run did not choose, or that end it.
_TOLD = ("preempted", "recovering", "unknown", "succeeded", "failed", "capped", "cancelled")


@click.command("why", epilog="\b\nExamples:\n  plan why goat-1\n  plan why goat-1 --all -o json")
@click.argument("run", shell_complete=complete_run)
@click.option("--all", "every", is_flag=True, help="Every tick, not only those that changed something.")
@output_option("table", "json")
@pass_app
def command(app: App, run: str, every: bool, output: str) -> None:
    """Show why RUN is where it is: what happened to it and, launched with `--move`, each decision with what was known.

    The newest decision is shown in full. Nothing outside the ledger is asked.
    """
    from planner.moving.decision import document

    with open_ledger(app) as store:
        found = store.find(run)
        decisions = [document(row) for row in store.decisions(found.run_id)]
        events = list(_telling(store.events(found.run_id)))
    shown = decisions if every else _changes(decisions)
    if output == "json":
        emit_json("why", _document(found, shown, events), now=app.now())
    else:
        click.echo(_text(found, shown, events))


def _telling(events: Sequence[RunEvent]) -> Iterator[RunEvent]:
    """Those that say what was decided or happened: notes of a move, and each new state of `_TOLD`."""
    before = None
    for event in events:
        said = (event.state, event.reason)
        if event.kind in _EVENTS or (event.state in _TOLD and said != before):
            yield event
        before = said


def _changes(decisions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that did something, the first of a wait or stay, and the newest."""
    kept = []
    before = None
    for row in decisions:
        key = (row["action"], row["choice"]["where"], row["attempt"])
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
        "events": [{"at": event.at, "kind": event.kind, "text": _told(event)} for event in events],
    }


def _text(run: Run, decisions: Sequence[Mapping[str, Any]], events: Sequence[RunEvent]) -> str:
    """The newest decision in full; what came before it and after it as one line each, in order."""
    head = f"{run.run_id}  {state_text(run.state)}{f': {run.state_reason}' if run.state_reason else ''}"
    happened = [(event.at, _told(event)) for event in events]
    if not decisions:
        moves = run.terms.moving_json is not None
        none = (
            "nothing was decided yet (`plan monitor run` decides)" if moves else "it does not move by itself"
        )
        return "\n".join([f"{head}; {none}", *_lines("history:", happened)])
    *earlier, newest = decisions
    rows = sorted([*((row["at"], _in_short(row)) for row in earlier), *happened], key=itemgetter(0))
    lines = [f"{head}; to be done by {newest['deadline_at']}"]
    lines += _lines("before:", [row for row in rows if row[0] < newest["at"]])
    lines += ["", f"{newest['at']}  {newest['reason']}", *_known(newest), *_weighed(newest)]
    return "\n".join(lines + _lines("since:", [row for row in rows if row[0] >= newest["at"]]))


def _lines(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    return ["", title, *(f"  {at}  {text}" for at, text in rows)] if rows else []


def _told(event: RunEvent) -> str:
    said = f"attempt {event.attempt} {event.state}{f': {event.reason}' if event.reason else ''}"
    return event.reason if event.kind in _EVENTS and event.kind != "refused" else said


def _in_short(decision: Mapping[str, Any]) -> str:
    """The sentence with the price of what was chosen, and what was spent until then."""
    price, spent = decision["choice"]["usd_per_h"], decision["known"]["spent_usd"]
    at = "" if price is None else f"${price}/h, "
    return f"{decision['reason']} ({at}${spent or '?'} spent)"


def _known(decision: Mapping[str, Any]) -> Iterator[str]:
    known = decision["known"]
    yield (
        f"  known    step {known['step']} of {known['max_steps'] or '?'}, {known['work_left_h']:.2f} h of work and "
        f"{decision['time_left_h']:.2f} h left, ${known['spent_usd'] or '?'} spent, runs: {known['current']['where']}"
    )
    for site in known["sites"]:
        spot = {True: "up", False: "down", None: "unknown"}[site["spot"]]
        yield (
            f"           {site['name']}: spot {spot} ({site['why']}) {_usd(site['spot_usd_per_h'])}, "
            f"on-demand {_usd(site['on_demand_usd_per_h'])}"
        )
    yield from _losses(known["sites"])


def _losses(sites: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How often machines are taken to be lost, places that are taken alike together; nothing of earlier versions."""
    alike: dict[tuple[float, str], list[str]] = {}
    for site in sites:
        if site.get("losses_factor") is not None:
            alike.setdefault((site["losses_factor"], site["losses_why"]), []).append(site["name"])
    for number, ((factor, why), names) in enumerate(alike.items()):
        lead = "  losses   " if number == 0 else " " * 11
        where = f"{', '.join(names)}: " if len(alike) > 1 else ""
        yield f"{lead}{where}taken {factor:.2g} times as often as on record{f': {why}' if why else ''}"


def _weighed(decision: Mapping[str, Any]) -> Iterator[str]:
    for number, option in enumerate(decision["alternatives"]):
        sign = "->" if option["chosen"] else "  "
        lead = "  weighed  " if number == 0 else " " * 11
        yield f"{lead}{sign} {option['where']}: ${float(option['expected_cost_usd']):.2f} from here"


def _usd(text: str | None) -> str:
    return "not to be had" if text is None else f"${text}/h"
