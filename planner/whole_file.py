"""Files that a person asked for by name: written whole, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from providers.errors import UsageError

_DEVICES = Path("/dev")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside `path`, of the same suffix, that takes its place when the block ends; an older one stays till then.

    A link stays, and what it names is replaced. Devices and pipes, as /dev/stdout, are written into: whoever may write
    to /dev would else put a file there in place of the device.

    Raises:
        UsageError: It cannot be written, as on a full disk; then nothing has changed.
    """
    try:
        with _beside(path) as beside:
            yield beside
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}", path=str(path)) from None


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    if _is_written_into(path):
        with tempfile.TemporaryDirectory() as directory:
            copy = Path(directory, path.name)
            yield copy
            with copy.open("rb") as source, path.open("wb", buffering=0) as into:
                shutil.copyfileobj(source, into)
        return
    target = path.resolve()
    beside = target.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _is_written_into(path: Path) -> bool:
    """Whether it is no file of a disk; one that /dev/stdout leads to is held open by somebody."""
    if path.is_dir():
        return False
    return path.is_relative_to(_DEVICES) or (path.exists() and not path.is_file())
