"""Bring the test bed up or down by hand.

python -m tests.bed up [ROOT]     prints lines for the shell; then `plan launch --infra skypilot` uses the bed
python -m tests.bed down [ROOT]
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.bed import bed


def up(root: Path) -> None:
    """Start a bed that lives until `down`."""
    running = bed.await_ready(root, bed.spawn(root, stdin=subprocess.DEVNULL))
    for name, value in (running.sky.env() | {"SLURM_CONF": str(running.slurm.conf)}).items():
        print(f"export {name}='{value}'")


def down(root: Path) -> None:
    """End the bed and wait until it is gone."""
    os.kill(int((root / "keeper.pid").read_text()), signal.SIGTERM)
    while root.exists():
        time.sleep(0.2)


if __name__ == "__main__":
    action, root = sys.argv[1], Path(*sys.argv[2:] or ["/tmp/tuneplan-bed"])
    {"up": up, "down": down, "keep": bed.keep}[action](root)
