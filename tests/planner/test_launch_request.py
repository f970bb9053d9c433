"""Whatever machine a backend takes of those it may, the machine's own timer holds the cap at that one's price."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from jobs.spec import JobSpec
from planner.answer import estimate_spec
from planner.candidate_document import candidate_document
from planner.launch_request import request_for
from planner.rented import terms_document
from planner.store import Store
from providers.launcher import LaunchRequest
from providers.skypilot_task import task_document
from tests.planner.factories import NOW, offer_of, snapshot_of, spec_of
from tests.planner.run_factories import START, attempt_of, run_of, terms_of

HERE = str(Path(__file__).parents[2])


def _request(
    tmp_path: Path, prices: dict[str, float], *, max_usd_per_hour: float | None = None
) -> LaunchRequest:
    offers = [offer_of(region=name, zone=None, price=price) for name, price in prices.items()]
    where = {} if max_usd_per_hour is None else {"max_usd_per_hour": max_usd_per_hour}
    plan = estimate_spec(spec_of(), tmp_path, snapshot_of(*offers), NOW).plan()
    chosen = next(row for row in plan.candidates if row.offer.region == "a" and row.nodes == 1)
    terms = terms_of(infra="cluster", secrets=())
    document = candidate_document(chosen) | {
        "rented": terms_document(plan, chosen, JobSpec.from_json(terms.job_json)) | where
    }
    terms = terms_of(
        infra="cluster", secrets=(), cap_micro_usd=3_000_000, candidate_json=json.dumps(document)
    )
    run = run_of("queued", attempt_of(), terms=terms)
    with Store(tmp_path / "plan.db") as store:
        store.create("run-1", terms, attempt_of())
        return request_for(store, run, tmp_path / "bundle", START)


def _asked_after_s(request: LaunchRequest, place: tuple[str, str] | None) -> float:
    """Run the machine's own script up to the worker, which is only shown."""
    script = task_document(replace(request, python=sys.executable), managed=False)["run"]
    script = script.replace("exec timeout", "echo")
    where = {} if place is None else dict(zip(("cloud", "region"), place, strict=True))
    told = {"SKYPILOT_CLUSTER_INFO": json.dumps(where)}
    script = script.replace('export PYTHONPATH="$PWD"', f"export PYTHONPATH={HERE}")
    env = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", **told}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[2])


def test_the_timer_of_a_dearer_machine_is_shorter_and_of_an_unknown_one_the_shortest(tmp_path: Path) -> None:
    request = _request(tmp_path, {"a": 1.0, "b": 3.0, "c": 1.5})
    cloud = request.offers[0].cloud
    assert request.max_duration_s == 3600.0
    assert request.limits_by_place_s == {f"{cloud}/a": 10800.0, f"{cloud}/b": 3600.0, f"{cloud}/c": 7200.0}
    grace_s = request.stop_grace_s
    assert [_asked_after_s(request, place) for place in ((cloud, "a"), (cloud, "b"), (cloud, "elsewhere"), None)] == [
        10800 - grace_s, 3600 - grace_s, 3600 - grace_s, 3600 - grace_s,
    ]  # fmt: skip
    assert "--limits-s" in task_document(request, managed=False)["setup"]  # so has the keeper


def test_machines_of_one_price_need_no_other_timers(tmp_path: Path) -> None:
    request = _request(tmp_path, {"a": 1.0, "b": 1.0})
    assert (request.max_duration_s, request.limits_by_place_s) == (10800.0, {})


def test_machines_that_are_too_dear_to_be_taken_do_not_count(tmp_path: Path) -> None:
    request = _request(tmp_path, {"a": 1.0, "b": 3.0}, max_usd_per_hour=2.0)
    assert (request.max_duration_s, request.limits_by_place_s) == (10800.0, {})


def test_this_machine_has_one_price(tmp_path: Path) -> None:
    terms = terms_of(cap_micro_usd=3_000_000)
    run = run_of("queued", attempt_of(), terms=terms)
    with Store(tmp_path / "plan.db") as store:
        request = request_for(store, run, tmp_path / "bundle", START)
    assert (request.max_duration_s, request.limits_by_place_s) == (10800.0, {})
