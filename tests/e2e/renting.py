"""A person who rents machines of the bed with `plan`, and what can be seen of their runs from outside."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from jobs.committed import read_head, read_manifest
from jobs.progress import Progress, read_progress
from jobs.spec import CheckpointsJob, JobSpec
from providers.launcher import BackendStatus
from providers.stores import open_store
from tests.bed.bed import Bed
from tests.bed.client import BedUser
from tests.bed.processes import command_of

CANARY_FILE = "canary-in-a-credentials-file"
CANARY_SECRET = "canary-in-a-named-secret"
EVERY = 50
GOAT = Path(__file__).parents[2] / "examples/tiny-goat"
PLAN = str(Path(sys.executable).parent / "plan")


class Person:
    """Somebody who uses `plan` with the bed."""

    def __init__(self, bed: Bed, home: Path) -> None:
        self.home = home
        self.env = bed.sky.env() | {"PLAN_HOME": str(home), "PLAN_SECRET": CANARY_SECRET}

    def plan(self, *words: str, code: int = 0) -> str:
        """Standard output of a command that ends with this code."""
        done = subprocess.run([PLAN, *words], env=self.env, capture_output=True, text=True, timeout=600)
        assert done.returncode == code, f"plan {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def begun(self, *words: str) -> subprocess.Popen[bytes]:
        """A command that goes on beside the test, and heeds Ctrl-C also where the tests run in the background."""
        heeds = ("env", "--default-signal=INT")
        return subprocess.Popen([*heeds, PLAN, *words], env=self.env, stdout=subprocess.DEVNULL)

    def killed(self, *words: str, when: Callable[[], bool], within_s: float = 8.0) -> None:
        """Start a command and kill -9 it somewhere in the seconds after something has come true."""
        process = self.begun(*words)
        eventually(when)
        time.sleep(random.uniform(0, within_s))
        process.kill()
        process.wait()

    def json(self, *words: str) -> Any:
        """The JSON answer of a command."""
        return json.loads(self.plan(*words, "-o", "json"))


def goat_spec(shared: Path, *, steps: int) -> Path:
    """A goat of quick steps on Slurm; its checkpoints go where this machine and the nodes can both write."""
    path = shared / "spec.yaml"
    path.write_text(
        f"""\
spec_version: 1
name: goat
model: {{id: {GOAT / "base"}}}
method: {{kind: lora, rank: 4}}
data: {{train: {GOAT / "train.jsonl"}, format: prompt_completion}}
train: {{steps: {steps}, sequence_length: 32, global_batch: 16, micro_batch: 16, precision: fp32}}
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
    return [job.job_name for job in jobs if not job.status.is_terminal() and job.status.value != "CANCELLING"]


def adapter_sha256(store: Path) -> str:
    """Hash of the finished adapter's weights."""
    opened = open_store(store.as_uri())
    head = read_head(opened)
    assert head is not None and head.output is not None
    files = {entry.path: entry.sha256 for entry in read_manifest(opened, head.output).files}
    return files["adapter_model.safetensors"]


def progress_of(store: Path) -> Progress:
    """What the run's worker last said."""
    said = read_progress(open_store(store.as_uri()))
    assert said is not None
    return said


def step(store: Path) -> int:
    """Steps so far, 0 before the worker says anything."""
    said = read_progress(open_store(store.as_uri()))
    return said.step if said else 0


def fence(store: Path) -> int:
    """How many workers have taken the run over so far."""
    said = read_progress(open_store(store.as_uri()))
    return said.fence if said else 0


def running_nodes(bed: Bed) -> list[str]:
    """Slurm nodes of the jobs that run."""
    return bed.slurm.run("squeue", "-h", "-t", "R", "-o", "%N").split()


def completed_jobs(bed: Bed, run_id: str) -> list[dict[str, Any]]:
    """What Slurm wrote down of the run's jobs as they ended, oldest first: where, and times."""
    rows = []
    for line in (bed.root / "log/completed.txt").read_text().splitlines():
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if words["Name"].startswith(f"plan-{run_id}-"):
            start, end = (datetime.fromisoformat(words[key]).timestamp() for key in ("StartTime", "EndTime"))
            place = {"node": words["NodeList"], "partition": words["Partition"]}
            rows.append({**place, "reservation": words["ReservationName"], "start": start, "end": end})
    return sorted(rows, key=lambda row: row["start"])


def against_slurm(bed: Bed, person: "Person", run_id: str) -> list[dict[str, Any]]:
    """Each attempt of the ledger beside the job that Slurm completed for it: seconds of both."""
    attempts = person.json("status", run_id)["run"]["attempts"]
    jobs = completed_jobs(bed, run_id)
    assert len(attempts) == len(jobs), (attempts, jobs)
    rows = []
    for attempt, job in zip(attempts, jobs, strict=True):
        start, end = (datetime.fromisoformat(attempt[key]).timestamp() for key in ("started_at", "ended_at"))
        price = float(attempt["offer"]["price_usd_per_h"])
        assert abs(float(attempt["cost_usd"]) - price * (end - start) / 3600) < 1e-5, attempt
        rows.append(
            {
                "node": job["node"],
                "region": attempt["offer"]["region"],
                "ledger_s": round(end - start, 1),
                "slurm_s": round(job["end"] - job["start"], 1),
                "start_off_s": round(start - job["start"], 1),
                "end_off_s": round(end - job["end"], 1),
            }
        )
    return rows


def take_away(bed: Bed) -> str:
    """Take the machine away that a spot job runs on, as a preemption does: the node is gone until the next one."""
    (node,) = running_nodes(bed)
    all_nodes_back(bed)
    bed.slurm.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=preempted")
    bed.slurm.run("scancel", "--partition=spot")
    return node


def all_nodes_back(bed: Bed) -> None:
    """What was taken away may be had again."""
    rows = bed.slurm.run("sinfo", "-h", "-N", "-o", "%N %T").splitlines()
    for node in {row.split()[0] for row in rows if row.split()[1].startswith("drain")}:
        bed.slurm.run("scontrol", "update", f"nodename={node}", "state=resume")


@contextmanager
def monitored(person: "Person", log: Path) -> Iterator[None]:
    """With a monitor that serves the person's runs."""
    with log.open("w") as out:
        command = [PLAN, "monitor", "run", "--every", "2s"]
        monitor = subprocess.Popen(command, env=person.env, stdout=out, stderr=subprocess.STDOUT)
    try:
        eventually(lambda: bool(person.json("monitor", "show")["lives"]))
        yield
    finally:
        monitor.terminate()
        monitor.wait(timeout=300)


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
    living = {pid: command_of(pid) for pid in bed.pids()}
    workers = {pid: command for pid, command in living.items() if "jobs.train" in command}
    states = [Path(f"/proc/{pid}/status").read_text() for pid in workers if Path(f"/proc/{pid}").exists()]
    assert workers == {}, (workers, states)


class Undisturbed:
    """The same job, trained here beside the run by nobody disturbed; `env` leads to its inputs in a bucket."""

    def __init__(self, bundle: Path, work: Path, env: Mapping[str, str] | None = None) -> None:
        shutil.copytree(bundle, work / "bundle")
        self._store = work / "undisturbed"
        document = work / "bundle/job.json"
        checkpoints = CheckpointsJob(self._store.as_uri(), every_steps=EVERY)
        document.write_text(replace(JobSpec.load(document), checkpoints=checkpoints).to_json())
        ours = {"PYTHONPATH": str(work / "bundle"), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "jobs.train", str(document)]
        self.worker = subprocess.Popen(
            command,
            env={**(env or {}), **ours, "PATH": os.environ["PATH"]},
            stdout=subprocess.DEVNULL,
            cwd=work,
        )

    def adapter_sha256(self) -> str:
        """Wait for it."""
        assert self.worker.wait(timeout=400) == 0
        return adapter_sha256(self._store)
