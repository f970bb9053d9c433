"""`plan schema`: the JSON Schemas of what tuneplan reads and writes."""

from __future__ import annotations

from importlib.resources import files

import click

from providers.errors import UsageError


@click.command(
    "schema",
    epilog="\b\nExample:\n  plan schema > spec.schema.json",
    short_help="Print the JSON Schema of the spec or of an answer",
)
@click.argument("name", default="spec")
def command(name: str) -> None:
    """Print a JSON Schema: of the spec, or of the JSON that a command answers.

    For completion in an editor, keep it in a file: `plan schema > spec.schema.json`, and name that file in
    the first line of the spec: `# yaml-language-server: $schema=spec.schema.json`.
    """
    names = schema_names()
    if name not in names:
        raise UsageError(f"there is no schema `{name}`", hint=f"there are: {', '.join(names)}")
    click.echo(schema_text(name), nl=False)


def schema_names() -> list[str]:
    """Names of the shipped schemas, sorted."""
    folder = files("planner").joinpath("schemas")
    return sorted(
        entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json")
    )


def schema_text(name: str) -> str:
    """A shipped schema as it lies in the package."""
    return files("planner").joinpath("schemas", f"{name}.json").read_text(encoding="utf-8")
