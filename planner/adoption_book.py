"""Adoptions that were begun here, in the ledger: nobody watches the run of one that was cut off, until it is ended."""

from __future__ import annotations

from planner.database import Book


class AdoptionBook(Book):
    """The adoptions that this ledger has begun and not ended."""

    def begin(self, uri: str, at: str) -> None:
        """Write one down, before anything outside is touched.

        Args:
            uri: The run's prefix.
            at: RFC 3339 UTC.
        """
        with self._db.writing():
            self._db.execute("DELETE FROM adoptions WHERE uri = ?", (uri,))
            self._db.insert("adoptions", {"uri": uri, "at": at})

    def end(self, uri: str) -> None:
        """Its run is on record as the outside world has it, or it was refused."""
        with self._db.writing():
            self._db.execute("DELETE FROM adoptions WHERE uri = ?", (uri,))

    def begun(self) -> dict[str, str]:
        """When each that has not ended was begun, by prefix."""
        with self._db.reading():
            return dict(self._db.execute("SELECT uri, at FROM adoptions ORDER BY at, uri").fetchall())
