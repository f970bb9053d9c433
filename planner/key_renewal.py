"""Renews the session keys of machines outside AWS before they end, through the run's own prefix.

Who can read what: the new keys are boxed for the machines of the newest launch (`providers.sealed`); the key to a box
follows from random bytes in the launch's bundle, which is on the machine, at SkyPilot and in this ledger's state
directory, and never in the store. Whoever reads the bucket alone learns nothing; whoever has the bundle as well could
do what the machine may: read and write this one run. Only who may make such keys can renew them, so a ledger that has
adopted the run on a machine without its bundle cannot, and says so.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from planner.launch import Desk
from planner.runs import Run
from providers.aws_access import LONGEST_SESSION_S, session_keys
from providers.errors import CorruptDataError, CredentialsError
from providers.object_store import ObjectStore
from providers.renewed_keys import KEY
from providers.sealed import UNTIL, box, box_key, pads
from providers.stores import open_store

#: Keys are renewed with this much left: several nights of a monitor that is away fit into the rest.
_LONGEST = timedelta(seconds=LONGEST_SESSION_S)
_LEFT = _LONGEST * 2 / 3


def renew_keys(desk: Desk, run: Run, now: str) -> None:
    """Put newer keys where the run's machines find them, if theirs end before long.

    Raises:
        CredentialsError: Nobody here may make them, or the bundle is gone.
        StorageError: The run's prefix cannot be written.
    """
    rented = json.loads(run.terms.candidate_json).get("rented", {})
    if rented.get("access") != "session" or run.final or run.current.started_at is None:
        return
    store = open_store(run.terms.checkpoint_uri)
    if not _is_due(run, store, now):
        return
    keys = {name: box_key(pad) for name, pad in pads(desk.places.bundle(run.run_id, run.launches)).items()}
    if not keys:
        message = f"the session keys of {run.run_id} cannot be renewed: its bundle is not on this machine"
        raise CredentialsError(message, hint="cancel it before they end, and resume it: that makes new ones")
    made = session_keys(run.run_id, tuple(rented["stores"]), tuple(rented["reads"]))
    boxes = {name: box(made, key) for name, key in keys.items()}
    store.put(KEY, json.dumps({"until_at": made[UNTIL], "launch": run.launches, "boxes": boxes}).encode())
    desk.store.note(run, "keys", f"session keys renewed until {made[UNTIL]}", now)


def _is_due(run: Run, store: ObjectStore, now: str) -> bool:
    """Whether the newest keys of this launch have only two thirds of their time left."""
    found = store.get(KEY)
    first_ends = datetime.fromisoformat(run.launched_at) + _LONGEST
    try:
        told = {} if found is None else json.loads(found[0])
        is_newest = told.get("launch") == run.launches
        ends = datetime.fromisoformat(told["until_at"]) if is_newest else first_ends
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptDataError(f"{KEY} in {store.uri} is damaged: {error}", path=store.uri) from error
    return ends - datetime.fromisoformat(now) < _LEFT
