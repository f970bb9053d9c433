"""`python -m jobs.ranks N job.json`: starts N workers on this machine, as ranks of one training over all machines.

Each gets RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torch.distributed reads
them. torchrun and `accelerate launch` would do that too, but end with 1 whatever the worker ended with; a backend has
to know 75 (preempted, start me again) from 77 (stopped at the cap). SIGTERM goes to every rank. Once one rank has
failed the others cannot go on, so they are ended too.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.train import CRASHED

#: Ranks stop at the same step boundary, so the last one ends soon after the first.
_GRACE_S = 60.0
_POLL_S = 0.2
_PORTS = range(29500, 29900)


@dataclass(frozen=True, slots=True)
class Place:
    """Where this machine stands among those of the run.

    Attributes:
        node: 0 for the one that the others talk to.
        nodes: Machines.
        master: Address of machine 0.
        port: On which rank 0 listens.
    """

    node: int
    nodes: int
    master: str
    port: int

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Place:
        """From what SkyPilot says; alone where it says nothing."""
        addresses = environ.get("SKYPILOT_NODE_IPS", "").split()
        if len(addresses) < 2:
            return cls(0, 1, "127.0.0.1", _free_port())
        # every machine must come to the same port: it follows from what they all know
        port = _PORTS[sum(environ.get("TUNEPLAN_RUN_ID", "").encode()) % len(_PORTS)]
        return cls(int(environ["SKYPILOT_NODE_RANK"]), len(addresses), addresses[0], port)


def rank_environment(place: Place, local_rank: int, per_node: int) -> dict[str, str]:
    """What torch.distributed reads of one rank.

    >>> rank_environment(Place(1, 4, "10.0.0.1", 29500), 3, 8)["RANK"]
    '11'
    """
    return {
        "RANK": str(place.node * per_node + local_rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(place.nodes * per_node),
        "LOCAL_WORLD_SIZE": str(per_node),
        "MASTER_ADDR": place.master,
        "MASTER_PORT": str(place.port),
    }


def start(per_node: int, worker: Sequence[str], environ: Mapping[str, str]) -> list[subprocess.Popen[bytes]]:
    """Start this machine's ranks."""
    place = Place.of(environ)
    return [
        subprocess.Popen(worker, env={**environ, **rank_environment(place, rank, per_node)})  # noqa: S603 - ours
        for rank in range(per_node)
    ]


def outcome(ranks: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for all ranks, and end those that wait for one that failed; the exit code of the one that failed first.

    A rank that a signal ended counts as a shell counts it, 128 + the signal's number.
    """
    failed, deadline = 0, math.inf
    while running := [rank for rank in ranks if rank.poll() is None]:
        if not failed and (failed := _failure(ranks)):
            deadline = time.monotonic() + _GRACE_S
        if time.monotonic() > deadline:
            for rank in running:
                rank.kill()
        time.sleep(_POLL_S)
    code = failed or _failure(ranks)
    return code if code >= 0 else 128 - code


def _failure(ranks: Sequence[subprocess.Popen[bytes]]) -> int:
    """The exit code of a rank that has failed, 0 if none has."""
    return next((rank.returncode for rank in ranks if rank.returncode), 0)


def main(arguments: Sequence[str]) -> int:
    """Run the ranks; the exit code of the worker."""
    try:
        per_node = int(arguments[0])
    except (IndexError, ValueError):
        sys.stderr.write("usage: python -m jobs.ranks N job.json [--work DIR]\n")
        return CRASHED
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    ranks = start(per_node, [sys.executable, "-m", "jobs.train", *arguments[1:]], os.environ)

    def stop(number: int, _: object) -> None:
        for rank in ranks:
            if rank.poll() is None:
                rank.send_signal(number)

    signal.signal(signal.SIGTERM, stop)
    if stopping:  # told to while they were being started
        stop(signal.SIGTERM, None)
    return outcome(ranks)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
