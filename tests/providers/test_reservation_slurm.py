"""Pools whose calendar a Slurm cluster keeps, with stand-ins for its commands that print what Slurm prints."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from providers.errors import LaunchError
from providers.reservation_inhouse import OwnMachines, Pool
from providers.reservations import (
    CapacityNeed,
    Machine,
    PurchaseOrder,
    PurchaseRefusedError,
    PurchaseUnclearError,
    SlurmPlace,
)
from tests.capacity import slurm

MACHINE = Machine("H100:8", "H100", 8, 80.0)


def stamp(ahead: timedelta) -> str:
    return f"{now() + ahead:%Y-%m-%dT%H:%M:%S}"


def now() -> datetime:
    return datetime.now(UTC)


def need(nodes: int, hours: float = 5.0) -> CapacityNeed:
    return CapacityNeed(MACHINE, nodes, hours, now(), now() + timedelta(days=9), ("lab",))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    job = {"id": 7, "start": stamp(-timedelta(hours=1)), "end": stamp(timedelta(hours=3)), "nodes": 1}
    nodes = {"n1": "idle", "n2": "allocated", "n3": "idle", "n4": "drained", "n5": "idle*"}
    file = slurm.install(tmp_path / "bin", nodes=nodes, jobs=[{**job, "reservation": "(null)"}])
    monkeypatch.setenv("PATH", str(file.parent), prepend=":")
    return file


@pytest.fixture(params=["here", "ssh"])
def lab(request: pytest.FixtureRequest, cluster: Path, tmp_path: Path) -> OwnMachines:
    place = SlurmPlace("lab", "gpu", "alice", here=request.param == "here")
    pool = Pool("lab", MACHINE, 8, 280_000, 4, 10_200, 0.15, 0.7, place)
    return OwnMachines(tmp_path / "calendar.json", [pool], now)


def test_a_cluster_is_booked_where_it_is_free(lab: OwnMachines, cluster: Path) -> None:
    (one,) = lab.offers(need(2), "lab")  # three nodes take jobs, one of them runs one
    assert one.start_at <= now() and one.zone == "gpu" and one.refundable
    (later,) = lab.offers(need(3), "lab")
    (job,) = json.loads(cluster.read_text())["jobs"]
    assert f"{later.start_at:%Y-%m-%dT%H:%M:%S}" == job["end"]
    assert not lab.offers(need(4), "lab")
    order = PurchaseOrder("tp-a", 1, one)
    booked = lab.purchase(order)
    assert (booked.provider_ref, booked.state, booked.nodes) == ("slurm/lab/tp-a", "active", 2)
    assert booked.end_at is not None and abs(booked.end_at - one.end_at) <= timedelta(minutes=1)
    assert lab.purchase(order).provider_ref == booked.provider_ref
    (row,) = json.loads(cluster.read_text())["reservations"]
    assert (row["ReservationName"], row["Users"], row["PartitionName"]) == ("tp-a", "alice", "gpu")
    assert lab.requote(later) is None or lab.offers(need(3), "lab")[0].start_at > later.start_at
    assert [one.provider_ref for one in lab.find("tp-a", "lab")] == [booked.provider_ref]
    assert lab.find("tp-b", "lab") == () and lab.find("tp-a", "elsewhere") == ()
    assert lab.cancel(booked.provider_ref, "lab").state == "cancelled"
    assert lab.look(booked.provider_ref, "lab") is None


def test_idle_machines_of_a_booking_are_seen(lab: OwnMachines, cluster: Path) -> None:
    booked = lab.purchase(PurchaseOrder("tp-idle", 1, lab.offers(need(2), "lab")[0]))
    assert booked.free_nodes == 2
    state = json.loads(cluster.read_text())
    state["jobs"].append(
        {"id": 8, "start": stamp(timedelta(0)), "end": "Unknown", "nodes": 1, "reservation": "tp-idle"}
    )
    cluster.write_text(json.dumps(state))
    held = lab.look(booked.provider_ref, "lab")
    assert held is not None and held.free_nodes == 1


@pytest.mark.parametrize(
    ("fault", "error", "made"),
    [
        ("denied", PurchaseRefusedError, 0),
        ("lose_after", PurchaseUnclearError, 1),
        ("lose_before", PurchaseUnclearError, 0),
    ],
)
def test_a_broken_connection_is_not_a_refusal(
    cluster: Path, tmp_path: Path, fault: str, error: type[Exception], made: int
) -> None:
    pool = Pool("lab", MACHINE, 8, 280_000, 4, 10_200, 0.15, 0.7, SlurmPlace("lab", "gpu", "alice"))
    lab = OwnMachines(tmp_path / "calendar.json", [pool], now)
    order = PurchaseOrder("tp-f", 1, lab.offers(need(1), "lab")[0])
    state = json.loads(cluster.read_text())
    cluster.write_text(json.dumps({**state, "faults": {"tp-f": fault}}))
    with pytest.raises(error):
        lab.purchase(order)
    assert len(lab.find("tp-f", "lab")) == made


def test_a_reservation_of_too_few_nodes_is_given_back(lab: OwnMachines, cluster: Path) -> None:
    (three,) = lab.offers(need(3), "lab")
    state = json.loads(cluster.read_text())
    cluster.write_text(json.dumps({**state, "nodes": {"n1": "idle", "n3": "idle"}}))
    with pytest.raises(PurchaseRefusedError, match="2 of 3 nodes of gpu: given back"):
        lab.purchase(PurchaseOrder("tp-few", 1, three))
    assert json.loads(cluster.read_text())["reservations"] == []


def test_no_word_of_ours_means_something_to_a_shell(cluster: Path, tmp_path: Path) -> None:
    pool = Pool("lab", MACHINE, 8, 280_000, 4, 10_200, 0.15, 0.7, SlurmPlace("lab", "gpu", "alice; touch x"))
    lab = OwnMachines(tmp_path / "calendar.json", [pool], now)
    lab.purchase(PurchaseOrder("tp-q", 1, lab.offers(need(1), "lab")[0]))
    (row,) = json.loads(cluster.read_text())["reservations"]
    assert row["Users"] == "alice; touch x" and not Path("x").exists()


def test_no_slurm_here_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    pool = Pool(
        "lab", MACHINE, 8, 280_000, 4, 10_200, 0.15, 0.7, SlurmPlace("lab", "gpu", "alice", here=True)
    )
    with pytest.raises(LaunchError, match="Slurm cannot be asked"):
        OwnMachines(tmp_path / "c.json", [pool], now).offers(need(1), "lab")
