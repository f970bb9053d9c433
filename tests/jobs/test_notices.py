"""Each cloud's notice, from a metadata server on loopback that answers as the cloud's documentation says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from jobs.notices import (
    AwsMetadata,
    AzureMetadata,
    GcpMetadata,
    Metadata,
    Notice,
    NoticeWatch,
    metadata_servers,
)
from jobs.preemption import StopSignal
from jobs.spec import LimitsJob
from tests.jobs.metadata_server import EVENTS, REBALANCE, SPOT, MetadataServer, metadata_server


@pytest.fixture
def cloud(request: pytest.FixtureRequest) -> Iterator[MetadataServer]:
    with metadata_server(request.param) as server:
        yield server


MAKERS = {"aws": AwsMetadata, "gcp": GcpMetadata, "azure": AzureMetadata}


def client(server: MetadataServer) -> Metadata:
    """The client of this cloud."""
    made: Metadata = MAKERS[server.cloud](server.endpoint)
    assert made.is_here()
    return made


def in_two_minutes() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=120)


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"], indirect=True)
def test_no_notice(cloud: MetadataServer) -> None:
    assert client(cloud).notice() is None


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"], indirect=True)
def test_each_cloud_is_told_from_the_others(cloud: MetadataServer) -> None:
    here = []
    for name, maker in MAKERS.items():
        try:
            here += [name] if maker(cloud.endpoint).is_here() else []
        except OSError:
            continue
    assert here == [cloud.cloud]


@pytest.mark.parametrize("cloud", ["aws"], indirect=True)
def test_aws_spot_interruption(cloud: MetadataServer) -> None:
    cloud.says[SPOT] = json.dumps({"action": "terminate", "time": f"{in_two_minutes():%Y-%m-%dT%H:%M:%SZ}"})
    notice = client(cloud).notice()
    assert notice is not None and notice.leave_s is not None
    assert notice.source == "AWS spot interruption"
    assert 100 < notice.leave_s <= 120


@pytest.mark.parametrize("cloud", ["aws"], indirect=True)
def test_aws_rebalance_and_a_token_that_expired(cloud: MetadataServer) -> None:
    aws = client(cloud)
    cloud.token = "t2"
    cloud.says[REBALANCE] = json.dumps({"noticeTime": "2026-11-25T08:22:00Z"})
    assert aws.notice() == Notice("AWS rebalance recommendation", None)


@pytest.mark.parametrize("cloud", ["gcp"], indirect=True)
def test_gcp_preemption_and_maintenance(cloud: MetadataServer) -> None:
    gcp = client(cloud)
    cloud.says["/computeMetadata/v1/instance/maintenance-event"] = "TERMINATE_ON_HOST_MAINTENANCE"
    assert gcp.notice() == Notice("Google Cloud host maintenance", None)
    cloud.says["/computeMetadata/v1/instance/preempted"] = "TRUE"
    assert gcp.notice() == Notice("Google Cloud preemption", 30.0)


@pytest.mark.parametrize("cloud", ["azure"], indirect=True)
@pytest.mark.parametrize("kind", ["Preempt", "Terminate", "Reboot", "Redeploy"])
def test_azure_events_that_end_the_machine(cloud: MetadataServer, kind: str) -> None:
    azure = client(cloud)
    events = [
        {"EventType": "Freeze", "NotBefore": format_datetime(datetime.now(UTC), usegmt=True)},
        {
            "EventType": kind,
            "EventStatus": "Scheduled",
            "NotBefore": format_datetime(in_two_minutes(), usegmt=True),
        },
    ]
    cloud.says[EVENTS] = json.dumps({"DocumentIncarnation": 2, "Events": events[:1]})
    assert azure.notice() is None
    cloud.says[EVENTS] = json.dumps({"DocumentIncarnation": 3, "Events": events})
    notice = azure.notice()
    assert notice is not None and notice.leave_s is not None
    assert (notice.source, 100 < notice.leave_s <= 120) == (f"Azure {kind}", True)
    events[1]["NotBefore"] = ""
    cloud.says[EVENTS] = json.dumps({"DocumentIncarnation": 4, "Events": events})
    assert azure.notice() == Notice(f"Azure {kind}", 30.0)


@pytest.mark.parametrize("cloud", ["aws", "azure"], indirect=True)
def test_on_a_machine_whose_clock_is_ahead_the_notice_is_as_long(cloud: MetadataServer) -> None:
    cloud.behind_s = 180.0
    at = in_two_minutes() - timedelta(seconds=cloud.behind_s)
    cloud.says[SPOT] = json.dumps({"action": "terminate", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"})
    event = {"EventType": "Preempt", "NotBefore": format_datetime(at, usegmt=True)}
    cloud.says[EVENTS] = json.dumps({"DocumentIncarnation": 2, "Events": [event]})
    notice = client(cloud).notice()
    assert notice is not None and notice.leave_s is not None
    assert 100 < notice.leave_s <= 120


@pytest.mark.parametrize("cloud", ["aws"], indirect=True)
def test_the_watch_tells_once_and_survives_a_server_out_of_order(cloud: MetadataServer) -> None:
    told: list[Notice] = []
    heard = threading.Event()

    def tell(notice: Notice) -> None:
        told.append(notice)
        heard.set()

    dead = GcpMetadata("http://127.0.0.1:9")
    watch = NoticeWatch(tell, [dead, AwsMetadata(cloud.endpoint)], poll_s=0.01)
    cloud.broken = True
    while cloud.asked < 3:
        time.sleep(0.005)
    cloud.says[REBALANCE] = "{}"
    cloud.broken = False
    assert heard.wait(30)
    asked = cloud.asked
    while cloud.asked < asked + 6:
        time.sleep(0.005)
    watch.close()
    assert told == [Notice("AWS rebalance recommendation", None)]


def test_the_clouds_own_variables_are_heeded() -> None:
    assert len(metadata_servers({})) == 3
    assert len(metadata_servers({"AWS_EC2_METADATA_DISABLED": "true"})) == 2


def signal_with(leave_s: float | None) -> StopSignal:
    """A stop signal that has heard a notice; a save and an upload took 10 and 50 s so far."""
    stop = StopSignal(LimitsJob(), time.monotonic())
    stop.save_s, stop.upload_s = 10, 50
    stop.take(Notice("the cloud", leave_s))
    return stop


def test_a_checkpoint_that_fits_into_the_notice() -> None:
    stop = signal_with(120)
    assert stop.reason() == ("preempted", "the cloud")
    assert stop.fits()


def test_a_checkpoint_that_does_not_fit_is_not_begun() -> None:
    stop = signal_with(30)
    assert stop.reason() == ("preempted", "the cloud")
    assert not stop.fits()
    stop.save_s = stop.upload_s = 0.0  # nothing is known: it is tried
    assert stop.fits()


def test_a_warning_asks_for_one_checkpoint_and_no_stop() -> None:
    stop = signal_with(None)
    assert stop.reason() is None
    assert [stop.take_warning(), stop.take_warning()] == [True, False]
