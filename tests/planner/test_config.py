from __future__ import annotations

from pathlib import Path

import pytest

from planner.config import Config, LocalConfig, PricesConfig, directories, load_config
from planner.errors import SpecError


def test_plan_home_holds_everything(plan_home: Path) -> None:
    places = directories()
    assert places.config_file == plan_home / "config.yaml"
    assert places.state == plan_home / "state"
    assert places.cache == plan_home / "cache"


def test_a_relative_plan_home_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLAN_HOME", "here")
    assert directories().config == tmp_path / "here"


def test_without_plan_home_the_platform_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PLAN_HOME")
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    places = directories()
    assert {places.config.name, places.state.name, places.cache.name} == {"tuneplan"}
    assert len({places.config, places.state, places.cache}) == 3
    assert not any(tmp_path.iterdir())


def test_no_file_means_defaults(tmp_path: Path) -> None:
    assert load_config(tmp_path / "config.yaml") == Config()


def test_settings_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("prices: {max_age: 30d}\nlocal:\n  usd_per_hour: 0.25\n", encoding="utf-8")
    assert load_config(path) == Config(PricesConfig(30 * 86400.0), LocalConfig(0.25))
    path.write_text("local: {usd_per_hour: 0}\n", encoding="utf-8")
    assert load_config(path) == Config()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("price: {}", "1:1: price: unknown key, did you mean prices?"),
        ("prices: {max_age: 7}", "1:19: prices.max_age: 7 has no unit, write it as in 7h or 7m"),
        ("local: {usd_per_hour: 5eur}", "another currency"),
        (
            "prices: {overrides: [{cloud: aws, discont: 5%}]}",
            "overrides[0].discont: unknown key, did you mean discount?",
        ),
        ("local: {usd_per_hour: false}", "US dollars"),
        ("local: {usd_per_hour: -1}", "US dollars"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_config(path)
    assert words in str(caught.value)
