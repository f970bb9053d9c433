"""What a rented run takes along, which machines it may fall back on, and what stands against it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.manifest import FileEntry
from jobs.progress import Progress, WorkerState
from jobs.spec import CheckpointsJob, DataJob, InputsJob, JobSpec, ModelJob, TrainJob
from planner import rented
from planner.answer import estimate_spec
from planner.candidate_document import candidate_document
from planner.candidates import Candidate
from planner.monitor import decide
from planner.plan import Plan
from providers.launcher import BackendStatus, LaunchRequest
from tests.planner.factories import NOW, offer_of, snapshot_of, spec_of
from tests.planner.run_factories import START, attempt_of, run_of, terms_of


def plan_of(**sections: Any) -> Plan:
    """A plan over two regions of one machine, and one machine of two GPUs."""
    offers = (
        offer_of(price=2.0, region="near"),
        offer_of(price=1.0, region="cheap", zone=None),
        offer_of(count=2, price=4.0, region="double"),
        offer_of(price=0.0, cloud="local", region="local", zone=None, market="local"),
    )
    return estimate_spec(spec_of(**sections), Path(), snapshot_of(*offers), NOW).plan()


def chosen(plan: Plan) -> Candidate:
    assert plan.recommended is not None
    return next(row for row in plan.candidates if row.offer.region == "cheap" and row.nodes == 1)


def job(data: str, model: str | None = None, uri: str = "file:///shared/run") -> JobSpec:
    checkpoints = CheckpointsJob(uri)
    return JobSpec(
        "run", "job", ModelJob("m", path=model), DataJob(data), checkpoints, train=TrainJob(steps=1)
    )


def test_alternatives_can_run_the_same_job_and_are_for_rent() -> None:
    plan = plan_of()
    best = chosen(plan)
    regions = [offer.region for offer in rented.alternatives(plan, best)]
    assert "near" in regions
    assert not {"cheap", "double", "local"} & set(regions)


@pytest.mark.parametrize(("cloud", "others"), [("aws", {"aws"}), ("gcp", {"gcp", "lambda"})])
def test_machines_of_aws_are_not_mixed_with_others(cloud: str, others: set[str]) -> None:
    offers = [
        offer_of(price=price, cloud=name, region=f"{name}-{price}", zone=None)
        for name in ("aws", "gcp", "lambda")
        for price in (1.0, 2.0)
    ]
    plan = estimate_spec(spec_of(), Path(), snapshot_of(*offers), NOW).plan()
    first = next(row for row in plan.candidates if row.offer.cloud == cloud)
    assert {offer.cloud for offer in rented.alternatives(plan, first)} == others


def test_what_the_ledger_keeps_completes_the_request() -> None:
    plan = plan_of(
        where={"max_usd_per_hour": 3},
        environment={"packages": ["a b", "c"], "setup": "echo hi"},
    )
    best = chosen(plan)
    kept = json.loads(json.dumps(rented.terms_document(plan, best, job("org/rows"))))
    request = rented.complete(LaunchRequest("run", Path("/b"), (best.offer,)), kept)
    assert [offer.region for offer in request.offers] == ["cheap", "near"]
    assert request.max_usd_per_hour == 3
    assert (request.setup_python, request.python) == ("python3", "env/bin/python")
    assert request.setup == ("sh jobs/install.sh 3.11 'a b' c", "echo hi")


def test_a_limit_for_all_machines_is_shared_out_to_each() -> None:
    """Backends compare it with one machine's price."""
    plan = plan_of(where={"max_usd_per_hour": 3, "nodes": 2})
    best = next(row for row in plan.candidates if row.offer.region == "cheap")
    assert best.nodes == 2
    assert rented.terms_document(plan, best, job("org/rows"))["max_usd_per_hour"] == 1.5


def test_the_request_names_what_the_machine_reads() -> None:
    plan = plan_of()
    entry = FileEntry("inputs/train.jsonl", 3, "a" * 64)
    inputs = InputsJob("s3://bucket/runs/_inputs?region=eu-west-1", (entry,))
    named = replace(job("inputs/train.jsonl"), inputs=inputs)
    kept = rented.terms_document(plan, chosen(plan), named, {entry.path: "/data/train.jsonl"})
    request = rented.complete(LaunchRequest("run", Path("/b"), (chosen(plan).offer,)), kept)
    assert request.reads == (f"s3://bucket/runs/_inputs/blobs/{'a' * 64}?region=eu-west-1",)
    assert rented.sources(json.dumps({"rented": kept})) == {"inputs/train.jsonl": "/data/train.jsonl"}
    assert rented.sources("{}") == {}


def test_an_interpreter_of_the_users_has_everything() -> None:
    plan = plan_of(environment={"python": "/opt/train/bin/python"})
    kept = rented.terms_document(plan, chosen(plan), job("org/rows"))
    request = rented.complete(LaunchRequest("run", Path("/b"), (chosen(plan).offer,)), kept)
    assert (request.python, request.setup) == ("/opt/train/bin/python", ())
    assert request.setup_python == request.python


def test_the_machine_that_was_got_is_found_among_those_that_were_asked_for() -> None:
    plan = plan_of()
    best = chosen(plan)
    document = candidate_document(best) | {"rented": rented.terms_document(plan, best, job("org/rows"))}
    got = best.offer._replace(region="near", zone=None, instance_type=None, price_usd_per_hour=None)
    found = rented.machine_got(document, got)
    assert found is not None
    assert (found.region, found.price_usd_per_hour) == ("near", 2.0)
    assert rented.machine_got(document, got._replace(region="elsewhere")) is None
    assert rented.machine_got(document, None) is None
    assert rented.machine_got(candidate_document(best), got) is None


def test_the_ledger_prices_the_machine_that_was_got() -> None:
    plan = plan_of()
    best = chosen(plan)
    document = candidate_document(best) | {"rented": rented.terms_document(plan, best, job("org/rows"))}
    terms = terms_of(infra="skypilot", candidate_json=json.dumps(document))
    run = run_of("queued", attempt_of(), terms=terms)
    got = best.offer._replace(region="near", zone=None, price_usd_per_hour=None)
    status = BackendStatus("running", backend_id="1", offer=got, started_at=START, attempt=1)
    change = decide(run, status, None, "2026-11-22T13:00:00.000Z")
    assert change is not None
    assert json.loads(change.attempt.offer_json)["region"] == "near"
    assert (change.attempt.micro_usd_per_hour, change.attempt.cost_micro_usd) == (2_000_000, 2_000_000)


@pytest.mark.parametrize(
    ("market", "kind", "price"),
    [("spot", "small", 1.0), ("on_demand", "small", 4.0), ("spot", "large", 2.0), ("on_demand", None, 4.0)],
)
def test_a_machine_costs_what_its_market_and_its_kind_cost(
    market: str, kind: str | None, price: float
) -> None:
    prices = {("small", "spot"): 1.0, ("large", "spot"): 2.0, ("small", "on_demand"): 4.0}
    offers = [
        offer_of(price=usd, region="r", zone="ra", market=sold)._replace(instance_type=name)
        for (name, sold), usd in prices.items()
    ]
    plan = estimate_spec(spec_of(), Path(), snapshot_of(*offers), NOW).plan()
    best = next(row for row in plan.candidates if row.offer.price_usd_per_hour == 1.0 and row.nodes == 1)
    document = candidate_document(best) | {"rented": rented.terms_document(plan, best, job("org/rows"))}
    got = best.offer._replace(market=market, instance_type=kind, price_usd_per_hour=None)
    found = rented.machine_got(document, got)
    assert found is not None
    assert found.price_usd_per_hour == price
    on_slurm = {
        **document,
        "offer": {**document["offer"], "cloud": "slurm"},
        "rented": {**document["rented"], "alternatives": []},
    }
    known = rented.machine_got(on_slurm, got._replace(cloud="slurm", market="on_demand"))
    assert known is not None  # which knows no spot
    assert known.market == "spot"


@pytest.mark.parametrize(
    ("said", "state"), [("capped", "capped"), ("preempted", "preempted"), ("failed", "failed")]
)
def test_a_backend_without_exit_codes_is_read_with_what_the_worker_said(
    said: WorkerState, state: str
) -> None:
    ended = BackendStatus("failed", backend_id="1", started_at=START, ended_at=START, attempt=1)
    change = decide(run_of(), ended, Progress("run-1", 1, state=said, started_at=START), START)
    assert change is not None
    assert change.state == state


BUCKET = "s3://bucket/runs"
KEYS = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]


@pytest.mark.parametrize(
    ("cloud", "uri", "secrets", "codes"),
    [
        ("slurm", "file:///shared", [], []),
        ("slurm", None, [], ["store_unreachable"]),
        ("aws", "file:///shared", [], ["store_unreachable"]),
        ("aws", BUCKET, [], []),
        ("lambda", BUCKET, [], []),
        ("lambda", f"{BUCKET}?endpoint=https://host", KEYS, []),
        ("lambda", f"{BUCKET}?endpoint=https://host", KEYS[:1], ["no_bucket_rights"]),
    ],
)
def test_checkpoints_must_be_where_the_machine_can_write(
    cloud: str, uri: str | None, secrets: list[str], codes: list[str]
) -> None:
    plan = plan_of(checkpoints={"uri": uri}, environment={"secrets": secrets})
    best = chosen(plan)
    candidate = best._replace(offer=best.offer._replace(cloud=cloud))
    written = job("org/rows", uri=uri or "file:///state/run")
    assert [row.code for row in rented.blockers(plan, candidate, written)] == codes


@pytest.mark.parametrize(
    ("uri", "train", "codes"),
    [
        (f"{BUCKET}?region=eu-west-1", "/rows.jsonl", []),
        (f"{BUCKET}?region=us-east-1", "/rows.jsonl", ["data_region"]),
        (BUCKET, "/rows.jsonl", ["data_region"]),
        (BUCKET, "org/rows", []),
    ],
)
def test_data_is_not_sent_where_it_must_not_be(uri: str, train: str, codes: list[str]) -> None:
    spec = spec_of(checkpoints={"uri": uri}, data={"regions": ["eu-west-1"]})
    plan = estimate_spec(spec, Path(), snapshot_of(offer_of(region="eu-west-1")), NOW).plan()
    found = rented.blockers(plan, plan.candidates[0], job(train, uri=uri))
    assert [row.code for row in found] == codes


def test_a_run_longer_than_its_keys_is_refused() -> None:
    plan = plan_of(checkpoints={"uri": BUCKET})
    best = chosen(plan)
    offer = best.offer._replace(cloud="lambda")
    weeks = best._replace(offer=offer, wall_clock_h=replace(best.wall_clock_h, p90=100.0))
    (finding,) = rented.blockers(plan, weeks, job("org/rows", uri=BUCKET))
    assert finding.code == "session_too_short"
    assert list(rented.blockers(plan, weeks, job("org/rows", uri=BUCKET), renewed=True)) == []


@pytest.mark.parametrize(
    ("clouds", "secrets", "uri", "access"),
    [
        (["aws"], [], BUCKET, "role"),
        (["aws", "gcp"], [], BUCKET, "session"),
        (["aws"], KEYS, BUCKET, "secrets"),
        (["aws"], KEYS[:1], BUCKET, "role"),
        (["slurm"], [], "file:///shared", "secrets"),
    ],
)
def test_the_machine_gets_no_more_rights_than_it_needs(
    clouds: list[str], secrets: list[str], uri: str, access: str
) -> None:
    spec = spec_of(checkpoints={"uri": uri}, environment={"secrets": secrets})
    assert rented.access(spec, [offer_of(cloud=cloud) for cloud in clouds]) == access


@pytest.mark.parametrize(
    ("uri", "secret", "codes"),
    [
        ("gs://models/runs", "GOOGLE_SERVICE_ACCOUNT_KEY", []),
        ("az://models/runs?account=me", "AZURE_STORAGE_SAS_KEY", []),
        ("gs://models/runs", "HF_TOKEN", ["no_bucket_rights"]),
        ("az://models/runs", "GOOGLE_SERVICE_ACCOUNT_KEY", ["no_bucket_rights"]),
    ],
)
def test_buckets_of_other_clouds_need_a_key_that_the_spec_names(
    uri: str, secret: str, codes: list[str]
) -> None:
    plan = plan_of(checkpoints={"uri": uri}, environment={"secrets": [secret]})
    found = list(rented.blockers(plan, chosen(plan), job("org/rows", uri=uri)))
    assert [row.code for row in found] == codes
    assert rented.access(plan.spec, [offer_of(cloud="aws")]) == "secrets"


@pytest.mark.parametrize(
    ("python", "command", "interpreter"),
    [
        (None, "sh jobs/install.sh 3.11", "env/bin/python"),
        ("3.12", "sh jobs/install.sh 3.12", "env/bin/python"),
    ],
)
def test_a_version_of_python_is_one_to_install(python: str | None, command: str, interpreter: str) -> None:
    plan = plan_of(environment={} if python is None else {"python": python})
    kept = rented.terms_document(plan, chosen(plan), job("org/rows"))
    request = rented.complete(LaunchRequest("run", Path("/b"), (chosen(plan).offer,)), kept)
    assert (request.setup, request.python, request.setup_python) == ((command,), interpreter, "python3")


def test_nobody_pays_for_gpus_that_would_stand_idle() -> None:
    plan = plan_of(checkpoints={"uri": "file:///shared"})
    two = next(c for c in plan.candidates if c.offer.gpus_per_node == 2)
    sharded = two._replace(parallelism=two.parallelism._replace(kind="fsdp"))
    idle = [("where.gpus", "idle_gpus")]
    for candidate, codes in ((two, []), (sharded, []), (chosen(plan)._replace(nodes=2), idle)):
        on_slurm = candidate._replace(offer=candidate.offer._replace(cloud="slurm"))
        found = list(rented.blockers(plan, on_slurm, job("org/rows")))
        assert [(row.path, row.code) for row in found] == codes
