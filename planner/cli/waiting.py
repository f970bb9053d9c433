"""Waiting for the end of a run, and the exit code that says how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable

from planner.cli.context import App
from planner.cli.desk import open_ledger, refresh
from planner.cli.output import echo_err
from planner.cli.run_text import state_text
from planner.errors import CapReachedError, QualityError, RunCancelledError, RunFailedError
from planner.run_document import has_regressed
from planner.runs import Run
from providers.errors import TuneplanError

_POLL_S = {"local": 0.5, "skypilot": 5.0, "cluster": 5.0}


def wait_for_end(
    app: App, run_id: str, timeout_s: float | None = None, enough: Callable[[Run], bool] = lambda _: False
) -> Run:
    """The run once nothing more happens by itself, or it is as wanted; tells of each new state on stderr.

    Raises:
        TuneplanError: It did not end in time.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    told = None
    while True:
        with open_ledger(app) as store:
            run, _ = refresh(app, store, store.find(run_id), ask=True)
        if (run.state, run.state_reason) != told:
            told = (run.state, run.state_reason)
            echo_err(
                f"{run.run_id}: {state_text(run.state)}{f': {run.state_reason}' if run.state_reason else ''}"
            )
        if run.final or run.stuck or enough(run):
            return run
        if deadline is not None and time.monotonic() >= deadline:
            raise TuneplanError(f"run {run_id} is still {run.state}", code="timeout")
        time.sleep(_POLL_S[run.terms.infra])


def raise_for(run: Run) -> None:
    """Turn an end that is not success into its error.

    Raises:
        RunFailedError: It failed, or was preempted and waits for a resume.
        RunCancelledError: It was cancelled.
        CapReachedError: It stopped at its cap or time limit.
        QualityError: It was trained, but is worse on the general hold-out than its guard allows.
    """
    resume = f"`plan resume {run.run_id}` goes on from the last committed checkpoint"
    if run.state == "capped":
        raise CapReachedError(f"run {run.run_id} stopped: {run.state_reason}", hint=resume)
    if run.state == "cancelled":
        raise RunCancelledError(f"run {run.run_id} was cancelled", hint=resume)
    if run.state == "preempted":
        raise RunFailedError(
            f"run {run.run_id} was preempted: {run.state_reason}", hint=resume, code="preempted"
        )
    if has_regressed(run):
        kept = f"the model is kept and flagged: `plan report {run.run_id}`, `plan pull {run.run_id} --to DIR`"
        raise QualityError(f"run {run.run_id} {run.state_reason}", hint=kept, code="regressed")
    if run.state == "failed":
        log = f"`plan logs {run.run_id}` shows why"
        raise RunFailedError(f"run {run.run_id} failed: {run.state_reason}", hint=log)
