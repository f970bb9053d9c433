"""Everybody who could give a machine back is killed: it ends itself, with the rights of its own role."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.progress import read_progress
from providers.s3 import S3Store
from tests.bed import bed, slurm
from tests.bed.processes import command_of
from tests.e2e.conftest import BUCKET
from tests.e2e.renting import Person, eventually, order_of
from tests.e2e.test_aws import spot_spec, store_of, trains

pytestmark = [pytest.mark.slurm, pytest.mark.train, pytest.mark.long]
_OWNERS = ("sky.server.server", "sky.jobs.controller", "SkyPilot:")


@pytest.fixture
def lonely(monkeypatch: pytest.MonkeyPatch) -> Iterator[bed.Bed]:
    """A bed of its own: it does not survive this."""
    reason = slurm.why_not()
    if reason is not None:
        pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="tuneplan-bed-", dir="/tmp"))
    root.rmdir()
    with bed.running(root) as running:
        for name, value in running.aws.keys().items():
            monkeypatch.setenv(name, value)
        running.aws.client("s3").create_bucket(Bucket=BUCKET)
        running.aws.run_out_of()
        yield running


def person_of(lonely: bed.Bed, home: Path) -> Person:
    """Logged in to the bed's AWS, with its prices."""
    login = lonely.sky.path / ".aws/credentials"
    login.parent.mkdir(parents=True, exist_ok=True)
    keys = [f"{name.lower()} = {value}" for name, value in lonely.aws.keys().items()]
    login.write_text("\n".join(["[default]", *keys]) + "\n")
    someone = Person(lonely, home)
    catalogs = lonely.root / "catalog"
    (catalogs / "aws").mkdir(parents=True)
    shutil.copy(lonely.sky.path / ".sky/catalogs/v8/aws/vms.csv", catalogs / "aws")
    someone.plan("prices", "import", str(catalogs), "--as-of", datetime.now(UTC).date().isoformat())
    return someone


def is_done(store: S3Store) -> bool:
    said = read_progress(store)
    return said is not None and said.state == "done"


def test_a_machine_whose_owners_are_all_gone_ends_itself(lonely: bed.Bed, tmp_path: Path) -> None:
    person = person_of(lonely, tmp_path / "plan-home")
    shared = Path(tempfile.mkdtemp(dir=lonely.root))
    spec = spot_spec(lonely, shared, steps=2000)
    spec.write_text(spec.read_text().replace("OMP_NUM_THREADS:", 'TUNEPLAN_LEASE_S: "20", OMP_NUM_THREADS:'))
    person.plan(*order_of(person, spec, "alone"), "--yes")
    store = store_of(lonely.aws, "alone")
    eventually(lambda: trains(store, 1))
    owners = [pid for pid in lonely.pids() if any(name in command_of(pid) for name in _OWNERS)]
    assert owners
    for pid in owners:
        os.kill(pid, signal.SIGKILL)
    assert len(lonely.aws.instances()) == 1
    eventually(lambda: is_done(store))
    eventually(lambda: lonely.aws.instances() == [])
