"""Bring the test bed up or down by hand.

    python -m tests.bed up [ROOT]     prints the lines to source, then `plan launch --infra skypilot` works
    python -m tests.bed down [ROOT]
"""

import sys
from pathlib import Path

from tests.bed.bed import Bed, down, up


def main(action: str, root: str = "/tmp/tuneplan-bed") -> None:
    """Do one action."""
    if action == "down":
        down(Path(root))
        return
    bed: Bed = up(Path(root))
    for name, value in (bed.sky.env() | {"SLURM_CONF": str(bed.slurm.conf)}).items():
        print(f"export {name}='{value}'")


main(*sys.argv[1:])
