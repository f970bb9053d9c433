"""The chain: launch, kill -9 of the trainer, resume, cancel, resume, report; the result of an undisturbed run.

With checkpoints in S3, and (long) in a directory.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from jobs.committed import read_head, read_manifest
from jobs.manifest import BLOBS
from planner.cli.schema import schema_text
from providers.object_store import ObjectStore
from providers.stores import open_store
from tests.seaweed import BUCKET, SECRET, Seaweed
from tests.workers import eventually, lives

GOAT = Path(__file__).parents[2] / "examples" / "tiny-goat"
STEPS, EVERY = 400, 50


class Machine:
    """A home of its own and `plan` as a process."""

    def __init__(self, home: Path, uri: str = "./checkpoints", rows: int | None = None) -> None:
        self.home = home
        home.mkdir()
        for name in ("train.jsonl", "eval.jsonl"):
            lines = (GOAT / name).read_text().splitlines(keepends=True)
            (home / name).write_text("".join(lines[:rows]))
        shutil.copytree(GOAT / "base", home / "base")
        text = (GOAT / "spec.yaml").read_text()
        assert "steps: 600" in text and "every: 100 steps" in text
        text = text.replace("steps: 600", f"steps: {STEPS}")
        text = text.replace("every: 100 steps", f"every: {EVERY} steps\n  uri: {uri}")
        (home / "spec.yaml").write_text(text)

    def plan(self, *words: str, code: int = 0, within_s: float = 300) -> str:
        environment = {**os.environ, "PLAN_HOME": str(self.home / "plan"), "OMP_NUM_THREADS": "1"}
        command = [str(Path(sys.executable).with_name("plan")), *words]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=within_s)
        assert result.returncode == code, (words, result.stdout, result.stderr)
        return result.stdout

    def answer(self, *words: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.plan(*words, "-o", "json"))
        jsonschema.validate(document, json.loads(schema_text(words[0])))
        return document

    def launch(self) -> None:
        spec = str(self.home / "spec.yaml")
        self.plan("launch", spec, "--infra", "local", "--run-id", "goat", "--yes")

    def run(self) -> dict[str, Any]:
        run: dict[str, Any] = self.answer("status", "goat")["run"]
        return run

    def processes(self) -> list[str]:
        """Command lines of living processes that mention this home."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(self.home) in words and lives(int(path.parent.name)):
                found.append(words)
        return found


@pytest.mark.train
def test_a_disturbed_run_ends_with_the_weights_of_a_quiet_one(tmp_path: Path, s3_server: Seaweed) -> None:
    bucket = f"s3://{BUCKET}/{tmp_path.name}"
    quiet = Machine(tmp_path / "quiet")
    disturbed = Machine(tmp_path / "disturbed", f"{bucket}?endpoint={s3_server.endpoint}")
    reached = go_through(quiet, disturbed, open_store(f"{bucket}/goat"))

    shutil.rmtree(disturbed.home / "plan" / "state" / "local" / "goat")  # as if the machine were gone
    log = disturbed.plan("logs", "goat", "--follow")
    assert "attempt 1" in log and f"resuming from step {reached}" in log and log.rstrip().endswith("done")
    disturbed.plan("checkpoints", "verify", "goat")
    disturbed.plan("pull", "goat", "--to", str(disturbed.home / "pulled"))
    pulled = {path.name: path.read_bytes() for path in (disturbed.home / "pulled").iterdir()}
    assert pulled.items() >= output_files(open_store(f"{bucket}/goat")).items()
    assert keeps(disturbed.home, SECRET) == keeps(quiet.home, SECRET) == []


@pytest.mark.train
@pytest.mark.long
def test_what_is_pulled_loads(tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    quiet, disturbed = Machine(tmp_path / "quiet"), Machine(tmp_path / "disturbed")
    go_through(quiet, disturbed, open_store((disturbed.home / "checkpoints/goat").as_uri()))
    target = disturbed.home / "pulled"
    disturbed.plan("pull", "goat", "--to", str(target))
    model = AutoPeftModelForCausalLM.from_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(target)
    answer = model.generate(**tokenizer("9-4=", return_tensors="pt"), max_new_tokens=2)
    assert answer.shape[1] > 2


def go_through(quiet: Machine, disturbed: Machine, store: ObjectStore) -> int:
    """Launch both, kill, resume, cancel and resume one of them; the step that it went on from after the kill."""
    disturbed.launch()
    quiet.launch()
    eventually(lambda: newest_step(store) >= EVERY, limit_s=240)
    for pid in disturbed.run()["pids"]:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: disturbed.run()["state"] == "preempted")
    eventually(lambda: disturbed.processes() == [])
    reached = newest_step(store)
    head = read_head(store)
    assert head is not None and head.output is None
    disturbed.plan("wait", "goat", code=10)
    quiet.plan("wait", "goat")
    assert quiet.run()["recoveries"] == 0

    disturbed.plan("resume", "goat", "--yes")
    eventually(lambda: disturbed.run()["attempts"][1]["first_step"] is not None, limit_s=240)
    disturbed.plan("cancel", "goat")
    cancelled = disturbed.run()
    assert (cancelled["state"], cancelled["worker_exit_code"]) == ("cancelled", 75)
    assert cancelled["last_checkpoint"]["step"] == cancelled["step"]

    disturbed.plan("resume", "goat", "--yes", "--wait")
    check_attempts(reached, cancelled, disturbed.run())
    check_report(disturbed.answer("report", "goat"))
    same_model(store, open_store((quiet.home / "checkpoints/goat").as_uri()))
    assert quiet.processes() == disturbed.processes() == []
    return reached


def check_attempts(reached: int, cancelled: dict[str, Any], after: dict[str, Any]) -> None:
    """Each attempt began at the last committed checkpoint of the one before it."""
    assert (after["state"], after["step"]) == ("succeeded", STEPS)
    first, second, third = after["attempts"]
    assert [row["outcome"] for row in after["attempts"]] == ["preempted", "cancelled", "done"]
    assert first["first_step"] == 0
    assert second["first_step"] == reached
    assert reached % EVERY == 0
    assert first["last_step"] - reached <= EVERY
    assert third["first_step"] == cancelled["step"]


def check_report(report: dict[str, Any]) -> None:
    """Everything that a CPU can measure was measured, and the model has learnt to add."""
    assert report["recoveries"] == 2 and report["artifact_manifest_sha256"]
    rows = {row["quantity"]: row for row in report["comparison"]}
    assert all(rows[name]["actual"] > 0 for name in ("step_time_s", "tokens_per_s_total", "wall_clock_h"))
    exact_match = next(metric for metric in report["metrics"] if metric["name"] == "exact_match")
    assert exact_match["base"] < 0.1 and exact_match["tuned"] > 0.8, exact_match


def newest_step(store: ObjectStore) -> int:
    """Newest committed step, 0 before the first."""
    head = read_head(store)
    return head.newest.step if head and head.newest else 0


def output_files(store: ObjectStore) -> dict[str, bytes]:
    """The files of the finished model."""
    head = read_head(store)
    assert head is not None and head.output is not None
    files = {file.path: store.get(BLOBS + file.sha256) for file in read_manifest(store, head.output).files}
    return {name: found[0] for name, found in files.items() if found is not None}


def same_model(*stores: ObjectStore) -> None:
    """Equal files, but for the place of the base, which each run had in a home of its own, and the history.

    A loss that is told is the mean since the one before it, and of fewer steps where a run was resumed in between.
    """
    first, second = map(output_files, stores)
    assert first.keys() == second.keys()
    may_differ = {"adapter_config.json", "README.md", "history.json"}
    assert {name for name in first if first[name] != second[name]} <= may_differ
    configs = [json.loads(files["adapter_config.json"]) for files in (first, second)]
    assert len({config.pop("base_model_name_or_path") for config in configs}) == 2
    assert json.dumps(configs[0]) == json.dumps(configs[1])


def keeps(home: Path, secret: str) -> list[Path]:
    """Files below a home in which a secret stands."""
    return [path for path in home.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
