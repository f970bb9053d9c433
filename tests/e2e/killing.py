"""Runs `plan` in a process that kills itself with SIGKILL at a chosen line of the code that moves a run."""

import os
import signal
import sys

WATCHED = (
    "planner/launch.py",
    "planner/store.py",
    "planner/monitor.py",
    "planner/service.py",
    "planner/machines.py",
    "planner/moving/decision.py",
    "planner/moving/guide.py",
    "planner/bundle.py",
    "planner/cli/launch.py",
    "providers/local.py",
)


def arm(target: int) -> None:
    """Die before the line of this number is run, counted over the watched files; 0 only counts."""
    seen = 0

    def trace(frame, event, _):
        nonlocal seen
        if not frame.f_code.co_filename.endswith(WATCHED):
            return None
        if event == "line":
            seen += 1
            if seen == target:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    def tell() -> None:
        sys.settrace(None)
        print(f"lines {seen}", file=sys.stderr)

    import atexit

    atexit.register(tell)
    sys.settrace(trace)


if __name__ == "__main__":
    target, worker_python, *words = sys.argv[1:]
    from planner.cli.main import cli

    sys.executable = worker_python
    arm(int(target))
    cli.main(words)
