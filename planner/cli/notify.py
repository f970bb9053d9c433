"""`plan notify`: tell people how runs go, through the addresses they named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from planner.cli.context import App, pass_app
from planner.cli.desk import clock
from planner.cli.notify_text import delivery_document, delivery_text
from planner.cli.output import echo_err, emit_json, output_option
from planner.places import Places
from providers.errors import TuneplanError, UsageError

if TYPE_CHECKING:
    from planner.outbox import Delivery

_EXAMPLE = """\b
Examples:
  plan notify test SLACK_URL
  plan notify send
  plan notify list -o json
"""


@click.group("notify", epilog=_EXAMPLE)
def command() -> None:
    """Tell people when a run starts, is taken away, nears its cap, ends, or needs them.

    Recipients are names of environment variables that hold addresses of apprise (chat, mail, web hooks): `notify` in
    the spec, or in config.yaml for everything else. `plan monitor run` sends; addresses are kept nowhere.
    """


@command.command("test", epilog="\b\nExample:\n  plan notify test SLACK_URL")
@click.argument("names", nargs=-1)
@output_option("table", "json")
@pass_app
def test_command(app: App, names: tuple[str, ...], output: str) -> None:
    """Send a message to NAMES, or to those of config.yaml, and say whether it was taken."""
    from providers.notifier import send

    recipients = names or app.config.notify
    if not recipients:
        hint = "plan notify test NAME_OF_A_VARIABLE, or `notify` in config.yaml"
        raise UsageError("nobody is named", hint=hint)
    for name in recipients:
        send(name, "tuneplan: a test", "Messages of tuneplan arrive here.")
        if output != "json":
            click.echo(f"{name}: taken")
    if output == "json":
        emit_json("notify_test", {"taken_by": list(recipients)}, now=app.now())


@command.command("send", epilog="\b\nExample:\n  plan notify send")
@output_option("table", "json")
@pass_app
def send_command(app: App, output: str) -> None:
    """Send what is due now, as a monitor at work does by itself; for cron. Exit 1 if anything was not taken."""
    rows = deliver_due(app)
    _answer(app, rows, output)
    failed = [row for row in rows if row.error is not None]
    if failed:
        told = f"{len(failed)} of {len(rows)} messages were not delivered"
        raise TuneplanError(told, hint="plan notify list --undelivered", code="not_delivered")


@command.command("list", epilog="\b\nExample:\n  plan notify list --limit 10")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most this many.")
@click.option("--undelivered", is_flag=True, help="Only those that were tried in vain.")
@output_option("table", "json")
@pass_app
def list_command(app: App, limit: int, undelivered: bool, output: str) -> None:
    """List messages, newest first, and what became of them."""
    from planner.outbox import Outbox

    with Outbox(Places(app.directories.state).ledger) as outbox:
        outbox.collect(app.config.notify)
        rows = outbox.undelivered()[::-1][:limit] if undelivered else outbox.recent(limit)
    _answer(app, rows, output)


def deliver_due(app: App) -> list[Delivery]:
    """Collect what happened and send what is due."""
    from planner.outbox import Outbox

    with Outbox(Places(app.directories.state).ledger) as outbox:
        outbox.collect(app.config.notify)
        return outbox.deliver(_send, clock(app))


def _send(recipient: str, title: str, text: str, bad: bool) -> None:
    from providers.notifier import send

    send(recipient, title, text, bad=bad)


def _answer(app: App, rows: list[Delivery], output: str) -> None:
    if output == "json":
        emit_json("notify", {"messages": [delivery_document(row) for row in rows]}, now=app.now())
        return
    for row in rows:
        click.echo(delivery_text(row))
    if not rows:
        echo_err("no messages")
