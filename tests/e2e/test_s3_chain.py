"""The chain with checkpoints in S3: kill -9, resume from the bucket, the weights of a quiet run; no secret kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from jobs.committed import read_head, read_manifest
from jobs.manifest import BLOBS
from providers.object_store import ObjectStore
from providers.stores import open_store
from tests.e2e.test_chain import Machine
from tests.seaweed import BUCKET, SECRET, Seaweed
from tests.workers import eventually

STEPS, EVERY = 150, 15


def machine(home: Path, uri: str) -> Machine:
    """A machine whose spec is short and commits to a place."""
    made = Machine(home)
    text = (home / "spec.yaml").read_text().replace("steps: 300", f"steps: {STEPS}")
    assert "every: 50 steps" in text
    text = text.replace("every: 50 steps", f"every: {EVERY} steps\n  uri: {uri}")
    (home / "spec.yaml").write_text(text)
    return made


def output_files(uri: str) -> dict[str, bytes]:
    """The files of the finished model."""
    store = open_store(uri)
    head = read_head(store)
    assert head is not None and head.output is not None
    files = {file.path: store.get(BLOBS + file.sha256) for file in read_manifest(store, head.output).files}
    return {name: found[0] for name, found in files.items() if found is not None}


def same_model(*uris: str) -> None:
    """Equal files, but for the place of the base, which each run had in a home of its own."""
    first, second = map(output_files, uris)
    assert first.keys() == second.keys()
    placed = {"adapter_config.json", "README.md"}
    assert {name for name in first if first[name] != second[name]} <= placed
    configs = [json.loads(files["adapter_config.json"]) for files in (first, second)]
    assert len({config.pop("base_model_name_or_path") for config in configs}) == 2
    assert json.dumps(configs[0]) == json.dumps(configs[1])


def newest_step(store: ObjectStore) -> int:
    """Newest committed step, 0 before the first."""
    head = read_head(store)
    return head.newest.step if head and head.newest else 0


def keeps(home: Path, secret: str) -> list[Path]:
    """Files below a home in which a secret stands."""
    return [path for path in home.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.mark.train
def test_a_killed_run_goes_on_from_the_bucket(tmp_path: Path, s3_server: Seaweed) -> None:
    bucket = f"s3://{BUCKET}/{tmp_path.name}"
    quiet = machine(tmp_path / "quiet", "./checkpoints")
    quiet.launch()
    disturbed = machine(tmp_path / "disturbed", f"{bucket}?endpoint={s3_server.endpoint}")
    disturbed.launch()
    pids = disturbed.run()["pids"]
    store = open_store(f"{bucket}/goat")
    eventually(lambda: newest_step(store) >= EVERY, limit_s=240)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: disturbed.run()["state"] == "preempted")
    reached = newest_step(store)
    assert read_head(store).output is None  # type: ignore[union-attr]
    quiet.plan("wait", "goat")
    disturbed.plan("resume", "goat", "--yes", "--wait")

    run = disturbed.run()
    assert (run["state"], run["step"]) == ("succeeded", STEPS)
    assert run["attempts"][1]["first_step"] == reached
    same_model(f"{bucket}/goat", (quiet.home / "checkpoints" / "goat").as_uri())
    shutil.rmtree(disturbed.home / "plan" / "state" / "local" / "goat")  # as if the machine were gone
    log = disturbed.plan("logs", "goat", "--follow")
    assert "attempt 1" in log and f"resuming from step {reached}" in log and log.rstrip().endswith("done")
    loads(disturbed)
    assert keeps(disturbed.home, SECRET) == keeps(quiet.home, SECRET) == []


def loads(there: Machine) -> None:
    """What is pulled is loaded by peft and transformers without more."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    target = there.home / "pulled"
    there.plan("checkpoints", "verify", "goat")
    there.plan("pull", "goat", "--to", str(target))
    model = AutoPeftModelForCausalLM.from_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(target)
    answer = model.generate(**tokenizer("9-4=", return_tensors="pt"), max_new_tokens=2)
    assert answer.shape[1] > 2
