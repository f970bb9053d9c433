"""Version and soundness of a ledger, read without opening it for writing or migrating it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from planner.schema_sql import MIGRATIONS
from providers.errors import CorruptDataError

#: The version this tuneplan writes.
NEWEST_LEDGER = len(MIGRATIONS)


def ledger_version(path: Path) -> int:
    """Version of an existing ledger.

    Raises:
        CorruptDataError: It is damaged, or no ledger.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
            damage = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error as error:
        raise CorruptDataError(f"{path} cannot be read: {error}", path=str(path)) from error
    if damage != "ok":
        raise CorruptDataError(f"{path} is damaged: {damage}", path=str(path))
    return version
