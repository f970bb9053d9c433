"""`plan prices update` against a server on this machine: new prices whole, or the old ones untouched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import jsonschema
import pytest
from click.testing import CliRunner, Result

from planner.cli.context import App
from planner.cli.main import cli
from planner.cli.schema import schema_text
from providers import download
from providers.catalog import load_default_snapshot, load_snapshot
from tests.file_host import FileHost, file_host

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HEADER = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region"


def catalog(*prices: float) -> bytes:
    rows = [f"m{i},H100,8,192,2048,,{price},,us-east-{i}" for i, price in enumerate(prices)]
    return ("\n".join((HEADER, *rows)) + "\n").encode()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileHost]:
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(download, "_WAITS_S", (0.0, 0.0, 0.0))
    with file_host() as running:
        running.files["/v8/aws/vms.csv"] = catalog(50, 51, 52)
        running.files["/v8/lambda/vms.csv"] = catalog(20)
        yield running


def update(host: FileHost, *args: str) -> Result:
    words = ["prices", "update", "--url", f"{host.url}/v8", *args]
    return CliRunner(mix_stderr=False).invoke(cli, words, obj=App(now=lambda: NOW))


def in_use(home: Path) -> Path:
    return home / "cache" / "prices.csv"


def test_fetched_clouds_replace_theirs_and_the_others_stay(host: FileHost, plan_home: Path):
    host.last_modified = "Sun, 31 May 2026 10:00:00 GMT"
    result = update(host, "-o", "json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    status = {file["cloud"]: file["status"] for file in document["files"]}
    assert (status["aws"], status["lambda"], status["gcp"]) == ("fetched", "fetched", "absent")
    snapshot = load_snapshot(in_use(plan_home))
    assert snapshot.snapshot_id == document["snapshot_id"]
    aws = [offer for offer in snapshot.offers if offer.cloud == "aws"]
    assert [offer.price_usd_per_hour for offer in aws] == [50, 51, 52]
    assert {offer.as_of_at for offer in aws} == {"2026-05-31T00:00:00Z"}
    before = [offer for offer in load_default_snapshot().offers if offer.cloud == "gcp"]
    assert [offer for offer in snapshot.offers if offer.cloud == "gcp"] == before
    coverage = {entry.cloud: entry for entry in snapshot.coverage}
    assert coverage["aws"].complete
    shown = CliRunner(mix_stderr=False).invoke(cli, ["prices", "show"])
    assert shown.stdout.startswith("prices    cache: ")


def test_without_a_date_of_the_server_the_download_dates_them(host: FileHost, plan_home: Path):
    assert update(host).exit_code == 0
    aws = [offer for offer in load_snapshot(in_use(plan_home)).offers if offer.cloud == "aws"]
    assert {offer.as_of_at for offer in aws} == {"2026-06-01T00:00:00Z"}


@pytest.mark.parametrize("trouble", ["500", "cut", "checksum"])
def test_one_file_that_does_not_arrive_leaves_all_prices_as_they_are(
    host: FileHost, plan_home: Path, trouble: str
):
    assert update(host).exit_code == 0
    before = in_use(plan_home).read_bytes()
    host.files["/v8/aws/vms.csv"] = catalog(1, 2, 3)
    host.files["/v8/lambda/vms.csv"] = catalog(4, 5, 6)
    broken = host.trouble("/v8/lambda/vms.csv")
    broken.statuses = [500] * 4 if trouble == "500" else []
    broken.cut_after = [7] * 4 if trouble == "cut" else []
    broken.wrong_md5 = 4 if trouble == "checksum" else 0
    result = update(host, "-o", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["errors"][0]["code"] == "download_failed"
    assert "what was in use before stays in use" in result.stderr
    assert in_use(plan_home).read_bytes() == before
    host.requests.clear()
    assert update(host).exit_code == 0
    assert in_use(plan_home).read_bytes() != before


def test_an_empty_server_is_no_success(host: FileHost, plan_home: Path):
    host.files.clear()
    result = update(host)
    assert result.exit_code == 1
    assert "publishes no price catalog" in result.stderr
    assert not in_use(plan_home).exists()


def test_something_else_than_a_catalog_is_refused(host: FileHost, plan_home: Path):
    host.files["/v8/aws/vms.csv"] = b"<html>sign in</html>"
    result = update(host)
    assert result.exit_code == 2
    assert "no column AcceleratorCount" in result.stderr
    assert not in_use(plan_home).exists()


def test_a_named_cloud_must_be_there(host: FileHost):
    assert update(host, "--cloud", "gcp").exit_code == 1
    result = update(host, "--cloud", "LAMBDA")
    assert result.exit_code == 0
    assert "aws" not in result.stdout
    assert update(host, "--cloud", "../x").exit_code == 2


def test_malformed_rows_are_named(host: FileHost):
    host.files["/v8/aws/vms.csv"] = catalog(50) + b"m9,H100,eight,1,1,,1,,x\n"
    result = update(host)
    assert result.exit_code == 0
    assert "AcceleratorCount 'eight' is not a number: row left out" in result.stderr


def test_the_address_may_stand_in_the_configuration(host: FileHost, plan_home: Path):
    (plan_home / "config.yaml").write_text(f"prices:\n  url: {host.url}/v8\n")
    result = CliRunner(mix_stderr=False).invoke(cli, ["prices", "update"])
    assert result.exit_code == 0, result.stderr
    assert in_use(plan_home).exists()


def test_killed_in_the_middle_the_old_prices_stay_and_the_next_run_goes_on(host: FileHost, plan_home: Path):
    assert update(host).exit_code == 0
    before = in_use(plan_home).read_bytes()
    host.files["/v8/aws/vms.csv"] = catalog(*range(1, 20_000))
    host.trouble("/v8/aws/vms.csv").stall_after = 200_000
    command = [
        sys.executable,
        "-c",
        "from planner.cli.main import main; main()",
        "prices",
        "update",
        "--url",
        f"{host.url}/v8",
    ]
    environment = {**os.environ, "PLAN_HOME": str(plan_home)}
    part = plan_home / "cache" / "downloads" / "aws.csv.part"
    with subprocess.Popen(command, env=environment) as process:
        try:
            assert host.stalled.wait(60)
            while not (part.exists() and part.stat().st_size >= 65_536):
                assert process.poll() is None
        finally:
            process.kill()
    host.release.set()
    assert in_use(plan_home).read_bytes() == before
    host.requests.clear()
    result = update(host, "-o", "json")
    assert result.exit_code == 0, result.stderr
    aws = next(file for file in json.loads(result.stdout)["files"] if file["cloud"] == "aws")
    assert aws["resumed_bytes"] >= 65_536
    assert host.requests[0][1] == f"bytes={aws['resumed_bytes']}-"
    offers = load_snapshot(in_use(plan_home)).offers
    assert sum(offer.cloud == "aws" for offer in offers) == 19_999


def test_while_one_process_changes_prices_no_other_does_and_no_change_is_lost(
    host: FileHost, plan_home: Path, tmp_path: Path
):
    host.trouble("/v8/aws/vms.csv").stall_after = 40
    words = ("prices", "update", "--cloud", "aws", "--url", f"{host.url}/v8")
    with subprocess.Popen(
        [sys.executable, "-c", "from planner.cli.main import main; main()", *words],
        env={**os.environ, "PLAN_HOME": str(plan_home)},
    ) as first:
        assert host.stalled.wait(60)
        for other in (
            ("update", "--cloud", "lambda", "--url", f"{host.url}/v8"),
            ("refresh", "vast", "--url", host.url),
            ("import", write_catalog(tmp_path)),
        ):
            refused = CliRunner(mix_stderr=False).invoke(cli, ["prices", *map(str, other)])
            assert refused.exit_code == 2 and "another process is changing the prices" in refused.stderr
        elsewhere = ["prices", "import", str(tmp_path), "--out", str(tmp_path / "own.csv")]
        assert CliRunner(mix_stderr=False).invoke(cli, elsewhere).exit_code == 0
        host.release.set()
        assert first.wait(60) == 0
    assert update(host, "--cloud", "lambda").exit_code == 0
    offers = load_snapshot(in_use(plan_home)).offers
    prices = {
        cloud: [o.price_usd_per_hour for o in offers if o.cloud == cloud] for cloud in ("aws", "lambda")
    }
    assert prices == {"aws": [50, 51, 52], "lambda": [20]}


def write_catalog(folder: Path) -> Path:
    (folder / "gcp").mkdir()
    (folder / "gcp/vms.csv").write_bytes(catalog(9))
    return folder


@pytest.mark.parametrize("damage", ["changed", "cut", "binary"])
def test_a_damaged_file_in_use_is_mended_by_an_update(host: FileHost, plan_home: Path, damage: str):
    assert update(host).exit_code == 0
    good = in_use(plan_home).read_bytes()
    broken = {"changed": good.replace(b",50,", b",5,"), "cut": good[:50], "binary": b"\xff\x00" * 99}[damage]
    in_use(plan_home).write_bytes(broken)
    refused = CliRunner(mix_stderr=False).invoke(cli, ["offers"])
    assert refused.exit_code in (1, 2)
    assert "plan prices update" in refused.stderr
    result = update(host)
    assert result.exit_code == 0
    assert "clouds that were not fetched get the embedded prices" in result.stderr
    assert in_use(plan_home).read_bytes() == good


def test_refresh_takes_azure_from_its_api_or_changes_nothing(host: FileHost, plan_home: Path):
    def refresh() -> Result:
        words = ["prices", "refresh", "azure", "--url", f"{host.url}/prices", "-o", "json"]
        return CliRunner(mix_stderr=False).invoke(cli, words, obj=App(now=lambda: NOW))

    refused = refresh()
    assert refused.exit_code == 1
    assert not in_use(plan_home).exists()
    page = {
        "type": "Consumption",
        "unitOfMeasure": "1 Hour",
        "currencyCode": "USD",
        "armRegionName": "eastus",
    }
    body = json.dumps(
        {"Items": [{**page, "skuName": "x", "retailPrice": 77.5}], "NextPageLink": None}
    ).encode()
    azure = [offer for offer in load_default_snapshot().offers if offer.cloud == "azure"]
    for instance_type in {offer.instance_type for offer in azure}:
        query = f"serviceName eq 'Virtual Machines' and armSkuName eq '{instance_type}' and priceType eq 'Consumption'"
        host.files[f"/prices?currencyCode=USD&$filter={quote(query)}"] = body
    result = refresh()
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    types = {offer.instance_type for offer in azure}
    assert document["fresh"] == len(types)
    offers = [offer for offer in load_snapshot(in_use(plan_home)).offers if offer.cloud == "azure"]
    today = [offer for offer in offers if offer.as_of_at == "2026-06-01T00:00:00Z"]
    assert {(offer.region, offer.price_usd_per_hour) for offer in today} == {("eastus", 77.5)}
    schema = json.loads(schema_text("prices_refresh"))
    jsonschema.Draft7Validator(schema).validate(document)
