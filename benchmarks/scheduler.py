"""What the scheduler costs: a tick over 500 schedules, a look that finds nothing due, the daemon between ticks.

python benchmarks/scheduler.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from planner.reserve.agenda import is_due
from planner.reserve.firing import Firer, Started, tick
from planner.reserve.schedule_book import ScheduleBook
from planner.reserve.schedules import Schedule
from planner.reserve.timing import Timing
from planner.runs import utc_text

SCHEDULES = 500
NOW = datetime(2026, 12, 1, 1, 30, tzinfo=UTC)


class Nowhere:
    """Launches nothing."""

    def start(self, schedule: Schedule, run_id: str, cap_usd: float | None) -> Started:
        return Started(0)

    def cost_micro_usd(self, run_id: str) -> int | None:
        return 0


def fill(ledger: Path, now: datetime) -> None:
    """Schedules whose next times come after that one."""
    at = utc_text(now)
    with ScheduleBook(ledger) as book:
        for number in range(SCHEDULES):
            timing = Timing(f"{number % 60} {number % 24} * * *", None, "Europe/Berlin")
            first = timing.after(now)
            assert first is not None
            row = (f"s{number}", at, "spec.yaml", "local", timing, 10**6, "active", "", at, utc_text(first))
            book.add(Schedule(*row, 1, 21600.0))


def timed(name: str, work: Callable[[], object], times: int = 20) -> None:
    """Print median wall and CPU milliseconds."""
    walls, cpus = [], []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    print(f"{name:<21}{statistics.median(walls) * 1000:9.2f}{statistics.median(cpus) * 1000:9.2f}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "state" / "plan.db"
        fill(ledger, NOW)
        print(f"{SCHEDULES} schedules; wall ms, CPU ms (medians)")
        timed("look, nothing due", lambda: is_due(ledger, NOW, NOW, 300))
        with ScheduleBook(ledger) as book:
            timed("tick, nothing due", lambda: tick(Firer(book, Nowhere(), lambda: NOW)))
            later = NOW + timedelta(hours=1)
            timed("tick, an hour is due", lambda: tick(Firer(book, Nowhere(), lambda: later)), 1)
    with tempfile.TemporaryDirectory() as folder:
        # The daemon lives by the clock of the machine: what NOW left due, it would launch.
        fill(Path(folder) / "state" / "plan.db", datetime.now(UTC) + timedelta(hours=2))
        daemon_between_ticks(folder)


def daemon_between_ticks(home: str) -> None:
    """Print what the daemon takes of memory and of a core while nothing is due."""
    code = "import sys; from planner.cli.main import main; sys.argv[0] = 'plan'; main()"
    command = [sys.executable, "-c", code, "scheduler", "run", "--every", "15s"]
    with subprocess.Popen(command, env={**os.environ, "PLAN_HOME": home}) as daemon:
        time.sleep(20)
        process = psutil.Process(daemon.pid)
        before = sum(process.cpu_times()[:2])
        time.sleep(60)
        share = (sum(process.cpu_times()[:2]) - before) / 60
        print(f"daemon: {process.memory_info().rss / 2**20:.0f} MiB, {share:.2%} of a core over a minute")
        daemon.terminate()


if __name__ == "__main__":
    main()
