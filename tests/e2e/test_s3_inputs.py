"""A rented run's data comes from the bucket: a directory of this machine, sent once, trained on from there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.committed import read_head
from jobs.spec import JobSpec
from planner.answer import estimate_spec
from planner.launch import Desk, launch
from planner.launch_request import request_of
from planner.monitor import observe
from planner.places import Places
from planner.proposal import Choices, Order, bytes_from_here, run_terms
from planner.specfile import load_spec
from planner.store import Store
from providers.aws_access import policy
from providers.local import LocalLauncher
from providers.stores import open_store
from providers.supervisor import utc_now
from tests.chaos.fault_proxy import fault_proxy
from tests.planner.factories import NOW, offer_of, snapshot_of
from tests.seaweed import BUCKET, SECRET, Seaweed
from tests.workers import eventually, make_python, order_exit

GOAT = Path(__file__).parents[2] / "examples/tiny-goat"
STEPS = 4


@pytest.fixture
def counts(s3_server: Seaweed) -> Iterator[Counter[str]]:
    """Requests to the server by kind; its endpoint is under `endpoint`."""
    seen: Counter[str] = Counter()
    with fault_proxy(s3_server.endpoint) as proxy:
        proxy.event = lambda kind, moment: seen.update([kind] if moment == "arrived" else [])
        seen.endpoint = proxy.endpoint  # type: ignore[attr-defined]
        yield seen


def order_of(home: Path, endpoint: str, run_id: str) -> Order:
    """An order for a machine of AWS, whose data is a directory of two files here."""
    rows = (GOAT / "train.jsonl").read_text().splitlines(keepends=True)
    (home / "data").mkdir(exist_ok=True)
    for name, part in {"a.jsonl": rows[:200], "b.jsonl": rows[200:400]}.items():
        (home / "data" / name).write_text("".join(part))
    (home / "spec.yaml").write_text(
        f"""\
spec_version: 1
name: goat
model: {{id: {GOAT / "base"}}}
method: {{kind: lora, rank: 4}}
data: {{train: ./data, eval: {GOAT / "eval.jsonl"}, format: prompt_completion}}
train: {{steps: {STEPS}, sequence_length: 32, global_batch: 16, micro_batch: 16, precision: fp32}}
evaluate: {{samples: 4}}
checkpoints: "s3://{BUCKET}/{home.name}?endpoint={endpoint}"
environment: {{secrets: [AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]}}
"""
    )
    loaded = load_spec(home / "spec.yaml")
    plan = estimate_spec(loaded.spec, loaded.base_dir, snapshot_of(offer_of("L4")), NOW).plan()
    return Order(plan, plan.candidates[0], Choices(no_cap=True), run_id)


@pytest.mark.long
@pytest.mark.train
def test_the_worker_trains_on_what_the_bucket_holds(tmp_path: Path, counts: Any) -> None:
    places = Places(tmp_path / "state")
    order = order_of(tmp_path, counts.endpoint, "goat-1")
    assert order.infra == "skypilot"
    terms = run_terms(order, places)
    job = JobSpec.from_json(terms.job_json)
    assert [entry.path for entry in job.inputs.files][:2] == ["inputs/train/a.jsonl", "inputs/train/b.jsonl"]
    assert str(tmp_path) not in terms.job_json and SECRET not in terms.job_json + terms.candidate_json
    assert bytes_from_here(order, places) == sum(entry.bytes for entry in job.inputs.files)
    may = policy(*_rights(terms, tmp_path))
    objects = [row["Resource"] for row in may["Statement"] if row["Action"] == ["s3:GetObject"]]
    assert [len(names) for names in objects] == [len(job.inputs.files)]

    with Store(places.ledger) as store:
        desk = Desk(store, LocalLauncher(places.local), places, utc_now)
        launch(desk, "goat-1", terms, 1)
        assert counts["put input"] == len({entry.sha256 for entry in job.inputs.files})
        for path in (tmp_path / "data").iterdir():
            path.unlink()  # the machine has no disk of ours
        run = store.find("goat-1")
        eventually(lambda: observe(store, desk.launcher, store.find("goat-1"), utc_now()).final, limit_s=240)
        assert store.find("goat-1").state == "succeeded", run.state_reason
        log = list(desk.launcher.logs("goat-1"))
        assert any("input files from s3://" in line and "verified" in line for line in log)
        assert any("400 examples to learn from" in line for line in log)
        head = read_head(open_store(order.checkpoint_uri(places)))
        assert head is not None and head.output is not None

        again = order_of(tmp_path, counts.endpoint, "goat-2")
        orders = tmp_path / "orders"
        orders.mkdir()
        stub = LocalLauncher(places.local, python=str(make_python(tmp_path / "bin")))
        second = replace(run_terms(again, places), env={"ORDERS": str(orders)})
        counts.clear()
        launch(replace(desk, launcher=stub), "goat-2", second, 1)
        order_exit(orders, 0)
        assert (counts["put input"], counts["put part"]) == (0, 0)
        eventually(lambda: observe(store, stub, store.find("goat-2"), utc_now()).state != "running")


def _rights(terms: Any, bundle: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    request = request_of("goat-1", terms, bundle)
    return request.stores, request.reads
