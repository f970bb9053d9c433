"""Workers that run on this machine, and shares of secrets that lie in bundles here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from providers.errors import StorageError
from providers.local import LocalLauncher
from providers.sealed import DIRECTORY
from providers.strays import Thing

_GRACE_S, _EXIT_S, _POLL_S = 60.0, 10.0, 0.2


class LocalSweeper:
    """Worker processes of the local launcher, whoever started them from this state directory."""

    name = "local"

    def __init__(self, launcher: LocalLauncher) -> None:
        """Use a launcher's directory."""
        self._launcher = launcher

    def find(self) -> Iterator[Thing]:
        """Runs whose newest attempt has a living worker."""
        root = self._launcher.root
        for run_id in sorted(entry.name for entry in root.iterdir()) if root.is_dir() else ():
            status = self._launcher.status(run_id)
            if status.state == "running":
                pids = " ".join(map(str, status.pids))
                place = "this machine"
                yield Thing(
                    "worker",
                    f"pid {pids}",
                    run_id,
                    status.attempt,
                    status.started_at,
                    place,
                    "local",
                    "local",
                )

    def end(self, thing: Thing) -> None:
        """Ask the worker to checkpoint and stop, and wait for that; its supervisor kills it after a minute."""
        self._launcher.cancel(thing.run, grace_s=_GRACE_S)
        deadline = time.monotonic() + _GRACE_S + _EXIT_S
        while self._launcher.status(thing.run).state == "running" and time.monotonic() < deadline:
            time.sleep(_POLL_S)


class SecretSweeper:
    """Random shares of secrets in bundles: alone they say nothing, and a run that is over needs them no more."""

    name = "secrets"

    def __init__(self, bundles: Path) -> None:
        """Use the directory of all bundles."""
        self._bundles = bundles

    def find(self) -> Iterator[Thing]:
        """One thing for each bundle that holds any."""
        for place in sorted(self._bundles.glob(f"*/*/{DIRECTORY}")):
            files = [path for path in place.iterdir() if path.is_file()]
            if files and place.parent.name.isdigit():
                made = datetime.fromtimestamp(min(path.stat().st_mtime for path in files), UTC)
                yield Thing(
                    "secret",
                    f"{len(files)} shares",
                    place.parent.parent.name,
                    int(place.parent.name),
                    made.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                    str(place),
                    bytes=sum(path.stat().st_size for path in files),
                    ref=(str(place),),
                )

    def end(self, thing: Thing) -> None:
        """Remove the files."""
        try:
            for path in Path(thing.ref[0]).iterdir():
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"cannot remove {thing.place}: {error.strerror or error}") from error
