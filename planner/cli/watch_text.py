"""A run at a glance: one line where nobody watches, a small screen where somebody does."""

from __future__ import annotations

from datetime import datetime

from planner.cli.run_text import state_text, styled
from planner.run_document import eta_at, micro_text, progress_of
from planner.runs import Run

_BAR = 30
_WORKER_STAGES = ("running", "syncing")


def stage_of(run: Run) -> str:
    """What is being done now: the worker's own word while it works, else the run's state."""
    progress = progress_of(run)
    if run.state in _WORKER_STAGES and progress is not None:
        return progress.state.replace("_", " ")
    return run.state


def watch_line(run: Run, now: datetime) -> str:
    """Everything in one line, for logs and pipes."""
    parts = [f"{now:%H:%M:%S}", run.run_id, stage_of(run), f"step {_steps(run)}", *_loss(run)]
    parts += [f"eta {_eta(run, now)}", f"cost {_cost(run)}", f"preemptions {preemptions(run)}"]
    if run.state_reason and run.state not in _WORKER_STAGES:
        parts.append(run.state_reason)
    return "  ".join(parts)


def watch_screen(run: Run, now: datetime) -> str:
    """The same on a few lines with a bar."""
    rows = [
        ("stage", stage_of(run)),
        ("step", f"{_bar(run)} {_steps(run)}"),
        ("loss", "".join(_loss(run)).removeprefix("loss ") or "?"),
        ("eta", _eta(run, now)),
        ("cost", _cost(run)),
        ("attempt", f"{run.current.attempt}, preemptions {preemptions(run)}"),
        ("checkpoint", _checkpoint(run)),
    ]
    if run.next_try_at:
        rows.append(("next try", run.next_try_at))
    reason = f": {run.state_reason}" if run.state_reason else ""
    head = f"{run.run_id}  {styled(state_text(run.state), run.state)}{reason}"
    return "\n".join([head, *(f"  {name:<11} {value}" for name, value in rows)])


def preemptions(run: Run) -> int:
    """Attempts that were taken away."""
    return sum(attempt.outcome == "preempted" for attempt in run.attempts)


def _steps(run: Run) -> str:
    progress = progress_of(run)
    if progress is None:
        return "?"
    share = f" ({progress.step / progress.max_steps:.0%})" if progress.max_steps else ""
    return f"{progress.step}/{'?' if progress.max_steps is None else progress.max_steps}{share}"


def _bar(run: Run) -> str:
    progress = progress_of(run)
    done = 0
    if progress is not None and progress.max_steps:
        done = min(round(_BAR * progress.step / progress.max_steps), _BAR)
    return f"[{'#' * done}{'.' * (_BAR - done)}]"


def _loss(run: Run) -> list[str]:
    progress = progress_of(run)
    return [] if progress is None or progress.loss is None else [f"loss {progress.loss:.4g}"]


def _eta(run: Run, now: datetime) -> str:
    progress = progress_of(run)
    at = None if progress is None else eta_at(run, progress)
    if at is None:
        return "?"
    left_s = max((datetime.fromisoformat(at) - now).total_seconds(), 0.0)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if left_s >= 2 * size:
            return f"{left_s / size:.1f} {unit}"
    return f"{left_s:.0f} s"


def _cost(run: Run) -> str:
    cap = run.terms.cap_micro_usd
    spent = run.cost_micro_usd
    known = "unknown" if spent is None else f"${micro_text(spent)}"
    return f"{known}, no cap" if cap is None else f"{known} of ${micro_text(cap)}"


def _checkpoint(run: Run) -> str:
    progress = progress_of(run)
    last = None if progress is None else progress.last_checkpoint
    return "none yet" if last is None else f"step {last.step}, {last.committed_at}"
