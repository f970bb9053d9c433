"""What sellers say of machines now, each asked over HTTP: real-shaped answers, refusals, and answers that are none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs

import boto3
import pytest

from planner import hazards
from providers import availability
from providers.availability import KINDS, Answered, Inquiry, Signal, Wanted
from providers.availability_sources import SOURCES, ask_all, clouds_without_source
from providers.offers import Offer
from tests.capacity.server import Capacity
from tests.providers.advisers import Advisers, Asked, advisers

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
AT = "2026-11-25T12:00:00Z"


def offer(
    cloud: str, region: str, zone: str | None, kind: str | None, gpu: str = "A100", **more: object
) -> Offer:
    made = Offer(cloud, region, zone, kind, gpu, 1, 40.0, 12.0, 80.0, "spot", 1.0, "test", None)
    return made._replace(**more)  # type: ignore[arg-type]


GCP = offer("gcp", "us-central1", "us-central1-a", "a2-highgpu-1g")
AZURE = offer("azure", "eastus", "eastus-1", "Standard_NC24ads_A100_v4", "A100-80GB-PCIe")
RUNPOD = offer("runpod", "CA", "CA-MTL-1", "2x_A100-80GB_SECURE", "A100-80GB-PCIe", gpus_per_node=2)
LAMBDA = offer("lambda", "us-east-1", None, "gpu_1x_h100_pcie", "H100-PCIe", market="on_demand")
VAST = offer("vast", "Sweden, SE", None, "2x-RTX4090-32-64", "RTX4090", gpus_per_node=2)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Advisers]:
    monkeypatch.setattr("providers.web._WAITS_S", ())
    with advisers() as served:
        yield served


def asked_about(
    cloud: Advisers, home: Path, *offers: Offer, nodes: int = 1, **environ: str
) -> dict[str, Answered]:
    inquiry = Inquiry(tuple(Wanted(row, nodes) for row in offers), environ, home, NOW)
    return {row.source.name: row for row in ask_all(inquiry, {row.name: cloud.url for row in SOURCES})}


def signals(answer: Answered, row: Offer, nodes: int = 1) -> dict[str, Signal]:
    assert answer.problem is None, answer.problem
    return {signal.kind: signal for signal in answer.signals.get(Wanted(row, nodes), ())}


def test_google_cloud_tells_chances_and_quotas(cloud: Advisers, tmp_path: Path) -> None:
    scores = {"obtainability": 0.8, "estimatedUptime": "3600s"}
    shard = {
        "zone": "us-central1-a",
        "machineType": "a2-highgpu-1g",
        "instanceCount": 2,
        "provisioningModel": "SPOT",
    }
    place = "projects/herd/regions/us-central1"
    quota = {"metric": "PREEMPTIBLE_NVIDIA_A100_GPUS", "limit": 4.0, "usage": 3.0}
    cloud.answers = {
        f"/beta/{place}/advice/capacity": (200, {"recommendations": [{"scores": scores, "shards": [shard]}]}),
        f"/v1/{place}": (200, {"quotas": [quota, {"metric": "CPUS", "limit": 24.0, "usage": 0.0}]}),
    }
    environ = {"GOOGLE_CLOUD_PROJECT": "herd", "CLOUDSDK_AUTH_ACCESS_TOKEN": "secret-token"}
    answers = asked_about(cloud, tmp_path, GCP, nodes=2, **environ)
    said = signals(answers["gcp-advice"], GCP, 2)
    assert (said["obtainability"].value, said["obtainability"].unit) == (0.8, "0 to 1")
    assert (said["uptime"].value, said["uptime"].unit, said["uptime"].as_of_at) == (3600.0, "s", AT)
    left = signals(answers["gcp-quota"], GCP, 2)["quota"]
    assert (left.value, left.enough) == (1.0, False)
    (request,) = [row for row in cloud.asked if row.method == "POST"]
    assert request.authorization == "Bearer secret-token"
    assert request.json()["distributionPolicy"]["zones"] == [{"zone": "zones/us-central1-a"}]
    assert (request.json()["size"], request.json()["instanceProperties"]["scheduling"]) == (
        2,
        {"provisioningModel": "SPOT"},
    )


def test_google_clouds_own_login_file_is_used(cloud: Advisers, tmp_path: Path) -> None:
    path = tmp_path / ".config/gcloud/application_default_credentials.json"
    path.parent.mkdir(parents=True)
    login = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    path.write_text(json.dumps({**login, "quota_project_id": "herd"}))

    def token(asked: Asked) -> tuple[int, object]:
        form = parse_qs(asked.text)
        assert (form["grant_type"], form["refresh_token"]) == (["refresh_token"], ["r"])
        return 200, {"access_token": "fresh", "expires_in": 3599, "token_type": "Bearer"}

    cloud.answers = {"/token": token, "/beta/": (200, {"recommendations": []}), "/v1/": (200, {"quotas": []})}
    answers = asked_about(cloud, tmp_path, GCP)
    assert [row.problem for row in answers.values()] == [None, None]
    assert signals(answers["gcp-advice"], GCP) == {}  # not told: missing, not zero
    assert {row.authorization for row in cloud.asked if row.path != "/token"} == {"Bearer fresh"}


def test_azure_scores_sizes_and_says_whether_the_quota_is_enough(cloud: Advisers, tmp_path: Path) -> None:
    rows = [
        {"sku": AZURE.instance_type, "region": "eastus", "availabilityZone": zone, "score": score,
         "isQuotaAvailable": enough}
        for zone, score, enough in (("1", "High", False), ("2", "Low", True))
    ]  # fmt: skip
    cloud.answers = {
        "/ten/oauth2/v2.0/token": (200, {"access_token": "azure-token", "token_type": "Bearer"}),
        "/subscriptions/sub/": (200, {"placementScores": rows}),
    }
    environ = {
        "AZURE_TENANT_ID": "ten", "AZURE_CLIENT_ID": "me", "AZURE_CLIENT_SECRET": "hush",
        "AZURE_SUBSCRIPTION_ID": "sub",
    }  # fmt: skip
    said = signals(asked_about(cloud, tmp_path, AZURE, **environ)["azure-score"], AZURE)
    assert (said["placement_score"].value, said["placement_score"].enough) == ("High", None)
    assert (said["quota"].value, said["quota"].enough) == ("too small", False)
    request = next(row for row in cloud.asked if "placementScores" in row.path)
    assert "/locations/eastus/placementScores/spot/generate?api-version=2025-06-05" in request.path
    assert request.json()["desiredSizes"] == [{"sku": "Standard_NC24ads_A100_v4"}]
    assert request.authorization == "Bearer azure-token"


def test_azure_asks_for_no_more_than_it_may(cloud: Advisers, tmp_path: Path) -> None:
    cloud.answers = {"/ten/": (200, {"access_token": "t"}), "/subscriptions/": (200, {"placementScores": []})}
    many = [AZURE._replace(region=f"r{number}", instance_type=f"S{number}") for number in range(9)]
    environ = {
        "AZURE_TENANT_ID": "ten", "AZURE_CLIENT_ID": "me", "AZURE_CLIENT_SECRET": "hush", "AZURE_SUBSCRIPTION_ID": "s",
    }  # fmt: skip
    asked_about(cloud, tmp_path, *many, **environ)
    bodies = [row.json() for row in cloud.asked if row.path.startswith("/subscriptions/")]
    assert len(bodies) == 4
    assert max(len(body["desiredLocations"]) for body in bodies) == 8
    assert max(len(body["desiredSizes"]) for body in bodies) == 5


def test_runpod_tells_its_stock_of_each_data_centre(cloud: Advisers, tmp_path: Path) -> None:
    elsewhere = RUNPOD._replace(zone="CA-MTL-2")

    def types(asked: Asked) -> tuple[int, object]:
        query = asked.json()["query"]
        assert 'gpuCount: 2, dataCenterId: "CA-MTL-1"' in query
        price = {"stockStatus": "Low", "minimumBidPrice": 0.8, "uninterruptablePrice": 1.6}
        gone = {"stockStatus": None, "minimumBidPrice": None, "uninterruptablePrice": None}
        row = {
            "id": "NVIDIA A100 80GB PCIe",
            "displayName": "A100 PCIe",
            "memoryInGb": 80,
            "p0": price,
            "p1": gone,
        }
        return 200, {"data": {"gpuTypes": [row]}}

    cloud.answers = {"/": types}
    (tmp_path / ".runpod").mkdir()
    (tmp_path / ".runpod/config.toml").write_text('[default]\napi_key = "rp-key"\n')
    answer = asked_about(cloud, tmp_path, RUNPOD, elsewhere)["runpod-stock"]
    assert cloud.asked[0].authorization == "Bearer rp-key"
    said = signals(answer, RUNPOD)
    assert (said["stock"].value, said["stock"].enough, said["spot_price"].value) == ("Low", None, 1.6)
    assert signals(answer, elsewhere)["stock"].enough is False


def test_lambda_names_regions_with_capacity(cloud: Advisers, tmp_path: Path) -> None:
    types = {
        "gpu_1x_h100_pcie": {
            "instance_type": {"name": "gpu_1x_h100_pcie", "price_cents_per_hour": 249, "specs": {"gpus": 1}},
            "regions_with_capacity_available": [{"name": "us-west-1", "description": "California, USA"}],
        }
    }
    cloud.answers = {"/": (200, {"data": types})}
    west = LAMBDA._replace(region="us-west-1")
    answer = asked_about(cloud, tmp_path, LAMBDA, west, LAMBDA_API_KEY="k")["lambda-capacity"]
    assert [signals(answer, row)["capacity"].enough for row in (LAMBDA, west)] == [False, True]


def test_vast_counts_machines_that_nobody_has(cloud: Advisers, tmp_path: Path) -> None:
    machine = {"gpu_name": "RTX 4090", "num_gpus": 2, "gpu_ram": 24564, "geolocation": "Sweden, SE"}

    def bundles(asked: Asked) -> tuple[int, object]:
        assert asked.json()["type"] == "bid"
        return 200, {
            "offers": [machine, machine, {**machine, "num_gpus": 1}, {**machine, "geolocation": "Norway, NO"}]
        }

    cloud.answers = {"/": bundles}
    for nodes, enough in ((2, None), (3, False)):
        said = signals(asked_about(cloud, tmp_path, VAST, nodes=nodes)["vast-capacity"], VAST, nodes)
        assert (said["capacity"].value, said["capacity"].enough) == (2, enough)
    assert cloud.asked[0].authorization is None


AWS = [offer("aws", "us-east-1", zone, kind, "L4", vcpus=vcpus) for zone, kind, vcpus in (
    ("us-east-1a", "g6.xlarge", 4.0), ("us-east-1b", "g6.2xlarge", 8.0), ("use1-az6", "g6.4xlarge", 16.0))]  # fmt: skip


def test_aws_tells_quotas_scores_and_prices(capacity: Capacity, tmp_path: Path) -> None:
    zones = {
        row["ZoneName"]: row["ZoneId"]
        for row in boto3.client("ec2", "us-east-1").describe_availability_zones()["AvailabilityZones"]
    }
    capacity.order(
        quotas={"L-3819A6DF": 16}, scores={"us-east-1": {zones["us-east-1a"]: 9, zones["us-east-1b"]: 3}}
    )
    inquiry = Inquiry(tuple(Wanted(row, 2) for row in AWS), {}, tmp_path, datetime.now(UTC))
    answers = {row.source.name: row for row in ask_all(inquiry, {})}
    quotas = [signals(answers["aws-quota"], row, 2)["quota"] for row in AWS]
    assert [(row.value, row.unit, row.enough) for row in quotas] == [
        (16.0, "vCPUs", True), (16.0, "vCPUs", True), (16.0, "vCPUs", False),
    ]  # fmt: skip
    scores = [signals(answers["aws-score"], row, 2)["placement_score"] for row in AWS]
    named = [9, 3, 9 if zones["us-east-1a"] == "use1-az6" else None]
    assert [row.value for row in scores] == named
    assert answers["aws-price"].problem is None


def test_a_request_that_aws_scores_low_by_itself_says_so(capacity: Capacity, tmp_path: Path) -> None:
    zone = AWS[0].zone
    found = boto3.client("ec2", "us-east-1").describe_availability_zones()["AvailabilityZones"]
    capacity.order(scores={"us-east-1": {row["ZoneId"]: 9 for row in found if row["ZoneName"] == zone}})
    answers = ask_all(Inquiry((Wanted(AWS[0], 1),), {}, tmp_path, NOW), {})
    said = signals(next(row for row in answers if row.source.name == "aws-score"), AWS[0])["placement_score"]
    assert (said.value, "fewer than 3 low" in said.text, said.comparable) == (1, True, False)


@pytest.mark.parametrize("row", [GCP, AZURE, RUNPOD, LAMBDA], ids=lambda row: row.cloud)
def test_without_a_login_nothing_is_asked_and_the_way_to_one_is_named(
    cloud: Advisers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: Offer
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for answer in asked_about(cloud, tmp_path, row).values():
        assert answer.problem is not None and answer.problem.endswith("here")
        assert answer.hint
        assert not answer.signals
    assert cloud.asked == []


KEYS: Mapping[str, str] = {
    "RUNPOD_API_KEY": "hush", "LAMBDA_API_KEY": "hush", "GOOGLE_CLOUD_PROJECT": "p",
    "CLOUDSDK_AUTH_ACCESS_TOKEN": "hush",
    "AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "hush", "AZURE_SUBSCRIPTION_ID": "s",
}  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        (500, {}),
        (200, b"<html>"),
        (200, []),
        (200, {"data": 7, "offers": 7, "recommendations": 7, "quotas": 7}),
    ],
)
@pytest.mark.parametrize("row", [GCP, AZURE, RUNPOD, LAMBDA, VAST], ids=lambda row: row.cloud)
def test_an_answer_that_is_none_is_a_problem_and_no_figure(
    cloud: Advisers, tmp_path: Path, row: Offer, answer: tuple[int, object]
) -> None:
    cloud.answers = {"/t/": (200, {"access_token": "t"}), "/": answer}
    for said in asked_about(cloud, tmp_path, row, **KEYS).values():
        assert said.problem
        assert "hush" not in said.problem + (said.hint or "")
        assert not said.signals


def test_one_that_refuses_stops_no_other(cloud: Advisers, tmp_path: Path) -> None:
    cloud.answers = {"/": (200, {"offers": []})}
    broken = {"lambda-capacity": f"{cloud.url}/none"}
    inquiry = Inquiry((Wanted(LAMBDA, 1), Wanted(VAST, 1)), {"LAMBDA_API_KEY": "k"}, tmp_path, NOW)
    urls = {row.name: cloud.url for row in SOURCES} | broken
    cloud.answers = {
        "/none": (403, {"error": {"code": "global/invalid-api-key"}}),
        "/": (200, {"offers": []}),
    }
    answers = {row.source.name: row for row in ask_all(inquiry, urls)}
    assert "403" in (answers["lambda-capacity"].problem or "")
    assert signals(answers["vast-capacity"], VAST)["capacity"].enough is False


def test_every_cloud_without_a_source_is_named() -> None:
    assert clouds_without_source(["verda", "aws", "slurm"]) == ["slurm", "verda"]


def test_azure_tells_how_often_a_size_is_evicted_in_a_region(cloud: Advisers, tmp_path: Path) -> None:
    row = {"size": "standard_nc24ads_a100_v4", "location": "eastus", "rate": "5-10"}
    cloud.answers = {
        "/ten/": (200, {"access_token": "azure-token"}),
        "/providers/Microsoft.ResourceGraph/resources": (200, {"data": [row]}),
    }
    environ = {
        "AZURE_TENANT_ID": "ten", "AZURE_CLIENT_ID": "me", "AZURE_CLIENT_SECRET": "hush",
        "AZURE_SUBSCRIPTION_ID": "sub",
    }  # fmt: skip
    elsewhere = AZURE._replace(region="westus", zone=None)
    quoted = AZURE._replace(instance_type="x' or 1")
    answer = asked_about(cloud, tmp_path, AZURE, elsewhere, quoted, **environ)["azure-eviction"]
    said = signals(answer, AZURE)["eviction_band"]
    assert (said.value, said.enough) == ("5-10", None)
    assert signals(answer, elsewhere) == signals(answer, quoted) == {}
    query = next(row for row in cloud.asked if "ResourceGraph" in row.path).json()["query"]
    assert "in~ ('Standard_NC24ads_A100_v4')" in query and "in~ ('eastus', 'westus')" in query
    assert " or 1" not in query


ADVICE = {
    "ranges": [{"index": 0, "label": "<5%", "max": 5}, {"index": 4, "label": ">20%", "max": 100}],
    "spot_advisor": {
        "us-east-1": {"Linux": {"g6.xlarge": {"s": 60, "r": 4}, "g6.2xlarge": {"s": 60, "r": 0}}}
    },
}


def test_the_advisor_tells_bands_without_a_login(cloud: Advisers, tmp_path: Path) -> None:
    cloud.answers = {"/": (200, ADVICE)}
    inquiry = Inquiry(tuple(Wanted(row, 2) for row in AWS), {}, tmp_path, NOW)
    (answer,) = ask_all(inquiry, {"aws-advisor": cloud.url}, frozenset({"aws-advisor"}))
    assert [signals(answer, row, 2).get("interruption_band") for row in AWS[2:]] == [None]  # not listed
    bands = [signals(answer, row, 2)["interruption_band"] for row in AWS[:2]]
    assert [(row.value, row.enough, row.as_of_at) for row in bands] == [(">20%", None, AT), ("<5%", None, AT)]
    (asked,) = cloud.asked
    assert asked.authorization is None


@pytest.mark.parametrize(
    "said", [(500, {}), (200, b"<html>"), (200, []), (200, {"ranges": 7, "spot_advisor": 7})]
)
def test_an_advisor_that_tells_nothing_is_a_problem(
    cloud: Advisers, tmp_path: Path, said: tuple[int, object]
) -> None:
    cloud.answers = {"/": said}
    inquiry = Inquiry((Wanted(AWS[0], 1),), {}, tmp_path, NOW)
    (answer,) = ask_all(inquiry, {"aws-advisor": cloud.url}, frozenset({"aws-advisor"}))
    assert answer.problem and not answer.signals


def test_sellers_scores_are_no_hazards() -> None:
    """No kind is a rate, and what computes with rates of loss knows nothing of them."""
    assert not {"hazard", "rate", "interruptions"} & set(KINDS)
    text = Path(hazards.__file__).read_text()
    assert availability.__name__ not in text
    planner = Path(hazards.__file__).parent
    users = {path.stem for path in planner.rglob("*.py") if "providers.availability" in path.read_text()}
    assert users == {"finding", "find", "permits", "signal_book", "price_refresh"}
