"""What the commands on runs share: the ledger, the launcher, and finding a run."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from planner.monitor import tend
from planner.places import Places
from planner.runs import Run, utc_text
from planner.store import Store
from providers.launcher import Launcher
from providers.local import LocalLauncher
from providers.object_store import ObjectStore
from providers.stores import open_store

if TYPE_CHECKING:
    from planner.cli.context import App
    from planner.inputs import Sending
    from planner.launch import Desk
    from planner.register import ProjectBook
    from planner.try_book import Try

_TELL_EVERY_S = 5.0

AnyCallable = TypeVar("AnyCallable", bound=Callable[..., Any])


@contextmanager
def open_desk(app: App, infra: str = "local") -> Iterator[Desk]:
    """Ledger and launcher, closed at the end."""
    from planner.launch import Desk

    places = Places(app.directories.state)
    with Store(places.ledger) as store:
        yield Desk(store, launcher(app, infra), places, clock(app), _teller())


def _teller() -> Callable[[Sending], None]:
    """Tells on stderr how the files of a launch come along, every few seconds and when all have arrived."""
    told_s = time.monotonic()

    def tell(sending: Sending) -> None:
        nonlocal told_s
        now_s, done = time.monotonic(), sending.sent_bytes >= sending.total_bytes
        if done or now_s - told_s >= _TELL_EVERY_S:
            told_s = now_s
            sent, total = (f"{size / 2**20:,.1f}" for size in (sending.sent_bytes, sending.total_bytes))
            click.echo(f"sent {sent} of {total} MiB to {sending.uri.partition('?')[0]}", err=True)

    return tell


@contextmanager
def open_desk_of(app: App, run: str) -> Iterator[tuple[Desk, Run]]:
    """A run, by the beginning of its id, and a desk with its launcher."""
    with open_desk(app) as desk:
        found = desk.store.find(run)
        yield replace(desk, launcher=launcher(app, found.terms.infra)), found


@contextmanager
def open_ledger(app: App) -> Iterator[Store]:
    """The ledger alone."""
    with Store(Places(app.directories.state).ledger) as store:
        yield store


def store_option(function: AnyCallable) -> AnyCallable:
    """`--store URI`: the register that a team shares."""
    return click.option(
        "--store",
        "store_uri",
        envvar="PLAN_STORE",
        metavar="URI",
        help="Register shared by a team: run ids and budgets (also $PLAN_STORE, config `store`).",
    )(function)


def offline_option(function: AnyCallable) -> AnyCallable:
    """`--offline`: nobody is asked, also not by libraries, and what needs the internet is an error."""

    def set_offline(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            os.environ |= {"PLAN_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}

    return click.option(
        "--offline",
        is_flag=True,
        expose_value=False,
        callback=set_offline,
        help="Ask nobody; whatever needs the internet is in the way (also $PLAN_OFFLINE).",
    )(function)


def open_register(app: App, uri: str | None) -> tuple[ObjectStore, str]:
    """The register of run ids and budgets, and its URI; without a shared one, a directory of this machine."""
    chosen = uri or app.config.store or Places(app.directories.state).register
    return open_store(chosen), chosen


def entered_here(
    ledger: Store, register: ObjectStore, uri: str, book: ProjectBook, now: str
) -> tuple[list[Run], list[Try]]:
    """Runs of this ledger in that register, and its tries, which may be over and the book not know it.

    What a run has cost is for its owner to say: of one that another ledger has adopted this one knows the beginning.
    One that is just being resumed is not over, whatever the ledger says.
    """
    from planner.entry_book import being_entered
    from planner.ledger_identity import identity_of
    from planner.register import other_owner, settled
    from planner.try_book import TryBook

    identity = identity_of(ledger.path)
    entering = being_entered(ledger.path, uri, now)
    with TryBook(ledger.path) as tries:
        known = ledger.all_runs()
        runs = [run for run in known if run.terms.register_uri == uri and run.run_id not in entering]
        return [
            run
            for run in runs
            if settled(book, book.project, [run]) == book
            or other_owner(register, run.run_id, identity) is None
        ], tries.all_tries()


def settle_here(app: App, ledger: Store, register: ObjectStore, uri: str, project: str) -> None:
    """Bring a project's book up to date with what this ledger knows of its own runs, tries and launches."""
    from planner.entry_book import give_back_cut_off
    from planner.register import settle_from

    now = clock(app)()
    give_back_cut_off(ledger.path, register, uri, project, now=now)
    settle_from(register, project, lambda book: entered_here(ledger, register, uri, book, now))


def launcher(app: App, infra: str) -> Launcher:
    """The backend of runs; `planner.runs.Infra` says which there are."""
    if infra == "skypilot":
        from providers.skypilot import SkyPilotLauncher

        return SkyPilotLauncher()
    if infra == "cluster":
        from providers.skypilot_cluster import SkyPilotClusterLauncher

        return SkyPilotClusterLauncher()
    return LocalLauncher(Places(app.directories.state).local, python=sys.executable)


def clock(app: App) -> Callable[[], str]:
    """The app's clock as the ledger's texts."""
    return lambda: utc_text(app.now())


def refresh(app: App, store: Store, run: Run, *, ask: bool = False) -> tuple[Run, tuple[int, ...]]:
    """The run as it is now and its living processes.

    While a monitor is at work the ledger alone is read. Else this machine is asked, which costs a few small files;
    any other place only if `ask` says so, because that takes seconds.
    """
    if run.final or (run.terms.infra != "local" and not ask):
        return run, ()
    now = utc_text(app.now())
    backend = launcher(app, run.terms.infra)
    beat = store.monitor()
    if beat is None or not beat.lives(now):  # a monitor at work keeps the ledger true
        run = tend(store, backend, run, now)
    is_here = run.terms.infra == "local" and not run.final
    return run, backend.status(run.run_id).pids if is_here else ()
