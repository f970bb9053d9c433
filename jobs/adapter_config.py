"""An adapter's own configuration, as others shall find it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs.spec import JobSpec

_NAME = "adapter_config.json"
_BASE = "base_model_name_or_path"


def tidy_adapter(directory: Path, job: JobSpec) -> None:
    """Make the configuration that peft has written say the same whichever process and machine wrote it.

    Peft writes the names of its modules in the order of a set, which differs from process to process, and of a base
    that was brought to a rented machine the path there, which goes with the machine.
    """
    content = _read(directory)
    if content is None:
        return
    if isinstance(content.get("target_modules"), list):
        content["target_modules"].sort()
    _write(directory, content)
    if is_brought(job):
        name_base(directory, base_name(job))


def is_brought(job: JobSpec) -> bool:
    """Whether the base model was brought to where the job ran, from the machine that launched it."""
    return job.model.path is not None and not Path(job.model.path).is_absolute()


def base_name(job: JobSpec) -> str:
    """What the spec calls a base model of its own machine; as a path, since the Hub may have another of that name."""
    name = job.model.id
    return name if name.startswith(("/", "./", "../", "~")) or "://" in name else f"./{name}"


def name_base(directory: Path, base: str) -> None:
    """Say what an adapter's base model is, in its configuration and its card; nothing where there is no adapter."""
    content = _read(directory)
    before = None if content is None else content.get(_BASE)
    if content is None or not before or before == base:
        return
    _write(directory, content | {_BASE: base})
    card = directory / "README.md"
    if card.exists():
        card.write_text(card.read_text(encoding="utf-8").replace(before, base), encoding="utf-8")


def _read(directory: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads((directory / _NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content


def _write(directory: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    (directory / _NAME).write_text(text, encoding="utf-8")
