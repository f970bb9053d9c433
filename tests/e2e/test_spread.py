"""A plan whose model is spread over processes (FSDP) is launched as planned: here on a CPU, two processes and gloo."""

from __future__ import annotations

import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.committed import read_head, read_manifest
from jobs.progress import read_progress
from planner.answer import estimate_spec
from planner.launch import Desk, launch
from planner.local_machine import local_snapshot
from planner.places import Places
from planner.proposal import Choices, Order, blockers, run_terms
from planner.setup import Parallelism
from planner.specfile import load_spec
from planner.store import Store
from planner.surroundings import Surroundings
from providers.local import LocalLauncher
from providers.stores import open_store
from providers.supervisor import utc_now
from tests.workers import eventually

GOAT = Path(__file__).parents[2] / "examples" / "tiny-goat"


@pytest.mark.long
@pytest.mark.train
def test_a_sharded_plan_trains_on_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    home = tmp_path / "goat"
    shutil.copytree(GOAT, home)
    loaded = load_spec(home / "spec.yaml")
    spec = loaded.spec.model_copy(update={"train": loaded.spec.train.model_copy(update={"steps": 60})})
    now = datetime.now(UTC)
    plan = estimate_spec(spec, home, local_snapshot(), now).plan()
    assert plan.recommended is not None
    single = plan.candidate(plan.recommended)
    candidate = single._replace(
        offer=single.offer._replace(gpus_per_node=2),
        parallelism=Parallelism("fsdp", data=2),
        micro_batch=32,
        grad_accum=1,
    )
    places = Places(tmp_path / "state")
    order = Order(plan, candidate, Choices(no_cap=True), "spread")
    assert blockers(order, places, Surroundings(dict(os.environ), tmp_path, now, 1e9)) == []
    with Store(places.ledger) as store:
        desk = Desk(store, LocalLauncher(places.local, python=sys.executable), places, utc_now)
        launch(desk, "spread", run_terms(order, places), 0)
        eventually(lambda: desk.launcher.status("spread").state != "running", limit_s=400)
        log = "\n".join(desk.launcher.logs("spread"))
        assert desk.launcher.status("spread").state == "succeeded", log
    checkpoints = open_store(places.checkpoints("spread"))
    progress, head = read_progress(checkpoints), read_head(checkpoints)
    assert progress is not None and head is not None and head.newest is not None
    assert (progress.state, progress.step) == ("done", 60)
    names = {entry.path for entry in read_manifest(checkpoints, head.newest).files}
    assert {f"shard-0000{rank}-model-00001-of-00001.safetensors" for rank in (1, 2)} <= names
    loss = next(metric for metric in progress.metrics if metric.name == "loss")
    assert loss.base is not None and loss.tuned is not None and loss.tuned < loss.base
