"""One process at a time buys from one ledger."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from providers.errors import TuneplanError
from providers.process_lock import held


@contextlib.contextmanager
def buying(ledger: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of a ledger; it goes with the process, however that ends.

    The ledger alone keeps purchases single; this keeps a second process from calling a purchase under way unknown.

    Raises:
        TuneplanError: Another process has it, still after `wait_s`.
        StorageError: The disk refuses.
    """
    path = ledger.with_name(ledger.name + ".buying")
    until = time.monotonic() + wait_s
    busy = TuneplanError(
        "another process is buying from this ledger just now", hint="try again in a minute", code="buying"
    )
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(held(path, busy))
                break
            except TuneplanError as error:
                if error is not busy or time.monotonic() >= until:
                    raise
                time.sleep(0.2)
        yield
