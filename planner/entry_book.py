"""Entries in the register that were begun here, in the ledger: by them is found what a launch that died has left.

An id is taken and its cap is held before the run is on record. The register alone cannot tell a launch that died in
between from a run whose ledger was lost and which still costs; the ledger that began the entry can.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from planner.database import Book
from planner.ledger_identity import identity_of
from planner.register import hold, is_taken, leave
from planner.runs import Run, utc_text
from providers.errors import TuneplanError
from providers.object_store import ObjectStore
from providers.offers import Offer
from providers.stores import open_store

#: From taking an id to recording its run it is a moment; one that slept in between shall not be robbed.
_CUT_OFF_S = 900.0


@dataclass(frozen=True, slots=True)
class Entry:
    """An id and a cap that a launch is about to take.

    Attributes:
        at: RFC 3339 UTC, before the register was asked.
    """

    run_id: str
    project: str
    register_uri: str
    at: str


class EntryBook(Book):
    """The entries that this ledger has begun and not ended."""

    def begin(self, entry: Entry) -> None:
        """Write an entry down, before the register is asked; again with a new time if it was begun before."""
        with self._db.writing():
            self._db.execute("DELETE FROM entries WHERE run_id = ?", (entry.run_id,))
            self._db.insert("entries", asdict(entry))

    def end(self, run_id: str) -> None:
        """Its run is on record, or the register has nothing of it any more."""
        with self._db.writing():
            self._db.execute("DELETE FROM entries WHERE run_id = ?", (run_id,))

    def is_begun(self, run_id: str) -> bool:
        """Whether an entry was begun and not ended."""
        with self._db.reading():
            return (
                self._db.execute("SELECT 1 FROM entries WHERE run_id = ?", (run_id,)).fetchone() is not None
            )

    def begun_since(self, register_uri: str, since: str) -> frozenset[str]:
        """Ids of entries that were begun after that and not ended."""
        with self._db.reading():
            rows = self._db.execute(
                "SELECT run_id FROM entries WHERE register_uri = ? AND at > ?", (register_uri, since)
            ).fetchall()
        return frozenset(str(run_id) for (run_id,) in rows)

    def has_run(self, run_id: str) -> bool:
        """Whether a run of this id is on record."""
        with self._db.reading():
            return self._db.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchone() is not None

    def without_run(self, project: str, register_uri: str, until: str) -> list[str]:
        """Ids of entries that were begun by then and came to no run."""
        with self._db.reading():
            rows = self._db.execute(
                "SELECT run_id FROM entries WHERE project = ? AND register_uri = ? AND at <= ?"
                " AND run_id NOT IN (SELECT run_id FROM runs) ORDER BY run_id",
                (project, register_uri, until),
            ).fetchall()
        return [str(run_id) for (run_id,) in rows]


@contextmanager
def entering(ledger: Path, register: ObjectStore, entry: Entry) -> Iterator[None]:
    """Around taking an id and recording its run: when that comes to no run, the register gets back what it gave.

    Args:
        ledger: The ledger that both go by.
        register: Of the entry.
        entry: What is about to be taken.

    Raises:
        StorageError: Ledger or register cannot be read or written.
    """
    with EntryBook(ledger) as book:
        # an id that is taken, and not by an entry begun here, may be that of a run under way
        is_ours = book.is_begun(entry.run_id) or not is_taken(register, entry.run_id)
        if is_ours or book.has_run(entry.run_id):
            book.begin(entry)
        try:
            yield
        except BaseException:
            with suppress(TuneplanError):  # later, then
                if entry.run_id in book.without_run(entry.project, entry.register_uri, entry.at):
                    leave(register, entry.run_id, entry.project, ledger=identity_of(ledger))
                book.end(entry.run_id)
            raise
        book.end(entry.run_id)


def entry_of(run: Run, now: str) -> Entry | None:
    """What is entered when a run on record takes its cap again, None if it is in no register."""
    uri = run.terms.register_uri
    return None if uri is None else Entry(run.run_id, run.terms.project, uri, now)


def hold_again(run: Run, cap_micro_usd: int | None, offer: Offer | None) -> None:
    """Hold the cap of the project's budget again: the run gave back what it had not spent when it ended.

    Args:
        run: As just observed; one that is under way holds what it was launched with.
        cap_micro_usd: None is the cap that is on record.
        offer: Its machine, None if it stays.

    Raises:
        OverBudgetError: The budget does not allow it.
    """
    terms = run.terms
    price = run.current.micro_usd_per_hour if offer is None else offer.price_usd_per_hour
    if terms.register_uri is None or price == 0:
        return
    cap = terms.cap_micro_usd if cap_micro_usd is None else cap_micro_usd
    hold(open_store(terms.register_uri), run.run_id, terms.project, terms.owner, cap, run.created_at[:7])


@contextmanager
def holding_again(ledger: Path, entry: Entry | None) -> Iterator[None]:
    """Around holding the cap of a run that is over and putting its next attempt on record.

    In between the ledger still says that it is over: whoever settles leaves it alone (`being_entered`).

    Args:
        ledger: Of the run.
        entry: The run's; None is one that is in no register.
    """
    if entry is None:
        yield
        return
    with EntryBook(ledger) as book:
        book.begin(entry)
        try:
            yield
        finally:
            book.end(entry.run_id)


def being_entered(ledger: Path, register_uri: str, now: str) -> frozenset[str]:
    """Ids whose cap is just being held: to be read before the runs of the ledger are, after the register.

    Raises:
        StorageError: The ledger cannot be read.
    """
    with EntryBook(ledger) as book:
        return book.begun_since(register_uri, _cut_off_before(now))


def cut_off(ledger: Path, register_uri: str, project: str, now: str) -> list[str]:
    """Ids of launches that died before their run was on record.

    Raises:
        StorageError: The ledger cannot be read.
    """
    with EntryBook(ledger) as book:
        return _cut_off(book, register_uri, project, now)


def give_back_cut_off(
    ledger: Path, register: ObjectStore, register_uri: str, project: str, *, now: str
) -> None:
    """Give back what launches hold that died before their run was on record.

    Raises:
        StorageError: Ledger or register cannot be read or written.
    """
    with EntryBook(ledger) as book:
        for run_id in _cut_off(book, register_uri, project, now):
            leave(register, run_id, project, ledger=identity_of(ledger))
            book.end(run_id)


def _cut_off(book: EntryBook, register_uri: str, project: str, now: str) -> list[str]:
    return book.without_run(project, register_uri, _cut_off_before(now))


def _cut_off_before(now: str) -> str:
    """Whoever began earlier than this has died."""
    return utc_text(datetime.fromisoformat(now) - timedelta(seconds=_CUT_OFF_S))
