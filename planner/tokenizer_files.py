"""Finds and loads a model's own tokenizer if it is on this machine; the only module that imports `tokenizers`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

FILE_NAME = "tokenizer.json"


def find_tokenizer(model: str, base_dir: Path = Path()) -> Path | None:
    """The model's tokenizer.json: in its directory, or in the hub's cache; None if it is not here.

    Args:
        model: Directory, or hub id.
        base_dir: Directory that a relative path starts from.
    """
    local = Path(base_dir, Path(model).expanduser(), FILE_NAME)
    if local.is_file():
        return local
    snapshots = _hub_cache() / f"models--{model.replace('/', '--')}" / "snapshots"
    found = sorted(snapshots.glob(f"*/{FILE_NAME}"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def _hub_cache() -> Path:
    """As huggingface_hub finds it."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(home, "hub").expanduser()


def is_installed() -> bool:
    """Whether `tokenizers` can be imported; does not import it."""
    return find_spec("tokenizers") is not None


def load_counter(path: Path) -> Callable[[Sequence[str]], list[int]] | None:
    """A function that counts tokens of texts, None if the file is no tokenizer that this machine can read."""
    if not is_installed():
        return None
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception:  # the library raises the bare class for every damaged file
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(one.ids) for one in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    return count
