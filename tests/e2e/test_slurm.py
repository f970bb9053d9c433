"""`plan launch --infra skypilot` on a real Slurm: a real tiny fine-tuning, preempted once, and one that is cancelled.

What is checked is what a person trusts a launcher with: one job however often it is asked for, nothing lost by
the preemption, nothing left running, the right price, no credential where it does not belong.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.committed import read_head, read_manifest
from jobs.progress import read_progress
from jobs.spec import CheckpointsJob, JobSpec
from providers.launcher import BackendStatus
from providers.stores import open_store
from tests.bed.bed import Bed
from tests.bed.client import BedUser
from tests.bed.processes import command_of
from tests.bed.sky_home import REGIONS
from tests.e2e.conftest import CANARY_FILE, CANARY_SECRET

pytestmark = [pytest.mark.slurm, pytest.mark.train, pytest.mark.timeout(1200)]

GOAT = Path(__file__).parents[2] / "examples/tiny-goat"
EVERY = 50
PLAN = str(Path(sys.executable).parent / "plan")


class Person:
    """Somebody who uses `plan` with the bed."""

    def __init__(self, bed: Bed, home: Path) -> None:
        self.home = home
        self._env = bed.sky.env() | {"PLAN_HOME": str(home), "PLAN_SECRET": CANARY_SECRET}

    def plan(self, *words: str, code: int = 0) -> str:
        """Standard output of a command that ends with this code."""
        done = subprocess.run([PLAN, *words], env=self._env, capture_output=True, text=True, timeout=600)
        assert done.returncode == code, f"plan {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def killed(self, *words: str, when: Callable[[], bool]) -> None:
        """Start a command and kill -9 it somewhere in the seconds after something has come true."""
        process = subprocess.Popen([PLAN, *words], env=self._env, stdout=subprocess.DEVNULL)
        eventually(when)
        time.sleep(random.uniform(0, 8))
        process.kill()
        process.wait()

    def json(self, *words: str) -> Any:
        """The JSON answer of a command."""
        return json.loads(self.plan(*words, "-o", "json"))


@pytest.fixture(scope="module")
def person(slurm_bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Person:
    """With the bed's two regions and their prices in the price book."""
    someone = Person(slurm_bed, tmp_path_factory.mktemp("plan-home"))
    catalog = slurm_bed.root / "catalog/slurm/vms.csv"
    catalog.parent.mkdir(parents=True)
    rows = [
        f",{gpu},1,4,16,{price},,{region},spot"
        for region, gpus in REGIONS.items()
        for gpu, price in gpus.items()
    ]
    head = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,SpotPrice,Region,AvailabilityZone"
    catalog.write_text("\n".join([head, *rows]) + "\n")
    today = datetime.now(UTC).date().isoformat()
    someone.plan("prices", "import", str(catalog.parents[1]), "--as-of", today)
    return someone


@pytest.fixture
def spec(shared: Path) -> Path:
    """A goat of 600 quick steps; its checkpoints go where this machine and the nodes can both write."""
    path = shared / "spec.yaml"
    path.write_text(
        f"""\
spec_version: 1
name: goat
model: {{id: {GOAT / "base"}}}
method: {{kind: lora, rank: 4}}
data: {{train: {GOAT / "train.jsonl"}, format: prompt_completion}}
train: {{steps: 600, sequence_length: 32, global_batch: 16, micro_batch: 16, precision: fp32}}
where: {{clouds: [slurm], gpus: [A100]}}
checkpoints: {{every: {EVERY} steps, uri: {shared / "store"}}}
environment: {{python: {sys.executable}, secrets: [PLAN_SECRET], env: {{OMP_NUM_THREADS: "1"}}}}
"""
    )
    return path


def order_of(person: Person, spec: Path, run_id: str) -> tuple[str, ...]:
    """The words of a launch from a plan that is made now."""
    plan = spec.with_suffix(".json")
    person.plan("estimate", str(spec), "--out", str(plan))
    return "launch", str(plan), "--cap", "5", "--run-id", run_id


def living_jobs() -> list[str]:
    """Names of the jobs that the bed's SkyPilot works on."""
    import sky
    import sky.jobs

    jobs = sky.get(sky.jobs.queue_v2(refresh=False))[0]
    return [job.job_name for job in jobs if job.status.value not in ("CANCELLED", "CANCELLING")]


def adapter_sha256(store: Path) -> str:
    opened = open_store(store.as_uri())
    head = read_head(opened)
    assert head is not None and head.output is not None
    files = {entry.path: entry.sha256 for entry in read_manifest(opened, head.output).files}
    return files["adapter_model.safetensors"]


def step(store: Path) -> int:
    progress = read_progress(open_store(store.as_uri()))
    return progress.step if progress else 0


def fence(store: Path) -> int:
    """How many workers have taken the run over so far."""
    progress = read_progress(open_store(store.as_uri()))
    return progress.fence if progress else 0


def eventually(holds: Callable[[], bool], timeout_s: float = 400) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def running(user: BedUser, run_id: str, store: Path) -> BackendStatus:
    """The run's status once it trains and SkyPilot knows it, so that what ends it is a preemption."""
    eventually(lambda: step(store) > EVERY)
    status: list[BackendStatus] = []
    eventually(lambda: status.append(user.status(run_id)) or status[-1].state == "running")
    return status[-1]


def files_with(text: str, *places: Path) -> list[Path]:
    """Files that hold a text, below directories or themselves."""
    files = [path for place in places for path in [place, *place.rglob("*")]]
    return [path for path in files if path.is_file() and text.encode() in path.read_bytes()]


def on_the_node(bed: Bed, *texts: str) -> list[Path]:
    """Files of the node that hold a text: its home, its scratch directory, and SkyPilot's files in /tmp."""
    born = (bed.root / "ports.json").stat().st_mtime
    ours = [path for path in Path("/tmp").glob("sky*") if path.stat().st_mtime >= born]
    places = [bed.slurm.node_home, bed.root / "tmp", *ours]
    return [path for text in texts for path in files_with(text, *places)]


def shown_to_others(bed: Bed, text: str) -> list[str]:
    """Command lines of the bed's processes that hold a text: every user of a node can read those."""
    lines = [command_of(pid) for pid in bed.pids()]
    assert any("jobs.train" in line for line in lines)
    return [line for line in lines if text in line]


def nothing_runs(bed: Bed, user: BedUser, run_id: str) -> None:
    """Every machine is given back, and no worker lives."""
    eventually(lambda: user.released(run_id))
    assert bed.slurm.run("squeue", "-h") == ""
    assert [pid for pid in bed.pids() if "jobs.train" in command_of(pid)] == []


class Undisturbed:
    """The same job, trained here beside the run by nobody disturbed."""

    def __init__(self, bundle: Path, work: Path) -> None:
        shutil.copytree(bundle, work / "bundle")
        self._store = work / "undisturbed"
        document = work / "bundle/job.json"
        checkpoints = CheckpointsJob(self._store.as_uri(), every_steps=EVERY)
        document.write_text(replace(JobSpec.load(document), checkpoints=checkpoints).to_json())
        env = {"PYTHONPATH": str(work / "bundle"), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "jobs.train", str(document)]
        self.worker = subprocess.Popen(
            command, env=env | {"PATH": os.environ["PATH"]}, stdout=subprocess.DEVNULL, cwd=work
        )

    def adapter_sha256(self) -> str:
        """Wait for it."""
        assert self.worker.wait(timeout=400) == 0
        return adapter_sha256(self._store)


@pytest.fixture
def train_undisturbed(tmp_path: Path) -> Iterator[Callable[[Path], Undisturbed]]:
    started: list[Undisturbed] = []

    def start(bundle: Path) -> Undisturbed:
        started.append(Undisturbed(bundle, tmp_path))
        return started[-1]

    yield start
    for each in started:
        each.worker.kill()
        each.worker.wait()


def test_a_preempted_run_ends_with_the_weights_of_an_undisturbed_one(
    slurm_bed: Bed,
    user: BedUser,
    person: Person,
    spec: Path,
    train_undisturbed: Callable[[Path], Undisturbed],
) -> None:
    store = spec.parent / "store/goat"
    bundle = person.home / "state/bundles/goat/1"
    order = order_of(person, spec, "goat")
    assert "infra: slurm/bed-a/spot" in person.plan(*order, "--dry-run")
    assert user.status("goat") == BackendStatus("absent")

    person.killed(*order, "--yes", when=bundle.exists)
    with ThreadPoolExecutor() as two:
        answers = list(two.map(lambda _: person.json(*order, "--yes"), range(2)))
    assert [(answer["created"], answer["infra"]) for answer in answers] == [(False, "skypilot")] * 2
    assert user.call(living_jobs) == ["plan-goat-1"]
    undisturbed = train_undisturbed(bundle)

    status = running(user, "goat", store)
    assert shown_to_others(slurm_bed, CANARY_SECRET) == []
    assert (status.attempt, status.recoveries) == (1, 0)
    assert status.offer is not None
    assert (status.offer.cloud, status.offer.region, status.offer.gpu) == ("slurm", "bed-a", "A100")
    slurm_bed.slurm.run("scancel", "--partition=spot")
    eventually(lambda: fence(store) == 2)
    assert on_the_node(slurm_bed, CANARY_SECRET, CANARY_FILE) == []

    person.plan("wait", "goat")
    assert adapter_sha256(store) == undisturbed.adapter_sha256()
    run = person.json("status", "goat")["run"]
    assert (run["state"], run["step"], run["infra"]) == ("succeeded", 600, "skypilot")
    assert user.status("goat").recoveries == 1
    (attempt,) = run["attempts"]
    assert (attempt["offer"]["region"], attempt["offer"]["price_usd_per_h"]) == ("bed-a", "1.1")
    assert 0 < float(run["cost_usd"]) < 1.1
    log = person.plan("logs", "goat")
    assert "attempt 2" in log
    assert log.rstrip().endswith("done")

    nothing_runs(slurm_bed, user, "goat")
    assert on_the_node(slurm_bed, CANARY_SECRET, CANARY_FILE) == []
    assert files_with(CANARY_SECRET, spec.parent, person.home, slurm_bed.sky.path) == []
    assert CANARY_SECRET not in person.plan(*order, "--dry-run") + log


def test_a_cancelled_run_releases_its_machine_and_keeps_its_checkpoint(
    slurm_bed: Bed, user: BedUser, person: Person, spec: Path
) -> None:
    spec.write_text(spec.read_text().replace("steps: 600", "steps: 1000000"))
    store = spec.parent / "store/long"
    person.plan(*order_of(person, spec, "long"), "--yes")
    running(user, "long", store)
    assert person.json("cancel", "long")["run"]["state"] == "cancelled"
    nothing_runs(slurm_bed, user, "long")
    assert on_the_node(slurm_bed, CANARY_SECRET, CANARY_FILE) == []
    assert "attempt 1" in person.plan("logs", "long")
    head = read_head(open_store(store.as_uri()))
    assert head is not None and head.newest is not None and head.newest.step >= EVERY
