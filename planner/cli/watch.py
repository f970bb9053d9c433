"""`plan watch`: a run while it goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import click

from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.desk import open_ledger, refresh
from planner.cli.waiting import raise_for
from planner.cli.watch_text import watch_line, watch_screen
from planner.runs import Run

#: Any other place takes seconds to ask.
_LEAST_S = {"local": 0.2, "skypilot": 5.0, "cluster": 5.0}


@click.command("watch", epilog="\b\nExample:\n  plan watch goat-1")
@click.argument("run", shell_complete=complete_run)
@click.option(
    "--every", type=click.FloatRange(0.2), default=2.0, show_default=True, help="Seconds between two looks."
)
@pass_app
def command(app: App, run: str, every: float) -> None:
    """Watch RUN until it is over: stage, step, time left, dollars against the cap, preemptions.

    On a terminal one small screen is kept up to date; elsewhere a line is written whenever something changed.
    Interrupting it does not touch the run. It ends as `plan wait` does: 0 succeeded, 8 capped, 10 failed or
    preempted, 11 cancelled.
    """
    looks = _looks(app, run, every)
    ended = _on_terminal(app, looks) if sys.stdout.isatty() else _in_lines(app, looks)
    raise_for(ended)


def _looks(app: App, run: str, every: float) -> Iterator[Run]:
    """The run again and again, the last time when nothing more happens by itself."""
    with open_ledger(app) as store:
        run_id = store.find(run).run_id
    while True:
        with open_ledger(app) as store:
            found, _ = refresh(app, store, store.find(run_id), ask=True)
        yield found
        if found.final or found.stuck:
            return
        time.sleep(max(every, _LEAST_S[found.terms.infra]))


def _in_lines(app: App, looks: Iterator[Run]) -> Run:
    found = next(looks)
    told = _tell(app, found, "")
    for found in looks:
        told = _tell(app, found, told)
    return found


def _tell(app: App, run: Run, told: str) -> str:
    """Write the line if there is news; the time of day alone is none."""
    line = watch_line(run, app.now())
    news = line.partition("  ")[2]
    if news != told:
        click.echo(line)
    return news


def _on_terminal(app: App, looks: Iterator[Run]) -> Run:
    from rich.live import Live
    from rich.text import Text

    found = next(looks)
    with Live(Text.from_ansi(watch_screen(found, app.now())), auto_refresh=False) as live:
        for found in looks:
            live.update(Text.from_ansi(watch_screen(found, app.now())), refresh=True)
    return found
