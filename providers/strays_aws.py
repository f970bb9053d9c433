"""Machines and instance roles in AWS that bear a run's tag, and uploads to a run's prefix that nobody completed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from providers.aws_access import ROLE_PREFIX, TAG, aws_session, revoke_role
from providers.s3_location import s3_location
from providers.strays import Thing

_STATES = ("pending", "running", "stopping", "stopped")
_REGIONS_AT_ONCE = 8
_ATTEMPT_TAG = "tuneplan-attempt"


class InstanceSweeper:
    """Instances that are not terminated, of every region of the account or of some."""

    name = "aws instances"

    def __init__(self, regions: tuple[str, ...] = ()) -> None:
        """Look into these regions alone, or into all that the account has."""
        self._regions = regions

    def find(self) -> Iterator[Thing]:
        """Those with our tag; what the tag says is the run's id as a tag can hold it."""
        with aws_session("list instances") as session:
            regions = self._regions or _all_regions(session)
            clients = [_ec2(session, region) for region in regions]  # sessions are not safe for threads
            with ThreadPoolExecutor(_REGIONS_AT_ONCE, "ec2") as pool:
                found = list(pool.map(_instances, clients))
        for region, instances in zip(regions, found, strict=True):
            yield from (_instance(region, row) for row in instances)

    def end(self, thing: Thing) -> None:
        """Terminate it."""
        region, instance_id = thing.ref
        with aws_session("terminate an instance") as session:
            _ec2(session, region).terminate_instances(InstanceIds=[instance_id])


class RoleSweeper:
    """Instance roles that were made for runs."""

    name = "aws roles"

    def find(self) -> Iterator[Thing]:
        """Those with our name and tag."""
        with aws_session("list instance roles") as session:
            iam = session.client("iam")
            for page in iam.get_paginator("list_roles").paginate():
                for role in page["Roles"]:
                    if role["RoleName"].startswith(ROLE_PREFIX):
                        tags = iam.list_role_tags(RoleName=role["RoleName"])["Tags"]
                        run = _tags(tags).get(TAG)
                        if run is not None:
                            made = _utc(role["CreateDate"])
                            yield Thing("role", role["RoleName"], run, None, made, "aws", ref=(run,))

    def end(self, thing: Thing) -> None:
        """Remove it with its instance profile."""
        revoke_role(thing.ref[0])


class UploadSweeper:
    """Parts of files that were sent to the prefixes of runs and never became an object; they are paid for."""

    name = "s3 uploads"

    def __init__(self, stores: dict[str, str]) -> None:
        """Look below these s3:// URIs, by run id."""
        self._stores = stores

    def find(self) -> Iterator[Thing]:
        """One thing for each unfinished upload."""
        for run, uri in self._stores.items():
            place = s3_location(uri)
            with aws_session("list unfinished uploads") as session:
                client = _s3(session, uri)
                pages = client.get_paginator("list_multipart_uploads")
                for page in pages.paginate(Bucket=place.bucket, Prefix=place.prefix):
                    for row in page.get("Uploads", []):
                        yield _upload(client, run, uri, row)

    def end(self, thing: Thing) -> None:
        """Abort it, which frees its parts."""
        uri, key, upload_id = thing.ref
        with aws_session("abort an unfinished upload") as session:
            client = _s3(session, uri)
            try:
                client.abort_multipart_upload(Bucket=s3_location(uri).bucket, Key=key, UploadId=upload_id)
            except client.exceptions.NoSuchUpload:
                return


def _all_regions(session: Any) -> tuple[str, ...]:
    return tuple(row["RegionName"] for row in _ec2(session).describe_regions()["Regions"])


def _instances(ec2: Any) -> list[dict[str, Any]]:
    wanted = [
        {"Name": "tag-key", "Values": [TAG]},
        {"Name": "instance-state-name", "Values": list(_STATES)},
    ]
    pages = ec2.get_paginator("describe_instances").paginate(Filters=wanted)
    return [row for page in pages for held in page["Reservations"] for row in held["Instances"]]


def _instance(region: str, row: dict[str, Any]) -> Thing:
    tags = _tags(row["Tags"])
    attempt = tags.get(_ATTEMPT_TAG, "")
    state = row["State"]["Name"]
    return Thing(
        "instance",
        row["InstanceId"] + ("" if state in ("pending", "running") else f" ({state})"),
        tags[TAG],
        int(attempt) if attempt.isdigit() else None,
        _utc(row["LaunchTime"]),
        f"aws/{row['Placement']['AvailabilityZone']}",
        "aws",
        region,
        row["InstanceType"] if state in ("pending", "running") else None,
        "spot" if row.get("InstanceLifecycle") == "spot" else "on_demand",
        ref=(region, row["InstanceId"]),
    )


def _upload(client: Any, run: str, uri: str, row: dict[str, Any]) -> Thing:
    place = s3_location(uri)
    parts = client.get_paginator("list_parts").paginate(
        Bucket=place.bucket, Key=row["Key"], UploadId=row["UploadId"]
    )
    size = sum(part["Size"] for page in parts for part in page.get("Parts", []))
    ref = (uri, row["Key"], row["UploadId"])
    where = f"s3://{place.bucket}/{row['Key']}"
    return Thing(
        "upload", row["UploadId"][:16], run, None, _utc(row["Initiated"]), where, bytes=size, ref=ref
    )


def _ec2(session: Any, region: str | None = None) -> Any:
    # any region knows the names of all of them
    return session.client("ec2", region_name=region or session.region_name or "us-east-1")


def _s3(session: Any, uri: str) -> Any:
    place = s3_location(uri)
    return session.client("s3", endpoint_url=place.endpoint, region_name=place.region)


def _tags(rows: list[dict[str, str]]) -> dict[str, str]:
    return {row["Key"]: row["Value"] for row in rows}


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
