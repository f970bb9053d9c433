"""A base model from the Hub: the same commit in every attempt, and kept for the next machine where machines go."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.base_model import FILES_KEY, KEY, PREFIX, BaseModel, _text, pinned, read_base
from jobs.committed import read_head, read_manifest
from jobs.manifest import FileEntry
from jobs.spec import JobSpec, ModelJob
from providers.directory_store import DirectoryStore
from providers.object_store import ObjectStore
from providers.stores import below, open_store
from tests.hub_host import COMMIT, HostedModel, HubHost, hub_host
from tests.jobs.runs import Runs
from tests.jobs.tiny_models import GOAT
from tests.seaweed import BUCKET, Seaweed

NEWER = "a" * 40


@pytest.fixture
def hub() -> Iterator[HubHost]:
    with hub_host() as host:
        files = {path.name: path.read_bytes() for path in (GOAT / "base").iterdir()}
        host.models["org/goat"] = HostedModel(files)
        yield host


def start(runs: Runs, job: JobSpec, hub: str, machine: str, server: Seaweed) -> int:
    """Start an attempt on a machine that has nothing of the Hub; its pid."""
    directory = runs.root / job.run_id
    directory.mkdir(exist_ok=True)
    cache = str(runs.root / machine)
    told = {"hub": hub, "cache": cache, "environment": server.environment}
    (directory / "machine.json").write_text(json.dumps(told))
    return runs.start(job, "tests.jobs.runs:train_on_a_fresh_machine")


def of_the_hub(runs: Runs, name: str, server: Seaweed) -> JobSpec:
    """A run in a bucket, on machines that are taken away, without a revision."""
    job = replace(runs.sft(name, steps=40), model=ModelJob("org/goat"))
    uri = f"s3://{BUCKET}/{runs.root.name}/{name}?endpoint={server.endpoint}"
    checkpoints = replace(job.checkpoints, uri=uri, every_steps=4, hazard_per_h=0.1)
    return replace(job, checkpoints=checkpoints)


@pytest.mark.train
def test_the_next_machine_needs_no_hub_and_has_the_same_commit(
    runs: Runs, hub: HubHost, s3_server: Seaweed
) -> None:
    job = of_the_hub(runs, "goat", s3_server)
    store = open_store(job.checkpoints.uri)
    kept = open_store(below(job.checkpoints.uri, PREFIX))
    pid = start(runs, job, hub.url, "first", s3_server)
    code = runs.stop_when(pid, lambda: "is kept for the next machine" in runs.log("goat"))
    assert code == -signal.SIGKILL, runs.log("goat")
    known = read_base(kept, FILES_KEY)
    assert known is not None and known.commit == COMMIT
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {entry.path for entry in known.files}
    asked = len(hub.requests)
    pid = start(runs, job, "http://127.0.0.1:9", "second", s3_server)  # nobody answers there
    assert runs.zygote.wait(pid) == 0, runs.log("goat")
    assert len(hub.requests) == asked
    assert "the base model from s3://" in runs.log("goat") and "resuming from step" in runs.log("goat")
    assert list(kept.list("")) == []  # the run is done
    alone = replace(runs.sft("alone", steps=40), model=ModelJob("goat", path=str(GOAT / "base")))
    runs.complete(alone)
    assert _weights(store) == _weights(runs.store("alone"))


@pytest.mark.train
@pytest.mark.long
def test_a_branch_that_moves_moves_no_run(runs: Runs, hub: HubHost, s3_server: Seaweed) -> None:
    """On machines that nobody takes away nothing is kept, and the commit all the same."""
    job = of_the_hub(runs, "goat", s3_server)
    job = replace(job, checkpoints=replace(job.checkpoints, uri=runs.store("goat").uri, hazard_per_h=None))
    pid = start(runs, job, hub.url, "first", s3_server)
    assert runs.stop_when(pid, lambda: runs.newest_step("goat") >= 4) == -signal.SIGKILL
    hub.models["org/goat"].revisions["main"] = NEWER
    pid = start(runs, job, hub.url, "second", s3_server)
    assert runs.zygote.wait(pid) == 0, runs.log("goat")
    assert not (runs.root / "goat" / "store" / PREFIX).exists()
    assert pinned(job, runs.store("goat")).model.revision == COMMIT  # whoever measures or merges it later
    other = replace(job, model=ModelJob("org/other"))
    assert pinned(other, runs.store("goat")) == other
    snapshots = (runs.root / "second" / "models--org--goat" / "snapshots").iterdir()
    assert [path.name for path in snapshots] == [COMMIT]


def _weights(store: ObjectStore) -> str:
    head = read_head(store)
    assert head is not None and head.output is not None
    files = {entry.path: entry.sha256 for entry in read_manifest(store, head.output).files}
    return files["adapter_model.safetensors"]


GOOD = BaseModel("org/goat", COMMIT, (FileEntry("config.json", 1, "b" * 64),), ("added_tokens.json",))


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, commit="main"),
        replace(GOOD, commit="../../etc"),
        replace(GOOD, files=(FileEntry("../evil.json", 1, "b" * 64),)),
        replace(GOOD, files=(FileEntry("/etc/evil.json", 1, "b" * 64),)),
        replace(GOOD, files=(FileEntry("model.bin", 1, "b" * 64),)),
        replace(GOOD, files=(FileEntry("modeling.py", 1, "b" * 64),)),
        replace(GOOD, files=(FileEntry("config.json", 1, "no hash"),)),
        replace(GOOD, absent=("../../.bashrc",)),
    ],
)
def test_what_leads_elsewhere_or_could_run_is_left_alone(tmp_path: Path, bad: BaseModel) -> None:
    store = DirectoryStore(tmp_path)
    store.put(KEY, _text(GOOD))
    assert read_base(store, KEY) == GOOD
    store.put(KEY, _text(bad))
    assert read_base(store, KEY) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": 1}', '{"id": "org/goat"}'])
def test_what_is_damaged_is_left_alone(tmp_path: Path, text: str) -> None:
    store = DirectoryStore(tmp_path)
    store.put(KEY, text.encode())
    assert read_base(store, KEY) is None
