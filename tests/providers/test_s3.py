"""The S3 store keeps the contract on a real server, and what is special to S3."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from providers.errors import CredentialsError, StorageError, UsageError
from providers.stores import open_store
from tests.providers.object_store_contract import ObjectStoreContract, Opener
from tests.seaweed import BUCKET, Seaweed

_numbers = itertools.count()


@pytest.fixture
def uri(s3_server: Seaweed) -> str:
    """A prefix of its own."""
    return f"s3://{BUCKET}/store {next(_numbers)}/x"


@pytest.fixture
def open_again(uri: str) -> Opener:
    return lambda: open_store(uri)


class TestS3Store(ObjectStoreContract):
    pass
