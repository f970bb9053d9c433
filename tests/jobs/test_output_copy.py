"""A finished model takes the place of the one that lies where the job wants it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import pytest

from jobs.output_copy import copy_output
from providers.directory_store import DirectoryStore
from providers.errors import StoreAccessError

INDEX = "model.safetensors.index.json"
FORMER = ("adapter_config.json", "adapter_model.safetensors", INDEX, "README.md", "notes.txt")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    output = tmp_path / "output"
    output.mkdir()
    (output / "result.json").write_text(json.dumps({"guard": None}))
    for name in ("config.json", "model.safetensors"):
        (output / name).write_text("new")
    return output


def refused(*_: object) -> NoReturn:
    raise StoreAccessError("list: access denied")


@pytest.mark.parametrize("may_list", [True, False])
def test_a_whole_model_is_not_loaded_with_a_former_ones_adapter(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, may_list: bool
) -> None:
    target = tmp_path / "served"
    target.mkdir()
    for name in FORMER:
        (target / name).write_text("old")
    if not may_list:
        monkeypatch.setattr(DirectoryStore, "list", refused)
    copy_output(output, target.as_uri())
    left = {path.name: path.read_text() for path in target.iterdir() if path.is_file()}
    assert left == {path.name: path.read_text() for path in output.iterdir()} | {
        "README.md": "old",
        "notes.txt": "old",
    }


def test_in_between_there_are_no_weights(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, sent = tmp_path / "served", DirectoryStore.put_file
    target.mkdir()
    (target / "model.safetensors").write_text("old")
    seen = []

    def watched(self: DirectoryStore, key: str, source: Path) -> bool:
        seen.append((key, (target / "model.safetensors").exists()))
        return sent(self, key, source)

    monkeypatch.setattr(DirectoryStore, "put_file", watched)
    copy_output(output, target.as_uri())
    assert seen == [("config.json", False), ("result.json", False), ("model.safetensors", False)]
    assert (target / "model.safetensors").read_text() == "new"
