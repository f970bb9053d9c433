"""One SQLite file of ours: opened, migrated, written in transactions; its errors become ours here and nowhere else."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from planner.filesystem import network_file_system
from planner.schema_sql import MIGRATIONS
from providers.errors import CorruptDataError, StorageError, TuneplanError, UsageError

_BUSY_TIMEOUT_S = 20.0


class Database:
    """One open ledger file; use it as a context manager."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        """Open the file, making or migrating it if need be; `shared` may be closed by another thread.

        Raises:
            UsageError: A newer tuneplan wrote it (then it is left as it is), or it lies on a network disk.
            StorageError: It cannot be opened or written.
            CorruptDataError: It is no ledger, or damaged.
        """
        self.path = path
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _refuse_network_disk(path)
            self._db = sqlite3.connect(
                path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=not shared
            )
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def __enter__(self) -> Self:
        """The database itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; what was written is on disk already."""
        self._db.close()

    def execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """Run one statement; call it inside `writing` or `reading`."""
        return self._db.execute(statement, values)

    def insert(self, table: str, row: dict[str, Any]) -> None:
        """Add a row; call it inside `writing`."""
        places = ", ".join("?" * len(row))
        self._db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", tuple(row.values()))  # noqa: S608

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction that is written as a whole or not at all."""
        with storage_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """One consistent view of the file."""
        with storage_errors(self.path):
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("COMMIT")

    def _prepare(self) -> None:
        with self.reading():  # one view: between two, another process may make the file
            version = self._version()
            has_tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,)
        if version > len(MIGRATIONS):
            raise UsageError(
                f"{self.path} was written by a newer tuneplan (version {version} of the ledger,"
                f" this one knows {len(MIGRATIONS)}); it was left as it is",
                hint="upgrade tuneplan, or set PLAN_HOME to another directory",
                code="ledger_newer",
            )
        if version == 0 and has_tables:
            raise CorruptDataError(f"{self.path} is another program's database", path=str(self.path))
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        if version < len(MIGRATIONS):
            self._migrate()

    def _migrate(self) -> None:
        """Bring the file to the newest version, all or nothing, with a copy of the old one beside it."""
        with self.writing():
            version = self._version()  # again: another process may have been faster
            if 0 < version < len(MIGRATIONS):
                self._back_up(version)
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _back_up(self, version: int) -> None:
        """Copy what is committed; a reader beside our own transaction sees exactly that."""
        copy = self.path.with_name(f"{self.path.name}.version-{version}")
        with (
            contextlib.closing(sqlite3.connect(self.path)) as old,
            contextlib.closing(sqlite3.connect(copy)) as new,
        ):
            old.backup(new)

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])


class Book:
    """One kind of records in a ledger; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open the ledger.

        Raises:
            UsageError, StorageError, CorruptDataError: As `planner.database.Database`.
        """
        self._db = Database(path)

    def __enter__(self) -> Self:
        """The book itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._db.close()


def _refuse_network_disk(path: Path) -> None:
    kind = network_file_system(path.parent)
    if kind is not None:
        raise UsageError(
            f"{path} lies on a network file system ({kind}), where SQLite's locks cannot be trusted",
            hint="set PLAN_HOME to a directory of a local disk",
            code="ledger_on_network_disk",
        )


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """The one place where SQLite's errors become ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StorageError(f"the ledger {path}: {error}", hint=_hint(str(error)), path=str(path)) from error
    except sqlite3.IntegrityError as error:
        raise TuneplanError(f"the ledger {path} refused a change: {error}") from error
    except sqlite3.DatabaseError as error:
        raise CorruptDataError(
            f"the ledger {path} is damaged or no ledger: {error}",
            hint="move it away and put a copy back, nothing was changed; checkpoints do not depend on it",
            path=str(path),
        ) from error
    except OSError as error:
        said = error.strerror or str(error)
        hint = _hint("full" if error.errno == errno.ENOSPC else "unable to open")
        raise StorageError(f"the ledger {path}: {said}", hint=hint, path=str(path)) from error


def _hint(message: str) -> str | None:
    hints = {
        "full": "free some disk space; nothing that was recorded is lost",
        "locked": "another `plan` is writing for very long; try again",
        "readonly": "the directory must be writable; set PLAN_HOME to another one",
        "unable to open": "the directory must be writable; set PLAN_HOME to another one",
        "no such": "something else has changed it: move it away and put a copy back; checkpoints do not depend on it",
    }
    return next((hint for word, hint in hints.items() if word in message), None)
