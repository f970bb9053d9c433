"""Runs as text for a person: a word and a sign for each state, so that colour alone tells nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from planner.costs import cost_now
from planner.offer_document import offer_from_document
from planner.run_document import eta_at, micro_text, progress_of
from planner.runs import Attempt, Run, RunEvent, RunState, utc_text

if TYPE_CHECKING:
    from planner.avoidance import Avoided

_SIGNS: dict[RunState, tuple[str, str]] = {
    "scheduled": ("◷", "blue"),
    "waiting": ("◷", "blue"),
    "queued": ("…", "blue"),
    "provisioning": ("…", "blue"),
    "running": ("▶", "green"),
    "syncing": ("↑", "green"),
    "preempted": ("!", "yellow"),
    "recovering": ("↻", "yellow"),
    "cancelling": ("■", "yellow"),
    "succeeded": ("✓", "green"),
    "failed": ("✗", "red"),
    "capped": ("■", "yellow"),
    "cancelled": ("■", "bright_black"),
    "unknown": ("?", "yellow"),
}
_HEADER = ("run", "state", "step", "cost $", "cap $", "attempts", "project", "created")
_ATTEMPTS = ("attempt", "outcome", "where", "$ an hour", "started", "ended", "steps", "cost $")
_RIGHT = ("step", "cost $", "cap $", "attempts", "attempt", "$ an hour")


def state_text(state: RunState) -> str:
    """Sign and word."""
    return f"{_SIGNS[state][0]} {state}"


def render_runs(runs: Sequence[Run], now: datetime) -> str:
    """One line a run, newest first."""
    if not runs:
        return "no runs"
    header, *rows = _aligned([_HEADER, *(_row(run, now) for run in runs)])
    for cells, run in zip(rows, runs, strict=True):
        cells[1] = styled(cells[1], run.state)
    return "\n".join("  ".join(cells).rstrip() for cells in (header, *rows))


def render_active(runs: Sequence[Run], now: datetime) -> str:
    """Runs that are not over: state, why and since when, the next try, and how old that knowledge is."""
    if not runs:
        return "no run is under way"
    return "\n".join(
        f"{run.run_id}  {styled(state_text(run.state), run.state)}{_why(run)}  step {_steps(run)}"
        f"  {_cost(run, now)}  observed {_age(run.observed_at, now)} ago"
        for run in runs
    )


def render_status(
    run: Run,
    pids: Sequence[int],
    now: datetime,
    avoided: Sequence[Avoided] = (),
    warned: Sequence[RunEvent] = (),
) -> str:
    """Everything about one run."""
    lines = [
        f"{run.run_id}  {styled(state_text(run.state), run.state)}{_why(run)}",
        *_facts(run, pids, now),
        *(f"  {'warning':<11} {event.reason} ({event.at[:16].replace('T', ' ')} UTC)" for event in warned),
        *(f"  {'avoided':<11} {row.place.text()} {row.text()}" for row in avoided),
        "",
    ]
    table = _aligned([_ATTEMPTS, *map(_attempt, run.attempts)])
    return "\n".join([*lines, *("  ".join(cells).rstrip() for cells in table)])


def _attempt(attempt: Attempt) -> tuple[str, ...]:
    """Where an attempt was and for how much, when, how far it came, and what it cost."""
    offer = offer_from_document(json.loads(attempt.offer_json))
    says_region = offer.zone is not None and offer.zone.startswith(offer.region)  # as us-east-1a does
    place = "/".join(filter(None, (offer.cloud, None if says_region else offer.region, offer.zone)))
    where = "this machine" if offer.market == "local" else f"{offer.market.replace('_', '-')} in {place}"
    return (
        str(attempt.attempt),
        attempt.outcome,
        where,
        _known(micro_text(attempt.micro_usd_per_hour)),
        attempt.started_at or "not yet",
        attempt.ended_at or "",
        f"{_known(attempt.first_step)} to {_known(attempt.last_step)}",
        _known(micro_text(attempt.cost_micro_usd)),
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[list[str]]:
    """Cells as wide as the widest of their column; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [
            cell.rjust(width) if name in _RIGHT else cell.ljust(width)
            for cell, width, name in zip(row, widths, rows[0], strict=True)
        ]
        for row in rows
    ]


def styled(text: str, state: RunState) -> str:
    """Coloured, unless the person does not want it."""
    if "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, fg=_SIGNS[state][1])


def _row(run: Run, now: datetime) -> tuple[str, ...]:
    cap = run.terms.cap_micro_usd
    return (
        run.run_id,
        state_text(run.state),
        _steps(run),
        _least(run, now) + _known(micro_text(run.cost_micro_usd)),
        "none" if cap is None else _known(micro_text(cap)),
        str(len(run.attempts)),
        run.terms.project,
        run.created_at[:16].replace("T", " "),
    )


def _facts(run: Run, pids: Sequence[int], now: datetime) -> list[str]:
    facts = {
        "step": _steps(run),
        **_training(run),
        "cost": _cost(run, now),
        "processes": " ".join(map(str, pids)) if pids else "none",
        "observed": f"{_age(run.observed_at, now)} ago",
    }
    return [f"  {name:<11} {value}" for name, value in facts.items()]


def _training(run: Run) -> dict[str, str]:
    """What the worker said last; nothing before it said anything."""
    progress = progress_of(run)
    if progress is None:
        return {}
    last, speed = progress.last_checkpoint, progress.tokens_per_s_total
    return {
        "loss": _known(None if progress.loss is None else round(progress.loss, 4)),
        "tokens/s": _known(None if speed is None else round(speed)),
        "eta": _known(eta_at(run, progress)),
        "checkpoint": "none yet" if last is None else f"step {last.step}, {last.committed_at}",
    }


def _cost(run: Run, now: datetime) -> str:
    cap = run.terms.cap_micro_usd
    capped = "no cap" if cap is None else f"cap ${micro_text(cap)}"
    spent, counting = f"${_known(micro_text(run.cost_micro_usd))}", cost_now(run, utc_text(now))
    if counting is None:
        return f"{spent}, {capped}"
    if counting.is_current:
        return f"{spent}, {capped}, still counting"
    most = _known(micro_text(counting.at_most_micro_usd))
    return (
        f"at least {spent} as of {counting.as_of_at[:19].replace('T', ' ')} UTC,"
        f" ${most} by now if its machines still run, {capped}"
    )


def _least(run: Run, now: datetime) -> str:
    """Before a cost that is not known up to now."""
    counting = cost_now(run, utc_text(now))
    return "" if counting is None or counting.is_current else ">="


def _steps(run: Run) -> str:
    progress = progress_of(run)
    if progress is None:
        return "?"
    return f"{progress.step}/{_known(progress.max_steps)}"


def _why(run: Run) -> str:
    since = run.state_since_at[:19].replace("T", " ")
    reason = f": {run.state_reason}" if run.state_reason else ""
    next_try = f", next try {run.next_try_at}" if run.next_try_at else ""
    if run.state == "cancelling" and run.next_try_at:
        next_try = f", its worker may commit until {run.next_try_at}"
    if run.stuck:
        next_try = f", no next try: `plan resume {run.run_id}` goes on"
    told = "since" if run.since_is_told else "first seen"
    return f"{reason} ({told} {since} UTC{next_try})"


def _age(at: str, now: datetime) -> str:
    seconds = max((now - datetime.fromisoformat(at)).total_seconds(), 0.0)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _known(value: object) -> str:
    return "?" if value is None else str(value)
