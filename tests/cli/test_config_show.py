"""`plan config show`: settings in force and where they come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]
CONFIG = """\
prices:
  max_age: 2d
  url: https://prices.example/v8
  overrides:
  - {cloud: gcp, gpu: H100, discount: 15%}
  - {cloud: aws, credit: 500usd}
store: s3://team/plan
notify: [CHAT]
inhouse:
- {name: basement, gpu: H100, machines: 2, capex: 35000usd, watts: 1200, usd_per_kwh: 0.3, utilisation: 60%}
"""


def shown(result: Result) -> dict[str, tuple[str | None, str]]:
    """Key -> value and where it comes from."""
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["settings"]
    return {row["key"]: (row["value"], Path(row["source"] or row["origin"]).name) for row in rows}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's own settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HF_TOKEN", "HF_ENDPOINT", "PLAN_STORE", "PLAN_OFFLINE", "HF_HUB_OFFLINE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_file_everything_is_a_default(run_plan: Run, plan_home: Path):
    found = shown(run_plan("config", "show", "-o", "json"))
    assert found["prices.max_age"] == ("7d", "default") and found["store"] == (None, "default")
    assert found["directories.cache"] == (str(plan_home / "cache"), "$PLAN_HOME")
    assert found["hub.token"] == (None, "default")


def test_lines_of_the_file_and_variables(run_plan: Run, plan_home: Path, monkeypatch: pytest.MonkeyPatch):
    (plan_home / "config.yaml").write_text(CONFIG)
    found = shown(run_plan("config", "show", "-o", "json"))
    assert found["prices.max_age"] == ("2d", "config.yaml:2")
    assert found["prices.overrides.0"] == ("cloud gcp, gpu H100, discount 0.15", "config.yaml:5")
    assert found["prices.overrides.1"] == ("cloud aws, credit_usd 500", "config.yaml:6")
    assert found["store"] == ("s3://team/plan", "config.yaml:7")
    assert found["notify"] == ("CHAT", "config.yaml:8")
    assert found["inhouse.0"] == ("basement: 2 x H100:8", "config.yaml:10")
    for name, value in {"PLAN_STORE": "s3://mine", "PLAN_OFFLINE": "1", "HF_TOKEN": "hf_x"}.items():
        monkeypatch.setenv(name, value)
    found = shown(run_plan("config", "show", "-o", "json"))
    assert found["store"] == ("s3://mine", "$PLAN_STORE") and found["offline"] == ("yes", "$PLAN_OFFLINE")
    assert found["hub.token"] == ("set, not shown", "$HF_TOKEN")


def test_a_login_in_an_address_is_refused_and_not_shown(run_plan: Run, plan_home: Path):
    """It would be taken for the host, and be sent to whoever answers to it."""
    (plan_home / "config.yaml").write_text(CONFIG.replace("https://", "https://me:secret@"))
    result = run_plan("config", "show")
    assert result.exit_code == 2 and "config.yaml:3:8: prices.url" in result.stderr
    assert "login" in result.stderr and "secret" not in result.stdout + result.stderr


def test_no_secret_is_shown(run_plan: Run, plan_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (plan_home / "config.yaml").write_text(CONFIG)
    (tmp_path / ".cache/huggingface").mkdir(parents=True)
    (tmp_path / ".cache/huggingface/token").write_text("hf_secret")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:secret@hub.example")
    for words in ((), ("--origin",), ("-o", "json"), ("-o", "md")):
        text = run_plan("config", "show", *words).stdout
        assert "secret" not in text and "https://***@hub.example" in text
    token = run_plan("config", "show", "--origin").stdout.splitlines()[-1]
    assert token.split() == ["hub.token", "set,", "not", "shown", "hf", "auth", "login"]


def test_one_section_and_what_is_not_there(run_plan: Run, plan_home: Path):
    (plan_home / "config.yaml").write_text(CONFIG)
    lines = run_plan("config", "show", "prices", "--origin").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        "prices.max_age", "prices.url", "prices.overrides.0", "prices.overrides.1",
    ]  # fmt: skip
    assert lines[0].endswith("config.yaml:2")
    missing = run_plan("config", "show", "price")
    assert missing.exit_code == 2 and "there is no setting `price`" in missing.stderr


def test_a_broken_file_is_an_error_with_its_line(run_plan: Run, plan_home: Path):
    (plan_home / "config.yaml").write_text("prices: {max_age: soon}\n")
    result = run_plan("config", "show")
    assert result.exit_code == 2 and "config.yaml:1:19: prices.max_age" in result.stderr
