"""The whole bed: a keeper process that starts it, adopts all it forks, and ends it when nobody wants it any more."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bed import processes
from tests.bed.aws import AwsBed
from tests.bed.sky_home import SkyHome
from tests.bed.slurm import GPUS, PARTITIONS, SlurmBed

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Bed:
    """A running Slurm and a running AWS with SkyPilot in front of them."""

    root: Path
    slurm: SlurmBed
    aws: AwsBed
    sky: SkyHome

    @classmethod
    def at(cls, root: Path) -> "Bed":
        """The bed of a directory."""
        *slurm_ports, aws_port, metadata_port, sky_port = json.loads((root / "ports.json").read_text())
        uv = Path(sys.executable).parent / "uv"
        slurm = SlurmBed(root, tuple(slurm_ports), uv)
        return cls(root, slurm, AwsBed(root, aws_port, metadata_port), SkyHome(root, sky_port))

    def pids(self) -> list[int]:
        """Every living process of the bed but its keeper."""
        return processes.descendants(int((self.root / "keeper.pid").read_text()))


@contextlib.contextmanager
def running(root: Path) -> Iterator[Bed]:
    """A bed for as long as the block runs; it ends with this process too, even by kill -9."""
    keeper = spawn(root, stdin=subprocess.PIPE)
    try:
        yield await_ready(root, keeper)
    finally:
        assert keeper.stdin is not None
        keeper.stdin.close()
        keeper.wait(timeout=60)


def spawn(root: Path, *, stdin: int | None = None) -> subprocess.Popen[bytes]:
    """Start the keeper of a new bed; with a pipe it ends as soon as the pipe does."""
    root.mkdir(parents=True)
    (root / "ports.json").write_text(json.dumps(processes.free_ports(len(GPUS) + 5)))
    with (root / "keeper.log").open("wb") as log:
        command = [sys.executable, "-m", "tests.bed", "keep", str(root)]
        return subprocess.Popen(
            command, cwd=REPOSITORY, stdin=stdin, stdout=log, stderr=log, start_new_session=True
        )


def await_ready(root: Path, keeper: subprocess.Popen[bytes], timeout_s: float = 180.0) -> Bed:
    """Wait until everything is up; what the keeper said if it is not."""
    deadline = time.monotonic() + timeout_s
    while not (root / "ready").exists():
        if keeper.poll() is not None or time.monotonic() > deadline:
            last_words = Path(f"{root}.log")
            raise RuntimeError(
                f"the bed did not start: {last_words.read_text() if last_words.exists() else ''}"
            )
        time.sleep(0.2)
    return Bed.at(root)


def keep(root: Path) -> None:
    """Be the keeper: start the bed, wait for SIGTERM or the end of standard input, end everything."""
    wanted = True

    def no_more(*_: object) -> None:
        nonlocal wanted
        wanted = False

    signal.signal(signal.SIGTERM, no_more)
    processes.adopt_orphans()
    (root / "keeper.pid").write_text(str(os.getpid()))
    bed = Bed.at(root)
    try:
        bed.slurm.up()
        bed.aws.start()
        bed.sky.write(bed.slurm, bed.aws)
        bed.aws.await_ready()
        bed.sky.start_server()
        (root / "ready").touch()
        while wanted and not _closed(sys.stdin.fileno()):
            processes.reap()
    except BaseException:
        shutil.copy(root / "keeper.log", f"{root}.log")
        raise
    finally:
        _end(bed)


def _closed(descriptor: int) -> bool:
    """Whether the pipe has ended; waits a moment. A terminal or /dev/null is no pipe and never counts."""
    if not _is_pipe(descriptor):
        time.sleep(0.5)
        return False
    readable, _, _ = select.select([descriptor], [], [], 0.5)
    return bool(readable) and os.read(descriptor, 1) == b""


def _is_pipe(descriptor: int) -> bool:
    return Path(f"/proc/self/fd/{descriptor}").readlink().name.startswith("pipe:")


def _end(bed: Bed) -> None:
    with contextlib.suppress(subprocess.SubprocessError, OSError):
        for partition in PARTITIONS:
            bed.slurm.run("scancel", f"--partition={partition}", timeout_s=10)
    processes.end_descendants()
    bed.slurm.forget()
    shutil.rmtree(bed.root, ignore_errors=True)
