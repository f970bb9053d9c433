"""YAML text as a tree of placed nodes, within limits that hold before anything is expanded.

Built on the parser's events: the depth, the number of values and what aliases would expand to are checked as
they arrive, so that neither nesting nor an alias bomb costs time or memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from planner.errors import SpecError
from planner.source_text import SourceText
from planner.units import shown

MAX_VALUES = 10_000
MAX_DEPTH = 40
_STR_TAG = "tag:yaml.org,2002:str"

# What the parser says -> what we say, and what to do about it.
_PROBLEMS: tuple[tuple[str, str, str | None], ...] = (
    ("'\\t'", "a tab stands where YAML allows only spaces", "indent with spaces"),
    (
        "mapping values are not allowed",
        "a `:` stands where none can",
        "check the indentation and quotes above",
    ),
    ("unexpected end of stream", "a quote is opened and never closed", None),
    ("cannot start any token", "this character cannot start a value", "put the value in quotes"),
    ("<stream end>", "a bracket is opened and never closed", None),
    ("<block end>", "this line does not fit the lines above", "check its indentation"),
    ("could not find expected ':'", "a `:` is missing after a key", None),
)


@dataclass(slots=True)
class Node:
    """One value of the file.

    Attributes:
        kind: What it is; the children of a mapping are keys and values in turn.
        line: 1-based.
        column: 1-based.
        text: Of a scalar.
        plain: The scalar has no quotes and no tag, so its text decides its type.
        children: Of a mapping or sequence.
        anchor: Name for aliases.
        size: Values it expands to.
        depth: Levels below and including it.
    """

    kind: Literal["scalar", "sequence", "mapping"]
    line: int
    column: int
    text: str = ""
    plain: bool = False
    children: list[Node] = field(default_factory=list)
    anchor: str | None = None
    size: int = 1
    depth: int = 1


def parse_nodes(source: SourceText) -> Node | None:
    """The root of a file's only document, None if there is nothing in it.

    Raises:
        SpecError: If it is not valid YAML, over a limit, or holds a tag, unknown alias or second document.
    """
    return _Builder(source).build()


class _Builder:
    """Collects events into nodes."""

    def __init__(self, source: SourceText) -> None:
        self.source = source
        self.anchors: dict[str, Node] = {}
        self.values = 0

    def build(self) -> Node | None:
        root: Node | None = None
        parents: list[Node] = []
        for event in self._events():
            kind = type(event).__name__
            if kind == "DocumentStartEvent" and root is not None:
                raise self._stop(
                    *_place(event), "a second document starts here", "many_documents", "keep one"
                )
            if kind in ("MappingStartEvent", "SequenceStartEvent"):
                parents.append(self._start(event, len(parents)))
            elif kind in ("ScalarEvent", "AliasEvent", "MappingEndEvent", "SequenceEndEvent"):
                node = self._close(parents.pop()) if kind.endswith("EndEvent") else self._leaf(event)
                if parents:
                    parents[-1].children.append(node)
                else:
                    root = node
        return root

    def _events(self) -> Iterator[Any]:
        try:
            yield from YAML(typ="safe", pure=True).parse(self.source.text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
            message, hint = _plain_words(str(error.problem))
            raise self._stop(line, column, f"not valid YAML: {message}", "yaml", hint) from None
        except YAMLError as error:
            line = self.source.text.count("\n", 0, getattr(error, "position", 0)) + 1
            message = "not valid YAML: a control character"
            raise self._stop(line, 1, message, "yaml", "retype this line") from None

    def _stop(self, line: int, column: int, message: str, code: str, hint: str | None = None) -> SpecError:
        return SpecError([self.source.finding(line, column, message, code=code, hint=hint)])

    def _start(self, event: Any, depth: int) -> Node:
        line, column = _place(event)
        self._check_tag(event)
        self._check_depth(depth + 1, line, column)
        kind: Literal["mapping", "sequence"] = "sequence"
        if type(event).__name__ == "MappingStartEvent":
            kind = "mapping"
        return Node(kind, line, column, anchor=event.anchor)

    def _leaf(self, event: Any) -> Node:
        line, column = _place(event)
        if type(event).__name__ == "AliasEvent":
            return self._alias(event.anchor, line, column)
        self._check_tag(event)
        plain = event.style is None and event.tag is None
        node = Node("scalar", line, column, event.value, plain, anchor=event.anchor)
        return self._finished(node)

    def _alias(self, name: str, line: int, column: int) -> Node:
        target = self.anchors.get(name)
        if target is None:
            message = f"*{name[:40]} names nothing that is complete before it"
            raise self._stop(line, column, message, "unknown_alias")
        self._count(target.size, line, column)
        return target

    def _close(self, node: Node) -> Node:
        node.size += sum(child.size for child in node.children)
        node.depth += max((child.depth for child in node.children), default=0)
        self._check_depth(node.depth, node.line, node.column)
        return self._finished(node)

    def _finished(self, node: Node) -> Node:
        self._count(1, node.line, node.column)
        if node.anchor is not None:
            self.anchors[node.anchor] = node
        return node

    def _count(self, more: int, line: int, column: int) -> None:
        self.values += more
        if self.values > MAX_VALUES:
            hint = "look for aliases of aliases (`*name`)" if self.anchors else None
            raise self._stop(line, column, f"more than {MAX_VALUES} values up to here", "too_large", hint)

    def _check_depth(self, depth: int, line: int, column: int) -> None:
        if depth > MAX_DEPTH:
            raise self._stop(line, column, f"nested more than {MAX_DEPTH} deep", "too_deep")

    def _check_tag(self, event: Any) -> None:
        if event.tag is not None and event.tag != _STR_TAG:
            message = f"the tag {shown(str(event.tag))} is not understood"
            raise self._stop(*_place(event), message, "tag", "leave the tag out")


def _place(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _plain_words(problem: str) -> tuple[str, str | None]:
    for part, message, hint in _PROBLEMS:
        if part in problem:
            return message, hint
    return "".join(char for char in problem if char.isprintable())[:80], None
