"""Moments of a cluster that a real SkyPilot shows too rarely to wait for.

Whole runs are in tests/e2e/test_slurm_cluster.py. `FakeSky` answers as SkyPilot's client does, from lists that a test
sets.
"""

from __future__ import annotations

import enum
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from providers.launcher import BackendStatus
from providers.skypilot_cluster import SkyPilotClusterLauncher
from providers.skypilot_jobs import NO_CAPACITY


class NoMachinesError(Exception):
    def __init__(self, text: str, *failover_history: Exception) -> None:
        super().__init__(text)
        self.failover_history = failover_history


class FakeSky:
    """Clusters, launches and history of SkyPilot's API server."""

    StatusRefreshMode = enum.Enum("StatusRefreshMode", ["NONE", "AUTO", "FORCE"])
    exceptions = SimpleNamespace(ClusterDoesNotExist=LookupError, ResourcesUnavailableError=NoMachinesError)

    def __init__(self) -> None:
        self.clusters: dict[str, SimpleNamespace] = {}
        self.jobs: dict[str, list[SimpleNamespace]] = {}
        self.asked: list[SimpleNamespace] = []
        self.past: list[dict[str, Any]] = []
        self.ended: list[str] = []
        self.cancelled: list[int] = []
        self.refusals: tuple[Exception, ...] = (NoMachinesError("Quota exceeded"),)
        self.in_truth: dict[str, str] = {}

    def up(self, name: str, word: str | None, *, status: str = "UP") -> None:
        got = SimpleNamespace(
            cloud="AWS",
            region="us-east-1",
            zone="us-east-1a",
            instance_type="p4d.24xlarge",
            accelerators={"A100": 8},
            use_spot=True,
        )
        handle = SimpleNamespace(launched_resources=got)
        self.clusters[name] = SimpleNamespace(
            name=name, launched_at=1_700_000_000, status=SimpleNamespace(value=status), handle=handle
        )
        self.jobs[name] = [] if word is None else [self.job(1, word)]

    def job(self, number: int, word: str) -> SimpleNamespace:
        is_over = word not in ("INIT", "PENDING", "SETTING_UP", "RUNNING")
        status = SimpleNamespace(value=word, is_terminal=lambda: is_over)
        return SimpleNamespace(job_id=number, status=status)

    def ask(self, name: str, status: str) -> None:
        row = {"request_id": f"id-{name}", "name": "sky.launch", "cluster_name": name, "created_at": 1.0}
        self.asked.append(SimpleNamespace(**row, status=status))

    def get(self, answer: Any) -> Any:
        if answer == "id-plan-r-1-own":
            raise NoMachinesError("no machines", *self.refusals)
        return answer

    def status(
        self, names: list[str] | None = None, *, refresh: Any = StatusRefreshMode.NONE, **_: Any
    ) -> list[SimpleNamespace]:
        if refresh is self.StatusRefreshMode.FORCE:
            for name in self.in_truth.keys() & self.clusters.keys():
                self.clusters[name].status = SimpleNamespace(value=self.in_truth[name])
        return [row for name, row in self.clusters.items() if names is None or name in names]

    def queue(self, name: str, **_: Any) -> list[SimpleNamespace]:
        return self.jobs[name]

    def cancel(self, name: str, *, job_ids: list[int]) -> None:
        self.cancelled += job_ids

    def api_status(self, *, all_status: bool = False, **_: Any) -> list[SimpleNamespace]:
        return [row for row in self.asked if all_status or row.status in ("PENDING", "RUNNING")]

    def cost_report(self, days: int) -> list[dict[str, Any]]:
        return self.past

    def down(self, name: str) -> None:
        self.ended.append(name)
        if self.clusters.pop(name, None) is None:
            raise LookupError(name)


@pytest.fixture
def sky(monkeypatch: pytest.MonkeyPatch) -> FakeSky:
    fake = FakeSky()
    monkeypatch.setattr("providers.skypilot_cluster.sky_module", lambda: nullcontext(fake))
    monkeypatch.setattr("providers.skypilot_cluster.take_back_rights", lambda run_id: None)
    return fake


def seen() -> BackendStatus:
    return SkyPilotClusterLauncher().status("r")


def test_one_that_nobody_asked_for_is_absent(sky: FakeSky) -> None:
    sky.up("plan-other-1-own", "RUNNING")
    assert seen() == BackendStatus("absent")
    assert SkyPilotClusterLauncher().released("r")


def test_the_cluster_of_a_managed_job_is_nobody_s_own(sky: FakeSky) -> None:
    sky.up("plan-r-1", "RUNNING")  # what SkyPilot calls the cluster of job 1 of a run that is called plan-r
    sky.ask("plan-r-2", "RUNNING")
    assert seen() == BackendStatus("absent") and SkyPilotClusterLauncher().released("r")


def test_a_launch_at_work_has_no_machines_yet_and_is_not_released(sky: FakeSky) -> None:
    sky.ask("plan-r-1-own", "RUNNING")
    assert (seen().state, seen().attempt, seen().started_at) == ("provisioning", 1, None)
    assert not SkyPilotClusterLauncher().released("r")


def test_a_refused_launch_says_what_the_seller_said_and_cost_nothing(sky: FakeSky) -> None:
    sky.ask("plan-r-1-own", "FAILED")
    # SkyPilot has a record of a cluster while it asks for its machines
    sky.past = [{"name": "plan-r-1-own", "launched_at": 1, "usage_intervals": [(1, 2)], "resources": None}]
    status = seen()
    assert (status.state, status.started_at, status.refused) == ("failed", None, True)
    assert status.reason == "none of the machines asked for can be had now: Quota exceeded"
    assert status.reason != NO_CAPACITY  # nothing is tried again by itself


@pytest.mark.parametrize("refusals", [(), (ValueError("the zone is not known"),)])
def test_what_could_not_even_be_asked_for_is_no_stock_out(
    sky: FakeSky, refusals: tuple[Exception, ...]
) -> None:
    sky.refusals = refusals
    sky.ask("plan-r-1-own", "FAILED")
    assert (seen().state, seen().refused) == ("failed", False)


@pytest.mark.parametrize(
    ("word", "state"), [("SETTING_UP", "provisioning"), ("RUNNING", "running"), ("PENDING", "provisioning")]
)
def test_a_job_under_way_keeps_its_cluster(sky: FakeSky, word: str, state: str) -> None:
    sky.up("plan-r-2-own", word)
    status = seen()
    assert (status.state, status.attempt, status.ended_at, sky.ended) == (state, 2, None, [])
    assert status.started_at == "2023-11-14T22:13:20.000Z"
    assert status.offer is not None
    got = (status.offer.cloud, status.offer.gpu, status.offer.gpus_per_node, status.offer.market)
    assert got == ("aws", "A100", 8, "spot")


@pytest.mark.parametrize(
    ("word", "state"), [("SUCCEEDED", "succeeded"), ("FAILED_SETUP", "failed"), ("CANCELLED", "cancelled")]
)
def test_a_job_that_is_over_gives_its_cluster_back(sky: FakeSky, word: str, state: str) -> None:
    sky.up("plan-r-1-own", word)
    status = seen()
    assert (status.state, status.ended_at is not None, sky.ended) == (state, True, ["plan-r-1-own"])


def test_a_job_that_failed_as_a_machine_went_is_taken_away_not_failed(sky: FakeSky) -> None:
    sky.up("plan-r-1-own", "FAILED")
    sky.in_truth["plan-r-1-own"] = "INIT"  # SkyPilot has not looked since
    status = seen()
    assert (status.state, status.ended_at is not None, sky.ended) == ("vanished", True, ["plan-r-1-own"])
    sky.up("plan-r-2-own", "FAILED")
    assert seen().state == "failed"


def test_a_cluster_that_cannot_be_reached_is_ended_only_after_a_while(
    sky: FakeSky, monkeypatch: pytest.MonkeyPatch
) -> None:
    sky.up("plan-r-1-own", None, status="INIT")
    launcher, now_s = SkyPilotClusterLauncher(), [0.0]
    monkeypatch.setattr("providers.skypilot_cluster.time.monotonic", lambda: now_s[0])
    assert (launcher.status("r").state, sky.ended) == ("unknown", [])
    now_s[0] = 170.0
    assert (launcher.status("r").state, sky.ended) == ("unknown", [])
    sky.up("plan-r-1-own", "RUNNING")  # it was only slow to answer
    assert launcher.status("r").state == "running"
    sky.up("plan-r-1-own", None, status="INIT")
    assert launcher.status("r").state == "unknown"
    now_s[0] = 400.0
    assert (launcher.status("r").state, sky.ended) == ("vanished", ["plan-r-1-own"])


def test_what_a_failed_launch_has_left_is_ended_at_once(sky: FakeSky) -> None:
    sky.ask("plan-r-1-own", "FAILED")
    sky.up("plan-r-1-own", None, status="INIT")
    assert (seen().state, sky.ended) == ("failed", ["plan-r-1-own"])


def test_of_two_jobs_on_one_cluster_the_later_one_is_cancelled(sky: FakeSky) -> None:
    sky.up("plan-r-1-own", "RUNNING")
    sky.jobs["plan-r-1-own"].append(sky.job(2, "RUNNING"))
    assert (seen().state, sky.cancelled) == ("running", [2])


def test_one_that_ended_itself_cost_until_then(sky: FakeSky) -> None:
    spans = [(1_700_000_000, 1_700_003_600)]
    sky.past = [
        {"name": "plan-r-1-own", "launched_at": 1_700_000_000, "usage_intervals": spans, "resources": None}
    ]
    status = seen()
    assert (status.state, status.attempt) == ("vanished", 1)
    assert (status.started_at, status.ended_at) == ("2023-11-14T22:13:20.000Z", "2023-11-14T23:13:20.000Z")
