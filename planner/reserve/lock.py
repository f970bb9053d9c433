"""One process at a time buys from one ledger."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from providers.errors import TuneplanError


@contextlib.contextmanager
def buying(ledger: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of a ledger; it goes with the process, however that ends.

    The ledger alone keeps purchases single; this keeps a second process from calling a purchase under way unknown.

    Raises:
        TuneplanError: Another process has it, still after `wait_s`.
    """
    import fcntl

    path = ledger.with_name(ledger.name + ".buying")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    until = time.monotonic() + wait_s
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= until:
                    text = "another process is buying from this ledger just now"
                    raise TuneplanError(text, hint="try again in a minute", code="buying") from error
                time.sleep(0.2)
        yield
