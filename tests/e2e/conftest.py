"""Fixtures of the tests that launch on the Slurm test bed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import bed, client, slurm

CANARY_FILE = "canary-in-a-credentials-file"
CANARY_SECRET = "canary-in-a-named-secret"


@pytest.fixture(scope="module")
def slurm_bed() -> Iterator[bed.Bed]:
    """Slurm and SkyPilot, up once for a module; the credential files of their user are canaries."""
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


@pytest.fixture(scope="module")
def user(slurm_bed: bed.Bed) -> Iterator[client.BedUser]:
    """The launcher, as a user of the bed calls it; one of the user's variables is a secret."""
    talker = client.BedUser(slurm_bed.sky.env() | {"PLAN_SECRET": CANARY_SECRET})
    yield talker
    talker.close()


@pytest.fixture
def shared(slurm_bed: bed.Bed) -> Iterator[Path]:
    """A directory that this machine and the nodes share."""
    path = Path(tempfile.mkdtemp(dir=slurm_bed.root))
    yield path
    shutil.rmtree(path)
