"""Renews the sign of life that a rented machine waits for: as long as somebody watches its run, it does not end itself.

The machine's side is `jobs.keeper`. A worker that has said its last word, or has been silent for as long as a lease
lasts, is over for us too: should the backend forget its machine then, nobody's watching shall keep it there.
"""

from __future__ import annotations

import json
import socket
from datetime import datetime

from jobs.lease import KEY, LEASE_S, RENEW_S
from jobs.progress import Progress
from planner.runs import Run, seconds_between
from providers.errors import TuneplanError
from providers.stores import open_store

_LAST_WORDS = frozenset({"done", "regressed", "failed", "preempted", "capped"})


def is_due(run: Run, now: str) -> bool:
    """Whether the lease of a run must be renewed, which was last looked at when the ledger says.

    Every look in a new span of RENEW_S seconds renews it, so nothing needs to be remembered but the look.
    """
    if run.terms.infra == "local" or run.final:
        return False
    if run.progress_json is not None:
        progress = Progress.from_json(run.progress_json)
        if _is_over(progress, now) and not _has_newer_machines(run, progress):
            return False
    return _span(run.observed_at) != _span(now)


def _is_over(progress: Progress, now: str) -> bool:
    beat = progress.heartbeat_at
    silent = beat is not None and seconds_between(beat, now) > LEASE_S
    return progress.state in _LAST_WORDS or silent


def _has_newer_machines(run: Run, progress: Progress) -> bool:
    """Whether machines are there or on their way whose worker has not spoken yet: one may wait idle for the others."""
    if run.resting:
        return False
    began = run.current.started_at
    return run.state == "recovering" or began is None or (progress.started_at or began) < began


def renew(run: Run, now: str) -> None:
    """Write the lease; one that cannot be written is written at the next look."""
    body = {
        "schema": "tuneplan/lease",
        "host": socket.gethostname(),
        "launch": run.launches,
        "written_at": now,
    }
    try:
        open_store(run.terms.checkpoint_uri).put(KEY, json.dumps(body).encode())
    except TuneplanError:
        return


def _span(at: str) -> int:
    return int(datetime.fromisoformat(at).timestamp() // RENEW_S)
