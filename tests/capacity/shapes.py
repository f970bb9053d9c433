"""Holds an answer against the service's own model: unknown members, wrong types, values that do not exist."""

from __future__ import annotations

import datetime as dt
from functools import cache
from typing import Any

import botocore.session

_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "long": int,
    "double": (int, float),
    "float": (int, float),
    "boolean": bool,
    "timestamp": dt.datetime,
}


@cache
def model(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


def check(service: str, operation: str, answer: dict[str, Any]) -> None:
    """Raise AssertionError if AWS could not have answered this."""
    _walk(model(service).operation_model(operation).output_shape, answer, operation)


def _walk(shape: Any, value: Any, path: str) -> None:
    if shape.type_name == "structure":
        unknown = set(value) - set(shape.members)
        assert not unknown, f"{path}: {service_words(unknown)} not in the model"
        for name, member in value.items():
            _walk(shape.members[name], member, f"{path}.{name}")
    elif shape.type_name == "list":
        for item in value:
            _walk(shape.member, item, f"{path}[]")
    else:
        assert isinstance(value, _TYPES[shape.type_name]), f"{path}: {value!r} is no {shape.type_name}"
        known = getattr(shape, "enum", None)
        assert not known or value in known, f"{path}: {value!r} is none of {known}"


def service_words(names: set[str]) -> str:
    return ", ".join(sorted(names))
