"""Holds what was asked and answered against the official client libraries' own types."""

from __future__ import annotations

import enum
import json
import re
from typing import Any

#: Path below the version -> types of what is asked and answered.
_GOOGLE = (
    ("POST", r".*/advice/calendarMode", "CalendarModeAdviceRequest", "CalendarModeAdviceResponse"),
    ("POST", r".*/futureReservations", "FutureReservation", "Operation"),
    ("POST", r".*/futureReservations/[^/]+/cancel", None, "Operation"),
    ("GET", r".*/zones/[^/]+/futureReservations/[^/]+", None, "FutureReservation"),
    ("GET", r".*/aggregated/futureReservations", None, "FutureReservationsAggregatedListResponse"),
    ("POST", r".*/operations/[^/]+/wait", None, "Operation"),
    ("GET", r".*/reservations/[^/]+", None, "Reservation"),
)
_ELSEWHERE = r".*:testIamPermissions"  # the Resource Manager's, which has a library of its own
_AZURE = (
    (r".*/capacityReservations/[^/]+", "CapacityReservation"),
    (r".*/capacityReservationGroups/[^/]+", "CapacityReservationGroup"),
)


def check_google(exchanges: list[dict[str, Any]]) -> None:
    """Raise if the library would not have asked this, or does not know what was answered."""
    from google.cloud import compute_v1

    for row in exchanges:
        if re.fullmatch(_ELSEWHERE, row["path"]):
            continue
        asked, answered = next(
            (
                types[2:]
                for types in _GOOGLE
                if types[0] == row["method"] and re.fullmatch(types[1], row["path"])
            ),
            (None, None),
        )
        assert answered, f"nobody checks {row['method']} {row['path']}"
        for name, document in ((asked, row["body"]), (answered, row["answer"])):
            if name is not None and document is not None and "error" not in list(document)[:1]:
                _check_message(getattr(compute_v1, name), document)


def _check_message(kind: Any, document: dict[str, Any]) -> None:
    """Unknown names and wrong types are errors of the library's; words that do not exist are found here."""
    message = kind.from_json(json.dumps(document), ignore_unknown_fields=False)
    _check_words(kind, message)


def _check_words(kind: Any, message: Any) -> None:
    for name, field in kind.meta.fields.items():
        value = getattr(message, name)
        words = getattr(kind, name.title().replace("_", ""), None)
        if isinstance(value, str) and value and isinstance(words, enum.EnumMeta):
            assert value in words.__members__, (
                f"{kind.__name__}.{name}: {value!r} is no word of the library's"
            )
        if field.message is not None and not field.repeated and name in message:
            _check_words(type(value), value) if hasattr(type(value), "meta") else None


def check_azure(exchanges: list[dict[str, Any]]) -> None:
    """Raise if a document has a name that the library does not know, or a value of another type."""
    from azure.mgmt.compute import models

    for row in exchanges:
        found = next((name for pattern, name in _AZURE if re.fullmatch(pattern, row["path"])), None)
        assert found or row["path"].endswith("/Microsoft.Authorization/permissions"), row["path"]
        for document in (row["body"], row["answer"]):
            if found and document and "error" not in document:
                _check_model(getattr(models, found)(document), document, found)


def _check_model(model: Any, document: dict[str, Any], path: str) -> None:
    fields = {field._rest_name: name for name, field in type(model)._attr_to_rest_field.items()}
    unknown = set(document) - set(fields)
    assert not unknown, f"{path}: {', '.join(sorted(unknown))} not in the library's model"
    for key, value in document.items():
        typed = getattr(model, fields[key])  # reads the value as its own type
        if isinstance(value, dict) and hasattr(type(typed), "_attr_to_rest_field"):
            _check_model(typed, value, f"{path}.{key}")
