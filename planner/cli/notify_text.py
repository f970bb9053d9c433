"""Messages to people, as JSON and as text; never an address."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planner.outbox import Delivery


def delivery_document(row: Delivery) -> dict[str, Any]:
    """One message."""
    return asdict(row) | {"given_up": row.is_given_up}


def delivery_text(row: Delivery) -> str:
    """One line on what became of a message."""
    if row.sent_at is not None:
        became = f"delivered {row.sent_at}"
    elif row.error is None:
        became = "waits"
    else:
        then = "given up" if row.is_given_up else f"next try {row.next_try_at}"
        became = f"not delivered after {row.tries} tries: {row.error}; {then}"
    return f"{row.at[:19].replace('T', ' ')}  {row.recipient}: {row.title}: {became}"
