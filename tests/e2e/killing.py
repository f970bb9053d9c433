"""Runs `plan` in a process that kills itself with SIGKILL at a chosen line of the code that moves a run.

With KILL_AT=writes the chosen point is before or after a change of the ledger instead, or a call of the backend.
"""

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


#: What changes a run, in the ledger and at the backend.
WRITES = {
    "planner/store.py": {
        "create",
        "add_attempt",
        "apply",
        "ask_stop",
        "note",
        "record_asking",
        "record_decision",
    },
    "providers/local.py": {"launch", "cancel"},
}


def is_write(frame) -> bool:
    return any(
        frame.f_code.co_filename.endswith(path) and frame.f_code.co_name in names
        for path, names in WRITES.items()
    )


def arm(target: int) -> None:
    """Die at the point of this number; 0 only counts."""
    seen = 0
    writes = os.environ.get("KILL_AT") == "writes"

    def trace(frame, event, _):
        nonlocal seen
        if not (is_write(frame) if writes else frame.f_code.co_filename.endswith(WATCHED)):
            return None
        if event in ("call", "return") if writes else event == "line":
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
