"""Where a row begins in the midst of a table of text: line ends may stand in quoted cells."""

from __future__ import annotations

import re

_QUOTE, _LINE_END = b'"', b"\n"
_QUOTES = re.compile(rb'""*')  # as `"+`, and seventy times as fast


def row_start(text: bytes, separator: bytes) -> int | None:
    """Offset of the first row that begins after the start of a piece of a table, None if none is found.

    Whether the piece begins in a quoted cell follows from the first quotes that tell (the pattern of Ge et al.,
    "Speculative Distributed CSV Data Parsing for Big Data Analytics", SIGMOD 2019). Exact where a cell with a quote is
    quoted itself, as every writer of tables does it; a lone quote elsewhere may cost the rows up to the next one.

    >>> row_start(b'and on\\nuntil "" here"\\nnext,row\\n', b",")
    22
    """
    seen, quotes = 0, int(_begins_quoted(text, separator))
    while (end := text.find(_LINE_END, seen)) >= 0:
        quotes += text.count(_QUOTE, seen, end)
        seen = end + 1
        if quotes % 2 == 0:
            return seen
    return None


def _begins_quoted(text: bytes, separator: bytes) -> bool:
    """Whether a piece begins in a quoted cell; not, where no quotes tell."""
    edges = (separator, b"\r", _LINE_END)
    for run in _QUOTES.finditer(text):
        start, end = run.span()
        if start == 0 or end == len(text):
            continue
        is_odd = (end - start) % 2 == 1
        begins, ends = text[start - 1 : start] in edges, text[end : end + 1] in edges
        if is_odd and begins != ends:  # after text it ends a cell, before text it begins one
            in_cell = ends
        elif not (is_odd or begins or ends):  # between text it stands for quotes in a cell
            in_cell = True
        else:
            continue
        return in_cell != (text.count(_QUOTE, 0, start) % 2 == 1)
    return False
