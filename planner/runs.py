"""Runs as records: their states, which state may follow which, and what happened in each attempt."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, get_args

from providers.errors import TuneplanError, UsageError

RunState = Literal[
    "scheduled",
    "waiting",
    "queued",
    "provisioning",
    "running",
    "syncing",
    "preempted",
    "recovering",
    "cancelling",
    "succeeded",
    "failed",
    "capped",
    "cancelled",
    "unknown",
]
#: Who asked it to end: the user, the controller at cap or maximum duration, the policy to go on elsewhere.
Stopping = Literal["user", "limit", "move"]
MonitorHome = Literal["local", "service", "remote"]
Infra = Literal["local", "skypilot", "cluster"]
Outcome = Literal["running", "done", "preempted", "stock_out", "failed", "capped", "cancelled"]

STATES: tuple[RunState, ...] = get_args(RunState)
FINAL: frozenset[RunState] = frozenset({"succeeded", "failed", "capped", "cancelled"})
#: Its backend has no machines for it, and goes on asking.
WAITING: frozenset[RunState] = frozenset({"queued", "provisioning", "recovering"})
#: Its machines are there and its worker is at work.
WORKING: frozenset[RunState] = frozenset({"running", "syncing"})
RESUMABLE: frozenset[RunState] = frozenset({"preempted", "failed", "capped", "cancelled"})

_BUSY: frozenset[RunState] = frozenset(
    {"queued", "provisioning", "running", "syncing", "preempted", "recovering", "cancelling", "unknown"}
)
_ENDS: frozenset[RunState] = FINAL
MOVES: dict[RunState, frozenset[RunState]] = {
    "scheduled": frozenset({"waiting", "queued", "failed", "cancelled"}),
    "waiting": frozenset({"scheduled", "queued", "failed", "capped", "cancelled"}),
    **{state: (_BUSY | _ENDS) - {state} for state in _BUSY},
    # somebody who asked for the end gets it; a run that shall go on elsewhere rests in between
    "cancelling": _ENDS | {"unknown", "preempted"},
    "succeeded": frozenset(),
    # a resume is a new attempt of the same run
    "failed": frozenset({"queued"}),
    "capped": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}
"""Legal next states; a state may always stay as it is."""

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ID_ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"  # nothing that looks like something else


def check_move(before: RunState, after: RunState) -> None:
    """Refuse a move that the table does not know.

    Raises:
        TuneplanError: If it is illegal: a bug of ours.
    """
    if before != after and after not in MOVES[before]:
        raise TuneplanError(f"a run cannot go from {before} to {after}", code="illegal_move")


def new_run_id(name: str) -> str:
    """The spec's name and five random characters: short to type, one in 24 million to meet another."""
    return f"{name}-{''.join(secrets.choice(_ID_ALPHABET) for _ in range(5))}"


def check_run_id(run_id: str) -> str:
    """The id itself if it can name a file, a tag and an object.

    Raises:
        UsageError: It cannot.
    """
    if _RUN_ID.fullmatch(run_id) is None:
        raise UsageError(
            f"{run_id!r} cannot be a run id",
            hint="use letters, digits, dots, dashes and underscores, at most 128",
        )
    return run_id


def utc_text(moment: datetime) -> str:
    """RFC 3339 UTC with Z, to the millisecond, so that texts sort as times do.

    >>> utc_text(datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC))
    '2026-01-02T03:04:05.678Z'
    """
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_between(start_at: str, end_at: str) -> float:
    """Seconds from one RFC 3339 time to another, never less than 0 (clocks are corrected now and then).

    >>> seconds_between("2026-01-01T00:00:00Z", "2026-01-01T00:01:30.500Z")
    90.5
    """
    span = datetime.fromisoformat(end_at) - datetime.fromisoformat(start_at)
    return max(span.total_seconds(), 0.0)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of the worker on one set of machines: a launch, a resume, or a recovery by the backend.

    Attributes:
        attempt: 1 for the first.
        offer_json: The machine, as it was when this attempt was launched.
        micro_usd_per_hour: Price of all its machines, fixed at launch; None is unknown.
        intent_at: When we decided to start it, before the backend was asked.
        backend_id: The backend's own id, None until it answered.
        started_at: When machines began to cost, None if they never did.
        ended_at: When they were released.
        outcome: How it went.
        first_step: Optimizer steps it began with, None until the worker says.
        last_step: Optimizer steps it reached, None until the worker says.
        exit_code: Of the worker, None if unknown.
        cost_micro_usd: Up to `ended_at`, or up to the last observation; None is unknown.
        recovery: How often the backend had restarted the worker by itself before this; 0 if we launched it.
    """

    attempt: int
    offer_json: str
    micro_usd_per_hour: int | None
    intent_at: str
    backend_id: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    outcome: Outcome = "running"
    first_step: int | None = None
    last_step: int | None = None
    exit_code: int | None = None
    cost_micro_usd: int | None = None
    recovery: int = 0


@dataclass(frozen=True, slots=True)
class RunTerms:
    """What a run was launched with; never changes but for cap, duration and prices of its machines at a resume.

    Attributes:
        infra: This machine, a managed job of SkyPilot, or a cluster of its own, started by SkyPilot.
        plan_hash: "sha256:..." of the plan.
        candidate_json: The chosen candidate with its predictions.
        job_json: The worker's job document, without the limits of an attempt.
        checkpoint_uri: The run's own prefix.
        cap_micro_usd: Total for the run, None for no cap.
        max_duration_s: Of each attempt, None for no limit.
        env: Plain environment of the worker.
        secrets: Names of environment variables to pass on.
        monitor: Who watches it: only the commands that ask for it, or also a monitor that restarts it.
        notify: Names of environment variables with the addresses of those who are told how it goes.
        register_uri: Where its id was taken and its cap is held, None for runs older than registers.
        moving_json: What the moving policy needs (`planner.moving.terms`), None for a run that stays where it is.
    """

    name: str
    project: str
    owner: str | None
    labels: dict[str, str]
    infra: Infra
    plan_hash: str
    candidate_id: str
    candidate_json: str
    job_json: str
    checkpoint_uri: str
    cap_micro_usd: int | None
    max_duration_s: float | None
    env: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    monitor: MonitorHome = "local"
    register_uri: str | None = None
    moving_json: str | None = None
    notify: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MonitorBeat:
    """The monitor that serves a ledger, as it last said.

    Attributes:
        beat_at: When it last began a round.
        every_s: Seconds between two rounds.
        ended_at: When it ended in good order, None if it runs or was killed.
    """

    monitor: str
    pid: int
    host: str
    started_at: str
    beat_at: str
    every_s: float
    ended_at: str | None = None

    def lives(self, now: str) -> bool:
        """Whether it may be relied on: it has not missed several rounds."""
        return self.ended_at is None and seconds_between(self.beat_at, now) <= 4 * self.every_s + 30


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the ledger knows it.

    Attributes:
        state_since_at: When the state began; where nobody says that, when it was first seen (`since_is_told`).
        revision: Grows with every change; who writes on an old one is refused and reads again.
        progress_json: What the worker last said, None if it never did.
        observed_at: When the ledger was last compared with the backend.
        next_try_at: When something will be tried by itself, None if nothing will; of a run that is being stopped, until
            when its worker has time to commit before its machine is ended.
        stopping: Who asked the newest attempt to end, None if nobody did.
    """

    run_id: str
    terms: RunTerms
    created_at: str
    state: RunState
    state_reason: str
    state_since_at: str
    next_try_at: str | None
    observed_at: str
    revision: int
    progress_json: str | None
    attempts: tuple[Attempt, ...]
    stopping: Stopping | None = None

    @property
    def current(self) -> Attempt:
        """The newest attempt."""
        return self.attempts[-1]

    @property
    def launches(self) -> int:
        """How often we asked the backend to start it; the backend numbers its attempts so."""
        return sum(attempt.recovery == 0 for attempt in self.attempts)

    @property
    def launched_at(self) -> str:
        """When we decided on the newest launch; the backend may have replaced its machines since."""
        return next(attempt.intent_at for attempt in reversed(self.attempts) if attempt.recovery == 0)

    @property
    def resting(self) -> bool:
        """Preempted, with no backend that restarts it: it waits for a resume."""
        return self.state == "preempted" and self.current.ended_at is not None

    @property
    def since_is_told(self) -> bool:
        """Whether the state is known to have begun then: by our own hand, or with machines whose times are known."""
        if self.state in WORKING:
            return self.state_since_at == self.current.started_at
        if self.final or self.state == "preempted":
            return self.state_since_at == self.current.ended_at
        return (
            self.state in ("scheduled", "waiting", "cancelling")
            or self.state_since_at == self.current.intent_at
        )

    @property
    def stuck(self) -> bool:
        """At rest, and no monitor will start it again: a person must."""
        return self.resting and self.terms.monitor == "local"

    @property
    def final(self) -> bool:
        """Nothing changes any more unless somebody resumes it."""
        return self.state in FINAL

    @property
    def is_restarted(self) -> bool:
        """Whether a monitor starts its newest attempt after the machines before it were taken away."""
        started = [attempt for attempt in self.attempts[:-1] if attempt.started_at is not None]
        return self.terms.monitor != "local" and bool(started) and started[-1].outcome == "preempted"

    @property
    def came_to_nothing(self) -> bool:
        """Failed before any machine was there: to launch it again is to launch it for the first time."""
        return self.state == "failed" and all(attempt.started_at is None for attempt in self.attempts)

    @property
    def cost_micro_usd(self) -> int | None:
        """Sum over the attempts, None as soon as one of them is unknown."""
        costs = [attempt.cost_micro_usd for attempt in self.attempts if attempt.started_at is not None]
        return None if None in costs else sum(cost for cost in costs if cost is not None)


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One line of a run's history; never changed or removed."""

    at: str
    kind: str
    state: RunState
    reason: str
    attempt: int


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """One decision of the moving policy: on record before it is acted upon, never changed or removed.

    Attributes:
        tick: Index of the policy's tick.
        attempt: The newest attempt at that time.
        document_json: What was known, what was chosen, and what else was weighed (`planner.moving.decision`).
        state_json: The policy's state after it, from which the next decision goes on.
    """

    at: str
    tick: int
    attempt: int
    document_json: str
    state_json: str
