"""Committed checkpoints as JSON and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jobs.manifest import Head
from planner.cli.checkpoint_place import Entry
from planner.cli.price_text import table_text

Verified = Literal["unchecked", "ok", "damaged"]
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Checked:
    """An entry, whether it is known to be intact, and what is wrong if it is not."""

    entry: Entry
    verified: Verified
    damage: str | None


def checkpoints_document(uri: str, head: Head, rows: Sequence[Checked], *, files: bool) -> dict[str, Any]:
    """The answer of `plan checkpoints -o json`.

    Args:
        uri: Of the store.
        head: As read before.
        rows: What to tell of.
        files: Also name each file.
    """
    newest = head.newest
    outputs = [row for row in rows if row.entry.is_output]
    return {
        "uri": uri,
        "head": newest
        and {
            "step": newest.step,
            "fence": newest.fence,
            "manifest": newest.manifest,
            "manifest_sha256": newest.sha256,
        },
        "checkpoints": [_document(row, head, files) for row in rows if not row.entry.is_output],
        "output": _document(outputs[0], head, files) if outputs else None,
    }


def checkpoints_table(uri: str, head: Head, rows: Sequence[Checked]) -> str:
    """One line a checkpoint, and what is wrong with it below."""
    if not rows:
        return f"no checkpoints yet in {uri}"
    columns = ("what", "step", "attempt", "committed (UTC)", "files", "MiB", "new MiB", "state")
    lines = [
        uri,
        table_text(
            columns, [_row(row, head) for row in rows], ("step", "attempt", "files", "MiB", "new MiB")
        ),
    ]
    lines += [f"! step {row.entry.pointer.step}: {row.damage}" for row in rows if row.damage is not None]
    return "\n".join(lines)


def files_table(row: Checked) -> str:
    """The files of one checkpoint."""
    entry, manifest = row.entry, row.entry.manifest
    title = f"{_what(entry)} of step {entry.pointer.step}, {entry.pointer.manifest}"
    if manifest is None:
        return f"{title}\n! {row.damage}"
    files = [(file.path, f"{file.bytes:,}", file.sha256) for file in manifest.files]
    return f"{title}\n{table_text(('file', 'bytes', 'sha256'), files, ('bytes',))}"


def _document(row: Checked, head: Head, files: bool) -> dict[str, Any]:
    pointer, manifest = row.entry.pointer, row.entry.manifest
    listed = {"file_list": manifest and [_file(file) for file in manifest.files]} if files else {}
    return {
        "step": pointer.step,
        "fence": pointer.fence,
        "committed_at": manifest and manifest.committed_at,
        "files": manifest and len(manifest.files),
        "bytes": manifest and manifest.total_bytes,
        "new_bytes": manifest and manifest.new_bytes,
        "manifest_sha256": pointer.sha256,
        "is_head": pointer == head.newest,
        "is_best": pointer == head.best if head.best is not None else None,
        "verified": row.verified,
        "damage": row.damage,
        **listed,
    }


def _file(file: Any) -> dict[str, Any]:
    return {"path": file.path, "bytes": file.bytes, "sha256": file.sha256}


def _row(row: Checked, head: Head) -> tuple[str, ...]:
    pointer, manifest = row.entry.pointer, row.entry.manifest
    known = ["?"] * 4
    if manifest is not None:
        sizes = [f"{count / _MIB:.1f}" for count in (manifest.total_bytes, manifest.new_bytes)]
        known = [manifest.committed_at, str(len(manifest.files)), *sizes]
    what = "best checkpoint" if pointer == head.best else _what(row.entry)
    return (what, str(pointer.step), str(pointer.fence), *known, row.verified)


def _what(entry: Entry) -> str:
    return "finished model" if entry.is_output else "checkpoint"
