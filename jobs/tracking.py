"""Tells a tracker of a run: only what is in a committed checkpoint, each step once, and never at training's expense.

An attempt that goes on computes the steps after its checkpoint again. Since nothing of them was told before they were
committed, and a tracker says itself what it has, all attempts together make one run without a step too many.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

from jobs.console import say
from jobs.history import History
from jobs.progress import MetricResult
from jobs.trackers import Point, Tracker

_PATIENCE_S = 120.0
#: Name and password in an address.
_LOGIN = re.compile(r"://[^\s/]+@")


class _End(NamedTuple):
    """How the attempt ended."""

    state: str
    history: History
    metrics: tuple[MetricResult, ...]


class Tracking:
    """One attempt's side of a tracked run; a thread of its own talks to the tracker, whose network may be slow.

    Args:
        open_tracker: Called before the first point.
    """

    def __init__(self, open_tracker: Callable[[], Tracker]) -> None:
        """Nothing is opened yet."""
        self._open = open_tracker
        self._tracker: Tracker | None = None
        self._last: dict[str, int] = {}
        self._failed = False
        self._changed = threading.Condition()
        self._waiting: tuple[History, int] | None = None
        self._end: _End | None = None
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    def committed(self, history: History, step: int) -> None:
        """A checkpoint of this step is committed: what was measured up to it will be told; returns at once."""
        with self._changed:
            self._waiting = history, step
            self._changed.notify_all()

    def close(
        self, state: str, history: History, metrics: Iterable[MetricResult], patience_s: float = _PATIENCE_S
    ) -> None:
        """The attempt is over: a run that is done gets its last points and its results.

        Args:
            state: As of the worker.
            history: All that was measured.
            metrics: Of base and tuned.
            patience_s: How long to wait for the tracker; a machine that is taken away has no time.
        """
        with self._changed:
            self._end = _End(state, history, tuple(metrics))
            self._changed.notify_all()
        self._thread.join(patience_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._end is not None)
                waiting, self._waiting, end = self._waiting, None, self._end
            if waiting is not None:
                self._tell(*waiting)
            if end is not None:
                self._finish(end)
                return

    def _tell(self, history: History, step: int) -> None:
        points = [point for point in points_of(history) if point.step <= step]
        self._guarded(lambda tracker: self._log(tracker, points))

    def _finish(self, end: _End) -> None:
        done = end.state in ("done", "regressed")
        results = {
            f"{one.split}/{one.name}/{which}": value
            for one in end.metrics
            for which, value in (("base", one.base), ("tuned", one.tuned))
            if done and value is not None
        }

        def last_words(tracker: Tracker) -> None:
            if done:
                self._log(tracker, points_of(end.history))
            tracker.close(end.state, results)

        if done or self._tracker is not None:
            self._guarded(last_words)

    def _log(self, tracker: Tracker, points: list[Point]) -> None:
        for metric in {point.metric for point in points} - set(self._last):
            self._last[metric] = tracker.last_step(metric)
        new = [point for point in points if point.step > self._last[point.metric]]
        if new:
            tracker.log(sorted(new, key=lambda point: point.step))
            for point in new:
                self._last[point.metric] = max(point.step, self._last[point.metric])

    def _guarded(self, act: Callable[[Tracker], None]) -> None:
        """A tracker that is away or broken costs its points of now, not the training; the next time has them all."""
        try:
            if self._tracker is None:
                self._tracker = self._open()
            act(self._tracker)
        except Exception as error:
            if not self._failed:
                told = _LOGIN.sub("://***@", str(error))[:300]
                say(f"not tracked, training goes on: {type(error).__name__}: {told}")
            self._failed = True
            self._last.clear()  # what arrived is asked for again


def points_of(history: History) -> list[Point]:
    """Losses and evaluations as points."""
    points = [Point("train/loss", one.step, one.loss) for one in history.losses]
    for one in history.evaluations:
        points += [Point(f"eval/{name}", one.step, value) for name, value in one.values.items()]
        guarded = one.guard_values or {}
        points += [Point(f"guard/{name}", one.step, value) for name, value in guarded.items()]
    return points
