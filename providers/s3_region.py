"""In which region a bucket of S3 is."""

from __future__ import annotations

from providers.aws_access import aws_session
from providers.s3_location import s3_location


def bucket_region(uri: str) -> str | None:
    """As S3 says in the head of its answer, None if the server does not say.

    Raises:
        CredentialsError, LaunchError, MissingExtraError: It cannot be asked.
    """
    place = s3_location(uri)
    with aws_session("look where a bucket is") as session:
        client = session.client("s3", endpoint_url=place.endpoint, region_name=place.region)
        answer = client.head_bucket(Bucket=place.bucket)
    region = answer.get("BucketRegion") or answer["ResponseMetadata"]["HTTPHeaders"].get(
        "x-amz-bucket-region"
    )
    return str(region) if region else None
