"""`plan export`: a spec as another tool's configuration."""

from __future__ import annotations

from pathlib import Path

import click

from planner.cli.output import echo_err
from providers.errors import UsageError


@click.command("export", epilog="\b\nExample:\n  plan export --to axolotl spec.yaml > axolotl.yml")
@click.argument("spec_file", metavar="SPEC", type=click.Path(path_type=Path))
@click.option("--to", "tool", type=click.Choice(["axolotl"]), required=True, help="Whose configuration.")
@click.option("--gpus", type=click.IntRange(1), default=1, show_default=True, help="GPUs it will run on.")
def command(spec_file: Path, tool: str, gpus: int) -> None:
    """Print SPEC as the configuration of another tool; what has no counterpart is told on stderr."""
    from planner.convert import to_axolotl
    from planner.convert.writing import plain_yaml, remarks
    from planner.specfile import load_spec

    try:
        conversion = to_axolotl(load_spec(spec_file).spec, gpus=gpus)
    except ValueError as error:
        raise UsageError(str(error), path=str(spec_file)) from None
    click.echo(
        f"# Made from {spec_file.name} for {tool}.\n{plain_yaml(conversion.sections)}{remarks(conversion)}",
        nl=False,
    )
    for key, reason in sorted(conversion.left.items()):
        echo_err(f"not taken over: {key}: {reason}")
