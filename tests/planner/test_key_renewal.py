"""Session keys of machines outside AWS: renewed in time, for the machines of the newest launch, by who may."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from moto import mock_aws

from planner import rented, service
from planner.key_renewal import renew_keys
from planner.launch import Desk
from planner.places import Places
from planner.runs import Run
from planner.service import Habits
from planner.store import Store
from providers.directory_store import DirectoryStore
from providers.errors import CredentialsError
from providers.launcher import BackendStatus
from providers.renewed_keys import KEY, NAMES, install, newest
from providers.sealed import UNTIL, box_key, pads, seal
from tests.planner.run_factories import START, attempt_of, run_of, terms_of

HOUR_LATER = "2026-11-22T13:00:00.000Z"
DAY_LATER = "2026-11-23T12:00:00.000Z"
RENTED = {
    "rented": {"access": "session", "stores": ["s3://herd/runs/run-1"], "reads": [], "alternatives": []}
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in (*NAMES, "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "testing")
    candidate = json.loads(terms_of().candidate_json) | RENTED
    terms = terms_of(
        run_id="run-1",
        infra="skypilot",
        monitor="service",
        checkpoint_uri=(tmp_path / "run").as_uri(),
        candidate_json=json.dumps(candidate),
    )
    with mock_aws():
        yield replace(run_of("running", attempt_of(backend_id="7", started_at=START)), terms=terms)


@pytest.fixture
def desk(tmp_path: Path, run: Run) -> Iterator[Desk]:
    with Store(tmp_path / "plan.db") as store:
        store.create("run-1", run.terms, attempt_of())
        yield Desk(store, None, Places(tmp_path), lambda: DAY_LATER)  # type: ignore[arg-type]


def bundle_of(desk: Desk) -> Path:
    bundle = desk.places.bundle("run-1", 1)
    bundle.mkdir(parents=True)
    return bundle


def test_they_are_renewed_once_a_third_of_their_time_is_over(desk: Desk, run: Run, tmp_path: Path) -> None:
    bundle, store = bundle_of(desk), DirectoryStore(tmp_path / "run")
    seal({"A": "b"}, bundle)
    renew_keys(desk, run, HOUR_LATER)
    assert store.get(KEY) is None
    renew_keys(desk, run, DAY_LATER)
    body, tag = store.get(KEY) or (b"", "")
    assert b"AWS" not in body
    renew_keys(desk, run, HOUR_LATER)
    assert (store.get(KEY) or (b"", ""))[1] == tag

    (pad,) = pads(bundle).values()  # the machine has it too
    first = dict.fromkeys(NAMES, "old") | {UNTIL: START}
    install(first, box_key(pad), tmp_path, tmp_path, store.uri)
    found = newest(tmp_path / ".tuneplan-keys", lambda _: store, datetime.now(UTC))
    assert found["AccessKeyId"] != "old"


def test_of_a_launch_that_was_repeated_every_machine_can_open_its_box(
    desk: Desk, run: Run, tmp_path: Path
) -> None:
    bundle = bundle_of(desk)
    for _ in range(2):
        seal({"A": "b"}, bundle)
    renew_keys(desk, run, DAY_LATER)
    found = DirectoryStore(tmp_path / "run").get(KEY)
    assert found is not None and set(json.loads(found[0])["boxes"]) == set(pads(bundle))


def test_a_ledger_without_the_bundle_says_that_it_cannot_and_goes_on_watching(desk: Desk, run: Run) -> None:
    with pytest.raises(CredentialsError, match="its bundle is not on this machine"):
        renew_keys(desk, run, DAY_LATER)

    class Running:
        def status(self, run_id: str) -> BackendStatus:
            return BackendStatus("running", backend_id="7", started_at=START, attempt=1)

    watching = replace(desk, launcher=Running())  # type: ignore[arg-type]
    seen = service.look_at(watching, desk.store.find("run-1"), Habits())
    assert seen.state == "running"
    (said,) = [event.reason for event in desk.store.events("run-1") if event.kind == "keys"]
    assert "not renewed" in said


def test_a_machine_that_would_start_with_dead_keys_is_asked_for_anew(run: Run) -> None:
    assert not rented.keys_ended(run, "2026-11-23T23:00:00.000Z")
    assert rented.keys_ended(run, "2026-11-24T00:00:00.000Z")
    recovered = replace(run, attempts=(*run.attempts, attempt_of(2, recovery=1, intent_at=DAY_LATER)))
    assert rented.keys_ended(
        recovered, "2026-11-24T00:00:00.000Z"
    )  # the backend gives it the keys of the launch
