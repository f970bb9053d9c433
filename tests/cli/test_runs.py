"""The commands on runs, from `launch` to `report`, with a worker that obeys the test; outputs keep to their schemas."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from jobs.progress import CheckpointRef, Progress, read_progress
from jobs.stop_request import KEY
from planner.cli import waiting
from planner.cli.context import App
from planner.cli.main import cli
from planner.cli.resume import _price_text
from planner.cli.schema import schema_text
from planner.entry_book import Entry, EntryBook
from planner.ledger_identity import identity_of
from planner.places import Places
from planner.register import enter, is_taken, read_book
from planner.store import Change, Store
from providers.directory_store import DirectoryStore
from providers.errors import LaunchError, UsageError
from providers.launcher import BackendStatus
from providers.offers import PriceSnapshot
from providers.stores import open_store
from providers.supervisor import utc_now
from tests.planner.factories import offer_of
from tests.planner.run_factories import START, attempt_of, terms_of
from tests.planner.test_monitor import Backend
from tests.workers import eventually, make_python, order_exit, starts

SPEC = Path(__file__).parents[2] / "examples" / "tiny-goat" / "spec.yaml"
LOCAL = (str(SPEC), "--infra", "local", "--run-id", "goat-1")


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "orders"
    path.mkdir()
    monkeypatch.setenv("ORDERS", str(path))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "executable", str(make_python(tmp_path / "bin")))
    yield path
    order_exit(path, 0)


def plan(*words: str, code: int = 0) -> Result:
    result = CliRunner(mix_stderr=False).invoke(cli, list(words))
    assert result.exit_code == code, (words, result.stdout, result.stderr)
    return result


def answer(*words: str, schema: str | None = None, code: int = 0) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(plan(*words, "-o", "json", code=code).stdout)
    jsonschema.validate(document, json.loads(schema_text(schema or words[0])))
    assert list(document)[:4] == ["schema", "schema_version", "tuneplan_version", "generated_at"]
    return document


def status() -> dict[str, Any]:
    run: dict[str, Any] = answer("status", "goat-1")["run"]
    return run


def launched(orders: Path) -> None:
    plan("launch", *LOCAL, "--yes")
    eventually((orders / "ready").exists)


def preempted(orders: Path) -> None:
    launched(orders)
    for pid in status()["pids"]:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: status()["state"] == "preempted")


def test_launch_answers_and_the_run_is_known(orders: Path) -> None:
    document = answer("launch", *LOCAL, "--yes")
    assert (document["run_id"], document["created"], document["state"]) == ("goat-1", True, "running")
    assert (document["infra"], document["dry_run"], document["blockers"]) == ("local", False, [])
    assert document["offer"]["market"] == "local"
    again = answer("launch", *LOCAL, "--yes")
    assert again["created"] is False
    run = status()
    assert run["state"] == "running" and len(run["pids"]) == 2
    assert run["cost_usd"] == "0" and run["cap_usd"] is None
    eventually(lambda: len(starts(orders)) == 1)


def test_a_person_sees_the_plan_before_being_asked(orders: Path) -> None:
    result = plan("launch", *LOCAL, code=2)
    assert result.stdout == ""
    for word in ("goat-1", "this machine", "h", "nothing is rented", "--yes"):
        assert word in result.stderr
    assert answer("runs")["runs"] == []


def test_dry_run_starts_and_records_nothing(orders: Path) -> None:
    document = answer("launch", *LOCAL, "--dry-run", "--max-duration", "90m")
    assert (document["dry_run"], document["state"], document["max_duration_h"]) == (True, None, 1.5)
    assert answer("runs")["runs"] == []
    assert starts(orders) == []


def test_every_blocker_is_named_at_once(orders: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "spec_version: 1\nname: x\nmodel: ./no-model\ndata: {train: no.jsonl, eval: gone.jsonl, samples: 5,"
        " tokens_per_sample: 9}\nenvironment: {secrets: [NO_SUCH_TOKEN]}\n"
    )
    (tmp_path / "no-model").mkdir()
    model = Path(SPEC.parent / "base" / "config.json").read_text()
    (tmp_path / "no-model" / "config.json").write_text(model)
    result = plan("launch", str(spec), "--infra", "local", "--yes", code=2)
    for word in ("no.jsonl", "gone.jsonl", "NO_SUCH_TOKEN"):
        assert word in result.stderr
    assert answer("runs")["runs"] == []


def test_a_priced_machine_needs_a_cap(orders: Path, plan_home: Path) -> None:
    (plan_home / "config.yaml").write_text("local:\n  usd_per_hour: 2\n")
    result = plan("launch", *LOCAL, "--yes", code=2)
    assert "needs a cap" in result.stderr and "--no-cap" in result.stderr
    document = answer("launch", *LOCAL, "--yes", "--cap", "3usd")
    assert document["cap_usd"] == "3"
    assert document["offer"]["price_usd_per_h"] == "2"
    assert plan("launch", *LOCAL, "--cap", "3", "--no-cap", code=2).stdout == ""


def test_a_rented_machine_needs_a_place_for_checkpoints_that_both_reach(orders: Path) -> None:
    refused = plan("launch", str(SPEC), "--yes", "--no-cap", code=2).stderr
    assert "checkpoints.uri" in refused
    assert "no runs" in plan("runs").stdout + plan("runs").stderr


def test_a_saved_plan_is_launched_as_it_is(orders: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    plan("estimate", str(SPEC), "--infra", "local", "--out", str(out))
    document = answer("launch", str(out), "--infra", "local", "--run-id", "goat-1", "--yes")
    assert document["plan_hash"] == json.loads(out.read_text())["plan_hash"]
    out.write_text(out.read_text().replace('"rank": 16', '"rank": 8'))
    plan("launch", str(out), "--infra", "local", "--yes", code=2)


def test_a_killed_run_is_preempted_resumed_and_reported(orders: Path) -> None:
    preempted(orders)
    waited = plan("wait", "goat-1", code=10)
    assert "plan resume goat-1" in waited.stderr
    resumed = answer("resume", "goat-1", "--yes", schema="status")["run"]
    assert [attempt["outcome"] for attempt in resumed["attempts"]] == ["preempted", "running"]
    order_exit(orders, 0)
    done = answer("wait", "goat-1", schema="status")["run"]
    assert (done["state"], done["recoveries"], done["cost_is_final"]) == ("succeeded", 1, True)
    assert done["pids"] == [] and done["worker_exit_code"] == 0
    report = answer("report", "goat-1")
    assert report["recoveries"] == 1
    plan("resume", "goat-1", "--yes", code=2)


def test_launching_a_run_that_is_over_says_how_to_go_on(orders: Path) -> None:
    preempted(orders)
    result = plan("launch", *LOCAL, "--yes")
    assert "! preempted, which was launched before" in result.stdout
    assert "plan resume goat-1" in result.stderr
    assert "still counting" not in plan("status", "goat-1").stdout
    assert len(starts(orders)) == 1


@pytest.mark.parametrize(("exit_code", "code"), [(1, 10), (77, 8), (0, 0)])
def test_launching_a_run_that_is_over_ends_as_it_did(orders: Path, exit_code: int, code: int) -> None:
    launched(orders)
    order_exit(orders, exit_code)
    plan("wait", "goat-1", code=code)
    assert answer("launch", *LOCAL, "--yes", code=code)["created"] is False
    assert len(starts(orders)) == 1


def test_a_launch_that_failed_is_asked_about_and_priced_anew(orders: Path, plan_home: Path) -> None:
    in_the_way = plan_home / "state" / "local"
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("a file in the way")
    plan("launch", *LOCAL, "--yes", code=6)
    assert status()["state"] == "failed"
    assert "--yes" in plan("launch", *LOCAL, code=2).stderr
    plan("launch", *LOCAL, "--yes", code=6)
    in_the_way.unlink()
    assert answer("launch", *LOCAL, "--yes", "--max-duration", "1h")["created"] is True
    assert status()["state"] == "running"


def test_resume_asks_first(orders: Path) -> None:
    preempted(orders)
    assert "--yes" in plan("resume", "goat-1", code=2).stderr
    assert len(status()["attempts"]) == 1


@pytest.mark.parametrize(
    ("exit_code", "state", "code"),
    [(0, "succeeded", 0), (1, "failed", 10), (75, "preempted", 10), (77, "capped", 8)],
)
def test_wait_ends_as_the_run_did(orders: Path, exit_code: int, state: str, code: int) -> None:
    order_exit(orders, exit_code)
    document = answer("launch", *LOCAL, "--yes", "--wait", code=code)
    assert document["state"] == state
    assert status()["state"] == state
    plan("wait", "goat-1", code=code)


def test_cancel_lets_the_worker_checkpoint(orders: Path) -> None:
    launched(orders)
    run = answer("cancel", "goat-1", schema="status")["run"]
    assert (run["state"], run["worker_exit_code"]) == ("cancelled", 75)
    assert "after a committed checkpoint" in run["state_reason"]
    assert "over already" in plan("cancel", "goat-1").stderr
    plan("wait", "goat-1", code=11)


class Rented(Backend):
    """A rented machine whose worker commits and ends once it is asked to; its backend is asked after that."""

    def __init__(self, bucket: DirectoryStore) -> None:
        self.bucket = bucket
        self.asked_when: list[str] = []
        super().__init__(BackendStatus("running", backend_id="77", attempt=1, started_at=utc_now()))
        self.says("training")

    def says(self, state: str) -> None:
        ref = CheckpointRef(40, utc_now(), self.bucket.uri, 1, "0" * 64) if state == "preempted" else None
        said = Progress("goat-1", 1, state=state, step=40, launch=1, last_checkpoint=ref)  # type: ignore[arg-type]
        at = utc_now()
        body = replace(said, started_at=self.answer.started_at, heartbeat_at=at).to_json()
        self.bucket.put("progress.json", body.encode())

    def status(self, run_id: str) -> BackendStatus:
        if self.bucket.get(KEY) is not None and not self.asked_when:
            self.says("preempted")
        return self.answer

    def cancel(self, run_id: str, *, grace_s: float = 60.0) -> BackendStatus:
        found = read_progress(self.bucket)
        assert found is not None
        self.asked_when.append(found.state)
        self.answer = replace(self.answer, state="cancelled", ended_at=utc_now(), stopped_by="cancel")
        return self.answer


@pytest.mark.parametrize("words", [(), ("--no-wait",)])
def test_cancel_waits_for_the_checkpoint_of_a_rented_worker(
    plan_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    bucket = DirectoryStore(tmp_path / "bucket")
    backend = Rented(bucket)
    monkeypatch.setattr("planner.cli.desk.launcher", lambda app, infra: backend)
    monkeypatch.setitem(waiting._POLL_S, "skypilot", 0.01)
    with Store(plan_home / "state" / "plan.db") as store:
        terms = terms_of(infra="skypilot", checkpoint_uri=bucket.uri, secrets=())
        store.create("goat-1", terms, attempt_of(intent_at=utc_now()))
    result = plan("cancel", "goat-1", *words)
    assert "its worker commits a checkpoint and ends" in result.stderr
    assert backend.asked_when == ["preempted"]
    assert status()["state"] == "cancelled"
    assert "after a committed checkpoint" in status()["state_reason"]


def test_wait_gives_up_in_time(orders: Path) -> None:
    launched(orders)
    told = plan("wait", "goat-1", "--timeout", "0", code=1).stderr
    assert "goat-1: ▶ running: starting\n" in told and "still running" in told


def test_logs_show_what_the_worker_wrote(orders: Path) -> None:
    launched(orders)
    order_exit(orders, 1)
    assert plan("logs", "goat-1", "-f").stdout.splitlines() == ["ready", "last words"]
    assert plan("logs", "goat-1", "--tail", "1").stdout == "last words\n"


def test_runs_are_listed_and_filtered(orders: Path) -> None:
    assert plan("runs").stdout == "no runs\n"
    launched(orders)
    plan("launch", str(SPEC), "--infra", "local", "--run-id", "goat-2", "--yes")
    assert [run["run_id"] for run in answer("runs")["runs"]] == ["goat-2", "goat-1"]
    assert all("attempts" not in run for run in answer("runs")["runs"])
    assert len(answer("runs", "--active")["runs"]) == 2
    assert answer("runs", "--state", "failed")["runs"] == []
    assert answer("runs", "--project", "other")["runs"] == []
    table = plan("runs").stdout
    assert "▶ running" in table and "goat-2" in table


def test_status_is_for_people_too(orders: Path) -> None:
    launched(orders)
    text = plan("status", "goat").stdout
    assert "▶ running" in text and "processes" in text and "\x1b" not in text
    assert "there is no run" in plan("status", "nothing", code=2).stderr


def test_costs_are_summed(orders: Path, plan_home: Path) -> None:
    assert answer("costs")["rows"] == []
    (plan_home / "config.yaml").write_text("local:\n  usd_per_hour: 3600\n")
    order_exit(orders, 0)
    plan("launch", *LOCAL, "--yes", "--no-cap", "--wait")
    (row,) = answer("costs", "--by", "project")["rows"]
    assert (row["key"], row["attempts"]) == ("default", 1)
    assert float(row["cost_usd"]) == pytest.approx(row["hours"] * 3600, abs=1e-5)
    assert answer("costs", "--by", "month")["total_usd"] == row["cost_usd"] == status()["cost_usd"]
    assert "goat-1" in plan("costs").stdout


def test_a_run_id_that_cannot_be_one_is_refused(orders: Path) -> None:
    plan("launch", str(SPEC), "--infra", "local", "--run-id", "../x", "--yes", code=2)
    assert starts(orders) == []


def test_without_an_id_an_interrupted_launch_goes_on(orders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from providers.local import LocalLauncher

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocalLauncher, "launch", killed)
        plan("launch", str(SPEC), "--infra", "local", "--yes", code=130)
    (before,) = answer("runs")["runs"]
    assert before["state"] == "queued"
    document = answer("launch", str(SPEC), "--infra", "local", "--yes", schema="launch")
    assert document["run_id"] == before["run_id"]
    assert document["state"] == "running"
    assert len(answer("runs")["runs"]) == 1


@pytest.fixture
def unconfirmed(orders: Path, plan_home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """A launch that was killed when it asked the backend, in words."""
    from providers.local import LocalLauncher

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    (plan_home / "config.yaml").write_text("local: {usd_per_hour: 2}\n")
    words = ("launch", *LOCAL, "--cap", "50", "--yes")
    with monkeypatch.context() as patch:
        patch.setattr(LocalLauncher, "launch", killed)
        plan(*words, code=130)
    return words


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("--cap", "10"), "was launched with a cap of $50, not a cap of $10"),
        (("--no-cap",), "was launched with a cap of $50, not no cap"),
        (("--cap", "50", "--max-duration", "90m"), "with no --max-duration, not --max-duration 5400s"),
        (("--cap", "50", "--monitor", "service"), "with --monitor local, not --monitor service"),
        (("--cap", "9", "--move"), "with a cap of $50 and no --move, not a cap of $9 and --move"),
    ],
)
def test_an_interrupted_launch_goes_on_under_its_own_terms_or_not_at_all(
    unconfirmed: tuple[str, ...], asked: tuple[str, ...], told: str
) -> None:
    refused = plan("launch", *LOCAL, *asked, "--yes", code=2).stderr
    assert told in refused and "plan cancel goat-1" in refused
    assert status()["state"] == "queued"


def test_an_interrupted_launch_says_what_it_goes_on_with(unconfirmed: tuple[str, ...]) -> None:
    assert "it goes on with a cap of $50" in plan(*unconfirmed).stderr
    assert (status()["state"], status()["cap_usd"]) == ("running", "50")
    assert "with a cap of $50, not a cap of $9" in plan("launch", *LOCAL, "--cap", "9", code=2).stderr


def test_an_interrupted_launch_of_long_ago_is_agreed_to_again(
    unconfirmed: tuple[str, ...], plan_home: Path
) -> None:
    def launch(*words: str) -> Result:
        tomorrow = App(now=lambda: datetime.now(UTC) + timedelta(days=1))
        return CliRunner(mix_stderr=False).invoke(cli, list(words), obj=tomorrow)

    asked = launch(*(word for word in unconfirmed if word != "--yes"))
    assert asked.exit_code == 2 and "as it was agreed to then? Nobody can be asked here" in asked.stderr
    (plan_home / "config.yaml").write_text("local: {usd_per_hour: 3}\n")
    dearer = launch(*unconfirmed)
    assert dearer.exit_code == 5 and "from $2/h to $3/h" in dearer.stderr
    assert status()["state"] == "queued"
    (plan_home / "config.yaml").write_text("local: {usd_per_hour: 2}\n")
    assert launch(*unconfirmed).exit_code == 0 and status()["state"] == "running"


def test_a_plan_whose_price_has_moved_is_refused(orders: Path, plan_home: Path, tmp_path: Path) -> None:
    def priced(price: str) -> None:
        (plan_home / "config.yaml").write_text(f"local: {{usd_per_hour: {price}}}\n")

    priced("2")
    file = tmp_path / "plan.json"
    plan("estimate", str(SPEC), "--infra", "local", "--out", str(file))
    launch = ("launch", str(file), "--infra", "local", "--run-id", "goat-1", "--cap", "9", "--yes")
    priced("2.2")
    refused = plan(*launch, code=5)
    assert "from $2/h to $2.2/h" in refused.stderr and answer("runs")["runs"] == []
    assert "is not a share" in plan(*launch, "--price-tolerance", "much", code=2).stderr
    accepted = plan(*launch, "--price-tolerance", "10%")
    assert "the price has moved" in accepted.stderr
    assert status()["attempts"][0]["offer"]["price_usd_per_h"] == "2.2"


def preempted_at_two_dollars(orders: Path, plan_home: Path) -> None:
    """A run whose machine cost that much an hour, and was taken away."""
    (plan_home / "config.yaml").write_text("local: {usd_per_hour: 2}\n")
    plan("launch", *LOCAL, "--yes", "--cap", "50")
    eventually((orders / "ready").exists)
    for pid in status()["pids"]:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: status()["state"] == "preempted")


def test_a_resume_goes_by_the_price_of_today(orders: Path, plan_home: Path) -> None:
    preempted_at_two_dollars(orders, plan_home)
    (plan_home / "config.yaml").write_text("local: {usd_per_hour: 3}\n")
    assert "from $2/h to $3/h (+50%" in plan("resume", "goat-1", "--yes", code=5).stderr
    assert len(status()["attempts"]) == 1
    resumed = plan("resume", "goat-1", "--yes", "--price-tolerance", "50%")
    assert "costs $3/h, before it was $2/h" in resumed.stderr
    first, second = status()["attempts"]
    assert (first["offer"]["price_usd_per_h"], second["offer"]["price_usd_per_h"]) == ("2", "3")
    assert "costs $3/h" not in plan("resume", "goat-1", "--yes", code=2).stderr  # it runs


def test_a_resume_that_is_refused_leaves_the_budget_as_it_was(orders: Path, plan_home: Path) -> None:
    (plan_home / "config.yaml").write_text("local: {usd_per_hour: 2}\n")
    plan("launch", *LOCAL, "--yes", "--cap", "50")
    eventually((orders / "ready").exists)
    assert "it needs no resume" in plan("resume", "goat-1", "--yes", "--cap", "1", code=2).stderr
    assert answer("budget", "show", "default", schema="budget")["taken_usd"] == "50"  # what it may still cost


def test_a_lower_cap_holds_less_only_once_the_run_has_it(
    orders: Path, plan_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preempted_at_two_dollars(orders, plan_home)

    def faster(*_: object, **__: object) -> None:
        raise UsageError("run goat-1 was changed by somebody else just now")

    with monkeypatch.context() as patch:  # its monitor has started it again meanwhile, with the cap on record
        patch.setattr("planner.launch.resume", faster)
        plan("resume", "goat-1", "--yes", "--cap", "10", code=2)
    assert answer("budget", "show", "default", schema="budget")["taken_usd"] == "50"
    plan("resume", "goat-1", "--yes", "--cap", "10")
    assert answer("budget", "show", "default", schema="budget")["taken_usd"] == "10"


def test_a_machine_that_the_price_list_has_no_more_keeps_its_last_price(
    orders: Path, plan_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preempted_at_two_dollars(orders, plan_home)
    nothing = PriceSnapshot("none", (), (), live=True)
    with monkeypatch.context() as patch:
        patch.setattr(App, "snapshot", lambda self, infra: nothing)
        resumed = plan("resume", "goat-1", "--yes").stderr
    assert "is not offered any more; cap and ledger go by the last price known, $2/h" in resumed
    assert status()["attempts"][1]["offer"]["price_usd_per_h"] == "2"


def test_what_a_silent_machine_has_cost_is_told_as_a_bound(plan_home: Path) -> None:
    terms = terms_of(infra="cluster", monitor="service", cap_micro_usd=9_000_000)
    with Store(Places(plan_home / "state").ledger) as store:
        store.create("far-1", terms, attempt_of())
        known = replace(attempt_of(), backend_id="7", started_at=START, cost_micro_usd=500_000)
        change = Change("unknown", "nobody answers", known, "2026-11-22T14:00:00.000Z")
        assert store.apply(store.find("far-1"), change)
    text = plan("status", "far-1").stdout
    assert "at least $0.5 as of 2026-11-22 12:30:00 UTC, $" in text
    assert "by now if its machines still run, cap $9" in text
    assert ">=0.5" in plan("runs").stdout and "at least $0.5 as of" in plan("status").stdout
    run = answer("status", "far-1")["run"]
    assert (run["cost_usd"], run["cost_is_current"], run["cost_as_of_at"]) == (
        "0.5",
        False,
        "2026-11-22T12:30:00.000Z",
    )
    assert float(run["cost_at_most_usd"]) > 1
    assert "far-1: at least $0.5 as of 2026-11-22 12:30:00 UTC" in plan("costs").stdout
    (silent,) = answer("costs")["not_current"]
    assert (silent["run_id"], silent["at_least_usd"]) == ("far-1", "0.5")


def test_costs_as_focus_and_against_a_bill(orders: Path, plan_home: Path, tmp_path: Path) -> None:
    (plan_home / "config.yaml").write_text("local: {usd_per_hour: 2}\n")
    plan("launch", *LOCAL, "--yes", "--cap", "5")
    order_exit(orders, 0)
    plan("wait", "goat-1")
    text = plan("costs", "--format", "focus").stdout
    assert text.startswith("BilledCost,") and '""tuneplan-run"": ""goat-1""' in text
    bill = tmp_path / "bill.csv"
    bill.write_text('BilledCost,ChargePeriodStart,Tags\n3,2026-11-01,"{""tuneplan-run"": ""gone""}"\n')
    result = plan("costs", "reconcile", str(bill), "-o", "json", code=1)
    document = json.loads(result.stdout)
    jsonschema.validate(document, json.loads(schema_text("costs_reconcile")))
    assert document["strangers"][0]["run"] == "gone"
    assert "names no run of this ledger" in plan("costs", "reconcile", str(bill), code=1).stdout
    assert "cannot read" in plan("costs", "reconcile", str(tmp_path / "none.csv"), code=2).stderr


def test_a_project_s_budget_counts_everybody_s_runs(
    orders: Path, plan_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = (tmp_path / "shared").as_uri()
    for home in (plan_home, tmp_path / "colleague"):
        home.mkdir(exist_ok=True)
        (home / "config.yaml").write_text(f"local: {{usd_per_hour: 2}}\nstore: {store}\n")
    plan("budget", "set", "default", "10usd", "--per", "total")
    plan("launch", *LOCAL, "--yes", "--cap", "8")
    monkeypatch.setenv("PLAN_HOME", str(tmp_path / "colleague"))
    assert "was taken by" in plan("launch", *LOCAL, "--yes", "--cap", "1", code=2).stderr
    other = (*LOCAL[:-1], "goat-2")
    assert "has $2 left" in plan("launch", *other, "--yes", "--cap", "3", code=5).stderr
    assert answer("runs")["runs"] == []
    document = answer("budget", "show", "default", schema="budget")
    assert (document["limit_usd"], document["taken_usd"]) == ("10", "8")
    monkeypatch.setenv("PLAN_HOME", str(plan_home))
    order_exit(orders, 0)
    plan("wait", "goat-1")
    before = files(tmp_path / "shared")
    plan("launch", *other, "--dry-run", "--cap", "9")  # the run that is over has not spent its cap
    assert files(tmp_path / "shared") == before
    assert float(answer("budget", "show", "default", schema="budget")["taken_usd"]) < 1
    assert "spent or held" in plan("budget", "show").stdout


def test_a_launch_that_failed_and_is_repeated_under_another_project_holds_only_of_that(
    orders: Path, plan_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plan_home / "config.yaml").write_text("local: {usd_per_hour: 2}\n")

    def refuses(*_: object, **__: object) -> None:
        raise LaunchError("no machine")

    text = SPEC.read_text()
    for name in ("./base", "train.jsonl", "eval.jsonl"):
        text = text.replace(f": {name}", f": {SPEC.parent / name}")
    first, other, longer = (tmp_path / f"{name}.yaml" for name in ("first", "other", "longer"))
    first.write_text(text)
    other.write_text(f"{text}project: other\n")
    longer.write_text(f"{text.replace('every: 100', 'every: 50')}project: third\n")
    with monkeypatch.context() as patch:
        patch.setattr("providers.local.LocalLauncher.launch", refuses)
        plan("launch", str(first), *LOCAL[1:], "--yes", "--cap", "8", code=6)
    refused = plan("launch", str(longer), *LOCAL[1:], "--yes", "--cap", "7", code=2)
    assert "was launched from another plan" in refused.stderr
    plan("launch", str(other), *LOCAL[1:], "--yes", "--cap", "7")
    register = open_store(Places(plan_home / "state").register)
    books = {
        name: read_book(register, name).taken_micro_usd("2000-01") for name in ("default", "other", "third")
    }
    assert books == {"default": 0, "other": 7_000_000, "third": 0}
    order_exit(orders, 0)
    plan("wait", "goat-1")


def test_what_a_launch_that_was_killed_holds_is_free_for_the_next_one(
    orders: Path, plan_home: Path, tmp_path: Path
) -> None:
    register, uri = open_store((tmp_path / "shared").as_uri()), (tmp_path / "shared").as_uri()
    (plan_home / "config.yaml").write_text(f"local: {{usd_per_hour: 2}}\nstore: {uri}\n")
    plan("budget", "set", "default", "10usd", "--per", "total")
    state = plan_home / "state"
    with EntryBook(Places(state).ledger) as book:  # here it was killed
        book.begin(Entry("goat-2", "default", uri, "2026-01-01T00:00:00.000Z"))
    enter(
        register,
        "goat-2",
        "default",
        None,
        ledger=identity_of(Places(state).ledger),
        cap_micro_usd=8_000_000,
        at="2026-01-01T00:00:00.000Z",
    )
    before = files(tmp_path / "shared")
    plan("launch", *LOCAL, "--dry-run", "--cap", "9")
    assert files(tmp_path / "shared") == before
    plan("launch", *LOCAL, "--yes", "--cap", "9")
    assert [row["run_id"] for row in answer("budget", "show", schema="budget")["runs"]] == ["goat-1"]
    assert not is_taken(register, "goat-2")
    order_exit(orders, 0)
    plan("wait", "goat-1")


def files(place: Path) -> dict[Path, bytes]:
    """What lies below a directory."""
    return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        (1, "its machine (8 x H100 in aws/us-east-1) costs $12/h, before it was $10/h"),
        (3, "3 machines (8 x H100 in aws/us-east-1) cost $36/h, before it was $30/h"),
    ],
)
def test_the_price_that_a_run_goes_on_at_is_that_of_all_its_machines(nodes: int, text: str) -> None:
    before, now = (offer_of("H100", 8, price) for price in (10.0, 12.0))
    assert _price_text(before, now, nodes) == text
