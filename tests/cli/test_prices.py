"""`plan prices`: what is in use, and importing other prices."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from planner.cli.context import App
from planner.cli.main import cli
from providers.catalog import load_snapshot

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HEADER = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region"


def run(*args: str) -> Result:
    return CliRunner(mix_stderr=False).invoke(cli, ["prices", *args], obj=App(now=lambda: NOW))


@pytest.fixture
def catalogs(tmp_path: Path) -> Path:
    folder = tmp_path / "v8" / "aws"
    folder.mkdir(parents=True)
    rows = ["p5.48xlarge,H100,8,192,2048,,55.04,30.5,us-east-1", "p6,B200,eight,192,2048,,113,,us-east-1"]
    (folder / "vms.csv").write_text("\n".join((HEADER, *rows)) + "\n")
    return folder.parent


def test_show_names_the_embedded_snapshot_and_its_gaps():
    result = run("show")
    assert result.exit_code == 0
    assert result.stdout.startswith("prices    embedded: ")
    assert "a cloud that is not complete may have lower prices than those known" in result.stdout
    document = json.loads(run("show", "-o", "json").stdout)
    assert document["schema"] == "tuneplan/prices"
    assert document["offers"] == sum(entry["rows"] for entry in document["prices"]["coverage"]) > 4000
    assert document["flags"]["suspect_price"] == 118


def test_import_to_a_file_and_show_it(catalogs: Path, tmp_path: Path):
    out = tmp_path / "mine.csv"
    result = run("import", str(catalogs), "--out", str(out), "--as-of", "2026-05-20")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"1 machines with GPUs written to {out}\n")
    assert (
        result.stderr
        == f"warning: {catalogs}/aws/vms.csv:3: AcceleratorCount 'eight' is not a number: row left out\n"
    )
    shown = json.loads(run("show", "--prices", str(out), "-o", "json").stdout)
    assert (shown["offers"], shown["prices"]["newest_as_of_at"]) == (2, "2026-05-20T00:00:00Z")
    assert shown["prices"]["coverage"][0]["complete"] is False


def test_import_answers_in_json(catalogs: Path, tmp_path: Path):
    result = run("import", str(catalogs), "--out", str(tmp_path / "p.csv"), "-o", "json")
    document = json.loads(result.stdout)
    assert (document["machines"], document["counts"]["malformed"], len(document["problems"])) == (1, 1, 1)
    assert document["snapshot_id"] == load_snapshot(tmp_path / "p.csv").snapshot_id


def test_imported_prices_are_in_use_only_if_not_older_than_the_embedded(catalogs: Path):
    run("import", str(catalogs), "--as-of", "2020-01-01")
    assert run("show").stdout.startswith("prices    embedded: ")
    run("import", str(catalogs), "--as-of", "2026-05-31")
    assert run("show").stdout.startswith("prices    cache: ")
    assert json.loads(run("show", "-o", "json").stdout)["offers"] == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["import", "nowhere"], "no <cloud>/vms.csv below nowhere"),
        (["import", "nowhere", "--as-of", "May"], "--as-of May: not a date"),
        (["show", "--prices", "none.csv"], "cannot read the price snapshot none.csv"),
    ],
)
def test_wrong_use_is_exit_2(args: list[str], message: str):
    result = run(*args)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_damaged_snapshot_is_refused_with_the_way_out(catalogs: Path, tmp_path: Path):
    out = tmp_path / "mine.csv"
    run("import", str(catalogs), "--out", str(out))
    out.write_text(out.read_text().replace("55.04", "5.504"))
    result = run("show", "--prices", str(out))
    assert result.exit_code == 1
    assert "hint: replace it: plan prices update" in result.stderr
