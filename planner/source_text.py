"""A text file that a person wrote, read with care, and findings that point into it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planner.errors import Finding, SpecError

MAX_BYTES = 2**20
_EXCERPT_CHARS = 120
#: Login and query of an address, which may sign it.
_SIGNING = (re.compile(r"(https://)([^\s/@'\"]+)(?=@)"), re.compile(r"(https://[^\s?'\"]*\?)([^\s'\"]+)"))


@dataclass(frozen=True, slots=True)
class SourceText:
    """Content of a file.

    Attributes:
        file: Name as the person gave it.
        text: Content with `\\n` line ends.
        lines: The same by lines.
        sha256: Hex digest of the file's bytes.
    """

    file: str
    text: str = field(repr=False)
    lines: tuple[str, ...] = field(repr=False)
    sha256: str = ""

    def finding(self, line: int, column: int, message: str, **rest: Any) -> Finding:
        """A finding at a place (1-based), with the line and a caret below it.

        Args:
            line: 1-based.
            column: 1-based.
            message: What is wrong there.
            **rest: Other fields of `Finding`: path, code, hint.
        """
        marked = _excerpt(self.lines, line, column)
        return Finding(message, file=self.file, line=line, column=column, excerpt=marked, **rest)


def _excerpt(lines: tuple[str, ...], line: int, column: int) -> str | None:
    """The line with a caret below the column, None if there is no such line or it is too long to help."""
    if not 1 <= line <= len(lines) or column > _EXCERPT_CHARS:
        return None
    shown = _unsigned(lines[line - 1])[:_EXCERPT_CHARS]
    text = "".join(char if char.isprintable() else " " for char in shown)
    return f"    {text}\n    {' ' * (column - 1)}^" if text.strip() else None


def _unsigned(line: str) -> str:
    """The line with stars for what may sign an address in it, as many, so that columns stay."""
    for pattern in _SIGNING:
        line = pattern.sub(lambda found: found[1] + "*" * len(found[2]), line)
    return line


def source_text(text: str, file: str, sha256: str = "") -> SourceText:
    """Wrap a text, whatever its line ends."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return SourceText(file, text, tuple(text.split("\n")), sha256)


def read_source(path: Path) -> SourceText:
    """Read a UTF-8 file (with or without byte order mark) of at most 1 MiB.

    Raises:
        SpecError: If it is missing, unreadable, too large, binary or in another encoding.
    """
    body = _read_bytes(path)
    return source_text(_decode(body, str(path)), str(path), hashlib.sha256(body).hexdigest())


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            body = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _refused(path, "there is no such file", "not_found", "`plan init` writes a template") from None
    except IsADirectoryError:
        raise _refused(path, "this is a directory, not a file", "unreadable") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _refused(path, f"cannot be read: {reason}", "unreadable") from None
    if len(body) > MAX_BYTES:
        raise _refused(path, "is larger than 1 MiB", "too_large")
    return body


def _refused(path: Path, message: str, code: str, hint: str | None = None) -> SpecError:
    return SpecError([Finding(message, file=str(path), code=code, hint=hint)])


def _decode(body: bytes, file: str) -> str:
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _bad_encoding(body, 0, file, "is UTF-16 text")
    if (nul := body.find(b"\0")) >= 0:
        raise _bad_encoding(body, nul, file, "holds a NUL byte: binary, or UTF-16 text")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad_encoding(
            body, error.start, file, f"is not UTF-8 text: byte 0x{body[error.start]:02x}"
        ) from None


def _bad_encoding(body: bytes, offset: int, file: str, message: str) -> SpecError:
    line = body.count(b"\n", 0, offset) + 1
    column = offset - body.rfind(b"\n", 0, offset)
    hint = "save it as UTF-8 text"
    return SpecError([Finding(message, file=file, line=line, column=column, code="encoding", hint=hint)])
