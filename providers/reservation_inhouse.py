"""The company's own GPUs as reservable capacity, at what an hour really costs, in a file or a Slurm cluster.

The file is JSON; it is written under a lock and replaced as a whole, and a booking carries its token, so that a
booking that was interrupted is found again and made once.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from providers.errors import CorruptDataError
from providers.reservations import (
    Booking,
    CapacityNeed,
    CapacityOffer,
    Clock,
    Holding,
    HoldingState,
    Machine,
    ProviderName,
    PurchaseOrder,
    PurchaseRefusedError,
    SlurmPlace,
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
        slurm: The cluster that keeps their calendar, None for a file of ours.
    """

    name: str
    machine: Machine
    machines: int
    capex_usd: float
    years: float
    watts: float
    usd_per_kwh: float
    utilisation: float
    slurm: SlurmPlace | None = None

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


class Calendar(Protocol):
    """Who holds machines of a pool, and when."""

    def machines(self, most: int) -> int:
        """Machines that can be booked at all."""
        ...

    def bookings(self) -> list[Booking]:
        """Everything that is held."""
        ...

    def find(self, token: str) -> Booking | None:
        """The booking of a reservation."""
        ...

    def book(self, order: PurchaseOrder, now: datetime) -> Booking:
        """Make one, once.

        Raises:
            PurchaseRefusedError, PurchaseUnclearError: As `ReservationApi.purchase`.
        """
        ...

    def used(self, token: str) -> int | None:
        """Machines of a booking that are at work, None if nobody knows."""
        ...

    def cancel(self, token: str) -> None:
        """Free the machines."""
        ...


class OwnMachines:
    """Books pools, each in its own calendar.

    Args:
        calendar: The file for pools without a cluster; made when something is booked first.
        pools: What there is.
        now: UTC.
    """

    provider: ProviderName = "inhouse"

    def __init__(self, calendar: Path, pools: Sequence[Pool], now: Clock = utc_now) -> None:
        """Nothing is read yet."""
        self._pools, self._now = {pool.name: pool for pool in pools}, now
        self._calendars: dict[str, Calendar] = {
            pool.name: FileCalendar(calendar, pool) if pool.slurm is None else _cluster(pool.slurm)
            for pool in pools
        }

    def offers(self, need: CapacityNeed, region: str) -> Sequence[CapacityOffer]:
        """The earliest time at which enough machines of a pool are free for as long."""
        pool = self._pools.get(region)
        if pool is None or pool.machine.instance_type != need.machine.instance_type:
            return ()
        machines = self._calendars[region].machines(pool.machines)
        if machines < need.nodes:
            return ()
        span = whole_hours(need.hours) + timedelta(hours=1)
        bookings = self._calendars[region].bookings()
        begin = this_hour(max(need.start_from, self._now()))
        ends = [row.end_at for row in bookings if not row.cancelled]
        starts = sorted({begin, *(end for end in ends if end > begin)})
        for start in starts:
            if (
                start + whole_hours(need.hours) <= need.end_by
                and free(machines, bookings, start, start + span) >= need.nodes
            ):
                return [self._offer(pool, need.nodes, start, start + span)]
        return ()

    def requote(self, offer: CapacityOffer) -> CapacityOffer | None:
        """The same while it is free."""
        pool = self._pools.get(offer.region)
        if pool is None:
            return None
        calendar = self._calendars[pool.name]
        machines = calendar.machines(pool.machines)
        if free(machines, calendar.bookings(), offer.start_at, offer.end_at) < offer.nodes:
            return None
        return self._offer(pool, offer.nodes, offer.start_at, offer.end_at)

    def rehearse(self, order: PurchaseOrder) -> None:
        """Nobody has to permit it, or the cluster says so when it is asked."""

    def purchase(self, order: PurchaseOrder) -> Holding:
        """Book it.

        Raises:
            PurchaseRefusedError: Somebody else was faster, or the cluster says no.
            PurchaseUnclearError: The connection to the cluster broke.
        """
        pool = self._pools[order.offer.region]
        return self._holding(pool, self._calendars[pool.name].book(order, self._now()))

    def find(self, token: str, region: str) -> Sequence[Holding]:
        """Bookings with our token."""
        if region not in self._calendars:
            return ()
        row = self._calendars[region].find(token)
        return () if row is None else (self._holding(self._pools[region], row),)

    def look(self, provider_ref: str, region: str) -> Holding | None:
        """One booking."""
        if region not in self._calendars:
            return None
        pool = self._pools[region]
        if pool.slurm is not None:
            return next(iter(self.find(provider_ref.rpartition("/")[2], region)), None)
        rows = [row for row in self._calendars[region].bookings() if row.ref == provider_ref]
        return self._holding(pool, rows[0]) if rows else None

    def cancel(self, provider_ref: str, region: str) -> Holding:
        """Free the machines.

        Raises:
            PurchaseRefusedError: There is no such booking.
        """
        held = self.look(provider_ref, region)
        if held is None:
            raise PurchaseRefusedError(f"there is no booking {provider_ref}")
        self._calendars[region].cancel(provider_ref.rpartition("/")[2])
        return replace(held, state="cancelled", reason="given back")

    def _offer(self, pool: Pool, nodes: int, start: datetime, end: datetime) -> CapacityOffer:
        per_hour = Decimal(str(round(pool.usd_per_hour * nodes, 6)))
        hours = Decimal(str((end - start).total_seconds())) / 3600
        return CapacityOffer(
            provider="inhouse",
            provider_offer_id=None,
            machine=pool.machine,
            nodes=nodes,
            region=pool.name,
            zone=None if pool.slurm is None else pool.slurm.partition,
            start_at=start,
            end_at=end,
            usable_until=end,
            upfront_usd=round(per_hour * hours, 6),
            usd_per_hour=per_hour,
            refundable=True,
            source="own machines: purchase, power, utilisation",
            as_of_at=self._now().isoformat(timespec="seconds").replace("+00:00", "Z"),
        )

    def _holding(self, pool: Pool, row: Booking) -> Holding:
        now, place = self._now(), pool.slurm
        state: HoldingState = "scheduled" if now < row.start_at else "active" if now < row.end_at else "ended"
        used = self._calendars[pool.name].used(row.token) if state == "active" and not row.cancelled else None
        return Holding(
            provider_ref=row.ref if place is None else f"slurm/{place.cluster}/{row.ref}",
            state="cancelled" if row.cancelled else state,
            reason=f"booked in pool {pool.name}",
            region=pool.name,
            zone=None if place is None else place.partition,
            instance_type=pool.machine.instance_type,
            nodes=row.nodes,
            start_at=row.start_at,
            end_at=row.end_at,
            free_nodes=None if used is None else row.nodes - used,
        )


class FileCalendar:
    """Bookings of one pool in a file that all pools share.

    Args:
        path: The file.
        pool: Whose bookings.
    """

    def __init__(self, path: Path, pool: Pool) -> None:
        """Nothing is read yet."""
        self._path, self._pool = path, pool

    def machines(self, most: int) -> int:
        """All of them."""
        return most

    def bookings(self) -> list[Booking]:
        """The pool's, those that were given back too."""
        return [_booking(row) for row in self._read() if row["pool"] == self._pool.name]

    def find(self, token: str) -> Booking | None:
        """The booking of a reservation."""
        return next((row for row in self.bookings() if row.token == token), None)

    def book(self, order: PurchaseOrder, now: datetime) -> Booking:
        """Write it down, once.

        Raises:
            PurchaseRefusedError: Somebody else was faster.
        """
        with self._locked() as rows:
            known = self.find(order.token)
            if known is not None:
                return known
            offer, pool = order.offer, self._pool
            if free(pool.machines, self.bookings(), offer.start_at, offer.end_at) < offer.nodes:
                raise PurchaseRefusedError(f"pool {pool.name} has not {offer.nodes} machines free then")
            row = {
                "ref": f"{offer.region}-{len(rows) + 1}",
                "token": order.token,
                "pool": offer.region,
                "nodes": offer.nodes,
                "start_at": offer.start_at.isoformat(),
                "end_at": offer.end_at.isoformat(),
            }
            self._write([*rows, row])
        return _booking(row)

    def used(self, token: str) -> int | None:
        """A file does not know."""
        return None

    def cancel(self, token: str) -> None:
        """Free the machines of a booking, by its reference."""
        with self._locked() as rows:
            for row in rows:
                if row["ref"] == token and row["pool"] == self._pool.name:
                    row["cancelled"] = True
            self._write(rows)

    def _read(self) -> list[dict[str, Any]]:
        """Every row of the file.

        Raises:
            CorruptDataError: It is not a calendar; nothing is booked or given back.
        """
        try:
            rows: list[dict[str, Any]] = json.loads(self._path.read_text(encoding="utf-8"))
            for row in rows:
                _booking(row), row["pool"]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            hint = "put its latest good copy back; until then nothing of these pools is offered, booked or given back"
            what = f"{self._path} is no calendar of bookings: {error}"
            raise CorruptDataError(what, hint=hint, path=str(self._path)) from None
        return rows

    @contextlib.contextmanager
    def _locked(self) -> Iterator[list[dict[str, Any]]]:
        import fcntl

        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._read()

    def _write(self, rows: list[dict[str, Any]]) -> None:
        new = self._path.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)


def _cluster(place: SlurmPlace) -> Calendar:
    from providers.reservation_slurm import SlurmCalendar

    return SlurmCalendar(place)


def free(machines: int, bookings: Sequence[Booking], start: datetime, end: datetime) -> int:
    """Machines that nobody holds at any time of a span."""
    held = [row for row in bookings if not row.cancelled]
    moments = [start, *(row.start_at for row in held if start < row.start_at < end)]
    return machines - max(
        sum(row.nodes for row in held if row.start_at <= moment < row.end_at) for moment in moments
    )


def _booking(row: dict[str, Any]) -> Booking:
    start, end = datetime.fromisoformat(row["start_at"]), datetime.fromisoformat(row["end_at"])
    return Booking(row["ref"], row["token"], int(row["nodes"]), start, end, bool(row.get("cancelled")))
