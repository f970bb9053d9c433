"""The company's own GPUs as reservable capacity: a calendar in a file of its own, at what an hour really costs.

The file is JSON; it is written under a lock and replaced as a whole, and a booking carries its token, so that a
booking that was interrupted is found again and made once.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from providers.reservations import (
    CapacityNeed,
    CapacityOffer,
    Clock,
    Holding,
    HoldingState,
    Machine,
    ProviderName,
    PurchaseOrder,
    PurchaseRefusedError,
    this_hour,
    utc_now,
    whole_hours,
)

_HOURS_PER_YEAR = 8760


@dataclass(frozen=True, slots=True)
class Pool:
    """Machines of one kind that the company owns.

    Attributes:
        name: Of the pool; it stands where clouds have a region.
        machine: Their kind.
        machines: How many there are.
        capex_usd: What one of them cost.
        years: Over which that is written off.
        watts: What one draws under load, cooling included.
        usd_per_kwh: Price of power.
        utilisation: Share of the hours in which it is used, which all its cost falls on.
    """

    name: str
    machine: Machine
    machines: int
    capex_usd: float
    years: float
    watts: float
    usd_per_kwh: float
    utilisation: float

    @property
    def usd_per_hour(self) -> float:
        """Cost of one machine's used hour: its purchase over the hours it is used in, and its power.

        Leaves out staff, space and interest, which a company knows better.

        >>> round(Pool("a", Machine("x", "H100", 8), 4, 280_000, 4, 10_200, 0.15, 0.7).usd_per_hour, 2)
        12.95
        """
        return self.capex_usd / (self.years * _HOURS_PER_YEAR * self.utilisation) + (
            self.watts / 1000 * self.usd_per_kwh
        )


class OwnMachines:
    """Books pools in a calendar file.

    Args:
        calendar: The file; made when something is booked first.
        pools: What there is.
        now: UTC.
    """

    provider: ProviderName = "inhouse"

    def __init__(self, calendar: Path, pools: Sequence[Pool], now: Clock = utc_now) -> None:
        """Nothing is read yet."""
        self._calendar, self._pools, self._now = calendar, {pool.name: pool for pool in pools}, now

    def offers(self, need: CapacityNeed, region: str) -> Sequence[CapacityOffer]:
        """The earliest time at which enough machines of a pool are free for as long."""
        pool = self._pools.get(region)
        if (
            pool is None
            or pool.machine.instance_type != need.machine.instance_type
            or pool.machines < need.nodes
        ):
            return ()
        span = whole_hours(need.hours) + timedelta(hours=1)
        bookings = self._bookings(pool.name)
        ends = [datetime.fromisoformat(row["end_at"]) for row in bookings]
        begin = this_hour(max(need.start_from, self._now()))
        starts = sorted({begin, *(end for end in ends if end > begin)})
        for start in starts:
            if (
                start + whole_hours(need.hours) <= need.end_by
                and _free(pool, bookings, start, start + span) >= need.nodes
            ):
                return [self._offer(pool, need.nodes, start, start + span)]
        return ()

    def requote(self, offer: CapacityOffer) -> CapacityOffer | None:
        """The same while it is free."""
        pool = self._pools.get(offer.region)
        if pool is None or _free(pool, self._bookings(pool.name), offer.start_at, offer.end_at) < offer.nodes:
            return None
        return self._offer(pool, offer.nodes, offer.start_at, offer.end_at)

    def rehearse(self, order: PurchaseOrder) -> None:
        """Nobody has to permit it."""

    def purchase(self, order: PurchaseOrder) -> Holding:
        """Book it.

        Raises:
            PurchaseRefusedError: Somebody else was faster.
        """
        with self._locked() as rows:
            known = [row for row in rows if row["token"] == order.token]
            if not known:
                offer = order.offer
                pool = self._pools[offer.region]
                own = [row for row in rows if row["pool"] == pool.name]
                if _free(pool, own, offer.start_at, offer.end_at) < offer.nodes:
                    raise PurchaseRefusedError(f"pool {pool.name} has not {offer.nodes} machines free then")
                known = [_booking(order, len(rows))]
                self._write([*rows, *known])
        return self._holding(known[0])

    def find(self, token: str, region: str) -> Sequence[Holding]:
        """Bookings with our token."""
        return [self._holding(row) for row in self._read() if row["token"] == token and row["pool"] == region]

    def look(self, provider_ref: str, region: str) -> Holding | None:
        """One booking."""
        rows = [row for row in self._read() if row["ref"] == provider_ref and row["pool"] == region]
        return self._holding(rows[0]) if rows else None

    def cancel(self, provider_ref: str, region: str) -> Holding:
        """Free the machines.

        Raises:
            PurchaseRefusedError: There is no such booking.
        """
        with self._locked() as rows:
            row = next((row for row in rows if row["ref"] == provider_ref), None)
            if row is None:
                raise PurchaseRefusedError(f"there is no booking {provider_ref}")
            row["cancelled"] = True
            self._write(rows)
        return self._holding(row)

    def _offer(self, pool: Pool, nodes: int, start: datetime, end: datetime) -> CapacityOffer:
        per_hour = Decimal(str(round(pool.usd_per_hour * nodes, 6)))
        hours = Decimal(str((end - start).total_seconds())) / 3600
        return CapacityOffer(
            provider="inhouse",
            provider_offer_id=None,
            machine=pool.machine,
            nodes=nodes,
            region=pool.name,
            zone=None,
            start_at=start,
            end_at=end,
            usable_until=end,
            upfront_usd=round(per_hour * hours, 6),
            usd_per_hour=per_hour,
            refundable=True,
            source="own machines: purchase, power, utilisation",
            as_of_at=self._now().isoformat(timespec="seconds").replace("+00:00", "Z"),
        )

    def _holding(self, row: dict[str, Any]) -> Holding:
        pool, now = self._pools[row["pool"]], self._now()
        start, end = datetime.fromisoformat(row["start_at"]), datetime.fromisoformat(row["end_at"])
        state: HoldingState = "scheduled" if now < start else "active" if now < end else "ended"
        if row.get("cancelled"):
            state = "cancelled"
        return Holding(
            *(row["ref"], state, f"booked in pool {pool.name}", pool.name, None),
            *(pool.machine.instance_type, row["nodes"], start, end),
        )

    def _bookings(self, pool: str) -> list[dict[str, Any]]:
        return [row for row in self._read() if row["pool"] == pool]

    def _read(self) -> list[dict[str, Any]]:
        try:
            rows: list[dict[str, Any]] = json.loads(self._calendar.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        return rows

    @contextlib.contextmanager
    def _locked(self) -> Iterator[list[dict[str, Any]]]:
        import fcntl

        self._calendar.parent.mkdir(parents=True, exist_ok=True)
        with self._calendar.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._read()

    def _write(self, rows: list[dict[str, Any]]) -> None:
        new = self._calendar.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._calendar)


def _free(pool: Pool, bookings: Sequence[dict[str, Any]], start: datetime, end: datetime) -> int:
    """Machines that nobody has booked during all of a span."""
    busy = [row for row in bookings if not row.get("cancelled")]
    spans = [
        (datetime.fromisoformat(row["start_at"]), datetime.fromisoformat(row["end_at"]), int(row["nodes"]))
        for row in busy
    ]
    moments = [start, *(first for first, _, _ in spans if start < first < end)]
    return pool.machines - max(
        sum(nodes for first, last, nodes in spans if first <= moment < last) for moment in moments
    )


def _booking(order: PurchaseOrder, number: int) -> dict[str, Any]:
    offer = order.offer
    return {
        "ref": f"{offer.region}-{number + 1}",
        "token": order.token,
        "pool": offer.region,
        "nodes": offer.nodes,
        "start_at": offer.start_at.isoformat(),
        "end_at": offer.end_at.isoformat(),
    }
