"""YAML of a converted configuration, with what was assumed and left out as comments at its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from planner.convert.conversion import Conversion
from planner.spec_template import SCHEMA_FILE, quoted

#: As in the template.
_ORDER = ("model", "method", "quantization", "task", "data", "train", "evaluate", "checkpoints")


def spec_yaml(conversion: Conversion, *, name: str, origin: str) -> str:
    """Text of a spec.

    Args:
        conversion: Finished.
        name: Of the run.
        origin: What it was made from, for the head.
    """
    head = (
        f"# yaml-language-server: $schema=./{SCHEMA_FILE}\n"
        f"# Made from {origin} ({conversion.tool}).\n"
        f"spec_version: 1\nname: {quoted(name)}\n"
    )
    sections = {key: conversion.sections[key] for key in _ORDER if key in conversion.sections}
    return head + plain_yaml(sections) + remarks(conversion)


def plain_yaml(document: Mapping[str, Any]) -> str:
    """Mappings of scalars, lists and one further level of mappings."""
    return "".join(f"{line}\n" for key, value in document.items() for line in _entry(key, value, ""))


def remarks(conversion: Conversion) -> str:
    """What a person must look at, as comments."""
    lines = [f"#   {note}" for note in conversion.notes]
    text = "\n# Look at these:\n" + "\n".join(lines) + "\n" if lines else ""
    left = [f"#   {key}: {reason}" for key, reason in sorted(conversion.left.items())]
    if conversion.harmless:
        text += f"\n# Not needed here: {', '.join(sorted(conversion.harmless))}\n"
    return text + ("\n# Not taken over:\n" + "\n".join(left) + "\n" if left else "")


def _entry(key: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield f"{indent}{key}:"
        for inner, child in value.items():
            yield from _entry(inner, child, indent + "  ")
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        yield f"{indent}{key}:"
        for row in value:
            yield f"{indent}  - {{{', '.join(f'{name}: {_scalar(item)}' for name, item in row.items())}}}"
    else:
        yield f"{indent}{key}: {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(_scalar(item) for item in value)}]"
    if isinstance(value, float):
        return _float(value)
    return str(value) if isinstance(value, int) else quoted(str(value))


def _float(value: float) -> str:
    """With a point, so that every YAML reader takes it for a number."""
    text = f"{value:g}" if float(f"{value:g}") == value else repr(value)
    mantissa, e, exponent = text.partition("e")
    return text if not e or "." in mantissa else f"{mantissa}.0e{exponent}"
