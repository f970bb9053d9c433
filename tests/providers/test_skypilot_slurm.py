"""When machines on Slurm began and ended to cost, from SkyPilot's events and Slurm's queue."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from providers.launcher import MachineUse
from providers.offers import Offer
from providers.skypilot_events import Event
from providers.skypilot_jobs import RELEASING, status_of, utc
from providers.skypilot_slurm import Sighting, allocations_in, is_settled, newest_of, sightings_in, uses_of

A100 = Offer("slurm", "bed-a", "spot", None, "A100", 1, 40.0, 4.0, 16.0, "on_demand", None, "skypilot", None)


def granted(at: float, number: int, cluster: str = "bed-a") -> Event:
    return Event(at, "STARTING", f"Launching (nodes allocated; Slurm job {number} on {cluster})")


def test_events_tell_each_allocation_once_and_when_it_was_lost() -> None:
    events = [
        granted(90.0, 8, "bed-b"),
        Event(80.0, "RECOVERING", "Cluster preempted or failed, recovering"),
        Event(81.0, "RECOVERING", "again"),
        granted(12.0, 7),
        granted(11.0, 7),
        Event(10.0, "STARTING", "Launching (pending: Resources; partition: spot)"),
    ]
    assert sightings_in(events) == (
        Sighting("bed-a", "7", 11.0, 80.0),
        Sighting("bed-b", "8", 90.0, None),
    )
    assert sightings_in([]) == ()


def test_slurm_is_believed_to_the_second() -> None:
    told = allocations_in(
        "7|10|70|CANCELLED by 0|spot|billing=1,gres/gpu:a100=1\n"
        "7|10|71|CANCELLED|spot|gres/gpu:A100:1\n"
        "8|86|86400|RUNNING|ondemand|gres/gpu:H100:2\n"
        "slurm_load_jobs error\n"
        "9|N/A|N/A|PENDING|spot|N/A\n"
    )
    assert set(told) == {"7", "8"}
    assert (told["7"].ended_at, told["8"].ended_at) == (71.0, None)
    seen = (Sighting("bed-a", "7", 11.0, 80.0), Sighting("bed-b", "8", 90.0, None))
    newest = A100._replace(region="bed-b", zone="ondemand", gpu="H100", gpus_per_node=2)
    nothing: dict[str, Any] = {"gpu_mem_gib": None, "vcpus": None, "ram_gib": None}
    uses = uses_of(seen, {("bed-a", "7"): told["7"], ("bed-b", "8"): told["8"]}, newest)
    assert uses == (
        MachineUse(utc(10.0), utc(71.0), A100._replace(source="slurm", **nothing)),
        MachineUse(utc(86.0), None, newest),
    )


def test_a_cluster_is_the_allocation_that_began_last() -> None:
    told = allocations_in("7|10|12|NODE_FAIL|spot|gres/gpu:a100:1\n8|14|N/A|RUNNING|spot|gres/gpu:a100:1\n")
    newest = newest_of(told)
    assert newest is not None
    assert (newest.started_at, newest.ended_at) == (14.0, None)
    assert newest_of({}) is None


def test_what_slurm_has_forgotten_lasted_until_it_was_missed() -> None:
    seen = (
        Sighting("bed-a", "7", 11.0, 80.0),
        Sighting("bed-a", "8", 85.0, None),
        Sighting("bed-a", "9", 95.0, None),
    )
    assert [(use.started_at, use.ended_at) for use in uses_of(seen, {}, A100)] == [
        (utc(11.0), utc(80.0)),
        (utc(85.0), utc(95.0)),
        (utc(95.0), None),
    ]


def job(status: str, schedule: str, **changes: Any) -> Any:
    usual = dict.fromkeys(("failure_reason", "details", "cloud", "cluster_resources_full", "recovery_count"))
    times = {"start_at": 20.0, "end_at": None}
    state = {"job_id": 3, "status": SimpleNamespace(value=status), "schedule_state": schedule}
    return SimpleNamespace(**{**usual, **times, **state, **changes})


def test_a_run_is_not_over_before_its_machines_are_given_back() -> None:
    open_use, done_use = MachineUse(utc(10.0), None), MachineUse(utc(10.0), utc(73.0))
    leaving = status_of({1: job("SUCCEEDED", "ALIVE", end_at=60.0)}, (open_use,))
    assert (leaving.state, leaving.reason, leaving.ended_at, leaving.exit_code) == (
        "releasing",
        RELEASING,
        None,
        None,
    )
    done = status_of({1: job("SUCCEEDED", "DONE", end_at=60.0)}, (done_use,))
    assert (done.state, done.ended_at, done.exit_code) == ("succeeded", utc(73.0), 0)
    forgotten = status_of({1: job("CANCELLED", "DONE", end_at=60.0)}, (open_use,))
    assert forgotten.ended_at == forgotten.machines[-1].ended_at == utc(60.0)


def test_what_was_cancelled_before_skypilot_took_it_up_has_ended() -> None:
    before = utc(datetime.now(UTC).timestamp())
    ended_at = status_of({1: job("CANCELLED", "DONE", start_at=None)}).ended_at
    assert ended_at is not None and ended_at >= before


@pytest.mark.parametrize(
    ("state", "uses", "settled"),
    [
        ("RUNNING", [(10.0, None)], True),
        ("RUNNING", [(10.0, 30.0)], False),
        ("RUNNING", [(10.0, None), (40.0, None)], False),
        ("RECOVERING", [(10.0, None)], False),
        ("RECOVERING", [(10.0, 30.0)], True),
        ("SUCCEEDED", [(10.0, 30.0)], True),
        ("RUNNING", [], False),
    ],
)
def test_slurm_is_asked_again_while_its_word_and_skypilots_differ(
    state: str, uses: list[tuple[float, float | None]], settled: bool
) -> None:
    machines = [MachineUse(utc(start), utc(end)) for start, end in uses]
    assert is_settled(job(state, "ALIVE"), machines) is settled
