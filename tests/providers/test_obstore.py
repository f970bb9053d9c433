"""The same contract over obstore: S3 on a real server, Google's protocol on loopback, Azure on its emulator."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from jobs.checkpoint import CheckpointStore
from providers import obstore_store
from providers.conditions import check_conditions
from providers.errors import StorageError, StoreAccessError, UsageError
from providers.obstore_store import ObstoreStore
from providers.s3_location import cloud_location, stated_region
from providers.stores import below, open_store
from tests import azurite, gcs_host, seaweed
from tests.gcs_host import GcsHost
from tests.providers.object_store_contract import ObjectStoreContract, Opener

NO_LOGIN = json.dumps({"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""})
_numbers = itertools.count()
ROOT = Path(__file__).resolve().parents[2]


def by_turns(uri: str) -> Opener:
    """Two handles, by turns: making a client costs more than what most tests do with it."""
    handles = itertools.cycle([open_store(uri), open_store(uri)])
    return lambda: next(handles)


@pytest.fixture(scope="session")
def gcs_process() -> Iterator[GcsHost]:
    with gcs_host.gcs_host() as host:
        yield host


@pytest.fixture
def gcs(gcs_process: GcsHost, monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsHost]:
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", NO_LOGIN)
    yield gcs_process
    gcs_process.heeds_conditions, gcs_process.lose_answers = True, 0


@pytest.fixture
def gs_uri(gcs: GcsHost) -> str:
    return f"gs://{gcs_host.BUCKET}/store {next(_numbers)}/x?endpoint={gcs.url}"


class TestOnS3(ObjectStoreContract):
    @pytest.fixture
    def open_again(self, s3_server: seaweed.Seaweed) -> Opener:
        return by_turns(f"s3://{seaweed.BUCKET}/obstore {next(_numbers)}/x?client=obstore")


class TestOnGoogle(ObjectStoreContract):
    @pytest.fixture
    def open_again(self, gs_uri: str) -> Opener:
        return by_turns(gs_uri)


@pytest.fixture(scope="module")
def azure_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        program = azurite.install(ROOT / ".azurite")
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs npm, and azurite from its registry: {error}")
    with azurite.azurite(program, tmp_path_factory.mktemp("azurite")) as url:
        yield url


@pytest.mark.long
class TestOnAzure(ObjectStoreContract):
    @pytest.fixture
    def open_again(self, azure_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Opener:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", azurite.KEY)
        options = f"account={azurite.ACCOUNT}&endpoint={azure_endpoint}"
        return by_turns(f"az://{azurite.CONTAINER}/store {next(_numbers)}/x?{options}")

    def test_a_wrong_key_is_about_the_login(
        self, azure_endpoint: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(bytes(64)).decode())
        store = open_store(f"az://{azurite.CONTAINER}/x?account={azurite.ACCOUNT}&endpoint={azure_endpoint}")
        with pytest.raises(StoreAccessError):
            store.get("HEAD")

    def test_conditions_are_heeded(self, open_again: Opener) -> None:
        check_conditions(open_again())


def test_a_large_file_goes_in_parts_and_is_counted(gs_uri: str, tmp_path: Path) -> None:
    source, sent = tmp_path / "source", []
    source.write_bytes(os.urandom((33 << 20) + 7))
    store = open_store(gs_uri)
    key = "blobs/" + hashlib.sha256(source.read_bytes()).hexdigest()
    assert store.put_file(key, source, sent.append) is True
    assert (len(sent), sum(sent)) == (7, source.stat().st_size)
    line_bytes_per_s = 1.5e6 / 8
    assert obstore_store._CONNECTIONS * max(sent) / line_bytes_per_s < obstore_store.TIMEOUT_S, "a slow line"
    store.get_file(key, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == source.read_bytes()


def test_a_swap_whose_answer_was_lost_is_known_to_be_ours(gs_uri: str, gcs: GcsHost) -> None:
    store = open_store(gs_uri)
    first = store.compare_and_swap("HEAD", b"one", None)
    gcs.lose_answers = 1
    second = store.compare_and_swap("HEAD", b"two", first)
    assert gcs.lose_answers == 0
    assert second is not None and store.get("HEAD") == (b"two", second)
    assert open_store(gs_uri).put_if_absent("HEAD", b"two") is False


def test_a_server_that_ignores_conditions_is_refused(gs_uri: str, gcs: GcsHost) -> None:
    store = open_store(gs_uri)
    check_conditions(store)
    gcs.heeds_conditions = False
    with pytest.raises(StorageError, match="ignores the conditions") as caught:
        check_conditions(store)
    assert caught.value.code == "no_conditional_writes"
    with pytest.raises(StorageError, match="ignores the conditions"):
        CheckpointStore(store, "run").take_over()
    assert list(store.list("")) == []


def test_a_missing_bucket_is_not_a_missing_key(gcs: GcsHost) -> None:
    store = open_store(f"gs://there-is-no-such-bucket/x?endpoint={gcs.url}")
    for call in (lambda: store.get("HEAD"), lambda: store.put("HEAD", b"x")):
        with pytest.raises(StorageError) as caught:
            call()
        assert caught.value.code == "bucket_not_found"


def test_a_wrong_secret_is_about_the_login_and_not_shown(
    s3_server: seaweed.Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    store = open_store(f"s3://{seaweed.BUCKET}/x?client=obstore")
    with pytest.raises(StoreAccessError) as caught:
        store.put("HEAD", b"x")
    assert "wrong-secret" not in f"{caught.value}{caught.value.hint}"


@contextmanager
def server_that_answers(status: int) -> Iterator[str]:
    """Every request alike; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        http.server_close()


@pytest.mark.parametrize(
    ("status", "code"), [(503, "unavailable"), (429, "unavailable"), (408, "unavailable"), (400, "storage")]
)
@pytest.mark.parametrize("client", ["", "&client=obstore"])
def test_a_server_that_is_busy_is_told_from_one_that_refuses(
    client: str, status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obstore_store, "_RETRIES", 0)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with server_that_answers(status) as address, pytest.raises(StorageError) as caught:
        open_store(f"s3://bucket/x?endpoint={address}{client}").get("HEAD")
    assert caught.value.code == code


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obstore_store, "_RETRIES", 0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", NO_LOGIN)
        store = ObstoreStore(f"gs://bucket/x?endpoint=http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(StorageError) as caught:
            store.get("HEAD")
    assert caught.value.code == "unreachable"


def test_what_the_uris_say() -> None:
    assert cloud_location("gs://models").prefix == ""
    assert cloud_location("az://models/a/b/?account=me").prefix == "a/b/"
    assert stated_region("gs://models/runs?region=europe-west4") == "europe-west4"
    assert stated_region("s3://models/runs?region=eu-west-1") == "eu-west-1"
    assert below("gs://b/runs?region=r", "a") == "gs://b/runs/a?region=r"


@pytest.mark.parametrize(
    "uri",
    ["gs://", "gs://Bucket/x", "gs://bucket/a//b", "az://bucket/x?key=secret-word", "gs://bucket/x?account=me",
     "az://me:secret-word@bucket/x", "s3://bucket/x?client=curl", "gs://bucket/x?endpoint=http://a:secret-word@h"],
)  # fmt: skip
def test_wrong_uris_are_refused_and_secrets_not_shown(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(uri)
    assert "secret-word" not in f"{caught.value}{caught.value.hint}"


def test_opening_does_not_load_boto3_and_a_missing_obstore_is_named() -> None:
    script = (
        "import sys; sys.modules['obstore'] = None\n"
        "from providers.errors import MissingExtraError\n"
        "from providers.stores import open_store\n"
        "try: open_store('gs://bucket/x')\n"
        "except MissingExtraError as error: print(error.hint, 'boto3' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "pip install 'tuneplan[objectstore]' False\n"
