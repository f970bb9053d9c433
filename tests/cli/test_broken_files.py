"""Broken configurations, prices, catalogs, plans and ledgers: one clear error each, and the file stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from providers.catalog import EMBEDDED

Run = Callable[..., Result]
SPEC = Path(__file__).parents[2] / "examples" / "roberta-sentiment.yaml"
COLUMNS = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region\n"


def error_of(result: Result, exit_code: int) -> str:
    """Place and text of the one error of an answer, which is no bug of ours."""
    assert result.exit_code == exit_code, (result.stdout, result.stderr)
    errors = json.loads(result.stdout)["errors"]
    assert len(errors) == 1 and errors[0]["code"] != "internal", errors
    assert "Traceback" not in result.stderr and errors[0]["message"] in result.stderr
    return f"{errors[0]['path']}: {errors[0]['message']}"


CONFIGS = {
    "not YAML": ("prices: [", "YAML"),
    "a list": ("- prices", "keys and values"),
    "unknown section": ("price: {}", "price"),
    "unknown key": ("prices: {ulr: x}", "ulr"),
    "no duration": ("prices: {max_age: soon}", "soon"),
    "negative age": ("prices: {max_age: -1d}", "-1d"),
    "discount over 100 %": ("prices: {overrides: [{discount: 120%}]}", "120%"),
    "two prices": ("prices: {overrides: [{discount: 10%, usd_per_hour: 1}]}", "exactly one"),
    "no price": ("prices: {overrides: [{cloud: aws}]}", "exactly one"),
    "unknown GPU": ("prices: {overrides: [{gpu: H1OO, usd_per_hour: 1}]}", "H1OO"),
    "unknown market": ("prices: {overrides: [{market: cheap, usd_per_hour: 1}]}", "market"),
    "negative price": ("local: {usd_per_hour: -1}", "-1"),
    "key twice": ("local: {}\nlocal: {}", "local"),
    "not text": (b"\xff\xfe\x00\x01", "UTF-16"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations(run_plan: Run, plan_home: Path, name: str):
    content, said = CONFIGS[name]
    path = plan_home / "config.yaml"
    raw = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(raw)
    assert said.lower() in error_of(run_plan("estimate", SPEC, "-o", "json"), 2).lower()
    assert path.read_bytes() == raw


def lines(*changes: tuple[int, str]) -> bytes:
    """The embedded snapshot with some of its lines replaced."""
    text = EMBEDDED.read_text(encoding="utf-8").split("\n")
    for number, line in changes:
        text[number] = line
    return "\n".join(text).encode()


HEADER = EMBEDDED.read_text(encoding="utf-8").partition("\n")[0]
PRICES = {
    "empty": (b"", 2, "not a price snapshot"),
    "another file": (b"a,b\n1,2\n", 2, "not a price snapshot"),
    "another format": (lines((0, HEADER.replace('"format": 1', '"format": 9'))), 2, "not a price snapshot"),
    "half a header": (lines((0, HEADER[:80])), 2, "not a price snapshot"),
    "no JSON": (lines((0, "#tuneplan-prices {]")), 2, "not a price snapshot"),
    "a changed price": (
        lines((2, "aws,us-east-1,,p5,H100,8,80,192,2048,0.01,,x,2026-01-01,,")),
        1,
        "does not match",
    ),
    "cut short": (EMBEDDED.read_bytes()[:-500], 1, "does not match"),
    "not text": (HEADER.encode() + b"\n\xff\xfe", 1, "does not match"),
}


@pytest.mark.parametrize("name", PRICES)
def test_prices(run_plan: Run, plan_home: Path, tmp_path: Path, name: str):
    raw, code, said = PRICES[name]
    path = tmp_path / "prices.csv"
    path.write_bytes(raw)
    assert said in error_of(run_plan("offers", "--prices", path, "-o", "json"), code)
    assert path.read_bytes() == raw


CATALOGS = {
    "no catalog at all": ({}, "no"),
    "missing columns": ({"aws/vms.csv": "InstanceType,Price\np5,1\n"}, "no column"),
    "not text": ({"aws/vms.csv": b"\xff\xfe\x00"}, "vms.csv"),
    "broken sources": ({"aws/vms.csv": COLUMNS, "sources.json": "{"}, "sources.json"),
    "sources as a list": ({"aws/vms.csv": COLUMNS, "sources.json": "[]"}, "object"),
    "unknown key": ({"aws/vms.csv": COLUMNS, "sources.json": '{"aws/vms.csv": {"date": "x"}}'}, "only"),
    "no date": ({"aws/vms.csv": COLUMNS, "sources.json": '{"aws/vms.csv": {"as_of": "May"}}'}, "not a date"),
}


@pytest.mark.parametrize("name", CATALOGS)
def test_catalogs(run_plan: Run, plan_home: Path, tmp_path: Path, name: str):
    files, said = CATALOGS[name]
    for file, content in files.items():
        target = tmp_path / "v8" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert said in error_of(run_plan("prices", "import", tmp_path / "v8", "-o", "json"), 2)
    assert not (plan_home / "cache" / "prices.csv").exists()


PLANS = {
    "empty": (b"", "not JSON"),
    "another document": (b'{"schema": "tuneplan/estimate"}', "is not a plan"),
    "a newer format": (b'{"schema": "tuneplan/plan", "schema_version": 9}', "plan format 9"),
    "without its parts": (b'{"schema": "tuneplan/plan", "schema_version": 1}', "not a complete plan"),
    "nested too deep": (b"[" * 100_000, "not JSON"),
}


@pytest.mark.parametrize("name", PLANS)
def test_plans(run_plan: Run, tmp_path: Path, name: str):
    raw, said = PLANS[name]
    path = tmp_path / "plan.json"
    path.write_bytes(raw)
    assert said in error_of(
        run_plan("launch", path, "--infra", "local", "--no-cap", "--yes", "-o", "json"), 2
    )


LEDGERS = {
    "words": (b"this is no database, only words " * 200, 1, "plan.db"),
    "zeros": (b"\0" * 8192, 1, "plan.db"),
    "half a header": (b"SQLite format 3\0" + b"\xff" * 4096, 1, "plan.db"),
}


@pytest.mark.parametrize("name", LEDGERS)
def test_ledgers(run_plan: Run, plan_home: Path, name: str):
    raw, code, said = LEDGERS[name]
    path = plan_home / "state" / "plan.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(raw)
    assert said in error_of(run_plan("runs", "-o", "json"), code)
    assert path.read_bytes() == raw


def test_a_broken_ledger_does_not_stop_an_estimate(run_plan: Run, plan_home: Path):
    path = plan_home / "state" / "plan.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"this is no database, only words " * 200)
    result = run_plan("estimate", SPEC)
    assert result.exit_code == 0 and "warning: not calibrated by your runs" in result.stderr
