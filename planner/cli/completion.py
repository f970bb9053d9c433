"""`plan completion`: the script that makes a shell complete `plan`."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

_EXAMPLE = """\b
Examples:
  plan completion bash >> ~/.bashrc
  plan completion zsh >> ~/.zshrc
  plan completion fish > ~/.config/fish/completions/plan.fish
"""
#: Click's name of the variable that asks a program for completions.
VARIABLE = "_PLAN_COMPLETE"


@click.command("completion", epilog=_EXAMPLE)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script for SHELL: commands, options, GPU names and run ids are completed."""
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"this version of click knows no completion for {shell}")
    complete = found(ctx.find_root().command, {}, "plan", VARIABLE)
    # not `complete.source()`: bash's starts a bash to look at its version, which need not be this machine's
    click.echo(ShellComplete.source(complete))
