"""What starts, watches and ends a job on machines, whoever owns them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from providers.offers import Offer

BackendState = Literal[
    "unknown",
    "queued",
    "provisioning",
    "running",
    "recovering",
    "releasing",
    "succeeded",
    "failed",
    "cancelled",
    "vanished",
    "absent",
]
StoppedBy = Literal["cancel", "max_duration", "signal"]
#: How the machine comes by its rights on the buckets it writes to: by keys among the secrets, or without any;
#: by an instance role of its own; by keys of a session that end by themselves.
Access = Literal["secrets", "role", "session"]


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """All a launcher needs to start one run.

    Attributes:
        run_id: Idempotency key together with `attempt`: the same pair is never started twice.
        bundle: Directory with the worker's code and `job.json`.
        offers: Candidates in the order to try.
        nodes: Machines.
        max_duration_s: The machine has ended the worker after this, None for no limit.
        limits_by_place_s: Other limits than that by "cloud/region", where the machine may be at one of several places
            of different prices; elsewhere `max_duration_s` holds.
        stop_grace_s: It asks the worker to checkpoint and end this long before.
        max_usd_per_hour: Most that one of the machines may cost, None for no limit.
        env: Plain environment for the worker.
        secrets: Names of environment variables to pass on; values are read at launch and kept nowhere.
        labels: Tags on everything that is rented.
        setup: Shell lines that install the worker's requirements, written by us.
        attempt: 1 for the first start; each resume is the next one.
        python: Interpreter on the machine; it has the worker's requirements, or `setup` installs them.
        setup_python: Interpreter that is there before `setup` has run; the standard library is enough.
        processes_per_node: Workers on each machine, one for each GPU.
        disk_gib: Disk that each machine needs, None if unknown.
        stores: URIs of the prefixes that the worker writes to.
        reads: URIs of further objects that it reads.
        access: How it may.
        reservations: Ids of paid capacity that the machines are started in.
        image: Container image that set-up and worker run in, None for the machine's own system.
    """

    run_id: str
    bundle: Path
    offers: tuple[Offer, ...]
    nodes: int = 1
    max_duration_s: float | None = None
    limits_by_place_s: dict[str, float] = field(default_factory=dict)
    stop_grace_s: float = 60.0
    max_usd_per_hour: float | None = None
    env: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    attempt: int = 1
    python: str = "python3"
    setup_python: str = "python3"
    processes_per_node: int = 1
    disk_gib: float | None = None
    stores: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    access: Access = "secrets"
    reservations: tuple[str, ...] = ()
    image: str | None = None

    @property
    def worker(self) -> tuple[str, ...]:
        """The worker's module and what goes before its arguments: one process, or ranks of one training."""
        if self.nodes * self.processes_per_node == 1:
            return ("-m", "jobs.train")
        return ("-m", "jobs.ranks", str(self.processes_per_node))


@dataclass(frozen=True, slots=True)
class MachineUse:
    """The machines that an attempt had at one time: each recovery gets it others.

    Attributes:
        started_at: RFC 3339 UTC, when they began to cost.
        ended_at: When they were lost or given back, None while it has them.
        offer: What they are, None if the backend does not tell.
    """

    started_at: str
    ended_at: str | None = None
    offer: Offer | None = None


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """What the backend says of a run, read just now.

    Attributes:
        state: The backend's state in our words; absent = it never heard of the run, vanished = it was
            started and is gone without a word (killed, machine lost), releasing = the worker has ended and its
            machines still cost.
        backend_id: Its own id: a pid, a managed job id.
        reason: Why it is so, for a person.
        offer: The machine it really got, if known.
        exit_code: Of the worker, None while it runs or if unknown.
        pids: Local processes, so that a tester can end them; empty elsewhere.
        recoveries: Times the backend restarted it.
        started_at: RFC 3339 UTC, None if unknown.
        ended_at: RFC 3339 UTC, None while it runs or has machines; the last sign of life if it vanished.
        attempt: Newest attempt that the backend knows and that all the rest is about; 0 if absent.
        stopped_by: What ended the worker or has asked it to end, None if it goes on or ended by itself.
        retry_within_s: It tries again by itself before so many seconds have passed, None if it does not wait to.
        machines: Of this attempt, oldest first; empty from a backend that does not keep them apart, then
            `offer`, `recoveries`, `started_at` and `ended_at` are all there is.
        refused: It ended because no machine that was asked for could be had; later there may be one.
    """

    state: BackendState
    backend_id: str | None = None
    reason: str = ""
    offer: Offer | None = None
    exit_code: int | None = None
    pids: tuple[int, ...] = ()
    recoveries: int = 0
    started_at: str | None = None
    ended_at: str | None = None
    attempt: int = 0
    stopped_by: StoppedBy | None = None
    machines: tuple[MachineUse, ...] = ()
    retry_within_s: float | None = None
    refused: bool = False


class Launcher(Protocol):
    """Starts jobs; every method is idempotent by run id."""

    def launch(self, request: LaunchRequest) -> BackendStatus:
        """Start the attempt, or report it if it was started before.

        Raises:
            LaunchError: Nothing was started, an earlier attempt still runs, or a later one was started.
            CleanupPendingError: It is not known whether something was started.
        """
        ...

    def status(self, run_id: str) -> BackendStatus:
        """What the backend says now; never raises for an unknown run."""
        ...

    def cancel(self, run_id: str, *, grace_s: float = 60.0) -> BackendStatus:
        """End the newest attempt; a backend that can lets the worker checkpoint first, for the grace time."""
        ...

    def logs(self, run_id: str, *, follow: bool = False) -> Iterator[str]:
        """Lines of the worker's output, oldest first."""
        ...

    def released(self, run_id: str, *, before_attempt: int | None = None) -> bool:
        """Whether every machine of the run is given back; of the attempts before one, if it is named.

        Raises:
            LaunchError: The backend cannot be asked.
        """
        ...
