"""Google Cloud future reservations in calendar mode: GPUs of a zone for 1 to 90 whole days, from a date on.

What is for sale comes from the calendar-mode adviser, one time at a question, so several are asked. The reservation's
own name is our token, and each request has our request id: a second request could not make a second one. Google
charges the whole reserved time, used or not, at a price that no interface publishes: the on-demand list price stands
in for it, which Google calls the higher of the two. Once it is approved it cannot be given back.
https://cloud.google.com/compute/docs/instances/future-reservations-calendar-mode-overview
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from providers.gcp_compute import Gcp, finished, gcp_errors, once, purchase_errors, reading, request_id
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
    PurchaseUnclearError,
    after_acceptance,
    at_list_price,
    utc_now,
)

MOST_DAYS = 90
#: Times that are looked for in one region: each question is answered with one of them.
_MOST_ASKS = 4
_SOURCE = "on-demand list price for the whole time; Google's calendar-mode price is not published and said to be lower"
_STATES: dict[str, HoldingState] = {
    "APPROVED": "scheduled",
    "COMMITTED": "scheduled",
    "PROCURING": "scheduled",
    "PROVISIONING": "scheduled",
    "FULFILLED": "scheduled",  # it is active from its start to its end
    "DECLINED": "failed",
    "FAILED": "failed",
    "FAILED_PARTIALLY_FULFILLED": "failed",
    "CANCELLED": "cancelled",
}

#: On-demand price of a machine in a region, US dollars an hour; None if it is not known.
PriceOf = Callable[[Machine, str], float | None]


class CalendarReservations:
    """Offers and purchases in calendar mode.

    Args:
        price_of: From the price snapshot.
        now: UTC.
        gcp: Clients to share.
    """

    provider: ProviderName = "gcp_calendar"

    def __init__(self, price_of: PriceOf, now: Clock = utc_now, gcp: Gcp | None = None) -> None:
        """Nothing is asked yet.

        Raises:
            MissingExtraError, CredentialsError: As `Gcp`.
        """
        self._price_of, self._now, self._gcp = price_of, now, gcp or Gcp()

    def offers(self, need: CapacityNeed, region: str) -> Sequence[CapacityOffer]:
        """The first few times at which the machines can be had for long enough.

        Raises:
            CredentialsError, LaunchError: Google refuses or cannot be reached.
        """
        days = max(math.ceil(need.hours / 24), 1)
        if days > MOST_DAYS:
            return ()
        found: dict[str, CapacityOffer] = {}
        start = max(need.start_from, self._now())
        latest = need.end_by - timedelta(hours=need.hours)
        for _ in range(_MOST_ASKS):
            if start > latest:
                break
            offers = list(self._advised(need.machine, need.nodes, days, region, (start, latest)))
            found |= {offer.offer_id: offer for offer in offers}
            if not offers:
                break
            start = max(offer.start_at for offer in offers) + timedelta(days=1)
        return list(found.values())

    def requote(self, offer: CapacityOffer) -> CapacityOffer | None:
        """The same time in the same zone while the adviser still names it."""
        days = round((offer.end_at - offer.start_at) / timedelta(days=1))
        span = (offer.start_at, offer.start_at)
        found = self._advised(offer.machine, offer.nodes, days, offer.region, span)
        return next((other for other in found if other.offer_id == offer.offer_id), None)

    def rehearse(self, order: PurchaseOrder) -> None:
        """Ask for the right to make future reservations.

        Raises:
            CredentialsError: The login may not.
        """
        self._gcp.may("compute.futureReservations.create")

    def purchase(self, order: PurchaseOrder) -> Holding:
        """Hand the reservation in; the request is sent once.

        Raises:
            PurchaseRefusedError, PurchaseUnclearError: As `ReservationApi.purchase`.
        """
        gcp, zone = self._gcp, order.offer.zone
        client = gcp.client("FutureReservations")
        with purchase_errors("make the future reservation"):
            request = {
                "project": gcp.project,
                "zone": zone,
                "future_reservation_resource": reservation_body(order),
                "request_id": request_id(order.client_token),
            }
            operation = client.insert_unary(request=request, **once())
        with after_acceptance("make the future reservation"):
            finished(gcp, operation, str(zone))
            row = self._row(str(zone), order.token)
        if row is None:
            raise PurchaseUnclearError(f"Google took {order.token}, and does not show it yet")
        return self._holding(row, order.offer.region)

    def find(self, token: str, region: str) -> Sequence[Holding]:
        """The future reservation of our name in any zone of a region."""
        client = self._gcp.client("FutureReservations")
        with gcp_errors("list future reservations"):
            request = {"project": self._gcp.project, "filter": f'name = "{token}"'}
            pages = client.aggregated_list(request=request, **reading())
            rows = [row for _, scoped in pages for row in scoped.future_reservations]
        mine = [row for row in rows if row.name == token and _zone_of(row).startswith(f"{region}-")]
        return [self._holding(row, region) for row in mine]

    def look(self, provider_ref: str, region: str) -> Holding | None:
        """One by its path."""
        zone, name = _place(provider_ref)
        row = self._row(zone, name)
        return None if row is None else self._holding(row, region)

    def cancel(self, provider_ref: str, region: str) -> Holding:
        """Take it back, which works until Google has approved it.

        Raises:
            PurchaseRefusedError: It is too late, or it is gone.
        """
        zone, name = _place(provider_ref)
        client = self._gcp.client("FutureReservations")
        with gcp_errors("cancel the future reservation"):
            request = {"project": self._gcp.project, "zone": zone, "future_reservation": name}
            operation = client.cancel_unary(request=request, **once())
            finished(self._gcp, operation, zone)
        holding = self.look(provider_ref, region)
        if holding is None:
            raise PurchaseRefusedError(f"{provider_ref} is not there any more")
        return holding

    def _row(self, zone: str, name: str) -> Any | None:
        from google.api_core.exceptions import NotFound

        client = self._gcp.client("FutureReservations")
        with gcp_errors("look at the future reservation"):
            try:
                request = {"project": self._gcp.project, "zone": zone, "future_reservation": name}
                return client.get(request=request, **reading())
            except NotFound:
                return None

    def _holding(self, row: Any, region: str) -> Holding:
        """A FutureReservation in our words; a state that is newer than this code counts as pending."""
        said, window = str(row.status.procurement_status), row.time_window
        start, end = _moment(window.start_time), _moment(window.end_time)
        state, now = _STATES.get(said, "pending"), self._now()
        if state == "scheduled" and end is not None and now >= end:
            state = "ended"
        elif said == "FULFILLED" and start is not None and now >= start:
            state = "active"
        zone = _zone_of(row)
        return Holding(
            provider_ref=f"projects/{self._gcp.project}/zones/{zone}/futureReservations/{row.name}",
            state=state,
            reason=f"Google says {said or 'nothing'}"
            + ("; it is not promised yet" if state == "pending" else ""),
            region=region,
            zone=zone,
            instance_type=str(row.specific_sku_properties.instance_properties.machine_type).rpartition("/")[
                2
            ],
            nodes=int(row.specific_sku_properties.total_count),
            start_at=start,
            end_at=end,
            free_nodes=self._free(zone, row.name) if state == "active" else None,
        )

    def _free(self, zone: str, name: str) -> int | None:
        """Machines of the reservation itself that nobody uses."""
        from google.api_core.exceptions import NotFound

        client = self._gcp.client("Reservations")
        with gcp_errors("look at the reservation"):
            try:
                request = {"project": self._gcp.project, "zone": zone, "reservation": name}
                held = client.get(request=request, **reading()).specific_reservation
            except NotFound:
                return None
        return int(held.count) - int(held.in_use_count)

    def _advised(
        self, machine: Machine, nodes: int, days: int, region: str, span: tuple[datetime, datetime]
    ) -> Iterator[CapacityOffer]:
        length = f"{days * 86400}s"
        wanted = {
            "target_resources": {
                "specific_sku_resources": {"machine_type": machine.instance_type, "instance_count": nodes}
            },
            "time_range_spec": {
                "start_time_not_earlier_than": _text(span[0]),
                "start_time_not_later_than": _text(span[1]),
                "min_duration": length,
                "max_duration": length,
            },
        }
        request = {
            "project": self._gcp.project,
            "region": region,
            "calendar_mode_advice_request_resource": {"future_resources_specs": {"job": wanted}},
        }
        client = self._gcp.client("Advice")
        with gcp_errors("ask when machines can be had"):
            answer = client.calendar_mode(request=request, **reading())
        for row in answer.recommendations:
            for advised in row.recommendations_per_spec.values():
                start, end = _moment(advised.start_time), _moment(advised.end_time)
                if advised.recommendation_type == "FUTURE_RESERVATION" and start and end:
                    zone = str(advised.location).rpartition("/")[2]
                    yield self._offer(machine, nodes, (region, zone), (start, end))

    def _offer(
        self, machine: Machine, nodes: int, place: tuple[str, str], span: tuple[datetime, datetime]
    ) -> CapacityOffer:
        upfront, per_hour = at_list_price(self._price_of(machine, place[0]), nodes, span[1] - span[0])
        return CapacityOffer(
            provider="gcp_calendar",
            provider_offer_id=None,
            machine=machine,
            nodes=nodes,
            region=place[0],
            zone=place[1],
            start_at=span[0],
            end_at=span[1],
            usable_until=span[1],
            upfront_usd=upfront,
            usd_per_hour=per_hour,
            refundable=False,
            source=_SOURCE,
            as_of_at=_text(self._now()),
        )


def reservation_body(order: PurchaseOrder) -> dict[str, Any]:
    """The FutureReservation that is asked for; what it makes has the same name, and takes machines by name only."""
    offer = order.offer
    return {
        "name": order.token,
        "description": "made by tuneplan",
        "reservation_name": order.token,
        "reservation_mode": "CALENDAR",
        "planning_status": "SUBMITTED",
        "specific_reservation_required": True,
        "auto_delete_auto_created_reservations": True,
        "time_window": {"start_time": _text(offer.start_at), "end_time": _text(offer.end_at)},
        "share_settings": {"share_type": "LOCAL"},
        "specific_sku_properties": {
            "total_count": offer.nodes,
            "instance_properties": {"machine_type": offer.machine.instance_type},
        },
    }


def _zone_of(row: Any) -> str:
    """The zone's name; the service writes its address."""
    return str(row.zone).rpartition("/")[2]


def _place(provider_ref: str) -> tuple[str, str]:
    """Zone and name in a path of a future reservation.

    Raises:
        PurchaseRefusedError: It is none.
    """
    parts = provider_ref.split("/")
    if len(parts) != 6 or parts[4] != "futureReservations":
        raise PurchaseRefusedError(f"{provider_ref!r} is no path of a future reservation")
    return parts[3], parts[5]


def _moment(text: str) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
