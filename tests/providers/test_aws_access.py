"""Rights for one run: made once, found again, gone afterwards, and for its own prefix only."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from providers.aws_access import grant_role, policy, revoke_role, role_name, session_keys
from providers.errors import CredentialsError, LaunchError, StorageError
from providers.s3 import S3Store
from providers.s3_upload import PART_BYTES
from providers.sealed import UNTIL

STORES = ("s3://models/runs/goat-1",)


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedMotoServer]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    yield moto
    moto.stop()


@pytest.fixture
def iam(server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    import boto3

    return boto3.client("iam")


def allows(stores: tuple[str, ...]) -> dict[str, list[str]]:
    """Actions by resource."""
    return {row["Resource"]: row["Action"] for row in policy(stores)["Statement"]}


def test_rights_end_at_the_runs_prefix() -> None:
    rights = allows(STORES)
    assert set(rights) == {"arn:aws:s3:::models/runs/goat-1/*", "arn:aws:s3:::models"}
    assert rights["arn:aws:s3:::models"] == ["s3:ListBucket"]
    (listing,) = [row for row in policy(STORES)["Statement"] if "Condition" in row]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": ["runs/goat-1/*"]}}
    assert not [action for actions in rights.values() for action in actions if "*" in action]


def test_inputs_may_be_read_one_by_one_and_nothing_beside_them() -> None:
    reads = tuple(f"s3://models/runs/_inputs/blobs/{digit * 64}" for digit in "ab")
    (reading,) = [row for row in policy(STORES, reads)["Statement"] if row["Action"] == ["s3:GetObject"]]
    assert reading["Resource"] == [f"arn:aws:s3:::models/runs/_inputs/blobs/{digit * 64}" for digit in "ab"]


def test_of_many_inputs_their_prefix_is_named_so_that_a_session_takes_the_policy() -> None:
    reads = tuple(f"s3://models/runs/_inputs/blobs/{number:064x}" for number in range(500))
    made = policy(STORES, reads)
    assert len(json.dumps(made)) <= 2048
    assert made["Statement"][-1]["Resource"] == ["arn:aws:s3:::models/runs/_inputs/blobs/*"]


def test_a_machine_that_has_keys_of_its_own_gets_a_role_that_may_nothing() -> None:
    (statement,) = policy(())["Statement"]
    assert statement == {"Effect": "Deny", "Action": "*", "Resource": "*"}


def test_an_encrypted_bucket_needs_its_key() -> None:
    key = "arn:aws:kms:us-east-1:1:key/a"
    assert allows((f"s3://models/a?kms_key={key}",))[key] == ["kms:GenerateDataKey", "kms:Decrypt"]


def test_a_machine_may_end_those_of_its_own_run_and_no_others() -> None:
    (statement,) = policy((), ends="Goat.1")["Statement"]
    assert (statement["Effect"], statement["Action"]) == ("Allow", ["ec2:TerminateInstances"])
    assert statement["Condition"] == {"StringEquals": {"aws:ResourceTag/tuneplan-run": "goat-1"}}


@contextmanager
def machine(iam: Any, monkeypatch: pytest.MonkeyPatch, document: dict[str, Any]) -> Iterator[None]:
    """Logged in with rights to these actions and no others, which the server insists on meanwhile."""
    iam.create_user(UserName="machine")
    iam.put_user_policy(UserName="machine", PolicyName="run", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName="machine")["AccessKey"]
    with monkeypatch.context() as login:
        login.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        login.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        _insist_on_rights(after=b"0")
        try:
            yield
        finally:
            _insist_on_rights(after=b"inf")
            iam.delete_access_key(UserName="machine", AccessKeyId=key["AccessKeyId"])
            iam.delete_user_policy(UserName="machine", PolicyName="run")
            iam.delete_user(UserName="machine")


def _insist_on_rights(after: bytes) -> None:
    address = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    request = urllib.request.Request(address, after, {"Content-Type": "text/plain"}, method="POST")
    urllib.request.urlopen(request).close()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of more than one part."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(os.urandom(PART_BYTES + 1))
    return path


def bucket_of_runs() -> Any:
    import boto3

    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="models")
    return s3


def test_a_machine_may_send_large_files(iam: Any, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3 = bucket_of_runs()
    with machine(iam, monkeypatch, policy(STORES)):
        assert S3Store(STORES[0]).put_file("blobs/a", large) is True
        assert S3Store(STORES[0]).put_file("blobs/a", large) is False
    found = s3.get_object(Bucket="models", Key="runs/goat-1/blobs/a")["Body"].read()
    assert found == large.read_bytes()


def test_a_machine_takes_back_an_upload_that_nobody_could_find_again(
    iam: Any, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = bucket_of_runs()
    with machine(iam, monkeypatch, policy(STORES)):
        store = S3Store(STORES[0])
        monkeypatch.setattr(store._client, "upload_part", lambda **_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            store.put_file("blobs/b", large)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="models")


def test_a_machine_that_may_write_nothing_says_so(
    iam: Any, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket_of_runs()
    with (
        machine(iam, monkeypatch, policy(())),
        pytest.raises(StorageError, match=r"AccessDenied|Forbidden|403"),
    ):
        S3Store(STORES[0]).put_file("blobs/c", large)


def test_a_role_is_made_once_and_removed(iam: Any) -> None:
    names = {grant_role("goat-1", STORES, propagation_s=0) for _ in range(2)}
    assert names == {"tuneplan-goat-1"}
    role = iam.get_role_policy(RoleName="tuneplan-goat-1", PolicyName="tuneplan-run")
    document = role["PolicyDocument"]
    assert (json.loads(document) if isinstance(document, str) else document) == policy(STORES, ends="goat-1")
    profile = iam.get_instance_profile(InstanceProfileName="tuneplan-goat-1")["InstanceProfile"]
    assert [row["RoleName"] for row in profile["Roles"]] == ["tuneplan-goat-1"]
    for _ in range(2):
        revoke_role("goat-1")
    assert iam.list_roles()["Roles"] == []
    assert iam.list_instance_profiles()["InstanceProfiles"] == []


def test_a_long_run_id_makes_a_name_that_iam_takes() -> None:
    names = {role_name(f"{'goat' * 20}-{n}") for n in range(5)}
    assert len(names) == 5
    assert all(len(name) <= 64 for name in names)


def test_session_keys_are_other_keys(iam: Any) -> None:
    keys = session_keys("goat-1", STORES)
    assert set(keys) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", UNTIL}
    assert "testing" not in keys.values()
    left = datetime.fromisoformat(keys[UNTIL]) - datetime.now(UTC)
    assert timedelta(hours=35) < left <= timedelta(hours=36)


def test_nobody_who_is_not_logged_in_makes_keys(iam: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(CredentialsError, match="does not let us make keys"):
        session_keys("goat-1", STORES)


def test_aws_out_of_reach_is_no_refusal(iam: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(LaunchError, match="cannot remove an instance role"):
        revoke_role("goat-1")
