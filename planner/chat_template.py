"""Whether a model can write the data's conversations: the worker ends where they meet one without a chat template, or
calls of tools meet one that leaves them out.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.data_check import calls_tools, talks
from planner.errors import Finding
from planner.spec import FineTuneSpec
from planner.specfile import model_ref
from providers.errors import TuneplanError

if TYPE_CHECKING:
    from providers.hub import HubAccess

_SETTINGS, _TOKENIZER = "tokenizer_config.json", "tokenizer.json"
_FILES = ("chat_template.jinja", "chat_template.json")
#: Mistral's own tokenizers write conversations without a template.
_OWN_WRITER = "tekken.json"
#: More templates than the one file, in a directory beside it: transformers may take one of them.
_MORE = "additional_chat_templates/"
#: How every template finds the calls of a message.
_CALLS = "tool_calls"


def untemplated_here(
    spec: FineTuneSpec, base_dir: Path, *, most_chars: int | None = None
) -> Iterator[Finding]:
    """A model in a directory of this machine that cannot write the data.

    Args:
        spec: Names both.
        base_dir: Directory that the spec's paths are relative to.
        most_chars: Look for calls of tools in the first rows of about so many characters, None for all.
    """
    model = model_ref(base_dir, spec.model.id)
    if model.kind != "path" or not talks(spec, base_dir):
        return
    folder = Path(model.value)
    try:
        names = {path.name for path in folder.iterdir()}
        if names.isdisjoint({_SETTINGS, _TOKENIZER, *_FILES}):
            return
        told = [(folder / name).read_text(encoding="utf-8") for name in _FILES if name in names]
        told += [path.read_text(encoding="utf-8") for path in sorted(folder.glob(f"{_MORE}*"))]
        if _SETTINGS in names:
            told += _in_settings(json.loads((folder / _SETTINGS).read_bytes()))
    except (OSError, ValueError, AttributeError):
        return  # what is not there or makes no sense says nothing
    yield from _findings(spec, base_dir, names, told, most_chars)


def template_warnings(spec: FineTuneSpec, base_dir: Path, *, most_chars: int) -> Iterator[tuple[str, str]]:
    """A warning for what `plan launch` will refuse, and the worker too, where the tokenizer is on this machine."""
    for finding in untemplated_here(spec, base_dir, most_chars=most_chars):
        ends = "a launch refuses it, and a worker would end before the first step (exit 78)"
        yield finding.code, f"cannot be trained on: {finding.message}; {ends}; {finding.hint}"


def untemplated_on_hub(spec: FineTuneSpec, base_dir: Path, access: HubAccess) -> Iterator[Finding]:
    """A model of the Hub that cannot write the data; nothing where the Hub does not tell."""
    if access.offline or not talks(spec, base_dir):
        return
    from providers.hub import HubRepository, file_names

    repository = HubRepository(access, spec.model.id, spec.model.revision or "main")
    try:
        info = repository.info()
        names, commit = file_names(info), str(info.get("sha"))
        if names.isdisjoint({_SETTINGS, *_FILES}):
            return
        given = [name for name in names if name in _FILES or name.startswith(_MORE)]
        told = [repository.text(commit, name) for name in sorted(given)]
        if _SETTINGS in names:
            told += _in_settings(repository.tokenizer_config(commit))
    except TuneplanError:
        return
    yield from _findings(spec, base_dir, names, told, None)


def _in_settings(settings: dict[str, Any]) -> list[str]:
    """The templates that a tokenizer's settings hold: one, several with names, or none."""
    given = settings.get("chat_template")
    return [json.dumps(given)] if given else []


def _findings(
    spec: FineTuneSpec, base_dir: Path, names: Collection[str], told: list[str], most_chars: int | None
) -> Iterator[Finding]:
    if _OWN_WRITER in names:
        return
    if not told:
        message = f"{spec.model.id} has no chat template, which data of messages needs"
        hint = "use an instruction-tuned model, or data with prompt and completion"
        yield Finding(message, path="model.id", code="no_chat_template", hint=hint)
    elif any(told) and not any(_CALLS in one for one in told) and calls_tools(spec, base_dir, most_chars):
        message = f"the chat template of {spec.model.id} leaves out calls of tools, which the data has"
        hint = "use a model whose template writes them, or write the calls into the texts of the messages"
        yield Finding(message, path="model.id", code="no_tool_template", hint=hint)
