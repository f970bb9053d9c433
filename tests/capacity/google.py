"""The part of Compute Engine that sells in calendar mode; the tests hold its answers against the client library."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import Any

from tests.capacity.loopback import Asked, LostError, Said
from tests.capacity.loopback import serve as serve_routes
from tests.capacity.market import Market

START_DAYS = (2, 5, 11, 23)
_BASE = r"/compute/v1/projects/(?P<project>[^/]+)"
_ZONE = _BASE + r"/zones/(?P<zone>[^/]+)"
_API = "https://www.googleapis.com"


def text(moment: dt.datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def refusal(code: int, message: str) -> Said:
    return Said({"error": {"code": code, "message": message, "errors": [{"reason": "said"}]}}, code)


class Google:
    """Everything that a project has."""

    def __init__(self, control: Path) -> None:
        self.market = Market(control)
        self.rows: dict[str, dict[str, Any]] = {}
        self.looks: dict[str, int] = {}
        self.requests: dict[str, str] = {}
        self.failed: dict[str, str] = {}

    def advice(self, asked: Asked) -> Said:
        """The first time that suits."""
        orders, now = self.market.orders(), self.market.now()
        (spec,) = asked.body["futureResourcesSpecs"].values()
        span = spec["timeRangeSpec"]
        first = dt.datetime.fromisoformat(span["startTimeNotEarlierThan"])
        last = dt.datetime.fromisoformat(span["startTimeNotLaterThan"])
        length = dt.timedelta(seconds=int(span["minDuration"].removesuffix("s")))
        morning = now.replace(hour=9, minute=0, second=0)
        starts = [morning + dt.timedelta(days=days) for days in START_DAYS]
        starts += [dt.datetime.fromisoformat(start) for start in orders.get("starts", ())]
        for number, start in enumerate([] if orders.get("none") else sorted(starts)):
            if first <= start <= last:
                zone = f"{asked.path['region']}-{'ab'[number % 2]}"
                advised = {
                    "location": f"zones/{zone}",
                    "recommendationId": f"r-{number}",
                    "recommendationType": "FUTURE_RESERVATION",
                    "startTime": text(start),
                    "endTime": text(start + length),
                    "otherLocations": {
                        f"zones/{asked.path['region']}-c": {"status": "NO_CAPACITY", "details": "none"}
                    },
                }
                return Said({"recommendations": [{"recommendationsPerSpec": {"job": advised}}]})
        return Said({"recommendations": []})

    def insert(self, asked: Asked) -> Said:
        """Sell it, once a request id."""
        body, zone = asked.body, asked.path["zone"]
        name, request = body["name"], asked.query["requestId"]
        fault = self.market.fault(name)
        if fault == "slow":
            time.sleep(0.3)
        with self.market.lock:
            if self.requests.get(request) == name:
                return Said(self._operation(zone, name))
            if name in self.rows:
                return refusal(409, f"The resource 'futureReservations/{name}' already exists")
            if fault == "refuse":
                return refusal(403, "QUOTA_EXCEEDED: not enough quota for the future reservation")
            if fault == "refuse_later":  # taken, and refused by the operation
                self.failed[name] = "ZONE_RESOURCE_POOL_EXHAUSTED"
                return Said(self._operation(zone, name))
            if fault == "lose_before":
                raise LostError
            self.requests[request] = name
            self.rows[name] = {
                **body,
                "id": str(len(self.rows) + 1),
                "kind": "compute#futureReservation",
                "zone": f"{_API}{_path(asked, zone)}",
                "creationTimestamp": text(self.market.now()),
                "_zone": zone,
                "_hidden": self.market.orders().get("hidden_looks", 0),
            }
            self.market.note(name, name, None)
        if fault == "lose_after":
            raise LostError
        if fault == "error_after":
            return refusal(503, "the server fails after it has sold")
        return Said(self._operation(zone, name))

    def wait(self, asked: Asked) -> Said:
        name = asked.path["name"].removeprefix("operation-")
        operation = self._operation(asked.path["zone"], name) | {"status": "DONE"}
        if name in self.failed:
            error = {"code": self.failed[name], "message": "no machines in this zone"}
            operation |= {"error": {"errors": [error]}}
        return Said(operation)

    def get(self, asked: Asked) -> Said:
        row = self._shown(asked.path["name"])
        if row is None or not row["zone"].endswith(asked.path["zone"]):
            return refusal(404, "The resource was not found")
        return Said(row)

    def aggregated(self, asked: Asked) -> Said:
        wanted = asked.query.get("filter", "").partition("=")[2].strip().strip('"')
        rows = [row for name in self.rows if name == wanted and (row := self._shown(name)) is not None]
        items: dict[str, dict[str, Any]] = {}
        for row in rows:
            zone = "zones/" + row["zone"].rpartition("/")[2]
            items.setdefault(zone, {"futureReservations": []})["futureReservations"].append(row)
        warning = {"code": "NO_RESULTS_ON_PAGE", "message": "none here"}
        items.setdefault("zones/us-central1-z", {"warning": warning})
        return Said(
            {"id": "list", "kind": "compute#futureReservationsAggregatedListResponse", "items": items}
        )

    def cancel(self, asked: Asked) -> Said:
        name = asked.path["name"]
        row = self._shown(name)
        if row is None:
            return refusal(404, "The resource was not found")
        if row["status"]["procurementStatus"] != "PENDING_APPROVAL":
            return refusal(400, "The future reservation is past its lock time and cannot be cancelled")
        self.rows[name]["_cancelled"] = True
        return Said(self._operation(asked.path["zone"], name))

    def reservation(self, asked: Asked) -> Said:
        row = self.rows.get(asked.path["name"])
        if row is None:
            return refusal(404, "The resource was not found")
        count = row["specificSkuProperties"]["totalCount"]
        used = str(self.market.orders().get("in_use", 0))
        return Said(
            {
                "name": row["name"],
                "status": "READY",
                "specificReservationRequired": True,
                "specificReservation": {"count": count, "inUseCount": used},
            }
        )

    def rights(self, asked: Asked) -> Said:
        refused = self.market.orders().get("unauthorized")
        return Said({} if refused else {"permissions": asked.body["permissions"]})

    def _operation(self, zone: str, name: str) -> dict[str, Any]:
        return {
            "kind": "compute#operation",
            "name": f"operation-{name}",
            "operationType": "insert",
            "status": "RUNNING",
            "zone": f"{_API}/compute/v1/projects/tests/zones/{zone}",
            "progress": 0,
        }

    def _shown(self, name: str) -> dict[str, Any] | None:
        """A row as it is now; invisible in its first looks where that is ordered."""
        row = self.rows.get(name)
        if row is None:
            return None
        self.looks[name] = self.looks.get(name, 0) + 1
        seen = self.looks[name] - row["_hidden"]
        if seen <= 0:
            return None
        status = "PENDING_APPROVAL" if seen <= 1 else self.market.orders().get("procurement", "APPROVED")
        if (
            status == "APPROVED"
            and dt.datetime.fromisoformat(row["timeWindow"]["startTime"]) <= self.market.now()
        ):
            status = "FULFILLED"
        status = "CANCELLED" if row.get("_cancelled") else status
        shown = {key: value for key, value in row.items() if not key.startswith("_")}
        return {**shown, "status": {"procurementStatus": status, "fulfilledCount": "0"}}


def _path(asked: Asked, zone: str) -> str:
    return f"/compute/v1/projects/{asked.path['project']}/zones/{zone}"


def serve(control: Path) -> None:
    google = Google(control)
    reservations = _ZONE + "/futureReservations"
    named = reservations + r"/(?P<name>[^/]+)"
    serve_routes(
        control,
        [
            ("POST", _BASE + r"/regions/(?P<region>[^/]+)/advice/calendarMode", google.advice),
            ("POST", reservations, google.insert),
            ("GET", named, google.get),
            ("POST", named + "/cancel", google.cancel),
            ("GET", _BASE + "/aggregated/futureReservations", google.aggregated),
            ("POST", _ZONE + r"/operations/(?P<name>[^/]+)/wait", google.wait),
            ("GET", _ZONE + r"/reservations/(?P<name>[^/]+)", google.reservation),
            ("POST", r"/v1/projects/(?P<project>[^/:]+):testIamPermissions", google.rights),
        ],
    )
