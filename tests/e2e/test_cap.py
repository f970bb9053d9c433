"""A real training that reaches its cap: it stops with a committed checkpoint, within the cap, and uses most of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest

from tests.e2e.test_chain import STEPS, Machine

#: What a worker imports before it can train; on a busy machine that takes many times as long as on a quiet one.
IMPORTS = """
import gc, sys
gc.disable()
sys.modules.update(sklearn=None, scipy=None, wandb=None, bitsandbytes=None)
import trl.trainer.sft_trainer
"""


def enough_s() -> int:
    """Seconds in which this machine, as busy as it is now, gets to some checkpoints."""
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return round(12 + 2 * (time.monotonic() - start))


def capped(machine: Machine, cap_s: int) -> None:
    """Train at 1 US dollar a second until the cap; then check what was paid."""
    spec = machine.home / "spec.yaml"
    spec.write_text(spec.read_text().replace(f"steps: {STEPS}", "steps: 1000000"))
    (machine.home / "plan").mkdir()
    (machine.home / "plan" / "config.yaml").write_text("local: {usd_per_hour: 3600}\n")
    words = ("--infra", "local", "--run-id", "goat", "--cap", f"{cap_s}usd", "--yes", "--wait")
    machine.plan("launch", str(spec), *words, code=8, within_s=300 + cap_s)
    run = machine.run()
    assert (run["state"], run["cost_is_final"]) == ("capped", True)
    # On a busy machine it is asked to end before it sees to it itself (75), and nobody waits for an interpreter that is
    # slow to end (137).
    assert run["worker_exit_code"] in (77, 75, 137)
    assert (
        "cap of" in run["state_reason"] or "maximum duration or cap" in run["state_reason"]
    )  # whoever was first
    assert run["last_checkpoint"]["step"] == run["step"] > 0
    assert Decimal("0.9") * Decimal(cap_s) <= Decimal(run["cost_usd"]) <= Decimal(cap_s)
    assert machine.processes() == []


@pytest.mark.train
def test_a_run_ends_at_its_cap_and_goes_on_with_a_higher_one(tmp_path: Path) -> None:
    machine, cap_s = Machine(tmp_path / "capped", rows=500), enough_s()
    capped(machine, cap_s)
    step = machine.run()["step"]
    machine.plan("resume", "goat", "--yes", code=8)
    machine.plan("resume", "goat", "--cap", f"{3 * cap_s}usd", "--yes")
    machine.plan("cancel", "goat")
    run = machine.run()
    assert (run["state"], run["cap_usd"], len(run["attempts"])) == ("cancelled", str(3 * cap_s), 2)
    assert run["last_checkpoint"]["step"] >= step


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.skipif("ROUNDS" not in os.environ, reason="run by `make test-long`")
def test_a_cap_after_five_minutes(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "capped", rows=500)
    capped(machine, 330)
    if "RESULTS" in os.environ:
        run = machine.run()
        (attempt,) = run["attempts"]
        kept = {
            "cap_usd": run["cap_usd"], "cost_usd": run["cost_usd"], "step": run["step"],
            "checkpoint_step": run["last_checkpoint"]["step"], "worker_exit_code": run["worker_exit_code"],
            "started_at": attempt["started_at"], "ended_at": attempt["ended_at"],
        }  # fmt: skip
        (Path(os.environ["RESULTS"]) / "cap.json").write_text(json.dumps(kept, indent=1) + "\n")
