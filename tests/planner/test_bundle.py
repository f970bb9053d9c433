"""The bundle runs with nothing else of ours, and a user's own `jobs` never shadows it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import jobs
from jobs.spec import CheckpointsJob, DataJob, JobSpec, ModelJob
from planner.bundle import build_bundle, missing_requirements, worker_extras, worker_requirements
from providers.errors import StorageError

WHERE = """
import importlib.util, json, sys
names = ["jobs", "jobs.train", "jobs.checkpoint", "providers", "providers.stores", "providers.errors"]
places = {name: importlib.util.find_spec(name).origin for name in names}
import jobs.train
loaded = sorted(name for name in sys.modules if name.partition(".")[0] in ("jobs", "providers", "planner"))
print(json.dumps({"places": places, "loaded": loaded, "planner": importlib.util.find_spec("planner") is None}))
"""


def job_of(tmp_path: Path) -> JobSpec:
    uri = (tmp_path / "checkpoints").as_uri()
    return JobSpec(
        "run-1", "run", ModelJob("no/model", "/no/model"), DataJob("none.jsonl"), CheckpointsJob(uri)
    )


@pytest.fixture
def bare(tmp_path: Path) -> tuple[str, Path]:
    """A Python without our packages, and a directory that holds traps for it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    hostile = tmp_path / "hostile"
    for name in ("jobs", "providers", "planner"):
        (hostile / name).mkdir(parents=True)
        (hostile / name / "__init__.py").write_text("raise SystemExit('hostile code ran')\n")
    return str(tmp_path / "bare" / "bin" / "python"), hostile


def environment(bundle: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": str(bundle),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": "/usr/bin:/bin",
    }


def test_only_the_bundle_s_code_is_imported(tmp_path: Path, bare: tuple[str, Path]) -> None:
    python, hostile = bare
    bundle = build_bundle(tmp_path / "bundle", job_of(tmp_path))
    answer = subprocess.run(
        [python, "-c", WHERE],
        cwd=hostile,
        env=environment(bundle.path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["planner"] is True
    assert all(Path(place).is_relative_to(bundle.path) for place in found["places"].values())
    assert "jobs.train" in found["loaded"]
    assert not [name for name in found["loaded"] if name.startswith("planner")]


def test_the_worker_says_what_is_wrong_with_its_job(tmp_path: Path, bare: tuple[str, Path]) -> None:
    python, hostile = bare
    bundle = build_bundle(tmp_path / "bundle", job_of(tmp_path))
    words = [python, "-m", "jobs.train", str(bundle.path / "job.json"), "--work", str(tmp_path / "work")]
    answer = subprocess.run(
        words, cwd=hostile, env=environment(bundle.path), capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 78, answer.stderr
    assert "none.jsonl" in answer.stderr


def test_every_module_of_the_wire_is_there(tmp_path: Path) -> None:
    bundle = build_bundle(tmp_path / "bundle", job_of(tmp_path)).path
    source = Path(str(jobs.__file__)).parent
    expected = {f"jobs/{path.relative_to(source).as_posix()}" for path in source.rglob("*.py")}
    found = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*.py")}
    assert found == expected | set(jobs.BUNDLE_MODULES)
    assert len(expected) > 10
    assert JobSpec.load(bundle / "job.json") == job_of(tmp_path)
    assert (bundle / "requirements.txt").read_text().split() == worker_requirements()


def test_a_worker_that_writes_to_s3_gets_what_it_needs_for_it(tmp_path: Path) -> None:
    job = replace(job_of(tmp_path), checkpoints=CheckpointsJob("s3://bucket/runs/run-1"))
    lines = (build_bundle(tmp_path / "bundle", job).path / "requirements.txt").read_text().split()
    assert set(lines) > set(worker_requirements())
    assert [line for line in lines if line.startswith("boto3")]
    assert worker_extras(["file:///x"]) == ("train",)
    assert worker_extras(["gs://bucket/x"]) == worker_extras(["az://bucket/x"]) == ("train", "objectstore")
    assert worker_extras(["s3://bucket/x?client=obstore"]) == ("train", "s3", "objectstore")
    assert worker_extras(["s3://bucket/x"], "4bit") == ("train", "s3", "quantised")
    assert worker_extras(["file:///x"], optimizer="lion") == ("train", "quantised")
    assert missing_requirements(("train", "s3")) == []


def test_equal_code_has_an_equal_hash_whatever_the_job(tmp_path: Path) -> None:
    first = build_bundle(tmp_path / "one", job_of(tmp_path))
    second = build_bundle(tmp_path / "two", replace(job_of(tmp_path), name="other"))
    assert first.sha256 == second.sha256
    assert len(first.sha256) == 64


def test_the_same_bundle_is_not_touched_and_another_is_replaced(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    place = build_bundle(tmp_path / "bundle", job).path
    (place / "work").mkdir()
    build_bundle(place, job)
    assert (place / "work").is_dir()
    build_bundle(place, replace(job, name="other"))
    assert not (place / "work").exists()
    assert JobSpec.load(place / "job.json").name == "other"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write the bundle"):
        build_bundle(tmp_path / "file" / "bundle", job_of(tmp_path))


def test_the_worker_s_requirements_are_those_of_the_extra() -> None:
    names = {line.split(">")[0].split("<")[0].split("=")[0] for line in worker_requirements()}
    assert {"torch", "transformers", "peft", "trl"} <= names
    assert missing_requirements() == []
