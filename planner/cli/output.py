"""What every command uses to answer: stdout holds the payload and nothing else, stderr holds the rest.

A command looks like this::

    @click.command("runs", short_help="List runs")
    @output_option("table", "json")
    @pass_app
    def command(app: App, output: str) -> None:
        "List runs."
        runs = ...
        if output == "json":
            emit_json("runs", {"runs": [...]})
        else:
            click.echo(render_runs(runs))

- `emit_json(name, payload)` writes the one JSON object of stdout; `schema`, `schema_version`,
  `tuneplan_version` and `generated_at` come first. An error raised after it changes the exit code and stderr,
  but adds nothing to stdout.
- `-o yaml` and `-o md` are the same document in other clothes: the command sees `json`, `emit_json` writes it as asked.
- `usd_text(value)` makes the decimal strings that `*_usd` and `*_usd_per_h` fields hold; None stays None.
- `echo_err(text)` writes to stderr; `confirm(question, yes=...)` asks there.
- Errors are raised, never printed: `planner.cli.errors` turns them into text, JSON and the exit code.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

import planner
from planner.money import usd_text
from providers.errors import UsageError

__all__ = [
    "at_text",
    "confirm",
    "document",
    "echo_err",
    "emit_json",
    "format_asked",
    "json_text",
    "output_option",
    "rendered",
    "usd_text",
]

SCHEMA_VERSION = 1
PAYLOAD_WRITTEN = "tuneplan.payload_written"

#: Formats that every command has beside its own, each a rendering of its JSON document.
RENDERED = ("yaml", "md")
_FORMAT = "tuneplan.format"

AnyCallable = TypeVar("AnyCallable", bound=Callable[..., Any])


def output_option(*formats: str) -> Callable[[AnyCallable], AnyCallable]:
    """A click option `-o/--output` of the given formats, yaml and md; the first is the default.

    Passed on as `output`, which is `json` where its document is only to be rendered in another way.
    """
    return click.option(
        "-o",
        "--output",
        type=click.Choice((*formats, *RENDERED)),
        default=formats[0],
        show_default=True,
        callback=_remember,
        help="Format of the answer on stdout.",
    )


def _remember(context: click.Context, parameter: click.Parameter, value: str) -> str:
    context.meta[_FORMAT] = value
    return "json" if value in RENDERED else value


def format_asked() -> str:
    """The format that was asked for, `yaml` and `md` included; json where no option says another."""
    context = click.get_current_context(silent=True)
    return "json" if context is None else str(context.meta.get(_FORMAT, "json"))


def document(name: str, payload: Mapping[str, Any], *, now: datetime | None = None) -> dict[str, Any]:
    """The payload with the four keys that every JSON answer starts with.

    Args:
        name: Without the prefix, as in `estimate`.
        payload: Plain JSON types; None is null.
        now: Time of the answer, UTC; default the clock.
    """
    return {
        "schema": f"tuneplan/{name}",
        "schema_version": SCHEMA_VERSION,
        "tuneplan_version": planner.__version__,
        "generated_at": at_text(now or datetime.now(UTC)),
        **payload,
    }


def json_text(value: Any) -> str:
    """Readable JSON in ASCII, whatever the terminal; refuses NaN and infinity, which JSON does not have.

    Raises:
        ValueError: For a number that is not finite.
    """
    return json.dumps(value, indent=2, allow_nan=False)


def emit_json(name: str, payload: Mapping[str, Any], *, now: datetime | None = None) -> None:
    """Write the one JSON object of stdout, or the same as YAML or Markdown.

    Raises:
        RuntimeError: If one was written already.
        ValueError: For a number that is not finite.
    """
    context = click.get_current_context(silent=True)
    if context is not None:
        if context.meta.get(PAYLOAD_WRITTEN):
            raise RuntimeError("a second JSON object would go to stdout")
        context.meta[PAYLOAD_WRITTEN] = True
    click.echo(rendered(document(name, payload, now=now), format_asked()))


def rendered(value: Mapping[str, Any], form: str) -> str:
    """A document as JSON, or in one of the formats of `RENDERED`."""
    text = json_text(value)  # first, whatever the format: NaN and foreign types are refused
    if form == "yaml":
        from planner.cli.as_yaml import yaml_text

        return yaml_text(json.loads(text))
    if form == "md":
        from planner.cli.as_markdown import markdown_text

        return markdown_text(json.loads(text))
    return text


def at_text(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds and Z.

    >>> at_text(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02T03:04:05Z'
    """
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def echo_err(text: str) -> None:
    """Write a line to stderr."""
    click.echo(text, err=True)


def confirm(question: str, *, yes: bool, flag: str = "--yes") -> None:
    """Go on only if the person agrees, on stderr so that stdout stays clean.

    Args:
        question: What will happen if they say yes.
        yes: The flag was given: do not ask.
        flag: Its name, for the error.

    Raises:
        UsageError: Nobody can be asked because stdin is no terminal.
        click.Abort: They said no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody can be asked here", hint=f"pass `{flag}` to agree beforehand")
    click.confirm(question, abort=True, err=True)
