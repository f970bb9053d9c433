"""Why and when a worker stops before it is done: it is asked to, SIGTERM, a cloud's notice, the time limit, the cap."""

from __future__ import annotations

import signal
import threading
import time
from typing import Literal

from jobs.console import say
from jobs.notices import Notice
from jobs.spec import LimitsJob

#: Asked to by whoever watches the run: like a preemption, but nobody shall start it again by himself.
StopKind = Literal["preempted", "capped", "asked"]


class StopSignal:
    """Watches the clock, the price and the signals; asked at every step boundary and between stages.

    Args:
        limits: Of the job.
        started_s: `time.monotonic()` at the start of the process.
    """

    def __init__(self, limits: LimitsJob, started_s: float) -> None:
        """Signals count only after `listen`."""
        self._limits = limits
        self._started_s = started_s
        self._signal = threading.Event()
        self.step_s = self.save_s = self.upload_s = 0.0
        """Longest of the last steps, longest local save and upload; all three are kept free before a limit."""
        self._carried_usd = 0.0
        self._notice: tuple[str, float] | None = None
        self._warned = threading.Event()
        self._asked = threading.Event()

    def ask(self) -> None:
        """Whoever watches the run wants it to end; from any thread."""
        say("asked to end by whoever watches the run")
        self._asked.set()

    def take(self, notice: Notice) -> None:
        """Heed what the cloud said; from any thread."""
        say(
            f"{notice.source}: "
            + ("saving now" if notice.leave_s is None else f"{notice.leave_s:.0f} s left")
        )
        if notice.leave_s is None:
            self._warned.set()
        elif self._notice is None:
            self._notice = (notice.source, time.monotonic() + notice.leave_s)

    def take_warning(self) -> bool:
        """Whether the machine may be taken away soon, so that a checkpoint is due; true once for each warning."""
        warned = self._warned.is_set()
        self._warned.clear()
        return warned

    def fits(self) -> bool:
        """Whether a save and its upload, as long as the longest so far, end within the notice; unknown is tried."""
        if self._notice is None:
            return True
        return time.monotonic() + self.save_s + self.upload_s <= self._notice[1]

    def listen(self) -> None:
        """From here on SIGTERM asks for a checkpoint and an orderly end; main thread only."""
        signal.signal(signal.SIGTERM, lambda *_: self._signal.set())

    def ignore(self) -> None:
        """From here on SIGTERM changes nothing: the exit code is decided, the interpreter only tidies up."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def carry_over(self, cost_usd: float | None, since_s: float) -> None:
        """Count what the machines before this one cost in the same launch.

        Args:
            cost_usd: What the last of them said, earlier launches included; None if it never said.
            since_s: How long it may have run on after that.
        """
        if cost_usd is not None and self._limits.usd_per_hour is not None:
            said_usd = cost_usd + self._limits.usd_per_hour * since_s / 3600
            self._carried_usd = max(said_usd - self._limits.spent_usd, 0.0)

    def elapsed_s(self) -> float:
        """Seconds since the process started."""
        return time.monotonic() - self._started_s

    def cost_usd(self) -> float | None:
        """What the run has cost so far, None if the price is unknown."""
        if self._limits.usd_per_hour is None:
            return None
        here_usd = self._limits.usd_per_hour * self.elapsed_s() / 3600
        return self._limits.spent_usd + self._carried_usd + here_usd

    def reason(self) -> tuple[StopKind, str] | None:
        """Why to stop now, None to go on."""
        if self._asked.is_set():
            return "asked", "asked to end"
        if self._notice is not None:
            return "preempted", self._notice[0]
        if self._signal.is_set():
            return "preempted", "told to stop by SIGTERM"
        limits = self._limits
        reserve_s = limits.reserve_s + self.step_s + self.save_s + self.upload_s
        if limits.max_duration_s is not None and self.elapsed_s() + reserve_s >= limits.max_duration_s:
            return "capped", f"time limit of {limits.max_duration_s:g} s reached"
        cost_usd = self.cost_usd()
        if limits.cap_usd is not None and limits.usd_per_hour is not None and cost_usd is not None:
            cost_usd += limits.usd_per_hour * reserve_s / 3600
            if cost_usd >= limits.cap_usd:
                return "capped", f"cap of {limits.cap_usd:g} US dollars reached"
        return None


class Stopped(Exception):  # noqa: N818 - an orderly end, not an error
    """Training ends before it is done.

    Args:
        kind: Told to stop, or a limit reached.
        reason: For a person.
        committed: The last step done is in a committed checkpoint.
    """

    def __init__(self, kind: StopKind, reason: str, *, committed: bool) -> None:
        """Keep all three."""
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.committed = committed
