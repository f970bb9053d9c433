"""`plan init`: writes a commented spec."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import click

from planner.cli.context import App, pass_app
from planner.cli.output import echo_err
from planner.cli.schema import schema_text
from planner.spec_template import SCHEMA_FILE, spec_template
from providers.errors import UsageError

_TASKS = ("sft", "dpo", "reward", "kto", "grpo")
_MODEL = "meta-llama/Llama-3.1-8B"


@click.command(
    "init",
    epilog="\b\nExamples:\n  plan init --yes --model Qwen/Qwen2.5-7B\n  plan init --from axolotl.yml --gpus 8",
    short_help="Write a commented spec.yaml",
)
@click.argument("path", type=click.Path(path_type=Path), default="spec.yaml")
@click.option("--name", help="Name of the run; default: the directory's.")
@click.option("--model", help=f"Hugging Face id or directory of the base model; default: {_MODEL}.")
@click.option("--data", help="Training file, relative to the spec.")
@click.option("--from", "source", metavar="SOURCE", help="axolotl.yml, a TRL configuration, or a model's id.")
@click.option("--task", type=click.Choice(_TASKS), help="With --from a TRL file, which does not name it.")
@click.option(
    "--gpus", type=click.IntRange(1), default=1, help="With --from: GPUs the file was meant for; default 1."
)
@click.option("-y", "--yes", is_flag=True, help="Ask nothing, take the defaults.")
@pass_app
def command(
    app: App,
    /,
    path: Path,
    name: str | None,
    model: str | None,
    data: str | None,
    source: str | None,
    task: str | None,
    gpus: int,
    yes: bool,
) -> None:
    """Write a commented spec to PATH (default spec.yaml), ready for `plan estimate`.

    The JSON Schema goes beside it as .tuneplan-schema.json, so that editors complete and check the spec
    without a network. An existing spec is never overwritten.
    """
    if path.is_dir():
        path = path / "spec.yaml"
    if path.exists():
        raise _exists(path)
    ask = not yes and sys.stdin.isatty()
    name = name or _answer("Name of the run", _slug(path.absolute().parent.name), ask)
    if source is not None:
        from planner.cli.importing import imported_spec

        if model is not None or data is not None:
            raise UsageError("--from already says what --model and --data would", hint="leave them out")
        text = imported_spec(source, app.models(), name=name, task=task, gpus=gpus)
    else:
        text = _from_answers(path, name, model, data, ask)
    _check(text, path)
    _write(path, text)
    echo_err(f"wrote {path} and {path.parent / SCHEMA_FILE}\nnext: plan estimate {shlex.quote(str(path))}")


def _from_answers(path: Path, name: str, model: str | None, data: str | None, ask: bool) -> str:
    model = model or _answer("Base model", _MODEL, ask)
    data = data or _answer("Training file, empty if there is none yet", "", ask) or None
    return spec_template(file=path.name, name=name, model=model, train=data)


def _answer(question: str, default: str, ask: bool) -> str:
    if not ask:
        return default
    answer: str = click.prompt(question, default=default, err=True, show_default=bool(default))
    return answer


def _slug(text: str) -> str:
    """A name of a run made of any text."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63] or "my-run"


def _check(text: str, path: Path) -> None:
    """Refuse before anything is written.

    Raises:
        SpecError: If an answer makes no valid spec.
    """
    from planner.spec import FineTuneSpec
    from planner.validation import validate
    from planner.yaml_source import parse_yaml

    validate(parse_yaml(text, str(path)), FineTuneSpec)


def _write(path: Path, text: str) -> None:
    """Write the spec, never over another, and the schema beside it.

    Raises:
        UsageError: If it exists by now, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
            except OSError:
                path.unlink()
                raise
        (path.parent / SCHEMA_FILE).write_text(schema_text("spec"), encoding="utf-8")
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", path=str(path)) from None


def _exists(path: Path) -> UsageError:
    return UsageError(
        f"{path} exists already", hint="name another file: `plan init other.yaml`", path=str(path)
    )
