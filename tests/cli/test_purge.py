"""`plan purge` frees what is over, keeps what it cost, and touches nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
from click.testing import Result

from planner.cli.context import App
from planner.cli.schema import schema_text
from planner.ledger_identity import identity_of
from planner.record import claim, keep
from planner.store import Change, Store
from providers.stores import open_store
from tests.planner.run_factories import START, attempt_of, terms_of

Run = Callable[..., Result]
FOLDERS = ("local/{}", "bundles/{}/1", "checkpoints/{}")


@pytest.fixture
def state(plan_home: Path) -> Path:
    """Two runs with files, one of them over."""
    state = plan_home / "state"
    with Store(state / "plan.db") as store:
        for name in ("over-1", "going-1"):
            store.create(name, terms_of(run_id=name), attempt_of())
        run = store.find("over-1")
        started = replace(run.current, backend_id="77", started_at=START)
        store.apply(run, Change("running", "training", started, START))
        run = store.find("over-1")
        store.apply(
            run, Change("succeeded", "done", replace(run.current, ended_at=START, outcome="done"), START)
        )
    for name in ("over-1", "going-1"):
        for folder in FOLDERS:
            (state / folder.format(name)).mkdir(parents=True)
            (state / folder.format(name) / "file").write_bytes(b"x" * 100)
    return state


def there(state: Path, run_id: str) -> list[str]:
    return [folder.partition("/")[0] for folder in FOLDERS if (state / folder.format(run_id)).exists()]


def test_only_what_is_over_goes_and_its_record_stays(state: Path, run_plan: Run):
    seen = run_plan("purge", "--dry-run", "-o", "json")
    document = json.loads(seen.stdout)
    jsonschema.Draft7Validator(json.loads(schema_text("purge"))).validate(document)
    assert [row["what"] for row in document["removed"]] == ["worker", "bundle"] and document["bytes"] == 200
    assert len(there(state, "over-1")) == 3
    result = run_plan("purge", "--yes")
    assert (result.exit_code, result.stdout) == (0, "200 bytes freed\n")
    assert there(state, "over-1") == ["checkpoints"] and len(there(state, "going-1")) == 3
    assert "over-1" in run_plan("costs").stdout
    assert run_plan("purge", "--yes").stdout == "there is nothing to remove\n"


def test_checkpoints_go_only_if_that_is_asked(state: Path, run_plan: Run):
    assert run_plan("purge", "over-1", "--checkpoints", "--yes").exit_code == 0
    assert there(state, "over-1") == []


def test_what_another_ledger_has_adopted_stays(state: Path, run_plan: Run, tmp_path: Path):
    prefix = open_store((state / "checkpoints" / "over-1").as_uri())
    with Store(state / "plan.db") as store:
        terms = terms_of(run_id="moved-1", checkpoint_uri=prefix.uri)
        store.create("moved-1", terms, attempt_of())
        run = store.find("moved-1")
        store.apply(run, Change("cancelled", "", replace(run.current, outcome="cancelled"), START))
        keep(prefix, identity_of(store.path), lambda: store.get("moved-1"), START, create=True)
    for folder in FOLDERS:
        (state / folder.format("moved-1")).mkdir(parents=True)
    claim(prefix, "another ledger", START)
    result = run_plan("purge", "moved-1", "--checkpoints", "--yes")
    assert (result.exit_code, len(there(state, "moved-1"))) == (0, 3)
    assert "left alone: moved-1 was adopted by a ledger on" in result.stderr
    claim(prefix, identity_of(state / "plan.db").token, START)  # taken back
    assert run_plan("purge", "moved-1", "--checkpoints", "--yes").exit_code == 0
    assert there(state, "moved-1") == []


def test_what_a_run_that_was_resumed_meanwhile_needs_stays(
    state: Path, run_plan: Run, monkeypatch: pytest.MonkeyPatch
):
    with Store(state / "plan.db") as store:
        store.create("again-1", terms_of(run_id="again-1"), attempt_of())
        run = store.find("again-1")
        store.apply(run, Change("cancelled", "", replace(run.current, outcome="cancelled"), START))
    for folder in FOLDERS:
        (state / folder.format("again-1")).mkdir(parents=True)

    def resumed_while_asked(*_: object, **__: object) -> None:
        with Store(state / "plan.db") as store:
            run = store.find("again-1")
            assert store.add_attempt(run, attempt_of(2), cap_micro_usd=None, max_duration_s=None)

    monkeypatch.setattr("planner.cli.purge.confirm", resumed_while_asked)
    result = run_plan("purge", "--checkpoints", "--yes")
    assert (there(state, "over-1"), len(there(state, "again-1"))) == ([], 3)
    assert "left alone: again-1 was resumed meanwhile" in result.stderr
    assert result.stdout == "300 bytes freed\n"


def test_age_counts_from_the_end(state: Path, run_plan: Run):
    soon, late = datetime(2026, 11, 23, tzinfo=UTC), datetime(2027, 6, 1, tzinfo=UTC)
    words = ("purge", "--older-than", "30d", "--yes")
    assert "nothing to remove" in run_plan(*words, obj=App(now=lambda: soon)).stdout
    assert "200 bytes freed" in run_plan(*words, obj=App(now=lambda: late)).stdout


def test_the_cache_goes_if_that_is_asked(run_plan: Run, plan_home: Path):
    (plan_home / "cache" / "models").mkdir(parents=True)
    (plan_home / "cache" / "models" / "a.json").write_bytes(b"12")
    (plan_home / "cache" / "prices.csv").write_bytes(b"345")
    assert run_plan("purge", "--cache", "--yes").stdout == "5 bytes freed\n"
    assert list((plan_home / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code"), [(["going-1"], 2), (["gone-1"], 2), (["--older-than", "x"], 2), ([], 2)], ids=str
)
def test_nothing_goes_without_a_clear_yes(state: Path, run_plan: Run, words: list[str], code: int):
    assert run_plan("purge", *words).exit_code == code
    assert len(there(state, "over-1")) == len(there(state, "going-1")) == 3


def test_a_link_is_not_followed(state: Path, run_plan: Run, tmp_path: Path):
    (tmp_path / "mine").write_text("keep")
    (state / "local" / "over-1" / "link").symlink_to(tmp_path)
    assert run_plan("purge", "--yes").exit_code == 0
    assert (tmp_path / "mine").read_text() == "keep"
