"""CPU of the monitor and of `plan status` with 200 runs known and 20 of them under way on this machine.

    python benchmarks/monitor_load.py

Real worker processes (that sleep), a real ledger. Prints CPU seconds, which do not depend on what else runs.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from planner.launch import Desk, launch
from planner.places import Places
from planner.store import Change, Store
from providers.local import LocalLauncher
from providers.supervisor import utc_now
from tests.planner.run_factories import attempt_of, terms_of
from tests.workers import make_python, order_exit

KNOWN, ACTIVE, WATCHED_S, EVERY_S = 200, 20, 60.0, 10.0
PLAN = str(Path(sys.executable).with_name("plan"))


def fill(home: Path) -> None:
    """A ledger of finished runs, and some that really run."""
    orders = home / "orders"
    orders.mkdir(parents=True)
    places = Places(home / "state")
    backend = LocalLauncher(places.local, python=str(make_python(home / "bin")))
    with Store(places.ledger) as store:
        desk = Desk(store, backend, places, utc_now)
        for number in range(KNOWN):
            run_id = f"run-{number}"
            uri = (home / "checkpoints" / run_id).as_uri()
            env = {"ORDERS": str(orders)}
            terms = terms_of(run_id=run_id, checkpoint_uri=uri, secrets=(), env=env)
            if number < ACTIVE:
                launch(desk, run_id, terms, 1_000_000)
                continue
            store.create(run_id, terms, attempt_of())
            done = replace(
                attempt_of(), started_at=utc_now(), ended_at=utc_now(), outcome="done", cost_micro_usd=1
            )
            store.apply(store.find(run_id), Change("succeeded", "", done, utc_now()))


def cpu_s(command: list[str], environment: dict[str, str]) -> float:
    """CPU seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def process_cpu_s(pid: int) -> float:
    """CPU seconds of a living process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        environment = {**os.environ, "PLAN_HOME": str(home), "NO_COLOR": "1"}
        try:
            fill(home)
            monitor = subprocess.Popen(
                [PLAN, "monitor", "run", "--every", f"{EVERY_S:g}s"],
                env=environment,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(2 * EVERY_S)
            start_s, start_cpu_s = time.monotonic(), process_cpu_s(monitor.pid)
            time.sleep(WATCHED_S)
            share = (process_cpu_s(monitor.pid) - start_cpu_s) / (time.monotonic() - start_s)
            one = min(cpu_s([PLAN, "status", "run-3"], environment) for _ in range(5))
            every = min(cpu_s([PLAN, "status"], environment) for _ in range(5))
            monitor.send_signal(signal.SIGTERM)
            monitor.wait()
        finally:
            order_exit(home / "orders", 0)
            time.sleep(2)
    print(f"monitor, {ACTIVE} of {KNOWN} runs under way, a round every {EVERY_S:g} s: {share:.2%} of a core")
    print(f"plan status RUN: {one:.2f} s of CPU; plan status: {every:.2f} s of CPU")


if __name__ == "__main__":
    main()
