"""`plan prices refresh`: several sellers, some of whom do not answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from click.testing import Result

from planner.cli.schema import schema_text
from providers import availability_aws_advisor, live_sources
from tests.file_host import FileHost, file_host

Run = Callable[..., Result]
BUNDLE = {"gpu_name": "RTX 4090", "num_gpus": 2, "gpu_ram": 24564, "dph_total": 0.82, "min_bid": 0.41}
FEED = """callback({"config": {"rate": "perhr", "currencies": ["USD"], "regions": [{"region": "us-east",
"instanceTypes": [{"sizes": [{"size": "p5.48xlarge", "valueColumns":
[{"name": "linux", "prices": {"USD": "14.1"}}]}]}]}]}})"""

ADVICE = {
    "ranges": [{"index": 0, "label": "<5%"}, {"index": 4, "label": ">20%"}],
    "spot_advisor": {
        "us-east-1": {"Linux": {"p5.48xlarge": {"r": 4}, "p4d.24xlarge": {"r": 0}, "m5.large": {"r": 0}}}
    },
}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileHost]:
    """Two of the sources answer, at this machine."""
    monkeypatch.setattr("providers.web._WAITS_S", ())
    monkeypatch.setattr("providers.download._WAITS_S", ())
    with file_host() as running:
        here = [replace(source, url=f"{running.url}/{source.name}") for source in live_sources.SOURCES]
        monkeypatch.setattr(live_sources, "SOURCES", tuple(here))
        monkeypatch.setattr(availability_aws_advisor, "URL", f"{running.url}/advisor")
        running.files["/advisor"] = json.dumps(ADVICE).encode()
        running.files["/aws-spot"] = FEED.encode()
        running.posts["/vast"] = json.dumps({"offers": [BUNDLE]}).encode()
        yield running


def test_what_answers_counts_and_what_does_not_is_named(host: FileHost, run_plan: Run):
    result = run_plan("prices", "refresh", "-o", "json")
    assert result.exit_code == 1 and "cannot use" in result.stderr
    document = json.loads(result.stdout)
    jsonschema.Draft7Validator(json.loads(schema_text("prices_refresh"))).validate(document)
    assert {row["source"]: row["status"] for row in document["sources"]} == {
        "aws-spot": "ok", "azure": "failed", "oci": "failed", "vast": "ok", "aws-advisor": "ok",
    }  # fmt: skip
    assert document["fresh"] == 2
    offers = json.loads(run_plan("offers", "--cloud", "vast", "-o", "json").stdout)["offers"]
    assert [(offer["gpu"], offer["market"]) for offer in offers] == [
        ("RTX4090", "spot"),
        ("RTX4090", "on_demand"),
    ]
    words = ("offers", "--cloud", "aws", "--gpu", "H100:8", "--spot", "--region", "us-east-1", "-o", "json")
    spot = json.loads(run_plan(*words).stdout)["offers"]
    assert [(row["zone"], row["price_usd_per_h"], row["flags"]) for row in spot] == [
        (None, "14.1", ["region_price"])
    ]


def test_what_aws_took_back_is_kept_for_estimates_and_is_no_price(
    host: FileHost, run_plan: Run, plan_home: Path
):
    result = run_plan("prices", "refresh", "aws-advisor", "-o", "json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert [(row["source"], row["status"], row["fresh"]) for row in document["sources"]] == [
        ("aws-advisor", "ok", 2)
    ]
    assert document["fresh"] == 0
    kept = json.loads((plan_home / "cache" / "spot_signals.json").read_text())["signals"]
    assert {(row["instance_type"], row["zone"], row["value"]) for row in kept} == {
        ("p5.48xlarge", None, ">20%"), ("p4d.24xlarge", None, "<5%"),
    }  # fmt: skip
    host.files.clear()
    assert run_plan("prices", "refresh", "aws-advisor").exit_code == 1
    assert json.loads((plan_home / "cache" / "spot_signals.json").read_text())["signals"] == kept


def test_one_source_and_its_text(host: FileHost, run_plan: Run):
    result = run_plan("prices", "refresh", "vast")
    assert result.exit_code == 0
    assert result.stdout.startswith("vast         1 prices of today\nsnapshot sha256:")


def test_nothing_is_written_if_nobody_answers(host: FileHost, run_plan: Run, plan_home: Path):
    host.files.clear()
    host.posts.clear()
    assert run_plan("prices", "refresh").exit_code == 1
    assert not (plan_home / "cache" / "prices.csv").exists()


@pytest.mark.parametrize(
    "words", [["--url", "http://localhost:9"], ["gcp"], ["azure", "oci", "--url", "https://x"]]
)
def test_wrong_use_is_exit_2(run_plan: Run, words: list[str]):
    assert run_plan("prices", "refresh", *words).exit_code == 2
