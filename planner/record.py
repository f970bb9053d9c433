"""A run's record in its own prefix of the object store: what the ledger knows of it, and which ledger that is.

`run.json` is written before a machine is asked for and after each change of the run's state, by compare-and-swap. It
is what `plan runs adopt` rebuilds a lost ledger from; and since it names one ledger, a run never has two.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from planner.ledger_identity import LedgerIdentity
from planner.runs import STATES, Attempt, Run, RunTerms, check_run_id
from providers.errors import CorruptDataError, StorageError, UsageError
from providers.object_store import ObjectStore

KEY = "run.json"
SCHEMA = "tuneplan/run-record"
_ROUNDS = 8


class OtherLedgerError(UsageError):
    """Another ledger owns the run: it alone may start, watch and end it."""

    code = "other_ledger"


@dataclass(frozen=True, slots=True)
class Record:
    """A run as its owner last wrote it down.

    Attributes:
        ledger: Tells the owner's ledger from all others (`planner.ledger_identity`).
        host: Machine of that ledger, for a person.
        written_at: RFC 3339 UTC.
        run: The run, without what the worker says of itself.
    """

    ledger: str
    host: str
    written_at: str
    run: Run


def read_record(store: ObjectStore) -> Record | None:
    """The record of a run's prefix, None if there is none.

    Raises:
        CorruptDataError: What lies there is no record.
        StorageError: The store cannot be read.
    """
    found = store.get(KEY)
    return None if found is None else _parsed(found[0], store.uri)


def adopter(store: ObjectStore, ledger: LedgerIdentity) -> str | None:
    """Which other ledger owns the run of a prefix, None if it is this one's or has no record.

    Raises:
        CorruptDataError, StorageError: As `read_record`.
    """
    record = read_record(store)
    return None if record is None or is_own(record, ledger) else f"a ledger on {record.host}"


def keep(
    store: ObjectStore, ledger: LedgerIdentity, newest: Callable[[], Run | None], now: str, *, create: bool
) -> bool:
    """Write a run's record as it is now.

    Args:
        store: The run's prefix.
        ledger: The ledger that owns the run.
        newest: Reads the run from that ledger.
        now: RFC 3339 UTC.
        create: Also if there is none yet.

    Returns:
        Whether there is a record now.

    Raises:
        OtherLedgerError: Another ledger has adopted the run.
        StorageError: The store cannot be read or written.
    """
    for _ in range(_ROUNDS):
        found = store.get(KEY)
        if found is None and not create:
            return False
        if found is not None:
            _refuse_other(_parsed(found[0], store.uri), ledger)
        run = newest()
        if run is None:
            return False
        body = _written(Record(ledger.token, socket.gethostname(), now, run))
        if store.compare_and_swap(KEY, body, None if found is None else found[1]) is not None:
            return True
    raise StorageError(f"{KEY} in {store.uri} is being changed by others all the time", code="busy")


def claim(store: ObjectStore, ledger: str, now: str) -> Record:
    """Make a run's record this ledger's own; every later write of the former owner is refused.

    Raises:
        UsageError: There is no record.
        CorruptDataError, StorageError: As `read_record`.
    """
    for _ in range(_ROUNDS):
        found = store.get(KEY)
        if found is None:
            raise UsageError(
                f"there is no record of a run in {store.uri}",
                hint="give the prefix of one run; an older tuneplan's goes on by `plan launch --run-id ID`",
                code="no_record",
            )
        mine = replace(_parsed(found[0], store.uri), ledger=ledger, host=socket.gethostname(), written_at=now)
        if store.compare_and_swap(KEY, _written(mine), found[1]) is not None:
            return mine
    raise StorageError(f"{KEY} in {store.uri} is being changed by others all the time", code="busy")


def is_own(record: Record, ledger: LedgerIdentity) -> bool:
    """Whether a record is this ledger's."""
    return ledger.owns(record.ledger, record.run.run_id, record.written_at)


def _refuse_other(record: Record, ledger: LedgerIdentity) -> None:
    if not is_own(record, ledger):
        raise OtherLedgerError(
            f"run {record.run.run_id} was adopted by a ledger on {record.host} at {record.written_at}",
            hint="go on there, or take it back with `plan runs adopt`",
        )


def _written(record: Record) -> bytes:
    run = asdict(replace(record.run, progress_json=None))
    document = {
        "schema": SCHEMA,
        "schema_version": 1,
        "ledger": record.ledger,
        "host": record.host,
        "written_at": record.written_at,
        "run": run,
    }
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def _parsed(body: bytes, uri: str) -> Record:
    """A record, also of a newer writer: unknown keys are left out."""
    try:
        raw = json.loads(body)
        if raw["schema"] != SCHEMA:
            raise ValueError("another schema")
        run = raw["run"]
        terms = _known(RunTerms, run["terms"])
        terms |= {name: tuple(terms.get(name, ())) for name in ("secrets", "notify")}
        attempts = tuple(Attempt(**_known(Attempt, attempt)) for attempt in run["attempts"])
        check_run_id(run["run_id"])  # it names directories
        if run["state"] not in STATES or not attempts:
            raise ValueError("no state, or no attempt")
        own = _known(Run, run) | {"terms": RunTerms(**terms), "attempts": attempts}
        return Record(raw["ledger"], raw["host"], raw["written_at"], Run(**own))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError) as error:
        raise CorruptDataError(f"{KEY} in {uri} is no record of a run: {error}", path=uri) from error


def _known(kind: Any, raw: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in raw.items() if name in names}
