"""What a shell may complete: names of GPUs and ids of runs. Nothing is created, migrated or told if it fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from providers.errors import TuneplanError

if TYPE_CHECKING:
    from planner.runs import Run


def complete_gpu(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Canonical names of GPUs, in any case."""
    from providers.gpus import CANONICAL_GPUS

    return [name for name in CANONICAL_GPUS if name.lower().startswith(incomplete.lower())]


def complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Ids of runs with their states, newest first."""
    with contextlib.suppress(TuneplanError):
        return [
            CompletionItem(run.run_id, help=run.state) for run in _runs() if run.run_id.startswith(incomplete)
        ]
    return []


def _runs() -> Iterable[Run]:
    from planner.config import directories
    from planner.ledger_version import NEWEST_LEDGER, ledger_version
    from planner.places import Places
    from planner.store import Store

    path = Places(directories().state).ledger
    if not path.exists() or ledger_version(path) != NEWEST_LEDGER:
        return ()
    with Store(path) as store:
        return tuple(store.all_runs())
