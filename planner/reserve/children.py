"""Short-lived child processes for what is heavy or talks to a cloud; the scheduler itself stays small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from planner.errors import QualityError
from planner.reserve.firing import Started
from planner.reserve.schedules import Schedule
from planner.runs import Run
from planner.store import Store
from providers.errors import LaunchError, TuneplanError

_PLAN = "import sys; from planner.cli.main import main; sys.argv[0] = 'plan'; main()"
_LAUNCH_S = 3600.0
_NOTIFY_S = 60.0
_SHOWN_CHARS = 500


def run_plan(
    words: list[str], *, timeout_s: float, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own; a time-out ends it and counts as exit 1."""
    command = [sys.executable, "-c", _PLAN, *words]
    try:
        return subprocess.run(  # noqa: S603
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"ended after {timeout_s:.0f} s without an answer")


class PlanStarter:
    """Starts runs with `plan launch`, which is idempotent by run id.

    Args:
        ledger: The ledger that both go by.

    Attributes:
        last: What came of the last launch, None before one was tried.
    """

    def __init__(self, ledger: Path) -> None:
        """Nothing is opened yet."""
        self._ledger = ledger
        self.last: Started | None = None

    def start(self, schedule: Schedule, run_id: str, cap_usd: float | None) -> Started:
        """Launch the spec, or go on with a launch that was interrupted, with the cap that is on record."""
        with Store(self._ledger) as store:
            run = store.get(run_id)
        if run is not None and not run.came_to_nothing:
            cap = run.terms.cap_micro_usd
            cap_usd = None if cap is None else cap / 1e6
        self.last = launch(self._ledger, schedule.spec, schedule.infra, run_id, cap_usd)
        return self.last

    def is_on_record(self, run_id: str) -> bool:
        """As `Starter.is_on_record`."""
        with Store(self._ledger) as store:
            return store.get(run_id) is not None

    def still_meets(self, schedule: Schedule, run_id: str) -> bool | None:
        """Measure with `plan evaluate RUN --check` on the held-out data that the spec names now."""
        return still_meets(schedule.spec, run_id)

    def cost_micro_usd(self, run_id: str) -> int | None:
        """As `Starter.cost_micro_usd`; a run that goes on may still cost its cap."""
        with Store(self._ledger) as store:
            run = store.get(run_id)
        if run is None:
            return 0
        return run.cost_micro_usd if run.final else run.terms.cap_micro_usd


def still_meets(spec: str, run_id: str) -> bool | None:
    """Whether a finished model meets the goal of its run on the held-out data that a spec names now.

    Args:
        spec: Path of the spec.
        run_id: Whose model.

    Returns:
        None if it cannot be measured: no finished model, no data on this machine, no goal.
    """
    from planner.specfile import data_ref, load_spec

    try:
        loaded = load_spec(Path(spec))
    except TuneplanError:
        return None  # the launch will say what is wrong with it
    held_out = loaded.spec.data.eval
    reference = None if held_out is None else data_ref(loaded.base_dir, held_out)
    if reference is None or reference.kind != "path":
        return None
    done = run_plan(["evaluate", run_id, "--data", reference.value, "--check"], timeout_s=_LAUNCH_S)
    return {0: True, QualityError.exit_code: False}.get(done.returncode)


def launch(
    ledger: Path, spec: str, infra: str, run_id: str, cap_usd: float | None, *, reservation: str | None = None
) -> Started:
    """`plan launch` of a spec under a fixed run id; what the ledger says of the run goes before the exit code.

    Args:
        ledger: Where the run is on record.
        spec: Path of the spec.
        infra: local or skypilot.
        run_id: Fixed beforehand.
        cap_usd: Total for the run; None is without a cap, which somebody has agreed to.
        reservation: Capacity to run in.
    """
    words = ["launch", spec, "--infra", infra, "--run-id", run_id, "--yes", "-o", "json"]
    words += ["--no-cap"] if cap_usd is None else ["--cap", f"{cap_usd:.6f}"]
    words += ["--reservation", reservation] if reservation is not None else []
    done = run_plan(words, timeout_s=_LAUNCH_S)
    started = Started(done.returncode, "" if done.returncode == 0 else _last_words(done.stderr))
    with Store(ledger) as store:
        return as_recorded(started, store.get(run_id))


def as_recorded(started: Started, run: Run | None) -> Started:
    """What came of a launch by the run on record: one that has or had machines was launched, however it ended."""
    if run is None:
        return started
    if run.came_to_nothing:
        return Started(started.exit_code or LaunchError.exit_code, started.message or run.state_reason)
    begun = any(attempt.started_at or attempt.backend_id for attempt in run.attempts)
    if not begun or started.exit_code == 0:
        return started
    return Started(0, f"launched, and is {run.state} by now: {run.state_reason}")


def notify(hook: Path, subject: str, text: str, at: str) -> bool:
    """Tell a person through their own program: JSON on its stdin, nothing on its command line.

    Returns:
        Whether it took it; also True if there is no such program.
    """
    if not os.access(hook, os.X_OK) or not hook.is_file():
        return True
    document = json.dumps({"subject": subject, "text": text, "at": at})
    try:
        done = subprocess.run(  # noqa: S603
            [str(hook)], input=document, text=True, capture_output=True, timeout=_NOTIFY_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _last_words(stderr: str) -> str:
    """The error, without progress lines."""
    lines = [line for line in stderr.strip().splitlines() if line.startswith(("error:", "hint:"))]
    return " ".join(lines or stderr.strip().splitlines()[-2:])[-_SHOWN_CHARS:]
