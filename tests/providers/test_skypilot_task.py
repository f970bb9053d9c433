"""The SkyPilot document of a request: what is asked for, what is left out, and that the worker's line really runs."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from providers.errors import LaunchError
from providers.launcher import LaunchRequest
from providers.offers import Market, Offer
from providers.skypilot_task import (
    attempt_of,
    job_name,
    no_credential_upload,
    resources_of,
    task_document,
    task_yaml,
)

RUN_IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


def offer(
    cloud: str = "aws",
    region: str = "us-east-1",
    zone: str | None = None,
    machine: str | None = "g5.xlarge",
    gpu: str = "A10G",
    gpus: int = 1,
    market: Market = "spot",
) -> Offer:
    return Offer(cloud, region, zone, machine, gpu, gpus, 24.0, 4.0, 16.0, market, 0.4, "test", None)


def request(*offers: Offer, **changes: object) -> LaunchRequest:
    fields = {"run_id": "goat", "bundle": Path("/bundle"), "offers": offers or (offer(),)} | changes
    return LaunchRequest(**fields)  # type: ignore[arg-type]


@given(RUN_IDS, RUN_IDS, st.integers(1, 10**6))
def test_a_job_is_found_by_the_run_that_started_it_and_by_no_other(
    mine: str, other: str, attempt: int
) -> None:
    assert attempt_of(job_name(mine, attempt), mine) == attempt
    if mine != other:
        assert attempt_of(job_name(mine, attempt), other) is None


def test_candidates_keep_their_order_and_come_once() -> None:
    rows = (
        offer(zone="use1-az6"),
        offer(zone="use1-az1"),
        offer(region="us-west-2"),
        offer(market="on_demand"),
    )
    tried = task_document(request(*rows))["resources"]["ordered"]
    assert tried == [
        {"infra": "aws/us-east-1", "instance_type": "g5.xlarge", "use_spot": True},
        {"infra": "aws/us-west-2", "instance_type": "g5.xlarge", "use_spot": True},
        {"infra": "aws/us-east-1", "instance_type": "g5.xlarge"},
    ]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            offer(zone="us-east-1b"),
            {"infra": "aws/us-east-1/us-east-1b", "instance_type": "g5.xlarge", "use_spot": True},
        ),
        (
            offer("gcp", "us-central1", "us-central1-a", "a2-highgpu-1g", "A100"),
            {
                "infra": "gcp/us-central1/us-central1-a",
                "instance_type": "a2-highgpu-1g",
                "accelerators": "A100:1",
                "use_spot": True,
            },
        ),
        (
            offer("gcp", "us-central1", None, "a3-megagpu-8g", "H100", 8, "on_demand"),
            {"infra": "gcp/us-central1", "instance_type": "a3-megagpu-8g", "accelerators": "H100-MEGA:8"},
        ),
        (
            offer("slurm", "cluster", "partition", None, "H100", 4),
            {"infra": "slurm/cluster/partition", "accelerators": "H100:4", "cpus": "1+"},
        ),
        (
            offer("lambda", "us-west-1", None, "gpu_1x_a10", "A10", 1, "on_demand"),
            {"infra": "lambda/us-west-1", "instance_type": "gpu_1x_a10"},
        ),
    ],
    ids=["aws zone by name", "gcp", "gcp mega", "slurm has no spot", "lambda"],
)
def test_a_machine_is_asked_for_in_the_words_of_its_cloud(row: Offer, expected: dict[str, object]) -> None:
    assert resources_of(row) == expected


def test_clouds_that_skypilot_cannot_rent_from_are_left_out() -> None:
    elsewhere = offer("jarvislabs", "IN2", None, "1x_L4_28V_124G", "L4")
    assert len(task_document(request(elsewhere, offer()))["resources"]["ordered"]) == 1
    with pytest.raises(LaunchError, match="jarvislabs"):
        task_document(request(elsewhere))


def test_a_price_limit_goes_with_every_candidate() -> None:
    document = task_document(request(offer(), offer(region="us-west-2"), max_usd_per_hour=1.5))
    assert [row["max_hourly_cost"] for row in document["resources"]["ordered"]] == [1.5, 1.5]


def test_machines_above_the_price_limit_or_without_a_price_are_left_out() -> None:
    dear, unknown = replace(offer(), price_usd_per_hour=2.0), replace(offer(), price_usd_per_hour=None)
    rows = dear, unknown, offer(region="us-west-2")
    (only,) = task_document(request(*rows, max_usd_per_hour=1.5))["resources"]["ordered"]
    assert only["infra"] == "aws/us-west-2"
    with pytest.raises(LaunchError, match=r"at most 1\.5 US dollars"):
        task_document(request(dear, unknown, max_usd_per_hour=1.5))


def test_labels_satisfy_the_narrowest_cloud_and_name_the_run() -> None:
    labels = task_document(request(run_id="Goat.7", labels={"Team": "NLP & more"}))["resources"]["labels"]
    assert labels == {"team": "nlp---more", "tuneplan-run": "goat-7", "tuneplan-attempt": "1"}


def test_preempted_workers_are_started_again_and_stopped_ones_are_not() -> None:
    recovery = task_document(request())["resources"]["job_recovery"]
    assert recovery["recover_on_exit_codes"] == [75, 76]


def test_the_yaml_is_the_document_and_holds_no_secret_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-value")
    wanted = request(
        secrets=("HF_TOKEN",), env={"A": "1: [x"}, setup=("pip install x", "true"), max_duration_s=60.0
    )
    text = task_yaml(wanted)
    assert YAML(typ="safe").load(text) == task_document(wanted)
    assert "HF_TOKEN" in text
    assert "canary-value" not in text


def test_no_cloud_gets_the_credentials_of_another() -> None:
    assert {"aws", "gcp", "azure", "kubernetes"} <= set(no_credential_upload())
    assert {row["remote_identity"] for row in no_credential_upload().values()} == {"NO_UPLOAD"}


def run_script(tmp_path: Path, script: str, name: str = "sky_app_x") -> subprocess.CompletedProcess[str]:
    """Run as SkyPilot does: a file with the secrets on top, in the directory of the bundle."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/__init__.py").touch()
    worker = "import os, sys\nprint(sys.argv[1:], os.environ['TOKEN'], 'random' in sys.modules and 'ours')\n"
    (tmp_path / "jobs/train.py").write_text(worker)
    file = tmp_path / name
    file.write_text(f"export TOKEN=canary-value\n{script}\necho not reached\n")
    env = {"PATH": os.environ["PATH"]}
    return subprocess.run(
        ["bash", str(file)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("limit_s", [None, 30.0])
def test_the_worker_runs_and_the_script_keeps_no_secret(tmp_path: Path, limit_s: float | None) -> None:
    script = task_document(request(python=sys.executable, max_duration_s=limit_s))["run"]
    done = run_script(tmp_path, script)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("['job.json'] canary-value")
    assert "not reached" not in done.stdout
    assert (tmp_path / "sky_app_x").read_text() == ""


def test_the_set_up_empties_itself_and_the_script_that_calls_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".lambda_cloud").mkdir(parents=True)
    (home / ".lambda_cloud/lambda_keys").write_text("canary-value")
    inner, outer = tmp_path / "sky_setup_x", tmp_path / "sky_app_x"
    inner.write_text(f"export TOKEN=canary-value\n{task_document(request(setup=('echo ready',)))['setup']}")
    outer.write_text(f"export TOKEN=canary-value\nbash {inner} 2>&1\n")
    env = {"PATH": os.environ["PATH"], "HOME": str(home)}
    done = subprocess.run(["bash", str(outer)], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "ready\n")
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.read_text()] == []


def test_a_script_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    run_script(tmp_path, task_document(request(python=sys.executable))["run"], name="mine.sh")
    assert "canary-value" in (tmp_path / "mine.sh").read_text()


def test_a_worker_that_outlives_its_limit_is_ended(tmp_path: Path) -> None:
    script = task_document(request(python=sys.executable, max_duration_s=30.0))["run"]
    assert "timeout --signal=TERM --kill-after=120 150 " in script
    done = run_script(
        tmp_path, script.replace(" 150 ", " 0.01 ").replace("-m jobs.train", "-c 'while True: pass'")
    )
    assert done.returncode == 124
