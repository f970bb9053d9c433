"""A real tiny fine-tuning through SkyPilot on a real Slurm, preempted once.

What is checked is what a person trusts a launcher with: one job however often it is asked for, nothing lost by the
preemption, nothing left running, no credential where it does not belong.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.checkpoint import read_head, read_manifest
from jobs.progress import read_progress
from jobs.spec import CheckpointsJob, DataJob, JobSpec, MethodJob, ModelJob, TrainJob
from planner.bundle import build_bundle
from providers.launcher import BackendStatus, LaunchRequest
from providers.offers import Offer
from providers.stores import open_store
from tests.bed.bed import Bed
from tests.bed.client import BedUser
from tests.bed.processes import command_of
from tests.e2e.conftest import CANARY_FILE, CANARY_SECRET

pytestmark = [pytest.mark.slurm, pytest.mark.train]

GOAT = Path(__file__).parents[2] / "examples/tiny-goat"
STEPS, EVERY = 60, 10
ENDED = {"succeeded", "failed", "cancelled"}


def offer(region: str) -> Offer:
    return Offer("slurm", region, None, None, "A100", 1, 40.0, None, None, "spot", 1.1, "test", None)


def job(run_id: str, store: Path) -> JobSpec:
    return JobSpec(
        run_id=run_id,
        name="tiny-goat",
        model=ModelJob("base", path=str(GOAT / "base")),
        data=DataJob(str(GOAT / "train.jsonl"), format="prompt_completion"),
        checkpoints=CheckpointsJob(store.as_uri(), every_steps=EVERY),
        method=MethodJob(rank=4),
        train=TrainJob(
            steps=STEPS, sequence_length=32, micro_batch=16, precision="fp32", gradient_checkpointing=False
        ),
    )


def request(run_id: str, bundle: Path) -> LaunchRequest:
    return LaunchRequest(
        run_id=run_id,
        bundle=bundle,
        offers=(offer("bed-a"), offer("bed-b")),
        max_duration_s=600,
        env={"OMP_NUM_THREADS": "1", "TRAINING_PACE_S": "0.3"},
        secrets=("PLAN_SECRET",),
        labels={"project": "tests"},
        python=sys.executable,
    )


def adapter_sha256(store: Path) -> str:
    opened = open_store(store.as_uri())
    head = read_head(opened)
    assert head is not None and head.output is not None
    files = {entry.path: entry.sha256 for entry in read_manifest(opened, head.output).files}
    return files["adapter_model.safetensors"]


def step(store: Path) -> int:
    progress = read_progress(open_store(store.as_uri()))
    return progress.step if progress else 0


def wait(
    user: BedUser, run_id: str, wanted: Callable[[BackendStatus], bool], timeout_s: float = 240
) -> BackendStatus:
    deadline = time.monotonic() + timeout_s
    while not wanted(status := user.status(run_id)):
        assert status.state not in ENDED, f"ended early: {status}"
        assert time.monotonic() < deadline, f"still {status}"
        time.sleep(1)
    return status


def files_with(text: str, *places: Path) -> list[Path]:
    """Files that hold a text, below directories or themselves."""
    files = [path for place in places for path in [place, *place.rglob("*")]]
    return [path for path in files if path.is_file() and text.encode() in path.read_bytes()]


def on_the_node(bed: Bed, *texts: str) -> list[Path]:
    """Files of the node that hold a text: its home, its scratch directory, and SkyPilot's files in /tmp."""
    places = [bed.slurm.node_home, bed.root / "tmp", *Path("/tmp").glob("sky*")]
    return [path for text in texts for path in files_with(text, *places)]


@pytest.fixture
def undisturbed(tmp_path: Path) -> Iterator[Callable[[], str]]:
    """The adapter's hash of a run that nobody disturbs, on this machine; it trains beside the test."""
    store = tmp_path / "undisturbed"
    bundle = build_bundle(tmp_path / "bundle", job("undisturbed", store)).path
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(bundle), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "jobs.train", str(bundle / "job.json")]
    worker = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)

    def finish() -> str:
        assert worker.wait(timeout=300) == 0
        return adapter_sha256(store)

    yield finish
    worker.kill()
    worker.wait()


def test_a_preempted_run_ends_with_the_weights_of_an_undisturbed_one(
    slurm_bed: Bed, user: BedUser, shared: Path, undisturbed: Callable[[], str]
) -> None:
    store = shared / "store"
    goat = request("goat", build_bundle(shared / "bundle", job("goat", store)).path)
    assert user.status("goat") == BackendStatus("absent")

    first = user.launch(goat)
    again = user.launch(goat)
    assert first.backend_id == again.backend_id
    assert (first.attempt, again.attempt) == (1, 1)

    running = wait(user, "goat", lambda status: status.state == "running" and step(store) > EVERY)
    assert running.offer is not None
    assert (running.offer.cloud, running.offer.region, running.offer.gpu) == ("slurm", "bed-a", "A100")
    assert on_the_node(slurm_bed, CANARY_SECRET, CANARY_FILE) == []

    slurm_bed.slurm.run("scancel", "--partition=spot")
    wait(user, "goat", lambda status: status.state == "recovering" or status.recoveries > 0)
    done = wait(user, "goat", lambda status: status.state == "succeeded")
    assert done.recoveries == 1
    assert adapter_sha256(store) == undisturbed()

    lines = user.logs("goat")
    assert any("attempt 2" in line for line in lines)
    assert any(line.strip() == "done" for line in lines)
    deadline = time.monotonic() + 60
    while not user.released("goat"):
        assert time.monotonic() < deadline
        time.sleep(1)
    assert slurm_bed.slurm.run("squeue", "-h") == ""
    assert [command_of(pid) for pid in slurm_bed.pids() if "jobs.train" in command_of(pid)] == []
    assert on_the_node(slurm_bed, CANARY_SECRET, CANARY_FILE) == []
    assert files_with(CANARY_SECRET, shared) == []
    assert CANARY_SECRET not in user.dry_run_yaml(goat) + "\n".join(lines)
