"""Files that a person asked for by name: written whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from providers.errors import UsageError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside `path`, of the same suffix, that takes its place when the block ends; an older one stays till then.

    Raises:
        UsageError: It cannot be written, as on a full disk; then nothing has changed.
    """
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        beside.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}", path=str(path)) from None
    finally:
        beside.unlink(missing_ok=True)
