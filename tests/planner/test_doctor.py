import json
import os
import sqlite3
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
from click.testing import Result

from planner.cli.context import App
from planner.config import Directories
from planner.credentials import CLOUDS
from planner.doctor import Check, examine, worst
from planner.extras import EXTRAS, Extra, installed_versions
from planner.ledger_version import NEWEST_LEDGER
from planner.places import FILE_NAME
from planner.store import Store

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "planner" / "schemas" / "doctor.json").read_text())
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RunPlan = Callable[..., Result]


@pytest.fixture
def places(tmp_path: Path) -> Directories:
    found = Directories(tmp_path / "config", tmp_path / "state", tmp_path / "cache")
    for path in (found.config, found.state, found.cache):
        path.mkdir()
    return found


def checks(
    places: Directories, home: Path, *, now: datetime = NOW, environ: dict[str, str] | None = None
) -> dict[str, Check]:
    found = examine(places, now, environ or {}, home, 7 * 86400.0)
    return {f"{check.code} {check.subject}": check for check in found}


def test_every_finding_has_a_fix(places: Directories, tmp_path: Path) -> None:
    found = checks(places, tmp_path / "home")
    assert len(found) >= 8 + len(EXTRAS) + len(CLOUDS)
    for check in found.values():
        assert check.message
        assert (check.fix is None) == (check.level == "ok"), check


@pytest.mark.parametrize("now", [datetime(1970, 1, 1, tzinfo=UTC), datetime(2025, 6, 1, tzinfo=UTC)])
def test_a_clock_before_this_version_blocks(places: Directories, tmp_path: Path, now: datetime) -> None:
    assert checks(places, tmp_path, now=now)["P003 clock"].level == "blocking"


def test_a_clock_behind_the_ledger_is_told(places: Directories, tmp_path: Path) -> None:
    with Store(places.state / FILE_NAME):
        pass
    os.utime(places.state / FILE_NAME, (NOW.timestamp() + 7200,) * 2)
    assert checks(places, tmp_path)["P003 clock"].level == "warning"


def test_ledgers_are_read_and_left_as_they_are(places: Directories, tmp_path: Path) -> None:
    ledger = places.state / FILE_NAME
    with Store(ledger):
        pass
    assert checks(places, tmp_path)["P020 run database"].level == "ok"
    with sqlite3.connect(ledger) as db:
        db.execute(f"PRAGMA user_version = {NEWEST_LEDGER + 1}")
    db.close()
    assert checks(places, tmp_path)["P021 run database"].level == "blocking"
    ledger.write_bytes(b"no database at all" * 100)
    before = ledger.read_bytes()
    assert checks(places, tmp_path)["P022 run database"].level == "blocking"
    assert ledger.read_bytes() == before


def test_a_state_directory_that_others_may_write_to_is_told(places: Directories, tmp_path: Path) -> None:
    places.state.chmod(0o777)
    assert checks(places, tmp_path)["P012 state directory"].level == "warning"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_state_directory_blocks(places: Directories, tmp_path: Path) -> None:
    places.state.chmod(0o500)
    assert checks(places, tmp_path)["P010 state directory"].level == "blocking"


def test_damaged_prices_block_and_old_ones_warn(places: Directories, tmp_path: Path) -> None:
    assert checks(places, tmp_path)["P041 prices"].level == "warning"
    fresh = checks(places, tmp_path, now=datetime(2026, 5, 21, tzinfo=UTC))
    assert "older than 7 days" in fresh["P041 prices"].message or "P040 prices" in fresh
    (places.cache / "prices.csv").write_text("# not a snapshot\n")
    found = checks(places, tmp_path)
    assert {check.level for name, check in found.items() if name.endswith(" prices")} == {"blocking"}


def test_credentials_are_told_by_name_and_never_by_value(places: Directories, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".lambda_cloud").mkdir(parents=True)
    keys = home / ".lambda_cloud" / "lambda_keys"
    keys.write_text("api_key = canary-value")
    keys.chmod(0o600)
    found = checks(places, home, environ={"AWS_PROFILE": "canary-profile", "HF_TOKEN": ""})
    assert found["P060 aws"].message == "credentials by name: AWS_PROFILE"
    assert found["P060 lambda"].message == "credentials by name: ~/.lambda_cloud/lambda_keys"
    assert found["P060 hugging face"].level == "note"
    assert "canary" not in repr(found)
    keys.chmod(0o644)
    assert checks(places, home)["P061 lambda"].fix == "chmod go= ~/.lambda_cloud/lambda_keys"


def test_extras_are_those_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"hub", "mlflow", "wandb", "tensorboard"} <= {extra.name for extra in EXTRAS}
    for extra in EXTRAS:
        names = {line.split(">")[0].split("=")[0].split("[")[0] for line in declared[extra.name]}
        assert names == set(extra.modules)
    gone = Extra("x", {"no-such-distribution": "no_such_module", "click": "no_such_module"}, "nothing")
    assert installed_versions(gone) == {"no-such-distribution": None, "click": None}


def test_the_gravest_level_counts() -> None:
    levels = ("ok", "note", "warning", "blocking")
    for index, level in enumerate(levels):
        assert worst([Check("P001", "x", each, "") for each in levels[: index + 1]]) == level
    assert worst([]) == "ok"


def test_answer_keeps_to_its_schema(run_plan: RunPlan) -> None:
    result = run_plan("doctor", "-o", "json")
    document = json.loads(result.stdout)
    jsonschema.validate(document, SCHEMA)
    codes = [check["code"] for check in document["checks"]]
    assert codes == sorted(codes) and result.exit_code == 0
    assert document["worst"] in ("ok", "note", "warning")


def test_a_blocking_finding_is_exit_4(run_plan: RunPlan, places: Directories) -> None:
    (places.config / "config.yaml").write_text("prices: {max_age: soon}\n")
    result = run_plan("doctor", obj=App(directories=places))
    assert result.exit_code == 4
    assert "P004  BLOCKING" in result.stdout and "fix: correct " in result.stdout
    places.config_file.unlink()
    assert run_plan("doctor", obj=App(directories=places)).exit_code == 0


def test_doctor_loads_nothing_heavy() -> None:
    from tests.cli.test_main import HEAVY, loaded_modules

    assert loaded_modules("doctor").isdisjoint(HEAVY)
