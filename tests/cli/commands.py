"""All commands of the command line."""

from __future__ import annotations

from collections.abc import Iterator

import click

from planner.cli.main import cli

Words = tuple[str, ...]


def leaves() -> Iterator[tuple[Words, click.Command]]:
    """Every command that does something by itself, with its words: also a group that runs without a subcommand."""
    return _leaves(cli, click.Context(cli), ())


def _leaves(
    command: click.Command, context: click.Context, words: Words
) -> Iterator[tuple[Words, click.Command]]:
    if not isinstance(command, click.Group):
        yield words, command
        return
    if command.invoke_without_command:
        yield words, command
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        yield from _leaves(inner, click.Context(inner, parent=context, info_name=name), (*words, name))
