"""What sells capacity for a time to come, whoever it is: offers, purchases, and what came of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any, Literal, Protocol

from providers.errors import CleanupPendingError, LaunchError

ProviderName = Literal[
    "aws_capacity_block",
    "aws_odcr",
    "sagemaker_training_plan",
    "gcp_calendar",
    "gcp_flex_start",
    "azure_crg",
    "inhouse",
]
Clock = Callable[[], datetime]
#: AWS ends machines this long before their capacity's time is over; nobody else does so earlier.
ENDS_EARLY = timedelta(minutes=30)
HoldingState = Literal["pending", "scheduled", "active", "ended", "failed", "cancelled"]


def utc_now() -> datetime:
    """The clock that adapters go by unless a test gives another."""
    return datetime.now(UTC)


def this_hour(moment: datetime) -> datetime:
    """The full hour a moment lies in: what starts at once is offered from it, so that it keeps its id for a while."""
    return moment.replace(minute=0, second=0, microsecond=0)


def whole_hours(hours: float) -> timedelta:
    """So many hours, rounded up to a full one.

    >>> whole_hours(2.1)
    datetime.timedelta(seconds=10800)
    """
    return timedelta(hours=math.ceil(hours))


class PurchaseRefusedError(LaunchError):
    """The provider said no: nothing was bought, and it may be tried again."""

    code = "purchase_refused"


class PurchaseUnclearError(CleanupPendingError):
    """The answer of a purchase was lost: look for its token before anything else is bought."""

    code = "purchase_unclear"


@contextlib.contextmanager
def after_acceptance(action: str) -> Iterator[None]:
    """Once the provider took the request, an error that is not its final word leaves open what was bought.

    Raises:
        PurchaseRefusedError: The provider's final word, as raised within.
        PurchaseUnclearError: Everything else.
    """
    try:
        yield
    except (PurchaseRefusedError, PurchaseUnclearError):
        raise
    except Exception as error:
        raise PurchaseUnclearError(f"the provider took the request to {action}, then: {error}") from error


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of machine that a job can run on.

    Attributes:
        instance_type: The provider's own name.
        gpu: Canonical name (`providers.gpus`).
        gpus_per_node: GPUs in it.
        gpu_mem_gib: Memory of one of them, None if unknown.
    """

    instance_type: str
    gpu: str
    gpus_per_node: int
    gpu_mem_gib: float | None = None


@dataclass(frozen=True, slots=True)
class CapacityNeed:
    """What a job needs.

    Attributes:
        machine: Kind of machine.
        nodes: How many at the same time.
        hours: Usable hours.
        start_from: Earliest start.
        end_by: Latest end of the usable time.
        regions: Where to look; the provider's own names.
    """

    machine: Machine
    nodes: int
    hours: float
    start_from: datetime
    end_by: datetime
    regions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CapacityOffer:
    """Capacity that can be had.

    Attributes:
        provider: Who sells it.
        provider_offer_id: The provider's id, None where it needs none; may change from look to look.
        region: The provider's own name.
        zone: Availability zone, None if it has none.
        start_at: When machines can be started.
        end_at: When the capacity ends.
        usable_until: When the provider begins to end machines.
        upfront_usd: What is paid for the whole, None if it is paid by use or unknown.
        usd_per_hour: Of all machines, None if unknown.
        refundable: Cancelling gives the money back, or stops the cost.
        open_ended: It goes on after its end, and is billed, until it is given back.
        source: Where the price comes from.
        as_of_at: When that was.
        expires_at: The offer holds until then, None if nobody says.
    """

    provider: ProviderName
    provider_offer_id: str | None
    machine: Machine
    nodes: int
    region: str
    zone: str | None
    start_at: datetime
    end_at: datetime
    usable_until: datetime
    upfront_usd: Decimal | None
    usd_per_hour: Decimal | None
    refundable: bool
    source: str
    as_of_at: str
    expires_at: datetime | None = None
    open_ended: bool = False

    @property
    def offer_id(self) -> str:
        """Ours: the same machines at the same place and time have the same id, whatever the provider calls it."""
        parts = (
            *(self.provider, self.region, self.zone, self.machine.instance_type, self.nodes),
            *(self.start_at.isoformat(), self.end_at.isoformat()),
        )
        return "o-" + sha256("|".join(map(str, parts)).encode()).hexdigest()[:12]

    @property
    def usable_h(self) -> float:
        """Hours in which a job can run."""
        return (self.usable_until - self.start_at).total_seconds() / 3600

    @property
    def gpus_total(self) -> int:
        """GPUs over all machines."""
        return self.nodes * self.machine.gpus_per_node

    def document(self) -> dict[str, Any]:
        """As JSON types, for the ledger."""
        machine = self.machine
        return {
            "provider": self.provider,
            "provider_offer_id": self.provider_offer_id,
            "machine": [machine.instance_type, machine.gpu, machine.gpus_per_node, machine.gpu_mem_gib],
            "nodes": self.nodes,
            "region": self.region,
            "zone": self.zone,
            "start_at": self.start_at.isoformat(),
            "end_at": self.end_at.isoformat(),
            "usable_until": self.usable_until.isoformat(),
            "upfront_usd": None if self.upfront_usd is None else str(self.upfront_usd),
            "usd_per_hour": None if self.usd_per_hour is None else str(self.usd_per_hour),
            "refundable": self.refundable,
            "open_ended": self.open_ended,
            "source": self.source,
            "as_of_at": self.as_of_at,
            "expires_at": None if self.expires_at is None else self.expires_at.isoformat(),
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> CapacityOffer:
        """Read back what `document` wrote."""
        return cls(
            provider=document["provider"],
            provider_offer_id=document["provider_offer_id"],
            machine=Machine(*document["machine"]),
            nodes=document["nodes"],
            region=document["region"],
            zone=document["zone"],
            start_at=datetime.fromisoformat(document["start_at"]),
            end_at=datetime.fromisoformat(document["end_at"]),
            usable_until=datetime.fromisoformat(document["usable_until"]),
            upfront_usd=_amount(document["upfront_usd"]),
            usd_per_hour=_amount(document["usd_per_hour"]),
            refundable=document["refundable"],
            open_ended=document.get("open_ended", document["provider"] == "aws_odcr"),
            source=document["source"],
            as_of_at=document["as_of_at"],
            expires_at=None if (text := document["expires_at"]) is None else datetime.fromisoformat(text),
        )


def _amount(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


@dataclass(frozen=True, slots=True)
class PurchaseOrder:
    """One purchase.

    Attributes:
        token: Written on what is bought, so that it is found again; the same for every try of a reservation.
        attempt: 1 for the first try: providers that know idempotency get another key for each.
        offer: As it was just quoted.
    """

    token: str
    attempt: int
    offer: CapacityOffer

    @property
    def client_token(self) -> str:
        """Idempotency key of this very try."""
        return f"{self.token}-{self.attempt}"


@dataclass(frozen=True, slots=True)
class Holding:
    """What the provider says that we have.

    Attributes:
        provider_ref: The provider's id.
        state: In our words.
        reason: The provider's own word for it, or a sentence.
        nodes: Machines.
        paid_usd: What was paid up front, None if the provider does not say.
        free_nodes: Machines of it that nobody uses now, None if the provider does not say.
    """

    provider_ref: str
    state: HoldingState
    reason: str
    region: str
    zone: str | None
    instance_type: str
    nodes: int
    start_at: datetime | None
    end_at: datetime | None
    paid_usd: Decimal | None = None
    free_nodes: int | None = None


@dataclass(frozen=True, slots=True)
class Booking:
    """Machines of our own that somebody holds for a time.

    Attributes:
        ref: Its name in the calendar.
        token: Of the reservation it is for, empty if it is nobody's that we know.
        nodes: Machines.
        start_at: From then.
        end_at: Until then.
        cancelled: It was given back.
    """

    ref: str
    token: str
    nodes: int
    start_at: datetime
    end_at: datetime
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class SlurmPlace:
    """Where a pool's machines are.

    Attributes:
        cluster: As in `~/.slurm/config`.
        partition: Of the cluster.
        user: Whom the reservation is for.
        here: Slurm's commands run on this machine, not over ssh.
    """

    cluster: str
    partition: str
    user: str
    here: bool = False


def at_list_price(
    machine_usd_per_hour: float | None, nodes: int, paid_for: timedelta
) -> tuple[Decimal | None, Decimal | None]:
    """US dollars of all machines for the time that is paid, and for an hour; None if the price is unknown."""
    if machine_usd_per_hour is None:
        return None, None
    per_hour = Decimal(str(machine_usd_per_hour)) * nodes
    hours = Decimal(str(paid_for.total_seconds())) / 3600
    return round(per_hour * hours, 6), per_hour


class ReservationApi(Protocol):
    """One way to reserve capacity; only `purchase` spends.

    Every method may raise CredentialsError, and LaunchError where the provider cannot be reached.
    """

    provider: ProviderName

    def offers(self, need: CapacityNeed, region: str) -> Sequence[CapacityOffer]:
        """What is for sale in one region that covers the need; empty if nothing is."""
        ...

    def requote(self, offer: CapacityOffer) -> CapacityOffer | None:
        """The same capacity as it is sold now, None if it is gone."""
        ...

    def rehearse(self, order: PurchaseOrder) -> None:
        """Ask whether the purchase would be permitted; buys nothing.

        Raises:
            CredentialsError: It would not.
        """
        ...

    def purchase(self, order: PurchaseOrder) -> Holding:
        """Spend the money, sending the request at most once.

        Raises:
            PurchaseRefusedError: Nothing was bought.
            PurchaseUnclearError: Nobody knows.
        """
        ...

    def find(self, token: str, region: str) -> Sequence[Holding]:
        """Everything that was bought with a token."""
        ...

    def look(self, provider_ref: str, region: str) -> Holding | None:
        """One of them as it is now, None if the provider does not know it."""
        ...

    def cancel(self, provider_ref: str, region: str) -> Holding:
        """Give it back.

        Raises:
            PurchaseRefusedError: It cannot be.
        """
        ...
