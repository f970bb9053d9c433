"""The whole bed: up, down, and what is still running in it."""

import contextlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bed import processes
from tests.bed.sky_home import SkyHome
from tests.bed.slurm import GPUS, SlurmBed


@dataclass(frozen=True, slots=True)
class Bed:
    """A running Slurm and a running SkyPilot."""

    slurm: SlurmBed
    sky: SkyHome


def up(root: Path) -> Bed:
    """Start a bed in a new directory; whatever fails, nothing of it stays."""
    root.mkdir(parents=True)
    *slurm_ports, sky_port = processes.free_ports(len(GPUS) + 3)
    (root / "ports.json").write_text(json.dumps([*slurm_ports, sky_port]))
    bed = _bed(root)
    try:
        bed.slurm.up()
        bed.sky.write(bed.slurm)
        bed.sky.start_server()
    except BaseException:
        down(root)
        raise
    return bed


def down(root: Path) -> None:
    """End everything by pid and remove the directory."""
    if not (root / "ports.json").exists():
        return
    bed = _bed(root)
    with contextlib.suppress(subprocess.SubprocessError, OSError):
        bed.slurm.run("scancel", "--partition=spot", timeout_s=10)
    processes.end_marked(root)
    bed.slurm.forget()
    shutil.rmtree(root, ignore_errors=True)


def _bed(root: Path) -> Bed:
    *slurm_ports, sky_port = json.loads((root / "ports.json").read_text())
    uv = Path(sys.executable).parent / "uv"
    return Bed(SlurmBed(root, tuple(slurm_ports), uv), SkyHome(root, sky_port))
