"""Fixtures of the tests that launch on the Slurm test bed."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.bed import bed, client, slurm
from tests.bed.aws import AwsBed
from tests.bed.sky_home import REGIONS
from tests.e2e.renting import CANARY_FILE, CANARY_SECRET, Person, Undisturbed

#: Of the bed's AWS, for checkpoints.
BUCKET = "runs"


@pytest.fixture(scope="session")
def slurm_bed() -> Iterator[bed.Bed]:
    """Slurm and SkyPilot, up once; the credential files of their user are canaries."""
    reason = slurm.why_not()
    if reason is not None:
        (pytest.fail if os.environ.get("CI") and os.geteuid() == 0 else pytest.skip)(reason)
    root = Path(tempfile.mkdtemp(prefix="tuneplan-bed-", dir="/tmp"))
    root.rmdir()
    with bed.running(root) as running:
        for place in (
            ".aws/credentials",
            ".config/gcloud/credentials.db",
            ".cache/huggingface/token",
            ".lambda_cloud/lambda_keys",
            ".runpod/config.toml",
        ):
            path = running.sky.path / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"[default]\naws_access_key_id = AKIA\naws_secret_access_key = {CANARY_FILE}\n")
        yield running
    assert not root.exists()


@pytest.fixture(scope="session")
def user(slurm_bed: bed.Bed) -> Iterator[client.BedUser]:
    """The launcher, as a user of the bed calls it; one of the user's variables is a secret."""
    talker = client.BedUser(slurm_bed.sky.env() | {"PLAN_SECRET": CANARY_SECRET})
    yield talker
    talker.close()


@pytest.fixture
def cloud(slurm_bed: bed.Bed, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsBed]:
    """The bed's AWS with a bucket and capacity everywhere; this process may read the bucket."""
    for name, value in slurm_bed.aws.keys().items():
        monkeypatch.setenv(name, value)
    slurm_bed.aws.client("s3").create_bucket(Bucket=BUCKET)
    slurm_bed.aws.run_out_of()
    yield slurm_bed.aws
    slurm_bed.aws.run_out_of()


@pytest.fixture
def shared(slurm_bed: bed.Bed) -> Iterator[Path]:
    """A directory that this machine and the nodes share."""
    path = Path(tempfile.mkdtemp(dir=slurm_bed.root))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def person(slurm_bed: bed.Bed, tmp_path_factory: pytest.TempPathFactory) -> Person:
    """With the prices of the bed's two Slurm regions and of its AWS in the price book."""
    someone = Person(slurm_bed, tmp_path_factory.mktemp("plan-home"))
    catalogs = slurm_bed.root / "catalog"
    (catalogs / "slurm").mkdir(parents=True)
    rows = [
        f",{gpu},1,4,16,{price},,{region},spot"
        for region, gpus in REGIONS.items()
        for gpu, price in gpus.items()
    ]
    head = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,SpotPrice,Region,AvailabilityZone"
    (catalogs / "slurm/vms.csv").write_text("\n".join([head, *rows]) + "\n")
    (catalogs / "aws").mkdir()
    shutil.copy(slurm_bed.sky.path / ".sky/catalogs/v8/aws/vms.csv", catalogs / "aws")
    today = datetime.now(UTC).date().isoformat()
    someone.plan("prices", "import", str(catalogs), "--as-of", today)
    return someone


@pytest.fixture(scope="session")
def train_undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Undisturbed]]:
    """Start the goat without disturbance from the bundle of any run of it; once is enough."""
    started: list[Undisturbed] = []

    def start(bundle: Path) -> Undisturbed:
        if not started:
            started.append(Undisturbed(bundle, tmp_path_factory.mktemp("undisturbed")))
        return started[0]

    yield start
    for each in started:
        each.worker.kill()
        each.worker.wait()
