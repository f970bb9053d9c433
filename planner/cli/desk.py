"""What the commands on runs share: the ledger, the launcher, and finding a run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from planner.monitor import observe
from planner.places import Places
from planner.runs import Run, utc_text
from planner.store import Store
from providers.local import LocalLauncher

if TYPE_CHECKING:
    from planner.cli.context import App
    from planner.launch import Desk


@contextmanager
def open_desk(app: App) -> Iterator[Desk]:
    """Ledger and launcher of this machine, closed at the end."""
    from planner.launch import Desk

    places = Places(app.directories.state)
    with Store(places.ledger) as store:
        yield Desk(store, launcher(app), places, clock(app))


@contextmanager
def open_ledger(app: App) -> Iterator[Store]:
    """The ledger alone."""
    with Store(Places(app.directories.state).ledger) as store:
        yield store


def launcher(app: App) -> LocalLauncher:
    """The backend of local runs."""
    return LocalLauncher(Places(app.directories.state).local, python=sys.executable)


def clock(app: App) -> Callable[[], str]:
    """The app's clock as the ledger's texts."""
    return lambda: utc_text(app.now())


def refresh(app: App, store: Store, run: Run) -> tuple[Run, tuple[int, ...]]:
    """The run as it is now and its living processes.

    Asking this machine costs a few small files; for any other place the ledger says what was last observed.
    """
    if run.terms.infra != "local":
        return run, ()
    backend = launcher(app)
    run = observe(store, backend, run, utc_text(app.now()))
    return run, () if run.final else backend.status(run.run_id).pids
