"""`plan checkpoints` and `plan pull` on what an attempt committed; answers keep to their schemas."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result

from jobs.checkpoint import CheckpointStore
from jobs.committed import read_head, read_manifest
from jobs.manifest import BLOBS, HEAD_KEY
from jobs.progress import KEY, Progress, WorkerState, utc_now
from planner.cli.context import App
from planner.cli.schema import schema_text
from planner.places import Places
from planner.store import Store
from providers.object_store import ObjectStore
from providers.stores import open_store
from tests.planner.run_factories import attempt_of, terms_of
from tests.seaweed import BUCKET, Seaweed

RunPlan = Callable[..., Result]


def saved(directory: Path, step: int) -> Path:
    """A directory as the trainer saves it."""
    directory.mkdir()
    (directory / "adapter_model.safetensors").write_text(f"weights of step {step}")
    (directory / "adapter_config.json").write_text("{}")
    (directory / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return directory


def commit(uri: str, tmp_path: Path, *steps: int, output: bool = False) -> CheckpointStore:
    """An attempt that committed these steps."""
    checkpoints = CheckpointStore(open_store(uri), "run-1", keep=3)
    checkpoints.take_over()
    for step in steps:
        checkpoints.publish(saved(tmp_path / f"saved-{step}", step), step)
    if output:
        checkpoints.publish_output(saved(tmp_path / "output", 99), steps[-1])
    return checkpoints


def damage(store: ObjectStore, step: int) -> None:
    """Change one byte of the weights of a step."""
    head = read_head(store)
    assert head is not None
    pointer = next(one for one in head.checkpoints if one.step == step)
    files = {file.path: file.sha256 for file in read_manifest(store, pointer).files}
    store.put(BLOBS + files["adapter_model.safetensors"], f"Weights of step {step}".encode())


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return (tmp_path / "store").as_uri()


@pytest.fixture
def answer(run_plan: RunPlan) -> Callable[..., dict[str, Any]]:
    def ask(*words: object, schema: str = "checkpoints", code: int = 0) -> dict[str, Any]:
        result = run_plan(*words, "-o", "json")
        assert result.exit_code == code, result.stderr
        document: dict[str, Any] = json.loads(result.stdout)
        jsonschema.validate(document, json.loads(schema_text(schema)))
        return document

    return ask


Answer = Callable[..., dict[str, Any]]


def test_committed_checkpoints_are_listed_newest_first(uri: str, tmp_path: Path, answer: Answer) -> None:
    checkpoints = commit(uri, tmp_path, 10, 20, output=True)
    document = answer("checkpoints", "ls", uri)
    newest = checkpoints.head.newest
    assert newest is not None and document["uri"] == uri
    assert document["head"] == {
        "step": 20,
        "fence": 1,
        "manifest": newest.manifest,
        "manifest_sha256": newest.sha256,
    }
    rows = document["checkpoints"]
    assert [(row["step"], row["is_head"], row["verified"]) for row in rows] == [
        (20, True, "unchecked"),
        (10, False, "unchecked"),
    ]
    whole = len("weights of step 20") + len("{}") + len('{"global_step": 20}')
    assert [(row["files"], row["bytes"], row["new_bytes"]) for row in rows] == [
        (3, whole, whole - len("{}")),
        (3, whole, whole),
    ]
    assert (document["output"]["step"], document["output"]["damage"]) == (20, None)


def test_a_table_for_people(uri: str, tmp_path: Path, run_plan: RunPlan) -> None:
    commit(uri, tmp_path, 10, output=True)
    lines = run_plan("checkpoints", "ls", uri).stdout.splitlines()
    assert lines[0] == uri
    assert [line.split("  ")[0] for line in lines[1:]] == ["what", "finished model", "checkpoint"]
    shown = run_plan("checkpoints", "show", uri, "--step", "10").stdout
    assert "adapter_model.safetensors" in shown and "trainer_state.json" in shown


def test_files_are_shown_with_their_hashes(uri: str, tmp_path: Path, answer: Answer) -> None:
    checkpoints = commit(uri, tmp_path, 10, 20)
    (row,) = answer("checkpoints", "show", uri, "--step", "10")["checkpoints"]
    manifest = read_manifest(checkpoints.store, checkpoints.head.checkpoints[1])
    assert row["step"] == 10
    assert row["file_list"] == [
        {"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in manifest.files
    ]
    assert answer("checkpoints", "show", uri)["checkpoints"][0]["step"] == 20


def test_a_changed_byte_is_found(uri: str, tmp_path: Path, answer: Answer, run_plan: RunPlan) -> None:
    checkpoints = commit(uri, tmp_path, 10, 20)
    rows = answer("checkpoints", "verify", uri)["checkpoints"]
    assert [row["verified"] for row in rows] == ["ok", "ok"]
    damage(checkpoints.store, 20)
    rows = answer("checkpoints", "verify", uri, code=1)["checkpoints"]
    assert [row["verified"] for row in rows] == ["damaged", "ok"]
    assert "adapter_model.safetensors" in rows[0]["damage"]
    result = run_plan("checkpoints", "verify", uri)
    assert "! step 20: adapter_model.safetensors is damaged" in result.stdout
    assert "step 20" in result.stderr
    assert run_plan("checkpoints", "verify", uri, "--step", "10").exit_code == 0


def test_a_damaged_manifest_is_listed_as_such(uri: str, tmp_path: Path, answer: Answer) -> None:
    checkpoints = commit(uri, tmp_path, 10, 20)
    checkpoints.store.put(checkpoints.head.checkpoints[0].manifest, b"{}")
    rows = answer("checkpoints", "ls", uri)["checkpoints"]
    assert [(row["step"], row["verified"], row["bytes"] is None) for row in rows] == [
        (20, "damaged", True),
        (10, "unchecked", False),
    ]


def test_a_run_is_found_by_its_id(tmp_path: Path, plan_home: Path, answer: Answer, run_plan: RunPlan) -> None:
    uri = (tmp_path / "runs" / "run-1").as_uri()
    with Store(Places(plan_home / "state").ledger) as store:
        store.create("run-1", terms_of(checkpoint_uri=uri), attempt_of())
    assert run_plan("checkpoints", "ls", "nobody").exit_code == 2
    assert "no checkpoints yet" in run_plan("checkpoints", "ls", "run-1").stdout
    commit(uri, tmp_path, 10)
    assert answer("checkpoints", "ls", "run")["head"]["step"] == 10


def test_nothing_committed_yet(uri: str, tmp_path: Path, answer: Answer, run_plan: RunPlan) -> None:
    assert run_plan("checkpoints", "ls", uri).exit_code == 2
    assert not (tmp_path / "store").exists()
    commit(uri, tmp_path)
    document = answer("checkpoints", "ls", uri)
    assert (document["head"], document["checkpoints"], document["output"]) == (None, [], None)
    result = run_plan("pull", uri, "--to", tmp_path / "out")
    assert result.exit_code == 2 and "none yet" in result.stderr


def test_left_overs_are_deleted_and_nothing_else(uri: str, tmp_path: Path, run_plan: RunPlan) -> None:
    store = commit(uri, tmp_path, 10, output=True).store
    kept = sorted(item.key for item in store.list("blobs/"))
    store.put("blobs/" + "0" * 64, b"left over")
    tomorrow = App(now=lambda: datetime.now(UTC) + timedelta(hours=23))
    later = App(now=lambda: datetime.now(UTC) + timedelta(hours=25))
    assert run_plan("checkpoints", "gc", uri).exit_code == 2  # nobody agreed
    assert run_plan("checkpoints", "gc", uri, "--yes", obj=tomorrow).stdout == "0 objects deleted\n"
    assert run_plan("checkpoints", "gc", uri, "--yes", obj=later).stdout == "1 objects deleted\n"
    assert sorted(item.key for item in store.list("blobs/")) == kept
    assert run_plan("checkpoints", "verify", uri).exit_code == 0
    assert run_plan("checkpoints", "gc", uri, "--grace", "1").exit_code == 2


def test_a_living_run_is_left_alone(uri: str, tmp_path: Path, run_plan: RunPlan) -> None:
    store = commit(uri, tmp_path, 10).store
    head = store.get(HEAD_KEY)
    told(store, "training")
    result = run_plan("checkpoints", "gc", uri, "--yes")
    assert result.exit_code == 2 and "is writing" in result.stderr
    assert store.get(HEAD_KEY) == head
    told(store, "preempted")
    assert run_plan("checkpoints", "gc", uri, "--yes").exit_code == 0


def test_the_finished_model_is_pulled_whole(uri: str, tmp_path: Path, answer: Answer) -> None:
    commit(uri, tmp_path, 10, 20, output=True)
    target = tmp_path / "deep" / "model"
    target.parent.mkdir()
    document = answer("pull", uri, "--to", target, schema="pull")
    assert (document["step"], document["is_output"], document["to"]) == (20, True, str(target))
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "output").iterdir()
    }
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_an_adapter_that_is_pulled_names_the_base_on_this_machine(
    uri: str, tmp_path: Path, plan_home: Path, run_plan: RunPlan
) -> None:
    output = saved(tmp_path / "output", 10)
    (output / "adapter_config.json").write_text('{"base_model_name_or_path": "/root/work/inputs/model"}')
    (output / "README.md").write_text("base_model: /root/work/inputs/model")
    checkpoints = CheckpointStore(open_store(uri), "run-1", keep=3)
    checkpoints.take_over()
    checkpoints.publish_output(output, 10)
    terms = terms_of(checkpoint_uri=uri)
    sent = {"rented": {"sources": {"inputs/model/config.json": str(tmp_path / "base" / "config.json")}}}
    job = json.loads(terms.job_json) | {"model": {"id": "./base", "path": "inputs/model"}}
    terms = replace(terms, job_json=json.dumps(job), candidate_json=json.dumps(sent))
    Places(plan_home / "state").ledger.parent.mkdir(parents=True, exist_ok=True)
    with Store(Places(plan_home / "state").ledger) as store:
        store.create("run-1", terms, attempt_of())
    pulled = run_plan("pull", "run-1", "--to", tmp_path / "pulled")
    assert pulled.exit_code == 0, pulled.stderr
    config = json.loads((tmp_path / "pulled" / "adapter_config.json").read_text())
    assert config == {"base_model_name_or_path": str(tmp_path / "base")}
    assert (tmp_path / "pulled" / "README.md").read_text() == f"base_model: {tmp_path / 'base'}"


def test_without_a_finished_model_the_newest_checkpoint_is_pulled(
    uri: str, tmp_path: Path, run_plan: RunPlan
) -> None:
    commit(uri, tmp_path, 10, 20)
    (tmp_path / "empty").mkdir()
    result = run_plan("pull", uri, "--to", tmp_path / "empty")
    assert result.stdout == f"{tmp_path / 'empty'}\n" and "step 20" in result.stderr
    assert run_plan("pull", uri, "--step", "10", "--to", tmp_path / "ten").exit_code == 0
    assert (tmp_path / "ten" / "adapter_model.safetensors").read_text() == "weights of step 10"
    result = run_plan("pull", uri, "--step", "11", "--to", tmp_path / "eleven")
    assert result.exit_code == 2 and "20, 10" in result.stderr


def test_a_damaged_checkpoint_leaves_no_directory(uri: str, tmp_path: Path, run_plan: RunPlan) -> None:
    damage(commit(uri, tmp_path, 10, 20).store, 20)
    (tmp_path / "here").mkdir()
    result = run_plan("pull", uri, "--to", tmp_path / "here" / "model")
    assert result.exit_code == 1 and "damaged" in result.stderr and "verify" in result.stderr
    assert list((tmp_path / "here").iterdir()) == []


def test_what_is_there_is_not_replaced(uri: str, tmp_path: Path, run_plan: RunPlan) -> None:
    commit(uri, tmp_path, 10)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    for target in (tmp_path / "full", tmp_path / "full" / "mine"):
        assert run_plan("pull", uri, "--to", target).exit_code == 2
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


def test_all_of_it_on_s3(s3_server: Seaweed, tmp_path: Path, answer: Answer, run_plan: RunPlan) -> None:
    uri = f"s3://{BUCKET}/{tmp_path.name}/run-1"
    commit(uri, tmp_path, 10, 20, output=True)
    assert [row["step"] for row in answer("checkpoints", "ls", uri)["checkpoints"]] == [20, 10]
    assert answer("checkpoints", "verify", uri)["output"]["verified"] == "ok"
    assert run_plan("checkpoints", "gc", uri, "--yes").stdout == "0 objects deleted\n"
    answer("pull", uri, "--to", tmp_path / "pulled", schema="pull")
    assert (tmp_path / "pulled" / "adapter_model.safetensors").read_text() == "weights of step 99"
    damage(open_store(uri), 10)
    assert answer("checkpoints", "verify", uri, "--step", "10", code=1)["checkpoints"][0]["damage"]


def told(store: ObjectStore, state: WorkerState) -> None:
    """What a worker says of itself."""
    store.put(KEY, Progress("run-1", 1, state=state, heartbeat_at=utc_now()).to_json().encode())
