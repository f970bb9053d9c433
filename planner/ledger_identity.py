"""Which ledger this is: the word by which runs' records and a team's register tell it from all others.

It is in the ledger itself, so that a machine with another name, another path to the same directory, or the next
container on the same volume is still the same owner.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from planner.database import Book

_MARK = "ledger-"


@dataclass(frozen=True, slots=True)
class LedgerIdentity:
    """A ledger's own word.

    Attributes:
        token: What it signs with.
        signed_by_place_until: Runs from the time when host name and path were the word, with the time until which
            what lies outside was written by this ledger, whatever its host was called then. RFC 3339 UTC.
    """

    token: str
    signed_by_place_until: Mapping[str, str] = field(default_factory=dict)

    def owns(self, token: object, run_id: str, at: object) -> bool:
        """Whether what was signed so, about this run and at this time, was signed by this ledger."""
        if token == self.token:
            return True
        until = self.signed_by_place_until.get(run_id)
        is_of_a_place = isinstance(token, str) and not token.startswith(_MARK)
        return is_of_a_place and until is not None and isinstance(at, str) and at <= until


def identity_of(ledger: Path) -> LedgerIdentity:
    """The identity of a ledger, made at the first call.

    Raises:
        UsageError, StorageError, CorruptDataError: As `planner.database.Database`.
    """
    with _IdentityBook(ledger) as book:
        until = book.signed_by_place_until()
        # a monitor that was not started anew since the upgrade still goes by the place, and must find its own word
        new = _place_token(ledger.parent) if until else _MARK + secrets.token_hex(16)
        return LedgerIdentity(book.token() or book.made(new), until)


class _IdentityBook(Book):
    def token(self) -> str | None:
        with self._db.reading():
            row = self._db.execute("SELECT token FROM identity").fetchone()
        return None if row is None else str(row[0])

    def made(self, token: str) -> str:
        """The token, or the one that another process has made meanwhile."""
        with self._db.writing():
            self._db.execute("INSERT OR IGNORE INTO identity VALUES (1, ?)", (token,))
            return str(self._db.execute("SELECT token FROM identity").fetchone()[0])

    def signed_by_place_until(self) -> dict[str, str]:
        with self._db.reading():
            return dict(self._db.execute("SELECT run_id, until FROM signed_by_place").fetchall())


def _place_token(state: Path) -> str:
    """What ledgers signed with before they had a word of their own."""
    place = f"{socket.gethostname()}:{state.absolute()}"
    return hashlib.sha256(place.encode()).hexdigest()[:32]
