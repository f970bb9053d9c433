"""What `plan launch` says of checkpoints in S3 before anything is started."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from planner.surroundings import unreachable_store
from providers.s3 import S3Store
from tests.seaweed import BUCKET, SECRET, Seaweed

RunPlan = Callable[..., Result]
GOAT = Path(__file__).parents[2] / "examples" / "tiny-goat"


@pytest.fixture
def dry_run(tmp_path: Path, run_plan: RunPlan) -> Callable[..., dict[str, Any]]:
    """The answer of a dry run whose spec names a place for checkpoints."""

    def run(uri: str) -> dict[str, Any]:
        text = (GOAT / "spec.yaml").read_text().replace("keep: 2", f"keep: 2\n  uri: {uri}")
        for name in ("base", "train.jsonl", "eval.jsonl"):
            text = text.replace(f" ./{name}" if name == "base" else f" {name}", f" {GOAT / name}")
        (tmp_path / "spec.yaml").write_text(text)
        words = ("launch", tmp_path / "spec.yaml", "--infra", "local", "--run-id", "goat-1", "--dry-run")
        result = run_plan(*words, "-o", "json")
        assert SECRET not in result.stdout + result.stderr
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    return run


DryRun = Callable[..., dict[str, Any]]


def test_a_bucket_that_answers_is_no_blocker(dry_run: DryRun, s3_server: Seaweed) -> None:
    uri = f"s3://{BUCKET}/runs?endpoint={s3_server.endpoint}"
    document = dry_run(uri)
    assert document["blockers"] == []
    assert document["checkpoint_uri"] == f"s3://{BUCKET}/runs/goat-1?endpoint={s3_server.endpoint}"


def test_a_wrong_bucket_or_login_is_found_before_the_launch(
    dry_run: DryRun, s3_server: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    (blocker,) = dry_run("s3://there-is-no-such-bucket/runs")["blockers"]
    assert (blocker["code"], bool(blocker["hint"])) == ("bucket_not_found", True)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    (blocker,) = dry_run(f"s3://{BUCKET}/runs")["blockers"]
    assert blocker["code"] == "credentials"


def test_a_secret_in_a_uri_is_refused_and_not_repeated(
    dry_run: DryRun, s3_server: Seaweed, plan_home: Path
) -> None:
    document = dry_run(f"s3://{BUCKET}/runs?aws_secret_access_key={SECRET}")
    (error,) = document["errors"]
    assert (document["exit_code"], error["path"]) == (2, "checkpoints.uri")
    assert "credentials come from the environment only" in error["hint"]
    kept = [path for path in plan_home.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert kept == []


def test_a_bucket_that_takes_nothing_is_found_before_the_launch(s3_server: Seaweed) -> None:
    uri = f"s3://{BUCKET}/probed?endpoint={s3_server.endpoint}"
    assert list(unreachable_store(uri, write=True)) == []
    assert list(S3Store(uri).list("")) == []  # nothing stays
    (finding,) = unreachable_store("s3://there-is-no-such-bucket/runs", write=True)
    assert finding.code == "bucket_not_found"
