"""Waits for a store that is away where giving up would lose what the machine was paid for.

The clients of the stores repeat requests for seconds; the outages of a store, or of the line to it, last for minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from jobs.console import duration, say
from jobs.preemption import StopKind, Stopped, StopSignal
from providers.errors import StorageError

#: How long a worker waits. The machine costs money meanwhile, and training again what is not committed costs more.
LIMIT_S = 900.0
FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 30.0
_POLL_S = 0.5
#: The clients give up a store that does not answer within minutes (`providers.s3`, `providers.obstore_store`).
_LONGEST_TRY_S = 900.0
_PASSING = ("unreachable", "unavailable", "cut_off")

T = TypeVar("T")


class Patience:
    """Pauses between the tries of one operation, longer and longer, until the worker must stop or has waited enough.

    Args:
        stop: Tells when to end early; None for a worker that ends already.
        limit_s: From now on, for all tries together; default LIMIT_S from the first try that failed, since what is
            sent or fetched may take longer than that. A try that was answered for that long begins anew.
    """

    def __init__(self, stop: StopSignal | None = None, limit_s: float | None = None) -> None:
        """The first try begins here."""
        self._stop = stop
        self._tried_s = time.monotonic()
        self._end_s = None if limit_s is None else self._tried_s + limit_s
        self._may_begin_anew = limit_s is None
        self._wait_s = FIRST_WAIT_S

    def wait(self) -> bool:
        """Pause before the next try; False if there shall be none."""
        now_s = time.monotonic()
        was_answered = self._may_begin_anew and now_s - self._tried_s > _LONGEST_TRY_S
        if self._end_s is None or was_answered:
            self._end_s, self._wait_s = now_s + LIMIT_S, FIRST_WAIT_S
        until_s = now_s + self._wait_s
        self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)
        while (left_s := min(until_s, self._end_s) - time.monotonic()) > 0:
            if self._must_stop():
                return False
            time.sleep(min(left_s, _POLL_S))
        self._tried_s = time.monotonic()
        return not self._must_stop() and self._tried_s < self._end_s

    def _must_stop(self) -> bool:
        return self._stop is not None and self._stop.reason() is not None


def is_passing(error: StorageError) -> bool:
    """Whether the same request may be answered later: the store is away, and has refused nothing."""
    return error.code in _PASSING


def insist(act: Callable[[], T], stop: StopSignal, *, committed: bool = False) -> T:
    """Do something with the store, again and again while it is away.

    Args:
        act: May be done twice.
        stop: Tells when to end early.
        committed: The last step done is in a committed checkpoint.

    Raises:
        Stopped: The worker was told to end meanwhile, or the store stayed away: start it again.
        StorageError: Another one than that the store is away.
    """
    patience, waited = Patience(stop), False
    while True:
        try:
            return act()
        except StorageError as error:
            if not is_passing(error):
                raise
            if not waited:
                say(f"trying again for {duration(LIMIT_S)}: {error.message}")
            if not patience.wait():
                raise Stopped(*why_not_waited(error, stop), committed=committed) from error
            waited = True


def why_not_waited(error: StorageError, stop: StopSignal) -> tuple[StopKind, str]:
    """Why a worker ends that waits for a store no longer: it was told to end, or has waited enough."""
    return stop.reason() or ("preempted", f"the object store stayed away: {error.message}")
