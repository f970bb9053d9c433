"""Files that hold no lines of text, told by their first bytes: what they are, and what to do about it."""

from __future__ import annotations

from pathlib import Path

from providers.errors import UsageError

_HEAD_BYTES = 4096
_UNPACK = "unpack it first"
_TEXT_ONLY = "give JSONL, CSV, Parquet or plain text in UTF-8; only texts are trained on"
_CONVERT = "convert it: `iconv -f UTF-16 -t UTF-8 FILE > NEW`"
_SIGNS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "is compressed (gzip)", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstd)", _UNPACK),
    (b"BZh", "is compressed (bzip2)", _UNPACK),
    (b"\xfd7zXZ\x00", "is compressed (xz)", _UNPACK),
    (b"PK\x03\x04", "is a zip archive", _UNPACK),
    (b"PAR1", "is a Parquet file without the ending .parquet", "rename it"),
    (b"ARROW1", "is an Arrow file", "save it as Parquet"),
    (b"\xff\xfe", "is UTF-16", _CONVERT),
    (b"\xfe\xff", "is UTF-16", _CONVERT),
    (b"\x89PNG", "is an image", _TEXT_ONLY),
    (b"\xff\xd8\xff", "is an image", _TEXT_ONLY),
    (b"%PDF", "is a PDF", _TEXT_ONLY),
)


def check_text_file(path: Path) -> None:
    """Refuse what cannot be read by lines.

    Raises:
        UsageError: It is empty, compressed, binary, in UTF-16, or one JSON array; or a pipe, which is read only once,
            and may never end.
    """
    if path.exists() and not path.is_file():
        raise _refusal(path, "is no file", "write its rows to a file")
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    for sign, what, cure in _SIGNS:
        if head.startswith(sign):
            raise _refusal(path, what, cure)
    if not head:
        raise _refusal(path, "is empty", "give a file with examples")
    if head.count(b"\x00") > len(head) // 10:
        raise _refusal(path, "is a binary file", _TEXT_ONLY)
    begins = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if path.suffix.lower() == ".json" and begins.startswith(b"["):
        cure = f"one JSON object a line is read: `jq -c '.[]' {path.name} > {path.stem}.jsonl`"
        raise _refusal(path, "is one JSON array", cure)


def _refusal(path: Path, what: str, cure: str) -> UsageError:
    return UsageError(f"{path} {what}", hint=cure, path=str(path), code="bad_data_file")
