"""The files of a data set on the Hugging Face Hub, at one commit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from providers.errors import StorageError, UsageError
from providers.hub import REPOSITORY_ID, HubAccess, HubRepository, file_names, is_commit, license_of

_DATA_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".txt")
_SPLIT_WORDS = {"validation": ("validation", "valid", "val", "dev"), "test": ("test", "testing", "eval"),
                "train": ("train", "training")}  # fmt: skip


@dataclass(frozen=True, slots=True)
class HubData:
    """Files of a data set at one commit.

    Attributes:
        commit: 40 hexadecimal digits.
        license: As its card says, None if it does not.
        urls: Of the files of the split asked for, in order.
    """

    commit: str
    license: str | None
    urls: tuple[str, ...]


def find_data(access: HubAccess, data_id: str, revision: str | None, split: str) -> HubData:
    """The files of a data set's split.

    Args:
        access: Where and who.
        data_id: As in `org/name`.
        revision: Commit, tag or branch; the default branch if None.
        split: train, test, validation ...

    Raises:
        UsageError: There is no such data set, revision or split, or its files cannot be told apart.
        CredentialsError: It is gated or private.
        StorageError: No answer, or one that makes no sense.
    """
    if not REPOSITORY_ID.fullmatch(data_id):
        raise UsageError(
            f"{data_id!r} is not a Hugging Face data set", code="data_missing", path="data.train"
        )
    question = HubRepository(access, data_id, revision or "main", "dataset")
    info = question.info()
    commit = str(info.get("sha"))
    if not is_commit(commit):
        raise StorageError(f"the Hub's answer about {data_id} names no commit", code="bad_answer")
    names = split_files(file_names(info), split, info.get("cardData"))
    if not names:
        known = ", ".join(sorted(file_names(info))[:8]) or "none"
        message = f"{data_id} has no files that can be told to be its split {split!r}"
        raise UsageError(message, code="data_missing", hint=f"its files are {known}", path="data.train")
    return HubData(commit, license_of(info), tuple(question.file_url(commit, name) for name in names))


def split_files(names: Iterable[str], split: str, card: Any = None) -> list[str]:
    """The data files of a split: as the card says, else by their names, else the only one there is.

    >>> split_files(["README.md", "data/train-0.parquet", "data/test-0.parquet"], "train")
    ['data/train-0.parquet']
    """
    files = sorted(name for name in names if name.lower().endswith(_DATA_SUFFIXES))
    patterns = _card_patterns(card, split)
    if patterns:
        return [name for name in files if any(fnmatch(name, pattern) for pattern in patterns)]
    words = _SPLIT_WORDS.get(split, (split,))
    named = [name for name in files if set(words) & set(re.split(r"[^a-z0-9]+", name.lower()))]
    return named or (files if len(files) == 1 and split == "train" else [])


def _card_patterns(card: Any, split: str) -> list[str]:
    """Of the default configuration, or the only one."""
    configs = card.get("configs") if isinstance(card, dict) else None
    if not isinstance(configs, list):
        return []
    chosen = [
        one for one in configs if isinstance(one, dict) and one.get("config_name") == "default"
    ] or configs[:1]
    found: list[str] = []
    for entry in chosen[0].get("data_files", []) if isinstance(chosen[0], dict) else []:
        if isinstance(entry, dict) and entry.get("split") == split:
            path = entry.get("path")
            found += [str(one) for one in (path if isinstance(path, list) else [path])]
    return found
