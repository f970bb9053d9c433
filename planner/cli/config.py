"""`plan config`: which settings are in force."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.cli.context import App, pass_app
from planner.cli.output import emit_json, output_option

if TYPE_CHECKING:
    from planner.settings import Setting


@click.group("config", epilog="\b\nExample:\n  plan config show --origin")
def command() -> None:
    """Show the settings in force."""


@command.command(
    "show", epilog="\b\nExamples:\n  plan config show --origin\n  plan config show prices -o json"
)
@click.argument("key", required=False)
@click.option("--origin", is_flag=True, help="And where each comes from: file and line, variable or default.")
@output_option("table", "json")
@pass_app
def show(app: App, key: str | None, origin: bool, output: str) -> None:
    """Show every setting in force, or those of KEY, as in `prices`; a secret is never shown.

    A flag of a command goes before the environment, that before config.yaml.
    """
    from planner.settings import settings
    from providers.errors import UsageError

    found = settings(app.directories, app.config, os.environ, Path.home())
    chosen = [row for row in found if key is None or row.key == key or row.key.startswith(f"{key}.")]
    if not chosen:
        raise UsageError(f"there is no setting `{key}`", hint="`plan config show` lists them")
    if output == "json":
        file = app.directories.config_file
        payload = {"file": str(file), "exists": file.exists(), "settings": [row._asdict() for row in chosen]}
        emit_json("config", payload, now=app.now())
    else:
        click.echo("\n".join(_lines(chosen, origin)))


def _lines(found: list[Setting], origin: bool) -> list[str]:
    keys, values = max(len(row.key) for row in found), max(len(row.value or "-") for row in found)
    lines = []
    for row in found:
        end = f"  {row.source or row.origin}" if origin else ""
        lines.append(f"{row.key:<{keys}}  {row.value or '-':<{values if origin else 0}}{end}".rstrip())
    return lines
