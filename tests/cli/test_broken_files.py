"""Broken configurations, prices, catalogs, plans and ledgers: one clear error each, and the file stays as it is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import Result

from planner.store import Store
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
    "an address that others can read": ("prices: {url: http://prices.example/v8}", "https"),
    "no address": ("prices: {url: 5}", "https"),
    "a credit that is with nobody": ("prices: {overrides: [{credit: 5usd}]}", "needs cloud"),
    "an end of no credit": (
        "prices: {overrides: [{cloud: aws, discount: 5%, expires: 2027-01-01}]}",
        "credit",
    ),
    "no machine": (
        "inhouse: [{name: x, gpu: H100, machines: 0, capex: 1usd, watts: 1, usd_per_kwh: 1, utilisation: 60%}]",
        "at least 1",
    ),
    "an address instead of its variable": ("notify: [https://chat.example/x]", "environment variable"),
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


def changed_plan(run_plan: Run, folder: Path, before: str, after: str) -> bytes:
    """A real plan with something changed."""
    path = folder / "made.json"
    assert run_plan("estimate", SPEC, "--limit", "1", "--out", path).exit_code == 0
    text = path.read_text()
    assert before in text
    return text.replace(before, after, 1).encode()


CHANGED_PLANS = {
    "another price": ('"price_usd_per_h": "', '"price_usd_per_h": "1', "was changed after it was made"),
    "another objective": ('"objective": "cheapest', '"objective": "fastest', "was changed after it was made"),
    "a price that is none": ('"price_usd_per_h": "', '"price_usd_per_h": "x', "not a complete plan"),
    "an unknown key of the spec": ('"spec": {', '"spec": {"sepc": 1,', "not a complete plan"),
}


@pytest.mark.parametrize("name", CHANGED_PLANS)
def test_plans_that_were_changed(run_plan: Run, tmp_path: Path, name: str):
    before, after, said = CHANGED_PLANS[name]
    path = tmp_path / "plan.json"
    path.write_bytes(changed_plan(run_plan, tmp_path, before, after))
    words = ("launch", path, "--infra", "skypilot", "--no-cap", "--yes", "-o", "json")
    assert said in error_of(run_plan(*words), 2)


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


def sqlite(*statements: str) -> bytes:
    """A database after some statements."""
    with closing(sqlite3.connect(":memory:")) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()
        return db.serialize()


def ledger(*statements: str) -> bytes:
    """A ledger of this version without runs, after some statements."""
    with TemporaryDirectory() as folder:
        with Store(Path(folder) / "plan.db"):
            pass
        with closing(sqlite3.connect(Path(folder) / "plan.db")) as db:
            for statement in statements:
                db.execute(statement)
            db.commit()
            return db.serialize()


LEDGERS = {
    "words": (lambda: b"this is no database, only words " * 200, 1, "plan.db"),
    "zeros": (lambda: b"\0" * 8192, 1, "plan.db"),
    "half a header": (lambda: b"SQLite format 3\0" + b"\xff" * 4096, 1, "plan.db"),
    "another program's": (lambda: sqlite("CREATE TABLE x (y)"), 1, "another program's database"),
    "cut in half": (lambda: ledger()[: len(ledger()) // 2], 1, "damaged"),
    "a table less": (lambda: ledger("DROP TABLE runs"), 1, "no such table: runs"),
    "a newer one": (lambda: ledger("PRAGMA user_version = 999"), 2, "newer tuneplan"),
}


@pytest.mark.parametrize("name", LEDGERS)
def test_ledgers(run_plan: Run, plan_home: Path, name: str):
    make, code, said = LEDGERS[name]
    raw = make()
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
