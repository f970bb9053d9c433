"""Whether a model can write conversations: the worker ends where data of messages meets one without a chat template."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from planner.data_check import talks
from planner.errors import Finding
from planner.spec import FineTuneSpec
from planner.specfile import model_ref
from providers.errors import TuneplanError

if TYPE_CHECKING:
    from providers.hub import HubAccess

_SETTINGS, _TOKENIZER = "tokenizer_config.json", "tokenizer.json"
_FILES = frozenset({"chat_template.jinja", "chat_template.json"})
#: Mistral's own tokenizers write conversations without a template.
_OWN_WRITER = "tekken.json"


def untemplated_here(spec: FineTuneSpec, base_dir: Path) -> Iterator[Finding]:
    """A model in a directory of this machine that has none, for data that needs one."""
    model = model_ref(base_dir, spec.model.id)
    if model.kind != "path" or not talks(spec, base_dir):
        return
    folder = Path(model.value)
    try:
        names = {path.name for path in folder.iterdir()}
        if _has_template(names) or names.isdisjoint({_SETTINGS, _TOKENIZER}):
            return
        told = _SETTINGS in names and json.loads((folder / _SETTINGS).read_bytes()).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return  # what is not there or makes no sense says nothing
    if not told:
        yield _finding(spec)


def template_warnings(spec: FineTuneSpec, base_dir: Path) -> Iterator[tuple[str, str]]:
    """A warning for what `plan launch` will refuse, and the worker too, where the tokenizer is on this machine."""
    for finding in untemplated_here(spec, base_dir):
        ends = "a launch refuses it, and a worker would end before the first step (exit 78)"
        yield finding.code, f"cannot be trained on: {finding.message}; {ends}; {finding.hint}"


def untemplated_on_hub(spec: FineTuneSpec, base_dir: Path, access: HubAccess) -> Iterator[Finding]:
    """A model of the Hub that has none, for data that needs one; nothing where the Hub does not tell."""
    if access.offline or not talks(spec, base_dir):
        return
    from providers.hub import HubRepository, file_names

    repository = HubRepository(access, spec.model.id, spec.model.revision or "main")
    try:
        info = repository.info()
        names = file_names(info)
        if _has_template(names) or _SETTINGS not in names:
            return
        told = repository.tokenizer_config(str(info.get("sha"))).get("chat_template")
    except TuneplanError:
        return
    if not told:
        yield _finding(spec)


def _has_template(names: Collection[str]) -> bool:
    return _OWN_WRITER in names or not _FILES.isdisjoint(names)


def _finding(spec: FineTuneSpec) -> Finding:
    message = f"{spec.model.id} has no chat template, which data of messages needs"
    hint = "use an instruction-tuned model, or data with prompt and completion"
    return Finding(message, path="model.id", code="no_chat_template", hint=hint)
