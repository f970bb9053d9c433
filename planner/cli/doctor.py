"""`plan doctor`: what is missing or wrong around tuneplan, and how to mend it."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from shutil import get_terminal_size

import click

from planner.cli.context import App, pass_app
from planner.cli.output import emit_json, output_option
from planner.config import PricesConfig
from planner.doctor import Check, examine, worst
from planner.errors import SpecError

#: Something must be mended before money is spent.
BLOCKED = 4
_SIGNS = {"ok": "ok", "note": "-", "warning": "WARNING", "blocking": "BLOCKING"}


@click.command("doctor", epilog="\b\nExample:\n  plan doctor\n  plan doctor -o json")
@output_option("table", "json")
@pass_app
@click.pass_context
def command(ctx: click.Context, app: App, output: str) -> None:
    """Check this installation: Python, disk, run database, prices, extras and credentials (by name only).

    Every finding has a code and a fix. Exit 4 if one of them is blocking.
    """
    config, prices = _config(app)
    home, max_age_s = Path.home(), prices.max_age_s
    checks = sorted(
        [config, *examine(app.directories, app.now(), os.environ, home, max_age_s, prices.overrides)],
        key=lambda check: check.code,
    )
    level = worst(checks)
    if output == "json":
        emit_json("doctor", {"worst": level, "checks": [asdict(check) for check in checks]}, now=app.now())
    else:
        click.echo(render_checks(checks, get_terminal_size().columns if sys.stdout.isatty() else None))
    if level == "blocking":
        ctx.exit(BLOCKED)


def _config(app: App) -> tuple[Check, PricesConfig]:
    """What is to be said of config.yaml, and what it says of prices."""
    path = app.directories.config_file
    try:
        prices = app.config.prices
    except SpecError as error:
        message = "; ".join(str(finding) for finding in error.findings)
        return Check("P004", "config.yaml", "blocking", message, f"correct {path}"), PricesConfig()
    said = str(path) if path.exists() else "none, defaults hold"
    return Check("P004", "config.yaml", "ok", said), prices


def render_checks(checks: Iterable[Check], width: int | None = None) -> str:
    """One line a check, and its fix below it; wrapped to a terminal's width if there is one."""
    lines = []
    for check in checks:
        lines += _wrapped(
            f"{check.code}  {_SIGNS[check.level]:<8}  {check.subject:<15}  ", check.message, width
        )
        if check.fix is not None:
            lines += _wrapped(f"{'':>33}fix: ", check.fix, width)
    return "\n".join(lines)


def _wrapped(head: str, text: str, width: int | None) -> list[str]:
    """A text behind its head, with what does not fit below its beginning; no command is cut in two at a hyphen."""
    if width is None:
        return [head + text]
    lines = textwrap.wrap(text, max(width - len(head), 20), break_long_words=False, break_on_hyphens=False)
    return [(" " * len(head) if number else head) + line for number, line in enumerate(lines)]
