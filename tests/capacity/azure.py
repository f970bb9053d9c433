"""The part of Azure's resource manager that reserves machines; tests hold its answers against the client."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.capacity.loopback import Asked, LostError, Said
from tests.capacity.loopback import serve as serve_routes
from tests.capacity.market import Market

_GROUP = r"/subscriptions/(?P<subscription>[^/]+)/resourcegroups/(?P<resources>[^/]+)"
_CRG = _GROUP + r"/providers/Microsoft\.Compute/capacityReservationGroups/(?P<group>[^/]+)"
_ONE = _CRG + r"/capacityReservations/(?P<name>[^/]+)"


def refusal(status: int, code: str, message: str) -> Said:
    return Said({"error": {"code": code, "message": message}}, status)


class Azure:
    """Everything that a subscription has."""

    def __init__(self, control: Path) -> None:
        self.market = Market(control)
        self.groups: dict[str, dict[str, Any]] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self.looks: dict[str, int] = {}
        self.deleted: set[str] = set()

    def put_group(self, asked: Asked) -> Said:
        name = asked.path["group"]
        row = {
            "id": asked.path.string,
            "name": name,
            "type": "Microsoft.Compute/capacityReservationGroups",
            "location": asked.body["location"],
            "tags": asked.body.get("tags", {}),
        }
        status = 200 if name in self.groups else 201
        self.groups[name] = row
        return Said(row, status)

    def delete_group(self, asked: Asked) -> Said:
        name = asked.path["group"]
        if any(row["_group"] == name for row in self.rows.values()):
            return refusal(409, "OperationNotAllowed", "the group has reservations")
        return Said({}, 200 if self.groups.pop(name, None) else 204)

    def put(self, asked: Asked) -> Said:
        """Sell it, or change what was sold under the same name."""
        name, body = asked.path["name"], asked.body
        fault = self.market.fault(name)
        if fault == "slow":
            time.sleep(0.3)
        with self.market.lock:
            if asked.path["group"] not in self.groups:
                return refusal(404, "ParentResourceNotFound", "there is no such group")
            if fault == "refuse":
                return refusal(400, "AllocationFailed", "no machines of this size are left in the region")
            if fault == "lose_before":
                raise LostError
            before = self.rows.get(name)
            self.rows[name] = {
                "id": asked.path.string,
                "name": name,
                "type": "Microsoft.Compute/capacityReservationGroups/capacityReservations",
                "location": body["location"],
                "tags": body.get("tags", {}),
                "sku": body["sku"],
                "properties": {
                    "reservationId": f"r-{name}",
                    "timeCreated": self.market.now().isoformat().replace("+00:00", "Z"),
                    "provisioningState": "Creating",
                },
                "_group": asked.path["group"],
                "_hidden": self.market.orders().get("hidden_looks", 0),
            }
            if before is None or before["sku"] != body["sku"]:
                self.market.note(name, name, None)
        if fault == "lose_after":
            raise LostError
        if fault == "error_after":
            return refusal(500, "InternalServerError", "the server fails after it has sold")
        return Said(_shown(self.rows[name]), 201)

    def get(self, asked: Asked) -> Said:
        name = asked.path["name"]
        row = self.rows.get(name)
        self.looks[name] = self.looks.get(name, 0) + 1
        if row is None or self.looks[name] <= row["_hidden"]:
            return refusal(404, "ResourceNotFound", "there is no such reservation")
        row["properties"]["provisioningState"] = self.market.orders().get("provisioning", "Succeeded")
        shown = _shown(row)
        if "instanceView" in asked.query.get("$expand", ""):
            used = [{"id": f"vm-{number}"} for number in range(self.market.orders().get("in_use", 0))]
            use = {"currentCapacity": row["sku"]["capacity"], "virtualMachinesAllocated": used}
            shown["properties"] = {**shown["properties"], "instanceView": {"utilizationInfo": use}}
        return Said(shown)

    def delete(self, asked: Asked) -> Said:
        with self.market.lock:
            gone = self.rows.pop(asked.path["name"], None)
        return Said({}, 204 if gone is None else 200)

    def permissions(self, asked: Asked) -> Said:
        if asked.path["resources"] != "tuning":
            return refusal(404, "ResourceGroupNotFound", "there is no such resource group")
        refused = self.market.orders().get("unauthorized")
        actions = ["Microsoft.Compute/*/read"] if refused else ["Microsoft.Compute/*"]
        return Said({"value": [{"actions": actions, "notActions": ["Microsoft.Compute/disks/write"]}]})


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.startswith("_")}


def serve(control: Path) -> None:
    azure = Azure(control)
    serve_routes(
        control,
        [
            ("PUT", _CRG, azure.put_group),
            ("DELETE", _CRG, azure.delete_group),
            ("PUT", _ONE, azure.put),
            ("GET", _ONE, azure.get),
            ("DELETE", _ONE, azure.delete),
            ("GET", _GROUP + r"/providers/Microsoft\.Authorization/permissions", azure.permissions),
        ],
    )
