"""What may be removed from this machine without losing what a run cost or what is running."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from planner.places import Places
from planner.runs import Run
from providers.errors import StorageError


@dataclass(frozen=True, slots=True)
class Leftover:
    """A directory that nobody needs any more.

    Attributes:
        what: worker, bundle, checkpoints or cache.
        run_id: Whose, None for the cache.
        path: The directory.
        bytes: All files in it.
    """

    what: str
    run_id: str | None
    path: Path
    bytes: int


def leftovers_of(run: Run, places: Places, *, checkpoints: bool) -> Iterator[Leftover]:
    """Directories of a run that is over; nothing of one that is not.

    The ledger's record of it stays, and so does what lies outside the state directory.

    Args:
        run: The run.
        places: Where things lie.
        checkpoints: Also those below the state directory, with the finished model.
    """
    if not run.final:
        return
    wanted = {"worker": places.local / run.run_id, "bundle": places.state / "bundles" / run.run_id}
    if checkpoints:
        wanted["checkpoints"] = places.state / "checkpoints" / run.run_id
    for what, path in wanted.items():
        if path.is_dir() and not path.is_symlink():
            yield Leftover(what, run.run_id, path, size_bytes(path))


def leftovers_of_cache(cache: Path) -> Iterator[Leftover]:
    """What was fetched and can be fetched again."""
    for path in sorted(cache.iterdir()) if cache.is_dir() else ():
        yield Leftover("cache", None, path, size_bytes(path))


def is_older(run: Run, now: datetime, seconds: float) -> bool:
    """Whether the run has been over for so long."""
    ended = datetime.fromisoformat(run.state_since_at.replace("Z", "+00:00"))
    return (now - ended).total_seconds() >= seconds


def remove(leftover: Leftover) -> None:
    """Remove a directory or file; one that is gone is fine.

    Raises:
        StorageError: It cannot be removed.
    """
    try:
        if leftover.path.is_dir() and not leftover.path.is_symlink():
            shutil.rmtree(leftover.path)
        else:
            leftover.path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StorageError(
            f"cannot remove {leftover.path}: {error.strerror}", path=str(leftover.path)
        ) from error


def size_bytes(path: Path) -> int:
    """All files in a directory, or of a file; links are not followed."""
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files if file.is_symlink() or file.is_file())
