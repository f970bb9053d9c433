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
from providers import live_sources
from tests.file_host import FileHost, file_host

Run = Callable[..., Result]
BUNDLE = {"gpu_name": "RTX 4090", "num_gpus": 2, "gpu_ram": 24564, "dph_total": 0.82, "min_bid": 0.41}
FEED = """callback({"config": {"rate": "perhr", "currencies": ["USD"], "regions": [{"region": "us-east",
"instanceTypes": [{"sizes": [{"size": "p5.48xlarge", "valueColumns":
[{"name": "linux", "prices": {"USD": "14.1"}}]}]}]}]}})"""


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileHost]:
    """Two of the sources answer, at this machine."""
    monkeypatch.setattr("providers.web._WAITS_S", ())
    monkeypatch.setattr("providers.download._WAITS_S", ())
    with file_host() as running:
        here = [replace(source, url=f"{running.url}/{source.name}") for source in live_sources.SOURCES]
        monkeypatch.setattr(live_sources, "SOURCES", tuple(here))
        running.files["/aws-spot"] = FEED.encode()
        running.posts["/vast"] = json.dumps({"offers": [BUNDLE]}).encode()
        yield running


def test_what_answers_counts_and_what_does_not_is_named(host: FileHost, run_plan: Run):
    result = run_plan("prices", "refresh", "-o", "json")
    assert result.exit_code == 1 and "cannot use" in result.stderr
    document = json.loads(result.stdout)
    jsonschema.Draft7Validator(json.loads(schema_text("prices_refresh"))).validate(document)
    assert {row["source"]: row["status"] for row in document["sources"]} == {
        "aws-spot": "ok", "azure": "failed", "oci": "failed", "vast": "ok",
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


def test_one_source_and_its_text(host: FileHost, run_plan: Run):
    result = run_plan("prices", "refresh", "vast")
    assert result.exit_code == 0
    assert result.stdout.startswith("vast      1 prices of today\nsnapshot sha256:")


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
