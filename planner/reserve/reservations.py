"""Reservations as records: what is wanted, what was bought, which state may follow which."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from providers.errors import TuneplanError
from providers.reservations import CapacityOffer, Holding, Machine, ProviderName

ReservationState = Literal[
    "planned", "intent", "bought", "active", "ended", "missed", "failed", "unknown", "cancelled"
]
STATES: tuple[ReservationState, ...] = get_args(ReservationState)
FINAL: frozenset[ReservationState] = frozenset({"ended", "missed", "failed", "cancelled"})

MOVES: dict[ReservationState, frozenset[ReservationState]] = {
    # bought, or over since, where the ledger was put back from a copy that did not know of it
    "planned": frozenset({"intent", "bought", "active", "ended", "missed", "failed", "cancelled"}),
    # back to planned only when it is certain that nothing was bought
    "intent": frozenset({"planned", "bought", "active", "ended", "failed", "unknown", "cancelled"}),
    "unknown": frozenset({"bought", "active", "ended", "failed", "cancelled"}),
    "bought": frozenset({"active", "ended", "failed", "cancelled"}),
    "active": frozenset({"ended", "failed", "cancelled"}),
    **{state: frozenset() for state in FINAL},
}
"""Legal next states; a state may always stay as it is."""

#: How the reason begins where a run was given another machine than was bought.
ELSEWHERE = "its run is not on what was bought"
#: How the warning begins while its run cannot be started.
NOT_STARTED = "its run could not be started"


def check_move(before: ReservationState, after: ReservationState) -> None:
    """Refuse a move that the table does not know.

    Raises:
        TuneplanError: If it is illegal: a bug of ours.
    """
    if before != after and after not in MOVES[before]:
        raise TuneplanError(f"a reservation cannot go from {before} to {after}", code="illegal_move")


def purchase_token(reservation_id: str, nonce: str) -> str:
    """The mark on everything that is bought for one reservation, the same for every try.

    Args:
        reservation_id: Unique in its ledger.
        nonce: Random, drawn once when the reservation is recorded: two ledgers may use the same id.

    >>> purchase_token("may-2", "x").startswith("tp-"), len(purchase_token("may-2", "x"))
    (True, 35)
    """
    return "tp-" + hashlib.sha256(f"{reservation_id}/{nonce}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Want:
    """What shall be bought, for a reservation that waits for an offer or for the moment of buying.

    Attributes:
        offer: The very offer that was agreed to, None for any that is good enough.
        machines: Machines that will do, in order of preference; empty if `offer` names it.
        regions: The provider's regions to look in.
        nodes: Machines at the same time.
        hours: Usable hours that the job needs.
        start_from: Earliest start of the capacity.
        end_by: The job must be done by then.
    """

    nodes: int
    hours: float
    start_from: datetime
    end_by: datetime
    regions: tuple[str, ...]
    machines: tuple[Machine, ...] = ()
    offer: CapacityOffer | None = None

    def document(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "nodes": self.nodes,
            "hours": self.hours,
            "start_from": self.start_from.isoformat(),
            "end_by": self.end_by.isoformat(),
            "regions": list(self.regions),
            "machines": [
                [one.instance_type, one.gpu, one.gpus_per_node, one.gpu_mem_gib] for one in self.machines
            ],
            "offer": None if self.offer is None else self.offer.document(),
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Want:
        """Read back what `document` wrote."""
        offer = document["offer"]
        return cls(
            nodes=document["nodes"],
            hours=document["hours"],
            start_from=datetime.fromisoformat(document["start_from"]),
            end_by=datetime.fromisoformat(document["end_by"]),
            regions=tuple(document["regions"]),
            machines=tuple(Machine(*one) for one in document["machines"]),
            offer=None if offer is None else CapacityOffer.from_document(offer),
        )


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """The run that shall start in the capacity.

    Attributes:
        spec: Path of the spec, read again at the start.
        infra: local or skypilot.
        run_id: Fixed beforehand, so that it is started once.
        cap_usd: Decimal text, None for no more than what the capacity costs.
    """

    spec: str
    infra: str
    run_id: str
    cap_usd: str | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reservation as the ledger knows it.

    Attributes:
        token: Mark on what is bought for it.
        price_cap_micro_usd: Most that may be paid up front.
        not_before_at: Nothing is bought earlier.
        decide_by_at: Nothing is bought later: then it is missed.
        tries: Purchases that were decided on.
        sent_at: When a purchase was handed to the network; None: certainly nothing was asked for.
        offer: What is being or was bought.
        upfront_micro_usd: Its price as agreed.
        provider_ref: The provider's own id of what was bought.
        paid_micro_usd: What was paid, None if unknown or nothing.
        run_id: The run that was started in it.
        warning: What a person should look at, None if nothing.
    """

    reservation_id: str
    provider: ProviderName
    token: str
    created_at: str
    want: Want
    price_cap_micro_usd: int
    not_before_at: str
    decide_by_at: str
    launch: LaunchPlan | None
    state: ReservationState
    state_reason: str
    state_since_at: str
    revision: int
    tries: int
    sent_at: str | None
    offer: CapacityOffer | None
    upfront_micro_usd: int | None
    provider_ref: str | None
    paid_micro_usd: int | None
    run_id: str | None
    warning: str | None

    @property
    def final(self) -> bool:
        """Nothing changes any more."""
        return self.state in FINAL

    @property
    def needs_person(self) -> bool:
        """Somebody has to look: nobody knows what was bought, or what was bought is not in order."""
        return self.state == "unknown" or self.warning is not None

    @property
    def start_at(self) -> datetime:
        """When the capacity starts, as far as it is known."""
        return self.want.start_from if self.offer is None else self.offer.start_at

    @property
    def end_at(self) -> datetime:
        """When it ends, as far as it is known."""
        return self.want.end_by if self.offer is None else self.offer.end_at


@dataclass(frozen=True, slots=True)
class ReservationEvent:
    """One line of a reservation's history; never changed or removed."""

    at: str
    state: ReservationState
    reason: str


def state_of(holding: Holding) -> tuple[ReservationState, str]:
    """Our state, and why, for what the provider says of its side."""
    states: dict[str, ReservationState] = {
        "pending": "bought",
        "scheduled": "bought",
        "active": "active",
        "ended": "ended",
        "failed": "failed",
        "cancelled": "cancelled",
    }
    return states[holding.state], holding.reason
