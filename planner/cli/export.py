"""`plan export`: a finished model with its card, or a spec as another tool's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.output import echo_err, emit_json, output_option
from providers.errors import UsageError

_EXAMPLES = """\b
Examples:
  plan export my-run --adapter --to ./my-adapter
  plan export my-run --merge --to hf://me/my-model
  LLAMA_CPP=./llama.cpp plan export my-run --gguf --to ./my-gguf
  plan export --to axolotl spec.yaml > axolotl.yml
"""
_TOOLS = ("axolotl",)
_Kind = Literal["adapter", "merge", "gguf"]


@click.command("export", epilog=_EXAMPLES)
@click.argument("source", metavar="RUN|SPEC", shell_complete=complete_run)
@click.option("--adapter", "kind", flag_value="adapter", help="RUN's adapter as it is, for peft.")
@click.option("--merge", "kind", flag_value="merge", help="One model: the adapter worked into the base.")
@click.option(
    "--gguf", "kind", flag_value="gguf",
    help="One GGUF file, by the converter in the directory LLAMA_CPP of llama.cpp.",
)  # fmt: skip
@click.option(
    "--to", "target", required=True, metavar="TARGET",
    help="New directory, prefix of a bucket as in s3://bucket/prefix, or hf://owner/name; of a SPEC: axolotl.",
)  # fmt: skip
@click.option("--public", is_flag=True, help="Let everybody read it on the Hub. Default: private.")
@click.option("--license", "license_name", help="Licence of the base model, for the card.")
@click.option("--even-if-regressed", is_flag=True, help="Also a model that its guard refuses.")
@click.option(
    "--gpus", type=click.IntRange(1), default=1, show_default=True, help="Of a SPEC: GPUs it will run on."
)
@output_option("table", "json")
@pass_app
def command(
    app: App,
    source: str,
    kind: _Kind | None,
    target: str,
    public: bool,
    license_name: str | None,
    even_if_regressed: bool,
    gpus: int,
    output: str,
) -> None:
    """Hand a finished model over with a model card, or print a SPEC as the configuration of another tool.

    The card says what the model was made of, how good base and tuned model are, and what it cost.
    """
    if target in _TOOLS:
        if kind is not None:
            raise UsageError(f"--to {target} is for a spec", hint="name a directory, s3:// or hf://")
        _convert(Path(source), target, gpus)
        return
    if kind is None:
        raise UsageError("what to export?", hint="--adapter, --merge or --gguf; for a spec `--to axolotl`")
    document = _hand_over(app, source, kind, target, license_name, public=public, anyway=even_if_regressed)
    if output == "json":
        emit_json("export", document, now=app.now())
    else:
        click.echo(document["to"])


def _hand_over(
    app: App, name: str, kind: str, target: str, license_name: str | None, *, public: bool, anyway: bool
) -> dict[str, object]:
    import os

    from planner.cli.desk import open_ledger
    from planner.gguf import find_converter
    from planner.hand_over import Order, check_target, deliver, made
    from planner.places import Places
    from providers.hub import HubAccess

    converter = find_converter(os.environ) if kind == "gguf" else None
    check_target(target, public=public)
    with open_ledger(app) as ledger:
        run = ledger.find(name)
    order = Order(
        run, kind != "adapter", license_name or _license(app, run.terms.job_json), converter, anyway
    )
    with made(order, Places(app.directories.state), echo_err) as model:
        files = sorted(path for path in model.rglob("*") if path.is_file())
        size = sum(path.stat().st_size for path in files)
        message = f"{run.terms.name}: run {run.run_id}"
        access = HubAccess.of(os.environ, Path.home())
        address = deliver(model, target, access, public=public, message=message)
    return {"run_id": run.run_id, "kind": kind, "to": address, "files": len(files), "bytes": size,
            "license": order.license, "public": public}  # fmt: skip


def _license(app: App, job_json: str) -> str | None:
    """As the base model's own card says, None if it does not or cannot be asked."""
    from jobs.spec import JobSpec
    from providers.errors import TuneplanError

    model = JobSpec.from_json(job_json).model
    if model.path is not None:
        return _written(Path(model.path) / "README.md")
    try:
        publication = app.models()(model.id, Path(), model.revision).publication
    except TuneplanError as error:
        echo_err(f"the licence of {model.id} is unknown: {error.message}")
        return None
    return None if publication is None else publication.license


def _written(card: Path) -> str | None:
    """`license:` of a card's front matter."""
    try:
        lines = card.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    head = lines[1 : lines.index("---", 1)] if lines[:1] == ["---"] and "---" in lines[1:] else []
    found = [line.partition(":")[2].strip() for line in head if line.startswith("license:")]
    return found[0] if found and found[0] else None


def _convert(spec_file: Path, tool: str, gpus: int) -> None:
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
