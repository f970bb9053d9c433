"""What is handed over lies alone: beside another model it would be taken for a part of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.hand_over import _to_store
from providers.directory_store import DirectoryStore
from providers.errors import StorageError, UsageError
from providers.object_store import Sent, ignore


def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    for name in ("adapter_model.safetensors", "README.md", "tokenizer.json"):
        (tmp_path / "model" / name).write_text(name)
    return tmp_path / "model"


def test_a_prefix_that_is_in_use_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "there")
    store.put("model-00007-of-00009.safetensors", b"another model")
    with pytest.raises(UsageError, match=r"holds model-00007-of-00009\.safetensors already"):
        _to_store(model(tmp_path), store)
    assert [row.key for row in store.list("")] == ["model-00007-of-00009.safetensors"]


class Full(DirectoryStore):
    """A store whose disk is full at the second file."""

    full = True

    def put_file(self, key: str, source: Path, sent: Sent = ignore) -> bool:
        if self.full and key != "README.md":
            raise StorageError("no room left")
        return super().put_file(key, source, sent)


def test_what_was_cut_off_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    store, made = Full(tmp_path / "there"), model(tmp_path)
    with pytest.raises(StorageError, match="no room left"):
        _to_store(made, store)
    assert list(store.list("")) == []
    store.full = False
    assert _to_store(made, store) == store.uri
    assert len(list(store.list(""))) == 3
