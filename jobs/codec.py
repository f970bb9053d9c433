"""Frozen dataclasses to and from plain JSON types, checked against their annotations."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


class Mismatch(ValueError):  # noqa: N818 - it describes a document, callers turn it into their own error
    """A document does not have the shape of its dataclass; the text starts with the dotted key."""


def encode(value: DataclassInstance) -> str:
    """JSON text of a dataclass: keys in field order, indented; NaN and infinity are refused.

    Raises:
        ValueError: If a number is not finite.
    """
    return json.dumps(dataclasses.asdict(value), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def decode(cls: type[T], raw: Any, *, strict: bool, where: str = "") -> T:
    """Build a dataclass from parsed JSON.

    Args:
        cls: The dataclass; fields are scalars, Literals, tuples, dicts, dataclasses, or one of them and None.
        raw: What `json.loads` gave.
        strict: Refuse unknown keys and values outside a Literal; off for stored documents.
        where: Dotted key of this object, for messages.

    Raises:
        Mismatch: A key is missing, unknown (strict) or of the wrong type.
    """
    if not isinstance(raw, dict):
        raise Mismatch(f"{where or 'document'}: expected an object, got {_kind(raw)}")
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(raw) - set(fields))
    if strict and unknown:
        raise Mismatch(f"{_join(where, unknown[0])}: unknown key")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in raw:
            values[name] = _convert(hints[name], raw[name], strict, _join(where, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise Mismatch(f"{_join(where, name)}: missing")
    return cls(**values)


def _convert(hint: Any, value: Any, strict: bool, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_optional(hint, value, strict, where)
    if origin is Literal:
        if value in get_args(hint) or (not strict and isinstance(value, str)):
            return value
        raise Mismatch(f"{where}: {value!r} is none of {', '.join(map(repr, get_args(hint)))}")
    if origin in (tuple, dict):
        return _convert_container(hint, value, strict, where)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return decode(hint, value, strict=strict, where=where)
    return _convert_scalar(hint, value, where)


def _convert_optional(hint: Any, value: Any, strict: bool, where: str) -> Any:
    if value is None:
        return None
    (choice,) = (one for one in get_args(hint) if one is not type(None))
    return _convert(choice, value, strict, where)


def _convert_container(hint: Any, value: Any, strict: bool, where: str) -> Any:
    inner = get_args(hint)
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise Mismatch(f"{where}: expected a list, got {_kind(value)}")
        return tuple(_convert(inner[0], item, strict, f"{where}[{i}]") for i, item in enumerate(value))
    if not isinstance(value, dict):
        raise Mismatch(f"{where}: expected an object, got {_kind(value)}")
    return {str(key): _convert(inner[1], item, strict, _join(where, str(key))) for key, item in value.items()}


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise Mismatch(f"{where}: {value} is not a finite number")
        return float(value)
    if type(value) is hint:
        return value
    raise Mismatch(f"{where}: expected {hint.__name__}, got {_kind(value)}")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
