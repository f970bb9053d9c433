"""Trains a job as `python -m jobs.train` does, and tells the CPU seconds of every step after the first.

    python -m benchmarks.step_seconds SECONDS.json JOB.json

From the end of one step to that of the next, all threads of the process: what others do on the machine hardly counts.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any


def _tell(ends: list[float]) -> None:
    """Add the process's CPU seconds at the end of every step of every trainer."""
    from transformers import Trainer
    from transformers.trainer_callback import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            ends.append(time.process_time())

    made = Trainer.__init__

    def make(self: Any, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        self.add_callback(Clock())

    Trainer.__init__ = make


def main(arguments: list[str]) -> int:
    """Train; the worker's exit code."""
    from jobs.train import main as train

    out, job = arguments
    ends: list[float] = []
    _tell(ends)
    code = train([job])
    steps = [after - before for before, after in pairwise(ends)]
    Path(out).write_text(json.dumps(steps), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
