"""Models known by name, and models read from a local config.json."""

from __future__ import annotations

import difflib
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from planner.architecture.hf_config import read_config
from planner.architecture.model import ModelArchitecture
from planner.architecture.stored import completed, stored_parameters
from providers.errors import UsageError

_MODELS = Path(__file__).parents[1] / "data" / "models.json"


@lru_cache(maxsize=1)
def _registry() -> dict[str, Any]:
    registry: dict[str, Any] = json.loads(_MODELS.read_text(encoding="utf-8"))
    return registry


@lru_cache(maxsize=1)
def _lower_names() -> dict[str, str]:
    ids = {name: name for name in _registry()["models"]} | _registry()["aliases"]
    names = {alias.lower(): name for alias, name in ids.items()}
    for alias, name in ids.items():
        names.setdefault(alias.split("/")[-1].lower(), name)
    return names


#: Organisations that publish others' models again under the same names, some of them with a quantised base.
_MIRRORS = frozenset({"nousresearch", "unsloth"})
_RENAMED = frozenset({"meta-llama", *_MIRRORS})  # Meta-Llama-3.1-8B became Llama-3.1-8B


def known_models() -> tuple[str, ...]:
    """Ids of the registry, sorted."""
    return tuple(sorted(_registry()["models"]))


def registered_model(name: str) -> str | None:
    """The registry's id for a name in any case, with or without the organisation; None if there is none.

    >>> registered_model("LLAMA-3.1-8b"), registered_model("llama-9")
    ('meta-llama/Llama-3.1-8B', None)
    >>> registered_model("unsloth/Meta-Llama-3.1-8B-bnb-4bit")
    'meta-llama/Llama-3.1-8B'
    """
    names, wanted = _lower_names(), name.lower()
    organisation, _, bare = wanted.partition("/")
    if organisation in _MIRRORS:
        bare = bare.removesuffix("-bnb-4bit").removesuffix("-unsloth")
    tried = [wanted]
    tried += [bare] if organisation in _MIRRORS else []
    tried += [bare.removeprefix("meta-")] if organisation in _RENAMED else []
    return next((names[one] for one in tried if one in names), None)


def load_architecture(
    model: str, base_dir: Path | None = None, revision: str | None = None
) -> ModelArchitecture:
    """Facts of a model by id, alias, or local path.

    Args:
        model: Hugging Face id (any case, with or without the organisation) or a directory or config.json.
        base_dir: What a relative path is relative to.
        revision: Kept as given.

    Raises:
        UsageError: If the model is not known, or its config is unreadable or incomplete.

    >>> load_architecture("llama-3.1-8b").id
    'meta-llama/Llama-3.1-8B'
    """
    path = (base_dir or Path()) / Path(model).expanduser()
    if _looks_local(model) or _exists(path):
        return replace(_from_path(path, model), revision=revision)
    name = registered_model(model)
    if name is None:
        raise _unknown(model)
    return replace(_known(name), revision=revision) if revision else _known(name)


@lru_cache(maxsize=256)
def _known(name: str) -> ModelArchitecture:
    facts = _facts(name)
    return read_config(facts, name, facts.get("source", "published configuration"))


def _facts(name: str) -> dict[str, Any]:
    """Fields of an entry; one that names another holds only where it differs (its length, its vocabulary)."""
    facts = dict(_registry()["models"][name])
    other = facts.pop("like", None)
    return facts if other is None else {**_facts(other), **facts}


def _looks_local(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.endswith(".json")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that no file can have
        return False


def model_config(model: str, base_dir: Path | None = None) -> dict[str, Any]:
    """The fields of a model's config.json, as far as they are known here.

    Args:
        model: As in `load_architecture`.
        base_dir: What a relative path is relative to.

    Raises:
        UsageError: As in `load_architecture`.
    """
    path = (base_dir or Path()) / Path(model).expanduser()
    if _looks_local(model) or _exists(path):
        return _config_at(path, model)
    name = registered_model(model)
    if name is None:
        raise _unknown(model)
    return _facts(name)


def _from_path(path: Path, model: str) -> ModelArchitecture:
    file = path / "config.json" if path.is_dir() else path
    arch = read_config(_config_at(path, model), model, str(file))
    return completed(arch, stored_parameters(file.parent)) if arch.published_type else arch


def _config_at(path: Path, model: str) -> dict[str, Any]:
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"there is no {file}",
            hint=maker_of(path) or "Give a directory that holds a config.json.",
            code="model_not_found",
            path="model.id",
        ) from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{file} is not a readable config.json: {error}", code="bad_model_config", path="model.id"
        ) from error
    if not isinstance(config, dict):
        raise UsageError(f"{file} does not hold a JSON object", code="bad_model_config", path="model.id")
    return config


def maker_of(folder: Path) -> str | None:
    """How to make a base model that is not there, where a script beside it does so, as in the examples."""
    script = folder.parent / "make_base.py"
    return f"`python {script}` makes it" if script.is_file() else None


def _unknown(model: str) -> UsageError:
    spelt = {id_.split("/")[-1].lower(): id_ for id_ in (*_registry()["aliases"], *_registry()["models"])}
    close = difflib.get_close_matches(model.lower().split("/")[-1], spelt, n=1, cutoff=0.6)
    guess = f"did you mean {spelt[close[0]]}? " if close else ""
    return UsageError(
        f"model {model!r} is not known",
        hint=f"{guess}Or give a directory with the model's config.json.",
        code="unknown_model",
        path="model.id",
    )
