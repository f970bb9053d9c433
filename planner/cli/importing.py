"""`plan init --from`: reads another tool's configuration, or a model's id, and makes a spec of it."""

from __future__ import annotations

from pathlib import Path

from planner.cli.output import echo_err
from planner.convert import Conversion, from_axolotl, from_model, from_trl, is_axolotl, is_trl, spec_yaml
from planner.model_facts import ModelSource
from planner.yaml_source import read_yaml
from providers.errors import UsageError

_SUFFIXES = (".yml", ".yaml", ".json")


def imported_spec(source: str, models: ModelSource, *, name: str, task: str | None, gpus: int) -> str:
    """Text of the spec; what was assumed or left out is told on stderr and stands in it as comments.

    Args:
        source: A file of axolotl or TRL, or a model's id.
        models: Who knows the model.
        name: Of the run.
        task: For TRL, whose files do not name it.
        gpus: Number that the configuration was meant for.

    Raises:
        UsageError: It is neither, or holds values that are not understood.
        SpecError: It is no YAML.
    """
    conversion = _converted(source, models, task, gpus)
    train = conversion.sections.get("data", {}).get("train")
    if train is not None and not Path(train).is_file():
        from providers.web import shown_address

        conversion.notes.append(
            f"{shown_address(train)} is no file here: fetch it (`plan data fetch`), or give data.samples and"
            " data.tokens_per_sample"
        )
    for note in conversion.notes:
        echo_err(f"note: {note}")
    for key, reason in sorted(conversion.left.items()):
        echo_err(f"not taken over: {key}: {reason}")
    return spec_yaml(conversion, name=name, origin=Path(source).name)


def _converted(source: str, models: ModelSource, task: str | None, gpus: int) -> Conversion:
    path = Path(source)
    if not path.is_file() and path.suffix.lower() not in _SUFFIXES:
        return from_model(source, models)
    given = read_yaml(path).data
    try:
        if is_axolotl(given):
            return from_axolotl(given, gpus=gpus)
        if is_trl(given):
            return from_trl(given, gpus=gpus, task=task)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        message = f"{source} holds a value that is not understood: {error}"
        raise UsageError(message, path=source) from error
    hint = "axolotl's files have `base_model`, TRL's have `model_name_or_path`"
    raise UsageError(f"{source} is no configuration of axolotl or TRL", hint=hint, path=source)
