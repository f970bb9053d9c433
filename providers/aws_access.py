"""Rights of one run's machines on the buckets they write to, and on nothing else: an instance role, or session keys.

Without a role of its own SkyPilot gives every machine in AWS one that may do everything in EC2 and S3.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC
from typing import Any

from providers.errors import CredentialsError, LaunchError, MissingExtraError, TuneplanError
from providers.s3_location import S3Location, s3_location
from providers.sealed import UNTIL
from providers.tags import tag_value

#: Session keys of an IAM user live this long at most.
LONGEST_SESSION_S = 36 * 3600
_OBJECT_ACTIONS = (
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)
_ASSUME = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}
#: Of a session's policy, with room for the frame around its statements.
_MOST_POLICY_CHARACTERS = 2048 - 128
_POLICY_NAME = "tuneplan-run"
# EC2 refuses a profile for some seconds after it was made (IAM is eventually consistent).
_PROPAGATION_S = 15.0
#: Tag of everything that is rented for a run, and what the names of its roles begin with.
TAG = "tuneplan-run"
ROLE_PREFIX = "tuneplan-"


def policy(stores: tuple[str, ...], reads: tuple[str, ...] = (), ends: str | None = None) -> dict[str, Any]:
    """What a machine may do that writes below these s3:// URIs and reads these objects; without any nothing at all.

    `ends` is the run whose machines it may terminate, itself among them (`providers.self_release`).

    Objects are named one by one, as long as that fits into the 2,048 characters of a session's policy; of more,
    everything below their common prefix may be read.

    >>> policy(("s3://models/runs/goat",))["Statement"][0]["Resource"]
    'arn:aws:s3:::models/runs/goat/*'
    """
    statements: list[dict[str, Any]] = []
    for place in dict.fromkeys(s3_location(uri) for uri in stores):
        bucket = f"arn:aws:s3:::{place.bucket}"
        statements.append(_allow(_OBJECT_ACTIONS, f"{bucket}/{place.prefix}*"))
        below = {"StringLike": {"s3:prefix": [f"{place.prefix}*"]}}
        statements.append(_allow(("s3:ListBucket",), bucket, below))
        statements += _encryption(place)
    room = _MOST_POLICY_CHARACTERS - len(json.dumps(statements))
    statements += _reading([s3_location(uri) for uri in reads], room)
    if ends is not None:
        own = {"StringEquals": {f"aws:ResourceTag/{TAG}": tag_value(ends)}}
        statements.append(_allow(("ec2:TerminateInstances",), "arn:aws:ec2:*:*:instance/*", own))
    if not statements:  # IAM takes no empty policy
        statements.append({"Effect": "Deny", "Action": "*", "Resource": "*"})
    return {"Version": "2012-10-17", "Statement": statements}


def role_name(run_id: str) -> str:
    """Name of the run's role and instance profile, at most 64 letters as IAM has it."""
    name = re.sub(r"[^\w+=,.@-]", "-", f"{ROLE_PREFIX}{run_id}")
    if len(name) <= 64:
        return name
    import hashlib

    return f"{name[:51]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def grant_role(
    run_id: str,
    stores: tuple[str, ...],
    reads: tuple[str, ...] = (),
    *,
    propagation_s: float = _PROPAGATION_S,
) -> str:
    """Make the run's instance role, or find it made; its name. It may also end the run's own machines.

    Raises:
        CredentialsError: There are no credentials, or they may not make roles.
        LaunchError: AWS cannot be reached.
    """
    name, tags = role_name(run_id), [{"Key": TAG, "Value": run_id}]
    with aws_session("make an instance role") as session:
        iam = session.client("iam")
        with _unless(iam, "EntityAlreadyExistsException"):
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(_ASSUME), Tags=tags)
        iam.put_role_policy(
            RoleName=name, PolicyName=_POLICY_NAME, PolicyDocument=json.dumps(policy(stores, reads, run_id))
        )
        with _unless(iam, "EntityAlreadyExistsException"):
            iam.create_instance_profile(InstanceProfileName=name, Tags=tags)
        if not iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]:
            iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
            time.sleep(propagation_s)
    return name


def revoke_role(run_id: str) -> None:
    """Remove the run's instance role; nothing happens if there is none.

    Raises:
        CredentialsError: There are no credentials, or they may not remove roles.
        LaunchError: AWS cannot be reached.
    """
    name = role_name(run_id)
    with aws_session("remove an instance role") as session:
        iam = session.client("iam")
        with _unless(iam, "NoSuchEntityException"):
            iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name)
        with _unless(iam, "NoSuchEntityException"):
            iam.delete_instance_profile(InstanceProfileName=name)
        with _unless(iam, "NoSuchEntityException"):
            iam.delete_role_policy(RoleName=name, PolicyName=_POLICY_NAME)
        with _unless(iam, "NoSuchEntityException"):
            iam.delete_role(RoleName=name)


def session_keys(run_id: str, stores: tuple[str, ...], reads: tuple[str, ...] = ()) -> dict[str, str]:
    """Keys that are good for the run's prefixes alone and for 36 hours, as environment variables, and when they end.

    Raises:
        CredentialsError: There are no credentials, or they cannot make such keys: only an IAM user's own keys can.
        LaunchError: AWS cannot be reached.
    """
    name = re.sub(r"[^\w+=,.@-]", "-", run_id)[:32].ljust(2, "-")
    with aws_session("make keys for the run's checkpoints alone") as session:
        made = session.client("sts").get_federation_token(
            Name=name, Policy=json.dumps(policy(stores, reads)), DurationSeconds=LONGEST_SESSION_S
        )["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
        "AWS_SESSION_TOKEN": made["SessionToken"],
        UNTIL: made["Expiration"].astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def _reading(objects: list[S3Location], room: int) -> list[dict[str, Any]]:
    if not objects:
        return []
    resources = sorted({f"arn:aws:s3:::{one.bucket}/{one.prefix.removesuffix('/')}" for one in objects})
    if len(json.dumps(resources)) > room:
        resources = sorted({f"{resource.rpartition('/')[0]}/*" for resource in resources})
    statement = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": resources}
    return [statement, *_encryption(objects[0])]


def _encryption(place: S3Location) -> list[dict[str, Any]]:
    if place.kms_key is None:
        return []
    if place.kms_key.startswith("arn:"):
        return [_allow(("kms:GenerateDataKey", "kms:Decrypt"), place.kms_key)]
    through_s3 = {"StringLike": {"kms:ViaService": "s3.*.amazonaws.com"}}
    return [_allow(("kms:GenerateDataKey", "kms:Decrypt"), "*", through_s3)]


def _allow(
    actions: tuple[str, ...], resource: str, condition: dict[str, Any] | None = None
) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": resource}
    return statement if condition is None else statement | {"Condition": condition}


@contextlib.contextmanager
def _unless(client: Any, name: str) -> Iterator[None]:
    with contextlib.suppress(getattr(client.exceptions, name)):
        yield


@contextlib.contextmanager
def aws_session(what: str) -> Iterator[Any]:
    """A session with the user's own credentials; errors become ours.

    Args:
        what: What it is for, as in `make an instance role`.

    Raises:
        CredentialsError: There are none, or they may not.
        LaunchError: AWS cannot be reached.
        MissingExtraError: boto3 is not installed.
    """
    try:
        import boto3
        from botocore import exceptions
    except ModuleNotFoundError as error:
        raise MissingExtraError("s3", f"to {what}") from error
    hint = (
        "log in to AWS as somebody who may, or name the bucket's own AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY under environment.secrets"
    )
    refused = (
        exceptions.NoCredentialsError,
        exceptions.ClientError,
        exceptions.ProfileNotFound,
        exceptions.PartialCredentialsError,
    )
    try:
        yield boto3.session.Session()
    except TuneplanError:
        raise
    except refused as error:
        raise CredentialsError(f"AWS does not let us {what}: {error}", hint=hint) from error
    except exceptions.BotoCoreError as error:
        raise LaunchError(f"cannot {what}: {error}") from error
