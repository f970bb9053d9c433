"""What asks for a machine only to see whether it can be had, and gives it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from providers.offers import Offer


@dataclass(frozen=True, slots=True)
class TryRequest:
    """One try.

    Attributes:
        try_id: Everything that is rented bears this name; the same one is never rented twice.
        nodes: Machines.
        limit_s: How long to wait for them.
        labels: Tags on everything that is rented.
    """

    try_id: str
    offer: Offer
    nodes: int
    limit_s: float
    labels: dict[str, str]


class TryAnswer(NamedTuple):
    """What came of it.

    Attributes:
        had: Whether the machines were there and could be logged in to.
        reason: What the seller said if not.
        unsure: A machine may have been rented for a while all the same.
    """

    had: bool
    reason: str
    unsure: bool = False


class Trier(Protocol):
    """Rents and gives back."""

    def acquire(self, request: TryRequest) -> TryAnswer:
        """Ask for the machines and wait; `release` is called whatever comes of it.

        Raises:
            TuneplanError: The seller could not be asked; something may be rented all the same.
        """
        ...

    def release(self, try_id: str) -> None:
        """End whatever there is of a try, also of one that was cut off; nothing happens if there is nothing.

        Raises:
            TuneplanError: It is not known to be gone.
        """
        ...
