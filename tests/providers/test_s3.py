"""The S3 store keeps the contract on a real server, and what is special to S3."""

from __future__ import annotations

import hashlib
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.exceptions
import pytest

from providers import s3
from providers.errors import CredentialsError, StorageError, StoreAccessError, UsageError
from providers.pace import PIECE_BYTES, Pace
from providers.s3 import S3Store
from providers.s3_location import s3_location
from providers.stores import below, open_store
from tests.providers.object_store_contract import ObjectStoreContract, Opener
from tests.seaweed import BUCKET, SECRET, Seaweed

PART = 5 << 20  # the smallest that S3 takes for any part but the last

_numbers = itertools.count()


@pytest.fixture
def uri(s3_server: Seaweed) -> str:
    """A prefix of its own."""
    return f"s3://{BUCKET}/store {next(_numbers)}/x"


@pytest.fixture
def open_again(uri: str) -> Opener:
    """Two handles, by turns: making a client costs more than what most tests do with it."""
    handles = itertools.cycle([open_store(uri), open_store(uri)])
    return lambda: next(handles)


class TestS3Store(ObjectStoreContract):
    def test_prefixes_are_apart(self, uri: str, open_again: Opener) -> None:
        open_store(uri + "y").put("HEAD", b"another run's")
        open_again().put("HEAD", b"ours")
        assert [(item.key, item.bytes) for item in open_again().list("")] == [("HEAD", 4)]
        assert open_store(below(uri, "deeper")).get("HEAD") is None

    def test_more_objects_than_a_page_holds(self, uri: str) -> None:
        store = S3Store(uri)
        for number in range(7):
            store.put(f"blobs/{number}", b"x")
        pages = count_requests(store, "list-objects-v2")
        store._client.meta.events.register(
            "before-parameter-build.s3.ListObjectsV2", lambda params, **_: params.update(MaxKeys=3)
        )
        assert [item.key for item in store.list("blobs/")] == [f"blobs/{number}" for number in range(7)]
        assert len(pages) == 3

    def test_folders_that_a_console_made_are_no_objects(self, uri: str, open_again: Opener) -> None:
        store = S3Store(uri)
        store.put("a/b", b"x")
        store._client.put_object(Bucket=BUCKET, Key=s3_location(uri).prefix + "a/", Body=b"")
        assert [item.key for item in store.list("")] == ["a/b"]


class TestLostAnswers:
    """The server did what was asked, its answer got lost, and botocore asks again."""

    def test_a_swap_is_known_to_be_ours(self, uri: str) -> None:
        store = S3Store(uri)
        first = store.compare_and_swap("HEAD", b"one", None)
        lost = lose_answers(store, 1)
        second = store.compare_and_swap("HEAD", b"two", first)
        assert lost == [200]
        assert second is not None and store.get("HEAD") == (b"two", second)

    def test_a_creation_is_known_to_be_ours(self, uri: str) -> None:
        store = S3Store(uri)
        lost = lose_answers(store, 1)
        assert store.put_if_absent("manifests/1", b"ours") is True
        assert lost == [200]

    def test_an_equal_body_of_another_writer_is_not_ours(self, uri: str) -> None:
        first, second = S3Store(uri), S3Store(uri)
        assert first.put_if_absent("x", b"same") is True
        assert second.put_if_absent("x", b"same") is False
        assert second.compare_and_swap("x", b"same", None) is None


def test_a_body_that_stops_coming_is_read_again(uri: str) -> None:
    store = S3Store(uri)
    store.put("HEAD", b"whole")
    cut: list[bytes] = []

    def stop(parsed: Any, **_: Any) -> None:
        if not cut:
            cut.append(parsed["Body"].read(2))
            parsed["Body"].read = lambda: broken()

    def broken() -> bytes:
        raise botocore.exceptions.IncompleteReadError(actual_bytes=2, expected_bytes=5)

    store._client.meta.events.register("after-call.s3.GetObject", stop)
    found = store.get("HEAD")
    assert (cut, found and found[0]) == ([b"wh"], b"whole")


class TestParts:
    @pytest.fixture
    def source(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A file of three parts and a bit."""
        monkeypatch.setattr(s3, "PART_BYTES", PART)
        path = tmp_path / "source"
        path.write_bytes(os.urandom(3 * PART + 17))
        return path

    def send(self, store: S3Store, source: Path) -> bool:
        return store.put_file("blobs/" + hashlib.sha256(source.read_bytes()).hexdigest(), source)

    def arrived(self, store: S3Store, source: Path, target: Path) -> bool:
        store.get_file("blobs/" + hashlib.sha256(source.read_bytes()).hexdigest(), target)
        return target.read_bytes() == source.read_bytes()

    def test_a_large_file_goes_in_parts(self, uri: str, source: Path, tmp_path: Path) -> None:
        store = S3Store(uri)
        sent = count_requests(store, "upload-part")
        assert self.send(store, source) is True
        assert len(sent) == 4
        assert self.arrived(store, source, tmp_path / "target")
        assert self.send(store, source) is False
        assert len(sent) == 4

    def test_an_upload_that_was_cut_off_goes_on(self, uri: str, source: Path, tmp_path: Path) -> None:
        key = "blobs/" + hashlib.sha256(source.read_bytes()).hexdigest()
        target = {"Bucket": BUCKET, "Key": s3_location(uri).prefix + key}
        store = S3Store(uri)
        begun = store._client.create_multipart_upload(**target)["UploadId"]
        body = source.read_bytes()
        for number, part in ((1, body[:PART]), (2, bytes(PART))):  # the second is not what the file holds
            store._client.upload_part(**target, UploadId=begun, PartNumber=number, Body=part)
        sent = count_requests(store, "upload-part")
        assert self.send(store, source) is True
        assert len(sent) == 3
        assert self.arrived(store, source, tmp_path / "target")
        assert not store._client.list_multipart_uploads(Bucket=BUCKET, Prefix=target["Key"]).get("Uploads")

    def test_another_sender_may_be_faster(self, uri: str, source: Path, tmp_path: Path) -> None:
        slow, fast = S3Store(uri), S3Store(uri)

        def overtaken(**_: Any) -> None:
            slow._client.meta.events.unregister("before-call.s3.CompleteMultipartUpload", overtaken)
            self.send(fast, source)

        slow._client.meta.events.register("before-call.s3.CompleteMultipartUpload", overtaken)
        assert self.send(slow, source) is True
        assert self.arrived(slow, source, tmp_path / "target")


class TestErrors:
    def test_every_error_of_a_login_is_ours(self, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        store = S3Store(uri)
        for call in calls_on(store):
            with pytest.raises(StoreAccessError) as caught:
                call()
            assert caught.value.exit_code == 4
            assert caught.value.hint
            assert isinstance(caught.value, (CredentialsError, StorageError))
            assert "wrong" not in f"{caught.value}{caught.value.hint}"

    def test_nobody_is_logged_in(self, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        for call in calls_on(S3Store(uri)):
            with pytest.raises(StoreAccessError, match="credentials") as caught:
                call()
            assert "aws configure" in str(caught.value.hint)
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        with pytest.raises(StoreAccessError, match="nobody"):
            S3Store(uri)

    def test_a_missing_bucket_is_not_a_missing_key(self, s3_server: Seaweed) -> None:
        store = S3Store("s3://there-is-no-such-bucket/x")
        with pytest.raises(StorageError) as caught:
            store.get("HEAD")
        assert caught.value.code == "bucket_not_found"
        with pytest.raises(StorageError):
            list(store.list(""))

    def test_a_server_that_is_not_there(self, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            store = S3Store(f"{uri}?endpoint=http://127.0.0.1:{closed.getsockname()[1]}")
            for call in calls_on(store):
                with pytest.raises(StorageError) as caught:
                    call()
                assert caught.value.code == "unreachable"
                assert "AWS_ENDPOINT_URL" in str(caught.value.hint)

    def test_a_file_that_is_not_there(self, uri: str, tmp_path: Path) -> None:
        with pytest.raises(StorageError) as caught:
            S3Store(uri).put_file("blobs/x", tmp_path / "none")
        assert caught.value.code == "not_found"

    def test_the_errors_of_a_login_are_named_as_botocore_names_them(self) -> None:
        from providers.s3_errors import _NOT_LOGGED_IN

        bases = (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError)
        for name in _NOT_LOGGED_IN:
            assert issubclass(getattr(botocore.exceptions, name), bases)

    def test_an_unfinished_download_leaves_no_file(self, uri: str, tmp_path: Path) -> None:
        with pytest.raises(StorageError):
            S3Store(uri).get_file("blobs/none", tmp_path / "target")
        assert list(tmp_path.iterdir()) == []


def test_encryption_with_a_key_of_the_users_is_asked_for(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(f"{uri}?kms_key=alias/runs")
    asked: list[tuple[Any, Any]] = []

    def answer(request: Any, **_: Any) -> Any:
        names = ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id")
        asked.append(tuple(request.headers.get(name) for name in names))  # type: ignore[arg-type]
        headers = {"ETag": '"x"'}
        return SimpleNamespace(status_code=200, headers=headers, content=b"", raw=None, text="")

    def begin(request: Any, **_: Any) -> Any:
        answer(request)
        return SimpleNamespace(status_code=403, headers={}, content=b"", raw=None, text="")

    store._client.meta.events.register("before-send.s3.PutObject", answer)
    store._client.meta.events.register("before-send.s3.CreateMultipartUpload", begin)
    (tmp_path / "file").write_bytes(b"x")
    store.put("a", b"x")
    store.put_if_absent("b", b"x")
    store.put_file("c", tmp_path / "file")
    (tmp_path / "file").write_bytes(bytes(PART + 1))
    monkeypatch.setattr(s3, "PART_BYTES", PART)
    with pytest.raises(StorageError):
        store.put_file("d", tmp_path / "file")
    assert [tuple(map(text, pair)) for pair in asked] == [("aws:kms", "alias/runs")] * 4


def test_uploads_keep_to_a_bandwidth(uri: str, tmp_path: Path) -> None:
    """Of 11 MB in three pieces the third waits for the time of the first two, whatever the number of threads."""
    now_s, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)

    (tmp_path / "file").write_bytes(os.urandom(2 * PIECE_BYTES + 7))
    store, sent = S3Store(uri, Pace(PIECE_BYTES / 10, lambda: now_s[0], sleep)), []
    assert store.put_file("blobs/x", tmp_path / "file", sent.append) is True
    assert len(waits) == 2 and max(waits) >= 10  # 20 if the short piece is the last one
    assert sum(sent) == 2 * PIECE_BYTES + 7
    store.get_file("blobs/x", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()


def test_bodies_are_hashed_once(uri: str, tmp_path: Path) -> None:
    """botocore's own hash for the signature is left out; the server still checks a CRC of what arrived."""
    store, headers = S3Store(uri), []

    def note(request: Any, **_: Any) -> None:
        names = ("X-Amz-Content-SHA256", "x-amz-checksum-crc32")
        headers.append(tuple(text(request.headers.get(name)) for name in names))

    store._client.meta.events.register("before-send.s3.PutObject", note)
    (tmp_path / "file").write_bytes(b"some bytes")
    store.put_file("blobs/x", tmp_path / "file")
    ((sha256, crc),) = headers
    assert sha256 == "UNSIGNED-PAYLOAD"
    assert crc not in ("None", "")


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [("s3://bucket", ""), ("s3://bucket/", ""), ("s3://bucket/a/b/", "a/b/"), ("s3://my.bucket-1/a", "a/")],
)
def test_prefixes_of_uris(uri: str, prefix: str) -> None:
    assert s3_location(uri).prefix == prefix


@pytest.mark.parametrize(
    "uri",
    [
        "s3://",
        "s3:///prefix",
        "s3://Bucket/x",
        "s3://b/x",
        "s3://bucket/a//b",
        "s3://bucket/../b",
        "s3://bucket/x#y",
        f"s3://key:{SECRET}@bucket/x",
        f"s3://bucket/x?aws_secret_access_key={SECRET}",
        f"s3://bucket/x?endpoint=https://key:{SECRET}@host",
        "s3://bucket/x?endpoint=host:9000",
        "s3://bucket/x?endpoint=",
    ],
)
def test_uris_that_are_wrong_or_hold_a_secret_are_refused(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(uri)
    assert SECRET not in f"{caught.value}{caught.value.hint}"


def test_without_boto3_the_extra_is_named() -> None:
    """In a process of its own, where boto3 cannot be imported."""
    script = (
        "import sys; sys.modules['boto3'] = None\n"
        "from providers.errors import MissingExtraError\n"
        "from providers.stores import open_store\n"
        "try: open_store('s3://bucket/x')\n"
        "except MissingExtraError as error: print(error.hint)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "pip install 'tuneplan[s3]'\n"


def test_opening_a_directory_does_not_load_boto3(tmp_path: Path) -> None:
    script = (
        "import sys; from providers.stores import open_store\n"
        "open_store(sys.argv[1]); print('boto3' in sys.modules)"
    )
    words = [sys.executable, "-c", script, tmp_path.as_uri()]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "False\n"


def calls_on(store: S3Store) -> Iterator[Any]:
    """Each of the store's methods."""
    yield lambda: store.get("x")
    yield lambda: store.put("x", b"x")
    yield lambda: store.put_if_absent("x", b"x")
    yield lambda: store.compare_and_swap("x", b"x", "tag")
    yield lambda: store.put_file("x", Path(__file__))
    yield lambda: store.get_file("x", Path("/nowhere/x"))
    yield lambda: list(store.list(""))
    yield lambda: store.delete("x")


def count_requests(store: S3Store, operation: str) -> list[str]:
    """A list that grows with each request of one kind."""
    name = "".join(word.capitalize() for word in operation.split("-"))
    seen: list[str] = []

    def note(params: Any, **_: Any) -> None:
        seen.append(params["url_path"])

    store._client.meta.events.register(f"before-call.s3.{name}", note)
    return seen


def lose_answers(store: S3Store, count: int) -> list[int]:
    """Make the next answers to PUT look like a server's failure, after it did its work; what they were."""
    lost: list[int] = []

    def lose(response: Any, **_: Any) -> int | None:
        if len(lost) == count or response is None:
            return None
        lost.append(response[0].status_code)
        return 0  # seconds to wait before the next try

    store._client.meta.events.register_first("needs-retry.s3.PutObject", lose)
    return lost


def text(value: Any) -> str:
    """A header, which botocore may hold as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
