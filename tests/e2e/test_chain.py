"""The chain on this machine: launch, kill -9 of the trainer, resume, wait, report; the result of an undisturbed run."""

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

from jobs.manifest import HEAD_KEY, parse_head, parse_manifest
from planner.cli.schema import schema_text
from providers.directory_store import DirectoryStore, directory_of
from tests.workers import eventually, lives

GOAT = Path(__file__).parents[2] / "examples" / "tiny-goat"
STEPS, EVERY = 300, 50


class Machine:
    """A home of its own and `plan` as a process."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir()
        for name in ("train.jsonl", "eval.jsonl"):
            shutil.copy(GOAT / name, home / name)
        shutil.copytree(GOAT / "base", home / "base")
        text = (GOAT / "spec.yaml").read_text()
        assert "steps: 600" in text and "every: 100 steps" in text
        text = text.replace("steps: 600", f"steps: {STEPS}").replace(
            "every: 100 steps", f"every: {EVERY} steps"
        )
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

    def adapter(self) -> str:
        """sha256 of the finished adapter, from the manifest that HEAD names."""
        store = DirectoryStore(directory_of(self.answer("report", "goat")["artifact_uri"]))
        head = store.get(HEAD_KEY)
        assert head is not None
        output = parse_head(head[0]).output
        assert output is not None
        found = store.get(output.manifest)
        assert found is not None
        files = {file.path: file.sha256 for file in parse_manifest(found[0], output).files}
        return files["adapter_model.safetensors"]

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
def test_a_disturbed_run_ends_with_the_weights_of_a_quiet_one(tmp_path: Path) -> None:
    quiet, disturbed = Machine(tmp_path / "quiet"), Machine(tmp_path / "disturbed")
    quiet.launch()
    quiet.plan("wait", "goat")
    assert quiet.run()["recoveries"] == 0

    disturbed.launch()
    eventually(lambda: disturbed.run()["last_checkpoint"] is not None, limit_s=240)
    before = disturbed.run()
    for pid in before["pids"]:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: disturbed.run()["state"] == "preempted")
    eventually(lambda: disturbed.processes() == [])
    disturbed.plan("wait", "goat", code=10)

    disturbed.plan("resume", "goat", "--yes")
    eventually(lambda: disturbed.run()["attempts"][1]["first_step"] is not None, limit_s=240)
    disturbed.plan("cancel", "goat")
    cancelled = disturbed.run()
    assert (cancelled["state"], cancelled["worker_exit_code"]) == ("cancelled", 75)
    assert cancelled["last_checkpoint"]["step"] == cancelled["step"]

    disturbed.plan("resume", "goat", "--yes", "--wait")
    check_attempts(before, cancelled, disturbed.run())
    check_report(disturbed.answer("report", "goat"))
    assert disturbed.adapter() == quiet.adapter()
    assert quiet.processes() == disturbed.processes() == []


def check_attempts(before: dict[str, Any], cancelled: dict[str, Any], after: dict[str, Any]) -> None:
    """Each attempt began at the last committed checkpoint of the one before it."""
    assert (after["state"], after["step"]) == ("succeeded", STEPS)
    first, second, third = after["attempts"]
    assert [row["outcome"] for row in after["attempts"]] == ["preempted", "cancelled", "done"]
    assert first["first_step"] == 0
    assert second["first_step"] % EVERY == 0 and second["first_step"] >= before["last_checkpoint"]["step"]
    assert first["last_step"] - second["first_step"] <= EVERY
    assert third["first_step"] == cancelled["step"]


def check_report(report: dict[str, Any]) -> None:
    """Everything that a CPU can measure was measured, and the model has learnt to add."""
    assert report["recoveries"] == 2 and report["artifact_manifest_sha256"]
    rows = {row["quantity"]: row for row in report["comparison"]}
    assert all(rows[name]["actual"] > 0 for name in ("step_time_s", "tokens_per_s_total", "wall_clock_h"))
    exact_match = next(metric for metric in report["metrics"] if metric["name"] == "exact_match")
    assert exact_match["base"] < 0.1 and exact_match["tuned"] > 0.9, exact_match
