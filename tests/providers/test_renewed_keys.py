"""Keys that end are replaced on the machine, and what lies in the store says nothing to those who read it."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import providers
from providers.directory_store import DirectoryStore
from providers.errors import StorageError, UsageError
from providers.object_store import ObjectStore
from providers.renewed_keys import KEY, NAMES, install, newest
from providers.sealed import UNTIL, VARIABLE, box, box_key, pads, seal, unbox

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINE, OTHER = box_key(b"mine"), box_key(b"another launch")


def keys(name: str, hours: float) -> dict[str, str]:
    until = (NOW + timedelta(hours=hours)).isoformat().replace("+00:00", "Z")
    return {variable: f"{name}-{variable}" for variable in NAMES} | {UNTIL: until}


def put(store: ObjectStore, *boxes: str) -> None:
    store.put(KEY, json.dumps({"boxes": {str(number): text for number, text in enumerate(boxes)}}).encode())


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "")  # so that what the machine sets is undone


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "run")


@pytest.fixture
def machine(tmp_path: Path, store: DirectoryStore) -> Path:
    environ = install(keys("first", 36) | {"HF_TOKEN": "t"}, MINE, tmp_path, tmp_path, store.uri)
    assert environ == {"HF_TOKEN": "t", "AWS_CONFIG_FILE": str(tmp_path / ".tuneplan-keys/config")}
    return tmp_path / ".tuneplan-keys"


def test_a_box_opens_for_its_key_alone_and_says_nothing_else() -> None:
    text = box({"a": "canary"}, MINE)
    assert unbox(text, MINE) == {"a": "canary"}
    assert "canary" not in text and text != box({"a": "canary"}, MINE)
    changed = text[:-8] + ("AAAA" if text[-8:-4] != "AAAA" else "BBBB") + text[-4:]
    for wrong, key in ((text, OTHER), (changed, MINE), ("", MINE), ("no base64!", MINE)):
        with pytest.raises(UsageError, match="cannot be opened"):
            unbox(wrong, key)


def test_the_newest_keys_are_used_and_kept(machine: Path, store: DirectoryStore) -> None:
    opened: list[str] = []

    def open_with_old_keys(uri: str) -> ObjectStore:
        opened.append(os.environ["AWS_ACCESS_KEY_ID"])
        return store

    assert newest(machine, open_with_old_keys, NOW)["AccessKeyId"] == "first-AWS_ACCESS_KEY_ID"
    put(store, box(keys("stranger", 99), OTHER), box(keys("second", 48), MINE))
    found = newest(machine, open_with_old_keys, NOW)
    assert (found["Version"], found["AccessKeyId"]) == (1, "second-AWS_ACCESS_KEY_ID")
    assert found["Expiration"] == "2026-11-22T13:00:00Z"  # asked again in an hour
    put(store, box(keys("older", 40), MINE))
    late = NOW + timedelta(hours=47, minutes=30)
    assert newest(machine, open_with_old_keys, late)["AccessKeyId"] == "second-AWS_ACCESS_KEY_ID"
    assert newest(machine, open_with_old_keys, late)["Expiration"] == keys("second", 48)[UNTIL]
    assert opened == ["first-AWS_ACCESS_KEY_ID"] * 2 + ["second-AWS_ACCESS_KEY_ID"] * 2


def test_a_store_that_does_not_answer_leaves_the_keys_that_are_there(machine: Path) -> None:
    def away(uri: str) -> ObjectStore:
        raise StorageError("nobody answers")

    assert newest(machine, away, NOW)["AccessKeyId"] == "first-AWS_ACCESS_KEY_ID"


def test_a_full_disk_takes_no_keys_away(machine: Path, store: DirectoryStore) -> None:
    def on_a_full_disk() -> str:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            return str(newest(machine, lambda _: store, NOW)["AccessKeyId"])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    kept = (machine / "keys.json").read_text()
    assert on_a_full_disk() == "first-AWS_ACCESS_KEY_ID"
    put(store, box(keys("second", 48), MINE))
    assert on_a_full_disk() == "second-AWS_ACCESS_KEY_ID"
    assert (machine / "keys.json").read_text() == kept


def test_a_set_up_that_is_repeated_keeps_newer_keys(
    machine: Path, tmp_path: Path, store: DirectoryStore
) -> None:
    put(store, box(keys("second", 48), MINE))
    newest(machine, lambda _: store, NOW)
    install(keys("first", 36), MINE, tmp_path, tmp_path, store.uri)
    assert json.loads((machine / "keys.json").read_text())["AWS_ACCESS_KEY_ID"] == "second-AWS_ACCESS_KEY_ID"
    assert stat.S_IMODE((machine / "keys.json").stat().st_mode) == 0o600


def test_boto3_uses_them_on_a_machine_as_it_is_launched(tmp_path: Path, store: DirectoryStore) -> None:
    bundle = tmp_path / "a bundle"
    (bundle / "providers").mkdir(parents=True)
    for module in Path(providers.__file__).parent.glob("*.py"):
        (bundle / "providers" / module.name).write_bytes(module.read_bytes())
    share = seal(keys("first", 36), bundle)
    (pad,) = pads(bundle).values()
    put(store, box(keys("second", 24 * 365 * 50), box_key(pad)))
    told = "boto3.Session().get_credentials().access_key, os.environ.get('AWS_ACCESS_KEY_ID')"
    worker = f"import boto3, os; print({told})"
    done = subprocess.run(
        [sys.executable, "-m", "providers.sealed", sys.executable, "-c", worker],
        cwd=bundle,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": str(bundle),
            "PYTHONSAFEPATH": "1",
            "TUNEPLAN_STORE": store.uri,
            VARIABLE: share,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "second-AWS_ACCESS_KEY_ID None\n"), done.stderr
