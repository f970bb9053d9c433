"""What every seller of the tests has: a file of orders that says what goes wrong, a journal of what was really sold."""

from __future__ import annotations

import datetime as dt
import json
import threading
from pathlib import Path
from typing import Any


class Market:
    """Orders, faults and journal of one server."""

    def __init__(self, control: Path) -> None:
        self.control = control
        self.journal = control.with_suffix(".journal")
        self.lock = threading.Lock()
        self.calls: dict[str, int] = {}

    def orders(self) -> dict[str, Any]:
        """The control file: `faults` by token, `price_factor`, `shift_s` of the clock, `none` for sale."""
        try:
            read: dict[str, Any] = json.loads(self.control.read_text())
        except FileNotFoundError:
            return {}
        return read

    def now(self) -> dt.datetime:
        shift = dt.timedelta(seconds=self.orders().get("shift_s", 0))
        return dt.datetime.now(dt.UTC).replace(microsecond=0) + shift

    def fault(self, token: str) -> str:
        """What happens at this call for a token; the first call takes the first of its faults."""
        with self.lock:
            number = self.calls.get(token, 0)
            self.calls[token] = number + 1
        faults = self.orders().get("faults", {}).get(token, [])
        return str(faults[number]) if number < len(faults) else "ok"

    def note(self, ref: str, token: str, fee: str | None) -> None:
        """Into the journal of what was really sold."""
        with self.journal.open("a") as journal:
            journal.write(json.dumps({"ref": ref, "token": token, "fee": fee}) + "\n")
