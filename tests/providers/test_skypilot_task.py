"""The SkyPilot document of a request: what is asked for, what is left out, and that the worker's line really runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

import jobs
import providers
from providers.errors import LaunchError
from providers.launcher import LaunchRequest
from providers.offers import Market, Offer
from providers.sealed import VARIABLE, seal
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
    dear, unknown = offer()._replace(price_usd_per_hour=2.0), offer()._replace(price_usd_per_hour=None)
    rows = dear, unknown, offer(region="us-west-2")
    (only,) = task_document(request(*rows, max_usd_per_hour=1.5))["resources"]["ordered"]
    assert only["infra"] == "aws/us-west-2"
    with pytest.raises(LaunchError, match=r"at most 1\.5 US dollars"):
        task_document(request(dear, unknown, max_usd_per_hour=1.5))


@pytest.mark.parametrize(("need_gib", "asked"), [(None, None), (10.0, None), (400.5, 461)])
def test_a_large_model_gets_a_disk_that_holds_it(need_gib: float | None, asked: int | None) -> None:
    rows = offer(), offer("lambda", "us-west-1", None, "gpu_1x_a10", "A10", 1, "on_demand")
    on_aws, on_lambda = task_document(request(*rows, disk_gib=need_gib))["resources"]["ordered"]
    assert (on_aws.get("disk_size"), on_lambda.get("disk_size")) == (asked, None)


def test_an_image_goes_with_every_machine_that_can_run_one() -> None:
    rows = offer("verda", machine="1L4"), offer(), offer("runpod", "US", None, "1x_L4", "L4")
    candidates = task_document(request(*rows, image="lab/train:2.8"))["resources"]["ordered"]
    assert [(row["infra"], row["image_id"]) for row in candidates] == [
        ("aws/us-east-1", "docker:lab/train:2.8"),
        ("runpod/US", "docker:lab/train:2.8"),
    ]


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


def bundle_of(tmp_path: Path) -> Path:
    """A bundle whose worker tells its arguments, its secret, and whether the other share is still in sight."""
    bundle = tmp_path / "bundle"
    (bundle / "jobs").mkdir(parents=True)
    (bundle / "providers").mkdir()
    for name in ("__init__.py", "keeper.py", "lease.py", "machine.py"):
        shutil.copy(Path(jobs.__file__).with_name(name), bundle / "jobs")
    for name in ("__init__.py", "errors.py", "sealed.py", "self_release.py"):
        shutil.copy(Path(providers.__file__).with_name(name), bundle / "providers")
    worker = "import os, sys\nprint(sys.argv[1:], os.environ.get('TOKEN'), 'TUNEPLAN_SECRET_SHARE' in os.environ)\n"
    (bundle / "jobs/train.py").write_text(worker)
    return bundle


def run_script(bundle: Path, script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run as SkyPilot does, in the directory of the bundle."""
    return subprocess.run(
        ["bash", "-c", script],
        cwd=bundle,
        env={"PATH": os.environ["PATH"]} | env,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("limit_s", [None, 30.0])
def test_the_worker_gets_the_secret_and_its_backend_does_not(tmp_path: Path, limit_s: float | None) -> None:
    bundle = bundle_of(tmp_path)
    document = task_document(request(python=sys.executable, max_duration_s=limit_s, secrets=("TOKEN",)))
    assert document["secrets"] == {VARIABLE: None}
    share = seal({"TOKEN": "canary-value"}, bundle)
    done = run_script(bundle, document["run"], **{VARIABLE: share})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "['job.json'] canary-value False\n"
    assert [path for path in bundle.rglob("*") if path.is_file() and b"canary" in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("nodes", "gpus", "started"),
    [
        (1, 1, "-m jobs.train job.json"),
        (1, 8, "-m jobs.ranks 8 job.json"),
        (4, 8, "-m jobs.ranks 8 job.json"),
    ],
)
def test_each_gpu_gets_a_rank(nodes: int, gpus: int, started: str) -> None:
    document = task_document(request(nodes=nodes, processes_per_node=gpus))
    assert document["num_nodes"] == nodes
    assert document["run"].rstrip().endswith(started)


def test_a_worker_without_secrets_needs_no_shares(tmp_path: Path) -> None:
    document = task_document(request(python=sys.executable))
    assert "secrets" not in document
    assert run_script(bundle_of(tmp_path), document["run"]).stdout == "['job.json'] None False\n"


def test_the_set_up_has_the_secrets_and_removes_the_users_credentials(tmp_path: Path) -> None:
    bundle, home = bundle_of(tmp_path), tmp_path / "home"
    (home / ".lambda_cloud").mkdir(parents=True)
    (home / ".lambda_cloud/lambda_keys").write_text("canary-value")
    lines = ('echo "$TOKEN" "it\'s ready" "${PYTHONPATH-}"',)
    setup = task_document(request(python=sys.executable, setup=lines, secrets=("TOKEN",)))["setup"]
    done = run_script(bundle, setup, HOME=str(home), **{VARIABLE: seal({"TOKEN": "t"}, bundle)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "t it's ready \n", "")
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_a_set_up_ends_at_the_first_line_that_fails(tmp_path: Path) -> None:
    setup = task_document(request(setup=("false", "echo not reached")))["setup"]
    done = run_script(bundle_of(tmp_path), setup, HOME=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")


def test_a_worker_that_outlives_its_limit_is_ended(tmp_path: Path) -> None:
    script = task_document(request(python=sys.executable, max_duration_s=30.0, stop_grace_s=5))["run"]
    assert "timeout --signal=TERM --kill-after=5 25 " in script
    script = script.replace(" 25 ", " 0.01 ").replace("-m jobs.train", "-c 'while True: pass'")
    done = run_script(bundle_of(tmp_path), script)
    assert done.returncode == 124
