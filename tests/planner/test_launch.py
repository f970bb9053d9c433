"""Launch, resume and cancel with real processes and a real ledger."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.committed import hash_file
from jobs.manifest import FileEntry
from jobs.spec import InputsJob, JobSpec
from planner.candidate_document import candidate_document
from planner.cli.desk import entered_here
from planner.errors import CapReachedError
from planner.launch import Desk, cancel, launch, resume
from planner.launch_request import request_of
from planner.ledger_identity import identity_of
from planner.limits import time_limit_s
from planner.monitor import decide, keep_record, observe
from planner.places import Places
from planner.record import claim
from planner.register import enter, read_book, take
from planner.runs import Run, utc_text
from planner.service import Habits, look_at
from planner.setup import Parallelism
from planner.store import Store
from providers.directory_store import DirectoryStore
from providers.errors import (
    CleanupPendingError,
    CredentialsError,
    LaunchError,
    MissingExtraError,
    StorageError,
    StoreAccessError,
    TuneplanError,
    UsageError,
)
from providers.launcher import BackendStatus, LaunchRequest
from providers.local import LocalLauncher
from providers.stores import open_store
from providers.supervisor import utc_now
from tests.planner.run_factories import START, attempt_of, candidate_of, run_of, terms_of
from tests.workers import eventually, make_python, order_exit, starts

PRICE = 3_600_000_000  # 3600 US dollars an hour: one a second


@pytest.fixture
def orders(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "orders"
    path.mkdir()
    yield path
    order_exit(path, 0)  # whatever still runs ends by itself


@pytest.fixture
def desk(tmp_path: Path, orders: Path) -> Iterator[Desk]:
    places = Places(tmp_path / "state")
    launcher = LocalLauncher(places.local, python=str(make_python(tmp_path / "bin")))
    with Store(places.ledger) as store:
        yield Desk(store, launcher, places, utc_now)


class Killed(BaseException):
    """The end of a process, which nothing catches."""


class KilledBefore(LocalLauncher):
    """Of a process that ends before the backend has heard of the launch."""

    def launch(self, request: LaunchRequest) -> BackendStatus:
        raise Killed


class KilledAfter(LocalLauncher):
    """Of a process that ends before the backend's answer is on record."""

    def launch(self, request: LaunchRequest) -> BackendStatus:
        super().launch(request)
        raise Killed


def start(
    desk: Desk, orders: Path, run_id: str = "run-1", price: int | None = 0, **terms: object
) -> tuple[Run, bool]:
    uri = (orders / "checkpoints").as_uri()
    own = terms_of(run_id=run_id, env={"ORDERS": str(orders)}, checkpoint_uri=uri, secrets=(), **terms)
    return launch(desk, run_id, own, price)


def now_of(desk: Desk, run_id: str = "run-1") -> Run:
    return observe(desk.store, desk.launcher, desk.store.find(run_id), desk.now())


def killed(desk: Desk, orders: Path) -> Run:
    """The run after kill -9 of all its processes."""
    eventually((orders / "ready").exists)
    (orders / "ready").unlink()
    for pid in desk.launcher.status("run-1").pids:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: now_of(desk).state == "preempted")
    return desk.store.find("run-1")


def test_a_run_is_on_record_and_runs(desk: Desk, orders: Path) -> None:
    run, created = start(desk, orders)
    assert created
    assert (run.state, run.current.attempt, run.current.outcome) == ("running", 1, "running")
    assert run.current.started_at is not None
    order_exit(orders, 0)
    eventually(lambda: now_of(desk).state == "succeeded")
    assert [event.state for event in desk.store.events("run-1")] == ["queued", "running", "succeeded"]


def test_the_same_id_again_reports_the_run_that_is(desk: Desk, orders: Path) -> None:
    start(desk, orders)
    run, created = start(desk, orders)
    assert (run.state, created) == ("running", False)
    eventually((orders / "ready").exists)
    assert len(starts(orders)) == 1


def test_an_id_of_another_plan_is_refused(desk: Desk, orders: Path) -> None:
    start(desk, orders)
    other = terms_of(checkpoint_uri="file:///elsewhere").job_json
    with pytest.raises(UsageError, match="launched from another plan"):
        start(desk, orders, plan_hash="sha256:" + "1" * 64, job_json=other)


def test_the_same_job_is_the_same_run_though_its_prediction_has_changed(desk: Desk, orders: Path) -> None:
    start(desk, orders)
    run, created = start(desk, orders, plan_hash="sha256:" + "1" * 64)
    assert (run.state, created) == ("running", False)


def test_a_launch_that_ended_after_its_record_is_finished_by_the_next(desk: Desk, orders: Path) -> None:
    with pytest.raises(Killed):
        start(replace(desk, launcher=KilledBefore(desk.places.local)), orders)
    assert now_of(desk).state == "queued"
    assert desk.store.pending(terms_of().plan_hash) is not None
    run, created = start(desk, orders)
    assert (run.state, created) == ("running", False)


def test_a_repeated_launch_while_the_backend_is_silent_loses_no_job(
    desk: Desk, orders: Path, tmp_path: Path
) -> None:
    """The first call was heard, its caller killed; whoever asks again then must not write the job off."""

    class Silent(LocalLauncher):
        def launch(self, request: LaunchRequest) -> BackendStatus:
            raise LaunchError("it cannot be reached")

        def status(self, run_id: str) -> BackendStatus:
            return BackendStatus("unknown", reason="it cannot be reached")

    dying = KilledAfter(desk.places.local, python=str(make_python(tmp_path / "bin")))
    with pytest.raises(Killed):
        start(replace(desk, launcher=dying), orders)
    silent = replace(desk, launcher=Silent(desk.places.local))
    with pytest.raises(LaunchError, match="cannot be reached"):
        start(silent, orders)
    assert now_of(silent).state == "unknown"
    run, created = start(desk, orders)
    assert (run.state, created) == ("running", False)
    eventually((orders / "ready").exists)
    assert len(starts(orders)) == 1


def test_a_launch_that_ended_after_the_start_is_found_running(desk: Desk, orders: Path) -> None:
    dying = KilledAfter(desk.places.local, python=desk.launcher._python)  # type: ignore[attr-defined]
    with pytest.raises(Killed):
        start(replace(desk, launcher=dying), orders)
    run, created = start(desk, orders)
    assert (run.state, created) == ("running", False)
    eventually((orders / "ready").exists)
    assert len(starts(orders)) == 1


def test_a_launch_that_fails_is_recorded_and_can_be_resumed(desk: Desk, orders: Path) -> None:
    desk.places.local.parent.mkdir(parents=True, exist_ok=True)
    desk.places.local.write_text("a file in the way")
    with pytest.raises(LaunchError, match="cannot start run-1 here"):
        start(desk, orders)
    run = desk.store.find("run-1")
    assert (run.state, run.current.outcome, run.cost_micro_usd) == ("failed", "failed", 0)
    desk.places.local.unlink()
    assert resume(desk, run).state == "running"


@pytest.mark.parametrize("monitor", ["service", "local"])
def test_nothing_is_launched_any_more_once_it_was_said_that_nothing_was_started(
    desk: Desk, orders: Path, monitor: str
) -> None:
    """A monitor looks at the run while its launch takes long, and would ask for it itself."""

    class Slow(LocalLauncher):
        asked = 0

        def launch(self, request: LaunchRequest) -> BackendStatus:
            self.asked += 1
            with Store(desk.store.path) as other:
                look_at(replace(slow, store=other), other.find("run-1"), Habits(settle_s=0.0))
            raise LaunchError("no quota")

    launcher = Slow(desk.places.local)
    slow = replace(desk, launcher=launcher)
    with pytest.raises(LaunchError, match="no quota"):
        start(slow, orders, monitor=monitor)
    run = look_at(slow, desk.store.find("run-1"), Habits(settle_s=0.0))
    assert (run.state, run.state_reason, launcher.asked) == ("failed", "no quota", 1)


class LoggedOut(LocalLauncher):
    """A backend whose login has ended, or that lacks a secret of the run, until somebody logs in."""

    asked, logged_in = 0, False

    def launch(self, request: LaunchRequest) -> BackendStatus:
        self.asked += 1
        if not self.logged_in:
            raise CredentialsError("secrets not set in this environment: HF_TOKEN", hint="export them")
        return super().launch(request)


def logged_out(desk: Desk) -> tuple[Desk, LoggedOut]:
    launcher = LoggedOut(desk.places.local, python=desk.launcher._python)  # type: ignore[attr-defined]
    return replace(desk, launcher=launcher), launcher


@pytest.mark.parametrize("monitor", ["service", "local"])
def test_a_launch_without_login_has_failed_and_nothing_starts_later(
    desk: Desk, orders: Path, monitor: str
) -> None:
    """Somebody was told so and may launch it anew, under this id or another."""
    desk, launcher = logged_out(desk)
    with pytest.raises(CredentialsError, match="HF_TOKEN"):
        start(desk, orders, monitor=monitor)
    run = look_at(desk, desk.store.find("run-1"), Habits(settle_s=0.0))
    assert (run.state, run.state_reason, launcher.asked) == (
        "failed",
        "secrets not set in this environment: HF_TOKEN",
        1,
    )
    launcher.logged_in = True
    run, created = start(desk, orders, monitor=monitor)
    assert (run.state, created, run.launches) == ("running", True, 2)
    eventually((orders / "ready").exists)
    assert len(starts(orders)) == 1


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("launcher", UsageError("SkyPilot: an admin's policy refuses it")),
        ("launcher", MissingExtraError("launch", "launching through SkyPilot")),
        ("planner.launch.inputs.send", StorageError("s3://bucket does not answer")),
        ("planner.launch.build_bundle", StorageError("no space left")),
    ],
)
def test_a_launch_that_came_to_nothing_has_failed_whatever_was_in_its_way(
    desk: Desk, orders: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: TuneplanError
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        if where == "launcher":
            patch.setattr(LocalLauncher, "launch", refused)
        else:
            patch.setattr(where, refused)
        with pytest.raises(type(error), match=re.escape(error.message)):
            start(desk, orders, monitor="service")
    run = look_at(desk, desk.store.find("run-1"), Habits(settle_s=0.0))
    assert (run.state, run.state_reason) == ("failed", error.message)
    assert desk.launcher.status("run-1").state == "absent"


def test_a_restart_whose_store_does_not_answer_is_made_when_it_does(
    desk: Desk, orders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(desk, orders, monitor="service")
    killed(desk, orders)
    soon = Habits(retry_delay_s=0.0, settle_s=0.0)

    def refused(*_: object) -> None:
        raise StorageError("s3://bucket does not answer")

    with monkeypatch.context() as patch, pytest.raises(StorageError):
        patch.setattr("planner.launch.inputs.send", refused)
        look_at(desk, desk.store.find("run-1"), soon)
    assert desk.store.find("run-1").state == "preempted"
    with desk.store._db.writing():
        desk.store._db.execute("UPDATE runs SET next_try_at = ?", (START,))
    assert look_at(desk, desk.store.find("run-1"), soon).state == "running"


def test_a_restart_without_login_is_made_when_the_login_is_back(desk: Desk, orders: Path) -> None:
    start(desk, orders, monitor="service")
    killed(desk, orders)
    desk, launcher = logged_out(desk)
    soon = Habits(retry_delay_s=0.0, settle_s=0.0)
    with pytest.raises(CredentialsError, match="HF_TOKEN"):
        look_at(desk, desk.store.find("run-1"), soon)
    run = desk.store.find("run-1")
    assert (run.state, run.state_reason) == (
        "preempted",
        "not started again: secrets not set in this environment: HF_TOKEN",
    )
    later = look_at(desk, run, Habits(retry_delay_s=900.0))
    assert later.next_try_at is not None and launcher.asked == 1  # told when, not asked again before
    launcher.logged_in = True
    with desk.store._db.writing():
        desk.store._db.execute("UPDATE runs SET next_try_at = ?", (START,))
    run = look_at(desk, desk.store.find("run-1"), soon)
    assert run.state == "running"
    assert [one.outcome for one in run.attempts] == ["preempted", "failed", "running"]
    assert run.cost_micro_usd is not None


def test_a_launch_that_may_have_been_heard_is_not_over_for_want_of_a_login(
    desk: Desk, orders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        start(replace(desk, launcher=KilledBefore(desk.places.local)), orders)

    def refused(*_: object) -> None:
        raise StoreAccessError("s3://bucket refuses the login")

    monkeypatch.setattr("planner.launch.inputs.send", refused)
    with pytest.raises(StoreAccessError):
        start(desk, orders)
    run = desk.store.find("run-1")
    assert (run.state, run.state_reason) == ("queued", "not asked for again: s3://bucket refuses the login")
    monkeypatch.undo()
    assert start(desk, orders)[0].state == "running"
    with pytest.raises(StoreAccessError):
        monkeypatch.setattr("planner.launch.inputs.send", refused)
        start(desk, orders, run_id="run-2")
    run = desk.store.find("run-2")
    assert (run.state, run.state_reason) == ("failed", "s3://bucket refuses the login")


def test_a_launch_that_fails_after_somebody_cancelled_is_cancelled(desk: Desk, orders: Path) -> None:
    class Slow(LocalLauncher):
        def launch(self, request: LaunchRequest) -> BackendStatus:
            cancel(desk, desk.store.find("run-1"), grace_s=30)
            raise LaunchError("no quota")

    run, _ = start(replace(desk, launcher=Slow(desk.places.local)), orders)
    assert (run.state, run.current.outcome) == ("cancelled", "cancelled")


def test_a_run_that_another_ledger_adopted_is_not_launched_though_somebody_looks_at_it(
    desk: Desk, orders: Path
) -> None:
    with pytest.raises(Killed):
        start(replace(desk, launcher=KilledBefore(desk.places.local)), orders)
    read = desk.store.find("run-1")
    claim(open_store(read.terms.checkpoint_uri), "another ledger", desk.now())
    assert now_of(desk).state == "queued"  # its revision has grown since it was read
    left = keep_record(desk.store, read, desk.now())
    assert (left.state, desk.store.find("run-1").state) == ("cancelled", "cancelled")
    assert "was adopted" in left.state_reason


def test_a_run_that_another_ledger_adopted_is_not_settled_here(
    desk: Desk, orders: Path, tmp_path: Path
) -> None:
    """It may go on there and cost its cap; what it has cost by then is not this ledger's to say."""
    register, mine = DirectoryStore(tmp_path / "register"), identity_of(desk.store.path)
    enter(register, "run-1", "default", "ann", ledger=mine, cap_micro_usd=5_000_000, at=desk.now())
    start(desk, orders, register_uri=register.uri)
    cancel(desk, now_of(desk), grace_s=0.0)
    eventually(lambda: now_of(desk).final)
    book = read_book(register, "default")
    assert [run.run_id for run in entered_here(desk.store, register, register.uri, book, START)[0]] == [
        "run-1"
    ]
    take(register, "run-1", "default", "bob", "another ledger", desk.now())
    assert entered_here(desk.store, register, register.uri, book, START)[0] == []


def test_a_launch_that_failed_is_launched_when_it_is_asked_for_again(desk: Desk, orders: Path) -> None:
    desk.places.local.parent.mkdir(parents=True, exist_ok=True)
    desk.places.local.write_text("a file in the way")
    with pytest.raises(LaunchError):
        start(desk, orders, price=PRICE, cap_micro_usd=10**12)
    desk.places.local.unlink()
    run, created = start(desk, orders, price=2 * PRICE, cap_micro_usd=10**11)
    assert (run.state, created, run.terms.cap_micro_usd) == ("running", True, 10**11)
    assert [(one.outcome, one.micro_usd_per_hour) for one in run.attempts] == [
        ("failed", PRICE),
        ("running", 2 * PRICE),
    ]
    again, created = start(desk, orders, price=PRICE)
    assert (again.launches, created) == (2, False)
    eventually((orders / "ready").exists)
    assert len(starts(orders)) == 1


def test_a_killed_run_goes_on_as_its_next_attempt(desk: Desk, orders: Path) -> None:
    start(desk, orders, price=PRICE)
    stopped = killed(desk, orders)
    assert stopped.state_reason == "worker process vanished (killed)" or "SIGKILL" in stopped.state_reason
    run = resume(desk, stopped)
    assert [attempt.outcome for attempt in run.attempts] == ["preempted", "running"]
    first = run.attempts[0]
    assert first.cost_micro_usd is not None and first.cost_micro_usd > 0
    order_exit(orders, 0)
    eventually(lambda: now_of(desk).state == "succeeded")
    done = desk.store.find("run-1")
    assert done.cost_micro_usd == sum(attempt.cost_micro_usd or 0 for attempt in done.attempts)
    assert len(starts(orders)) == 2


def test_the_next_attempt_knows_what_was_spent(desk: Desk, orders: Path) -> None:
    start(desk, orders, price=PRICE, cap_micro_usd=10**12, max_duration_s=50.0)
    spent = killed(desk, orders).cost_micro_usd
    assert spent is not None
    resume(desk, desk.store.find("run-1"), max_duration_s=70.0)
    jobs = [JobSpec.load(desk.places.bundle("run-1", attempt) / "job.json") for attempt in (1, 2)]
    assert [job.limits.spent_usd for job in jobs] == [0.0, pytest.approx(spent / 1e6)]
    assert [job.limits.max_duration_s for job in jobs] == [50.0, 70.0]
    assert jobs[0].limits.cap_usd == 10**6
    assert jobs[0].limits.usd_per_hour == 3600.0


def test_the_machine_itself_ends_a_worker_at_the_cap(desk: Desk, orders: Path) -> None:
    start(desk, orders, price=PRICE, cap_micro_usd=1_000_000)  # a second's worth
    eventually(lambda: now_of(desk).final)
    run = desk.store.find("run-1")
    assert (run.state, run.current.outcome) == ("capped", "capped")
    assert len(starts(orders)) == 1


def test_the_tighter_of_duration_and_cap_holds() -> None:
    paid = attempt_of(1, started_at=START, ended_at=START, cost_micro_usd=250_000)
    both = run_of("queued", paid, attempt_of(2), terms=terms_of(cap_micro_usd=1_000_000, max_duration_s=60.0))
    assert time_limit_s(both) == 60.0
    assert time_limit_s(replace(both, terms=terms_of(cap_micro_usd=1_000_000))) == 2700.0
    assert time_limit_s(replace(both, terms=terms_of(cap_micro_usd=1))) == 0.0
    assert time_limit_s(replace(both, terms=terms_of())) is None


def test_a_run_that_spent_its_cap_needs_a_higher_one(desk: Desk, orders: Path) -> None:
    start(desk, orders, price=PRICE, cap_micro_usd=1)
    eventually(lambda: now_of(desk).state == "capped")
    stopped = desk.store.find("run-1")
    with pytest.raises(CapReachedError, match="has spent its cap"):
        resume(desk, stopped)
    assert resume(desk, stopped, cap_micro_usd=10**12).state == "running"


def test_what_runs_or_has_succeeded_is_not_resumed(desk: Desk, orders: Path) -> None:
    run, _ = start(desk, orders)
    with pytest.raises(UsageError, match="is running, it needs no resume"):
        resume(desk, run)
    order_exit(orders, 0)
    eventually(lambda: now_of(desk).state == "succeeded")
    with pytest.raises(UsageError, match="has succeeded"):
        resume(desk, desk.store.find("run-1"))


def test_of_two_who_resume_one_is_told(desk: Desk, orders: Path) -> None:
    start(desk, orders)
    stopped = killed(desk, orders)
    resume(desk, stopped)
    with pytest.raises(UsageError, match="needs no resume"):
        resume(desk, stopped)
    eventually(lambda: len(starts(orders)) == 2)


def test_a_cancelled_run_checkpoints_ends_and_can_be_resumed(desk: Desk, orders: Path) -> None:
    run, _ = start(desk, orders)
    eventually((orders / "ready").exists)
    assert cancel(desk, run, grace_s=30).state in ("cancelling", "cancelled")
    eventually(lambda: now_of(desk).final)
    ended = desk.store.find("run-1")
    assert (ended.state, ended.current.exit_code, ended.current.outcome) == ("cancelled", 75, "cancelled")
    assert "after a committed checkpoint" in ended.state_reason
    assert cancel(desk, ended, grace_s=30) == ended
    assert resume(desk, ended).state == "running"


def test_a_preempted_run_is_cancelled_at_once(desk: Desk, orders: Path) -> None:
    start(desk, orders)
    stopped = killed(desk, orders)
    run = cancel(desk, stopped, grace_s=30)
    assert (run.state, run.current.outcome) == ("cancelled", "preempted")


def test_a_run_cancelled_before_it_started_never_starts_for_long(desk: Desk, orders: Path) -> None:
    class Slow(LocalLauncher):
        """Somebody cancels between our record and the start."""

        def launch(self, request: LaunchRequest) -> BackendStatus:
            cancel(desk, desk.store.find("run-1"), grace_s=30)
            return super().launch(request)

    slow = Slow(desk.places.local, python=desk.launcher._python)  # type: ignore[attr-defined]
    run, _ = start(replace(desk, launcher=slow), orders)
    assert run.state in ("cancelling", "cancelled")
    eventually(lambda: now_of(desk).final)
    assert desk.store.find("run-1").state == "cancelled"
    assert desk.launcher.status("run-1").state != "running"


def test_a_launcher_that_dies_after_somebody_cancelled_leaves_nothing_running(
    desk: Desk, orders: Path, tmp_path: Path
) -> None:
    class Dying(LocalLauncher):
        """Somebody cancels between our record and the start; the process ends before it could look again."""

        def launch(self, request: LaunchRequest) -> BackendStatus:
            assert cancel(desk, desk.store.find("run-1"), grace_s=30).state == "cancelling"
            super().launch(request)
            raise Killed

    dying = Dying(desk.places.local, python=str(make_python(tmp_path / "bin")))
    with pytest.raises(Killed):
        start(replace(desk, launcher=dying), orders)
    eventually(lambda: now_of(desk).final)
    assert desk.store.find("run-1").state == "cancelled"
    assert desk.launcher.status("run-1").state != "running"


def test_a_run_cancelled_while_its_files_are_sent_is_never_asked_for(
    desk: Desk, orders: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    entry = FileEntry("inputs/train.jsonl", rows.stat().st_size, hash_file(rows))
    job = JobSpec.from_json(terms_of(checkpoint_uri=(orders / "checkpoints").as_uri()).job_json)
    job = replace(job, inputs=InputsJob((tmp_path / "sent").as_uri(), (entry,)))
    rented = {"rented": {"alternatives": [], "sources": {entry.path: str(rows)}}}
    candidate = json.dumps(json.loads(terms_of().candidate_json) | rented)

    def cancelled(_: object) -> None:
        with Store(desk.store.path) as other:
            cancel(replace(desk, store=other), other.find("run-1"), grace_s=30)

    run, _ = start(replace(desk, told=cancelled), orders, job_json=job.to_json(), candidate_json=candidate)
    assert run.state == "cancelled"
    assert desk.launcher.status("run-1").state == "absent"


def test_a_cancel_is_heard_by_a_backend_that_still_held_the_launch_when_it_was_asked_first(
    desk: Desk, orders: Path, tmp_path: Path
) -> None:
    class Later(LocalLauncher):
        """A server that has taken a launch and goes about it later, whoever sent it."""

        taken: LaunchRequest | None = None

        def launch(self, request: LaunchRequest) -> BackendStatus:
            self.taken = request
            raise Killed

        def goes_about_it(self) -> None:
            assert self.taken is not None
            super().launch(self.taken)
            self.taken = None

        def cancel(self, run_id: str, *, grace_s: float = 60.0) -> BackendStatus:
            if self.taken is not None:
                raise CleanupPendingError("an earlier launch is not finished", hint="try again")
            return super().cancel(run_id, grace_s=grace_s)

    server = Later(desk.places.local, python=str(make_python(tmp_path / "bin")))
    desk = replace(desk, launcher=server)
    with pytest.raises(Killed):
        start(desk, orders)
    with pytest.raises(CleanupPendingError, match="not finished"):
        cancel(desk, desk.store.find("run-1"), grace_s=30)
    assert desk.store.find("run-1").state == "cancelling"
    server.goes_about_it()
    assert cancel(desk, desk.store.find("run-1"), grace_s=30).state in ("cancelling", "cancelled")
    eventually(lambda: now_of(desk).final)
    ended = desk.store.find("run-1")
    assert (ended.state, ended.current.outcome) == ("cancelled", "cancelled")
    assert desk.launcher.status("run-1").state != "running"
    assert ended.current.started_at is not None  # what it cost is known


def test_a_launch_that_nobody_heard_of_is_cancelled_at_once(desk: Desk, orders: Path) -> None:
    with pytest.raises(Killed):
        start(replace(desk, launcher=KilledBefore(desk.places.local)), orders)
    run = cancel(desk, desk.store.find("run-1"), grace_s=30)
    assert (run.state, run.state_reason) == ("cancelled", "cancelled by the user, before it was started")
    assert (run.current.outcome, run.cost_micro_usd) == ("cancelled", 0)


@pytest.mark.parametrize("state", ["unknown", "running"])
def test_a_cancel_is_over_only_by_the_word_of_the_backend(state: str) -> None:
    """A backend that cannot be asked, or whose last word is of the attempt before, which goes on."""
    before = attempt_of(1, backend_id="a", started_at=START, ended_at=START, outcome="preempted")
    run = run_of("cancelling", before, attempt_of(2), stopping="user", state_reason="asked for by the user")
    said = BackendStatus(state, attempt=0 if state == "unknown" else 1, started_at=START)  # type: ignore[arg-type]
    change = decide(run, said, None, START)
    assert change is not None and (change.state, change.attempt.outcome) == ("cancelling", "running")


def test_the_clock_of_the_ledger_is_utc(desk: Desk, orders: Path) -> None:
    from datetime import UTC, datetime

    run, _ = start(desk, orders)
    assert abs(datetime.fromisoformat(run.created_at) - datetime.now(UTC)).total_seconds() < 60
    assert run.created_at == utc_text(datetime.fromisoformat(run.created_at))


@pytest.mark.parametrize(
    ("parallelism", "worker"),
    [
        (Parallelism(), ("-m", "jobs.train")),
        (Parallelism("ddp", data=4), ("-m", "jobs.ranks", "4")),
        (Parallelism("fsdp", data=4), ("-m", "jobs.ranks", "4")),
    ],
)
def test_each_process_of_the_plan_is_started(parallelism: Parallelism, worker: tuple[str, ...]) -> None:
    chosen = candidate_of()._replace(parallelism=parallelism)
    terms = terms_of(candidate_json=json.dumps(candidate_document(chosen)))
    assert request_of("run-1", terms, Path("/bundle")).worker == worker
