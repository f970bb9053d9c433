"""The whole chain on this machine, without any account: `make demo`.

1. estimates an 8B fine-tune over every offer of the embedded price snapshot;
2. starts a real fine-tune here: a tiny Llama that can add learns to subtract;
3. kills it with SIGKILL after its first checkpoint, resumes it, waits for it;
4. shows the report: estimate against actual, base against tuned.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
HOME = HERE.parent / ".demo"
RUN = "goat-demo"


def say(text: str) -> None:
    """A heading on stdout."""
    print(f"\n=== {text}", flush=True)


def plan(*words: str) -> None:
    """Run a `plan` command as a person would, and show it."""
    print(f"$ plan {' '.join(words)}", flush=True)
    subprocess.run(["plan", *words], check=True)


def status() -> dict[str, Any]:
    """What `plan status` says of the run."""
    answer = subprocess.run(["plan", "status", RUN, "-o", "json"], check=True, capture_output=True, text=True)
    run: dict[str, Any] = json.loads(answer.stdout)["run"]
    return run


def wait_for_checkpoint(limit_s: float = 300) -> dict[str, Any]:
    """Poll until the first checkpoint is committed."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        run = status()
        if run["state"] in ("failed", "cancelled", "succeeded"):
            sys.exit(f"the run is {run['state']} before it could be killed: {run['state_reason']}")
        if run["last_checkpoint"] is not None:
            return run
        time.sleep(1)
    sys.exit(f"no checkpoint after {limit_s:.0f} s: see `plan logs {RUN}`")


def main() -> None:
    """Run the demonstration."""
    shutil.rmtree(HOME, ignore_errors=True)
    os.environ["PLAN_HOME"] = str(HOME)
    began = time.monotonic()
    say(
        "1. What would it take to fine-tune an 8B model? Every offer of the price snapshot, priced for this job"
    )
    plan("estimate", str(HERE / "llama-3.1-8b-lora.yaml"))
    say("2. A real fine-tune on this machine: a tiny model that can add learns to subtract")
    plan(
        "launch",
        str(HERE / "tiny-goat" / "spec.yaml"),
        "--infra",
        "local",
        "--run-id",
        RUN,
        "--no-cap",
        "--yes",
    )
    say("3. The machine is taken away: SIGKILL right after the first committed checkpoint")
    run = wait_for_checkpoint()
    for pid in run["pids"]:
        os.kill(pid, signal.SIGKILL)
    print(f"killed processes {run['pids']} after the checkpoint of step {run['last_checkpoint']['step']}")
    plan("status", RUN)
    say("4. Resume from that checkpoint, and wait")
    plan("resume", RUN, "--yes")
    plan("wait", RUN)
    say("5. What was promised, what came: the tuned model answers subtractions it has never seen")
    plan("report", RUN)
    say(f"done in {time.monotonic() - began:.0f} s; PLAN_HOME={HOME}")
    print("next: `plan init` writes a spec for your own model and data; `plan estimate spec.yaml` prices it")


if __name__ == "__main__":
    main()
