"""Copies a finished model to where the job wants it, in the place of the one that lies there."""

from __future__ import annotations

import json
from pathlib import Path

from jobs.console import say
from jobs.manifest import is_known_file
from providers.errors import StoreAccessError
from providers.object_store import ObjectStore
from providers.stores import open_store

_INDEX = "model.safetensors.index.json"


def copy_output(output: Path, uri: str) -> None:
    """Put the model in the place of the one that lies there, unless its guard was not kept.

    Of the former one nothing stays that would be loaded with the new one, an adapter above all. Its weights go first
    and the new ones come last: what is read in between has none, and is no mixture.
    """
    guard = json.loads((output / "result.json").read_text(encoding="utf-8")).get("guard")
    if guard is not None and not guard["passed"]:
        say("the finished model is not copied: it is worse on the general hold-out than the guard allows")
        return
    store = open_store(uri)
    files = {path.name: path for path in output.iterdir() if is_known_file(path.name)}
    there = _lying_there(store) - {"README.md"}
    for name in sorted(name for name in there if name not in files or _is_weights(name)):
        store.delete(name)
    for name in sorted(files, key=lambda name: (_is_weights(name), name)):
        store.delete(name)  # one of the same size would be taken for this one
        store.put_file(name, files[name])


def _lying_there(store: ObjectStore) -> set[str]:
    """Files of models; where nothing may be listed, those by which a former model would be loaded."""
    try:
        return {one.key for one in store.list("") if is_known_file(one.key)}
    except StoreAccessError:
        return {"adapter_config.json", "adapter_model.safetensors", "model.safetensors", _INDEX}


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors")
