"""What a worker imports: nothing because it happens to be installed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from jobs.frameworks import lean_imports
from jobs.spec import CheckpointsJob, DataJob, JobSpec, ModelJob, TrainJob

JOB = JobSpec("run", "job", ModelJob("m"), DataJob("rows.jsonl"), CheckpointsJob("file:///x"))


@pytest.fixture(autouse=True)
def _nothing_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("wandb", "sklearn", "bitsandbytes"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_what_no_job_needs_is_hidden_while_frameworks_are_imported_and_there_again_afterwards() -> None:
    with lean_imports(JOB):
        assert find_spec("wandb") is find_spec("sklearn") is find_spec("bitsandbytes") is None
        assert find_spec("transformers") is not None
    assert None not in map(find_spec, ("wandb", "bitsandbytes"))


@pytest.mark.parametrize(
    "job",
    [
        pytest.param(replace(JOB, quantization="4bit"), id="quantised base"),
        pytest.param(replace(JOB, quantization="8bit"), id="8-bit base"),
        pytest.param(replace(JOB, train=TrainJob(steps=1, optimizer="lion")), id="lion"),
        pytest.param(replace(JOB, train=TrainJob(steps=1, optimizer="paged_adamw_8bit")), id="paged"),
    ],
)
def test_bitsandbytes_is_there_for_a_job_that_needs_it(job: JobSpec) -> None:
    with lean_imports(job):
        assert find_spec("bitsandbytes") is not None


def test_what_is_imported_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", sys)
    with lean_imports(JOB):
        assert sys.modules["wandb"] is sys
    assert sys.modules["wandb"] is sys


ADAPTED = """
import json, sys
from pathlib import Path
from jobs.frameworks import import_frameworks
from jobs.spec import JobSpec

import_frameworks(JobSpec.load(Path(sys.argv[1])))
from peft import LoraConfig, get_peft_model
from torch import nn

get_peft_model(nn.Sequential(nn.Linear(2, 2)), LoraConfig(target_modules=["0"]))
print(json.dumps([name for name in ("bitsandbytes", "scipy", "sklearn", "wandb") if name in sys.modules]))
"""


@pytest.mark.long
def test_an_adapter_is_made_without_them_too(tmp_path: Path) -> None:
    document = tmp_path / "job.json"
    document.write_text(JOB.to_json())
    command = [sys.executable, "-c", ADAPTED, str(document)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "[]"
