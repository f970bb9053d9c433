"""`plan runs adopt`: a ledger that was lost, and one that another ledger takes a run from, with real workers."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from jobs.progress import Progress
from planner.record import KEY
from planner.runs import utc_text
from providers.stores import open_store
from tests.e2e.test_kill_plan import Bench
from tests.seaweed import BUCKET, Seaweed
from tests.workers import eventually, lives, order_exit, starts

SPEC = Path(__file__).parents[2] / "examples" / "tiny-goat" / "spec.yaml"


class Owner(Bench):
    """A person whose runs keep their checkpoints in a place of their choice."""

    def __init__(self, home: Path, place: str) -> None:
        super().__init__(home)
        self.uri = f"{place}/goat-1" if "?" not in place else place.replace("?", "/goat-1?")
        text = SPEC.read_text().replace("every: 100 steps", f"every: 100 steps\n  uri: '{place}'")
        for name in ("./base", "train.jsonl", "eval.jsonl"):
            text = text.replace(f": {name}", f": {SPEC.parent / name}")
        self.spec = home / "spec.yaml"
        self.spec.write_text(text)

    def launch(self) -> None:
        words = ("launch", str(self.spec), "--infra", "local", "--run-id", "goat-1", "--yes", "--no-cap")
        done = self.plan(*words)
        assert done.returncode == 0, done.stderr
        eventually((self.orders / "ready").exists)

    def lose_ledger(self) -> None:
        for path in (self.home / "state").glob("plan.db*"):
            path.unlink()
        assert "there is no run" in self.plan("status", "goat-1").stderr

    def adopt(self, *words: str) -> Any:
        done = self.plan("runs", "adopt", *(words or (self.uri,)), "-o", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["run"]


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.long)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return (tmp_path / "store").as_uri()
    server: Seaweed = request.getfixturevalue("s3_server")
    return f"s3://{BUCKET}/adopt-{tmp_path.name}?endpoint={server.endpoint}"


def test_a_run_whose_ledger_was_lost_goes_on_as_if_nothing_had_been(tmp_path: Path, place: str) -> None:
    owner = Owner(tmp_path / "home", place)
    owner.launch()
    before = owner.run()
    owner.lose_ledger()
    run = owner.adopt(owner.uri, "--yes")
    assert (run["state"], run["created_at"], run["pids"]) == ("running", before["created_at"], [])
    assert owner.run()["attempts"][0]["started_at"] == before["attempts"][0]["started_at"]
    again = owner.plan("runs", "adopt", owner.uri)
    assert again.returncode == 2 and "knows run goat-1 already" in again.stderr
    for pid in owner.run()["pids"]:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: owner.run()["state"] == "preempted")
    owner.lose_ledger()
    assert owner.adopt("goat-1", "--yes")["state"] == "preempted"  # by its id: its bundle lies here
    assert owner.plan("resume", "goat-1", "--yes").returncode == 0
    eventually(lambda: len(starts(owner.orders)) == 2)
    order_exit(owner.orders, 0)
    assert owner.plan("wait", "goat-1").returncode == 0
    costs = json.loads(owner.plan("costs", "-o", "json").stdout)
    assert costs["rows"][0]["attempts"] == 2
    assert json.loads(owner.plan("report", "goat-1", "-o", "json").stdout)["state"] == "succeeded"
    owner.lose_ledger()
    assert (owner.adopt(owner.uri, "--yes")["state"], len(owner.run()["attempts"])) == ("succeeded", 2)


def test_a_run_never_has_two_owners(tmp_path: Path) -> None:
    place = (tmp_path / "store").as_uri()
    first, second = Owner(tmp_path / "first", place), Owner(tmp_path / "second", place)
    first.launch()
    refused = second.plan("runs", "adopt", first.uri)
    assert refused.returncode == 2 and "--yes" in refused.stderr
    _say(first.uri, "training")
    run = second.adopt(first.uri, "--yes")
    assert run["state"] in ("queued", "running", "unknown")  # its worker may still be at work elsewhere
    (pid,) = starts(first.orders)
    for words in (("--no-wait",), ()):  # also when it is over here
        refused = first.plan("cancel", "goat-1", *words)
        assert refused.returncode == 2 and "nothing was stopped" in refused.stderr
        assert "was adopted by a ledger" in refused.stderr
    assert lives(pid)
    resumed = first.plan("resume", "goat-1", "--yes")
    assert resumed.returncode == 2 and "adopted by a ledger" in resumed.stderr
    assert len(starts(first.orders)) == 1
    assert first.adopt(first.uri, "--yes")["state"] in ("queued", "running")
    assert pid in first.run()["pids"]
    assert first.plan("cancel", "goat-1", "--grace", "1").returncode == 0
    eventually(lambda: not lives(pid))


def test_another_path_to_the_same_home_is_the_same_owner(tmp_path: Path) -> None:
    owner = Owner(tmp_path / "home", (tmp_path / "store").as_uri())
    owner.launch()
    (pid,) = starts(owner.orders)
    (tmp_path / "link").symlink_to(tmp_path / "home")
    owner.environment["PLAN_HOME"] = str(tmp_path / "link")
    assert owner.plan("cancel", "goat-1", "--grace", "1").returncode == 0
    assert (owner.run()["state"], lives(pid)) == ("cancelled", False)


@pytest.mark.parametrize(
    ("said", "state"), [("done", "succeeded"), ("capped", "capped"), ("training", "preempted")]
)
def test_the_end_of_a_run_that_its_backend_has_forgotten(tmp_path: Path, said: str, state: str) -> None:
    place = (tmp_path / "store").as_uri()
    first, second = Owner(tmp_path / "first", place), Owner(tmp_path / "second", place)
    first.launch()
    order_exit(first.orders, 0)
    (pid,) = starts(first.orders)
    eventually(lambda: not lives(pid))
    _say(first.uri, said, heartbeat_at="2026-01-01T00:00:00.000Z")
    assert second.adopt(first.uri, "--yes")["state"] == state
    if state == "preempted":
        assert "last sign of life" in second.run()["state_reason"]


def test_a_prefix_without_a_record_is_told_so(tmp_path: Path) -> None:
    owner = Owner(tmp_path / "home", (tmp_path / "store").as_uri())
    missing = owner.plan("runs", "adopt", (tmp_path / "nothing").as_uri())
    assert missing.returncode == 2 and "no record of a run" in missing.stderr
    copied = tmp_path / "copy"
    owner.launch()
    copied.mkdir()
    found = open_store(owner.uri).get(KEY)
    assert found is not None
    (copied / KEY).write_bytes(found[0])
    elsewhere = owner.plan("runs", "adopt", copied.as_uri())
    assert elsewhere.returncode == 2 and owner.uri in elsewhere.stderr
    order_exit(owner.orders, 0)


def _say(uri: str, state: str, heartbeat_at: str | None = None) -> None:
    """What a worker would have said last."""
    from datetime import UTC, datetime

    now = utc_text(datetime.now(UTC))
    said = Progress(
        "goat-1", 1, state=state, step=5, started_at=heartbeat_at or now, heartbeat_at=heartbeat_at or now
    )  # type: ignore[arg-type]
    open_store(uri).put("progress.json", said.to_json().encode())
