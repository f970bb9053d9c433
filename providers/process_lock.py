"""A lock that one process holds at a time, and that goes with it, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from providers.errors import StorageError, TuneplanError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def held(path: Path, busy: TuneplanError, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a file, which is made and stays; where the system has no such locks nobody is kept out.

    Args:
        path: The file.
        busy: Raised if another process has it.
        shared: Together with others who say so too; one who has it alone is waited for.

    Raises:
        StorageError: The file cannot be made or locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = path.open("a")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", path=str(path)) from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy from None
            except OSError as error:  # as on some network file systems
                raise StorageError(f"cannot lock {path}: {error.strerror}", path=str(path)) from error
        yield
