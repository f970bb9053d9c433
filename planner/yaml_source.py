"""A YAML file as plain Python values that know where they stand.

The YAML 1.2 core types are understood: text, whole numbers, numbers, true and false, null. Dates stay text.
Merge keys (`<<`), repeated keys and keys that are not text are findings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from planner.errors import Finding, SpecError
from planner.source_text import SourceText, read_source, source_text
from planner.units import shown
from planner.yaml_nodes import Node, parse_nodes

MAX_NUMBER_CHARS = 400
_PRIVATE = frozenset(("env", "secrets", "uri"))  # a secret may stand there by mistake: never repeat the line

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?\d[\d_]*", re.ASCII)
_BASED_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.\d+|\d[\d_]*(\.\d*)?)([eE][-+]?\d+)?", re.ASCII)
_FLOAT_NAME = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

KeyPath = tuple[str | int, ...]


class Place(NamedTuple):
    """Where a key and its value stand (1-based), and the value's text if it is a scalar without quotes."""

    key_line: int
    key_column: int
    line: int
    column: int
    plain_text: str | None


@dataclass(frozen=True, slots=True)
class YamlSource:
    """A file's content.

    Attributes:
        source: Its text.
        data: Mappings are dicts, sequences are tuples.
        places: Path of keys and indexes -> place; () is the whole.
    """

    source: SourceText
    data: dict[str, Any]
    places: dict[KeyPath, Place] = field(repr=False)

    def finding(self, path: KeyPath, message: str, *, at_key: bool = False, **rest: Any) -> Finding:
        """A finding at a value, or at its key.

        Where the path is not in the file, at the nearest parent's key, or at its text, if that stands for a key of it,
        as in `model: org/name`.

        Args:
            path: Keys and indexes from the top.
            message: What is wrong.
            at_key: Point at the key instead of the value.
            **rest: Other fields of `Finding`: code, hint.
        """
        known = path
        while known not in self.places:
            known = known[:-1]
        place = self.places[known]
        line, column = place.line, place.column
        if at_key or (known != path and not place.plain_text):
            line, column = place.key_line, place.key_column
        finding = self.source.finding(line, column, message, path=path_text(path), **rest)
        return replace(finding, excerpt=None) if _PRIVATE.intersection(path) else finding


def path_text(path: KeyPath) -> str:
    """Dotted path, safe to print.

    >>> path_text(("where", "gpus", 1))
    'where.gpus[1]'
    """
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if part.isprintable() and len(part) <= 60 else shown(part))
    return text


def key_path(text: str) -> KeyPath:
    """The path that `path_text` wrote, for paths without odd keys.

    >>> key_path("where.gpus[1]")
    ('where', 'gpus', 1)
    """
    return tuple(int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", text))


def read_yaml(path: Path) -> YamlSource:
    """Read a file whose top level is a mapping.

    Raises:
        SpecError: With everything that is wrong with it as YAML.
    """
    return _load(read_source(path))


def parse_yaml(text: str, file: str = "spec.yaml") -> YamlSource:
    """As `read_yaml`, from text.

    Raises:
        SpecError: With everything that is wrong with it as YAML.
    """
    return _load(source_text(text, file))


def _load(source: SourceText) -> YamlSource:
    root = parse_nodes(source)
    if root is None or (root.plain and root.text == ""):
        hint = "`plan init` writes a template"
        raise SpecError([Finding("the file is empty", file=source.file, code="empty", hint=hint)])
    if root.kind != "mapping":
        message = "the file must hold keys and values, as in `name: my-run`"
        raise SpecError([source.finding(root.line, root.column, message, code="not_a_mapping")])
    reader = _Reader(source)
    data = reader.value(root, (), root)
    if reader.findings:
        raise SpecError(reader.findings)
    return YamlSource(source, data, reader.places)


class _Reader:
    """Turns nodes into plain values; collects places and findings."""

    def __init__(self, source: SourceText) -> None:
        self.source = source
        self.places: dict[KeyPath, Place] = {}
        self.findings: list[Finding] = []

    def value(self, node: Node, path: KeyPath, key: Node) -> Any:
        text = node.text if node.plain else None
        self.places[path] = Place(key.line, key.column, node.line, node.column, text)
        if node.kind == "sequence":
            return tuple(self.value(item, (*path, i), item) for i, item in enumerate(node.children))
        if node.kind == "mapping":
            return self._mapping(node, path)
        return self._typed(node, path) if node.plain else node.text

    def _mapping(self, node: Node, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, child in _pairs(node):
            name = key.text
            if (problem := _bad_key(key)) is not None:
                self._find(key, path, problem, "bad_key")
            elif name in values:
                first = self.places[(*path, name)].key_line
                self._find(
                    key, (*path, name), f"stands here a second time, first in line {first}", "duplicate_key"
                )
            else:
                values[name] = self.value(child, (*path, name), key)
        return values

    def _typed(self, node: Node, path: KeyPath) -> Any:
        if len(node.text) > MAX_NUMBER_CHARS and (
            _FLOAT.fullmatch(node.text) or _BASED_INT.fullmatch(node.text)
        ):
            self._find(node, path, f"a number of more than {MAX_NUMBER_CHARS} characters", "too_large")
            return None
        return scalar_value(node.text)

    def _find(self, node: Node, path: KeyPath, message: str, code: str) -> None:
        place = path_text(path)
        self.findings.append(self.source.finding(node.line, node.column, message, path=place, code=code))


def _pairs(node: Node) -> Iterator[tuple[Node, Node]]:
    return zip(node.children[::2], node.children[1::2], strict=True)


def _bad_key(key: Node) -> str | None:
    if key.plain and key.text == "<<":
        return "merge keys (`<<`) are not understood, write the keys out"
    if key.kind != "scalar" or (key.plain and key.text == ""):
        return "a key must be text"
    return None


def scalar_value(text: str) -> Any:
    """What a scalar without quotes means by the YAML 1.2 core schema.

    >>> [scalar_value(text) for text in ("12", "1e-4", "true", "yes", "2026-01-01", "~")]
    [12, 0.0001, True, 'yes', '2026-01-01', None]
    """
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INT.fullmatch(text):
        return int(text.replace("_", ""))
    if _BASED_INT.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    if _FLOAT_NAME.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text
