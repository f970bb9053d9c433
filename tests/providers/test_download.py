"""One file over HTTP: whole and undamaged, or not at all; goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from providers import download as module
from providers.download import download
from providers.errors import StorageError, UsageError
from tests.file_host import FileHost, file_host

BODY = bytes(range(256)) * 1000


@pytest.fixture
def host() -> Iterator[FileHost]:
    with file_host() as running:
        running.files["/a.csv"] = BODY
        yield running


class Waits(list):
    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def fetch(host: FileHost, folder: Path, path: str = "/a.csv"):
    waits = Waits()
    return download(host.url + path, folder / "a.csv", sleep=waits), waits


def test_a_file_arrives_and_is_checked(host: FileHost, tmp_path: Path):
    host.last_modified = "Tue, 05 May 2026 10:00:00 GMT"
    got, waits = fetch(host, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BODY
    assert (got.bytes, got.resumed_bytes, got.checksum, got.modified) == (len(BODY), 0, "md5", "2026-05-05")
    assert waits == []
    assert not (tmp_path / "a.csv.part").exists()


def test_without_a_checksum_the_length_is_checked(host: FileHost, tmp_path: Path):
    host.strong_etags = False
    got, _ = fetch(host, tmp_path)
    assert (got.checksum, got.modified) == ("length", None)


def test_an_absent_file_is_none(host: FileHost, tmp_path: Path):
    assert fetch(host, tmp_path, "/b.csv") == (None, [])
    assert list(tmp_path.iterdir()) == []


def test_a_cut_answer_goes_on_where_it_stopped(host: FileHost, tmp_path: Path):
    host.trouble("/a.csv").cut_after = [100_000, 50_000]
    got, waits = fetch(host, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BODY
    assert [wanted for _, wanted in host.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert (got.resumed_bytes, got.checksum, len(waits)) == (150_000, "md5", 2)


def test_without_a_strong_etag_it_starts_again(host: FileHost, tmp_path: Path):
    host.strong_etags = False
    host.trouble("/a.csv").cut_after = [100_000]
    got, _ = fetch(host, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BODY
    assert ([wanted for _, wanted in host.requests], got.resumed_bytes) == ([None, None], 0)


def test_a_file_that_changed_meanwhile_is_not_mixed(host: FileHost, tmp_path: Path):
    host.trouble("/a.csv").cut_after = [1000] * 4
    with pytest.raises(StorageError):
        fetch(host, tmp_path)
    host.files["/a.csv"] = BODY[::-1]
    got, _ = fetch(host, tmp_path)
    assert (tmp_path / "a.csv").read_bytes() == BODY[::-1]
    assert got.resumed_bytes == 0


def test_an_unchanged_file_is_not_sent_again(host: FileHost, tmp_path: Path):
    fetch(host, tmp_path)
    got, _ = fetch(host, tmp_path)
    assert got.checksum == "unchanged"
    host.files["/a.csv"] = b"new"
    got, _ = fetch(host, tmp_path)
    assert (got.checksum, (tmp_path / "a.csv").read_bytes()) == ("md5", b"new")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_is_waited_out(host: FileHost, tmp_path: Path, status: int):
    host.trouble("/a.csv").statuses = [status, status]
    got, waits = fetch(host, tmp_path)
    assert (got.bytes, len(waits)) == (len(BODY), 2)
    assert waits == sorted(waits)


def test_lasting_trouble_ends_and_keeps_what_is_there(host: FileHost, tmp_path: Path):
    (tmp_path / "a.csv").write_bytes(b"old")
    host.trouble("/a.csv").statuses = [500] * 9
    with pytest.raises(StorageError, match="the server answered 500") as caught:
        fetch(host, tmp_path)
    assert len(host.requests) == 4
    assert "stays in use" in (caught.value.hint or "")
    assert (tmp_path / "a.csv").read_bytes() == b"old"


def test_a_refusal_is_not_repeated(host: FileHost, tmp_path: Path):
    host.trouble("/a.csv").statuses = [403]
    with pytest.raises(StorageError, match="403"):
        fetch(host, tmp_path)
    assert len(host.requests) == 1


@pytest.mark.parametrize("content_md5", [True, False])
def test_a_wrong_checksum_is_fetched_again_from_the_start(host: FileHost, tmp_path: Path, content_md5: bool):
    host.content_md5 = content_md5
    host.trouble("/a.csv").wrong_md5 = 1
    got, waits = fetch(host, tmp_path)
    assert ((tmp_path / "a.csv").read_bytes(), got.resumed_bytes, len(waits)) == (BODY, 0, 1)


def test_a_checksum_that_stays_wrong_leaves_nothing(host: FileHost, tmp_path: Path):
    host.trouble("/a.csv").wrong_md5 = 9
    with pytest.raises(StorageError, match="does not match its md5 checksum"):
        fetch(host, tmp_path)
    assert not (tmp_path / "a.csv").exists()
    assert not (tmp_path / "a.csv.part").exists()


def test_a_damaged_part_is_found_by_the_checksum(host: FileHost, tmp_path: Path):
    host.trouble("/a.csv").cut_after = [1000] * 4
    with pytest.raises(StorageError):
        fetch(host, tmp_path)
    (tmp_path / "a.csv.part").write_bytes(b"x" * 4000)
    _, waits = fetch(host, tmp_path)
    assert ((tmp_path / "a.csv").read_bytes(), len(waits)) == (BODY, 1)


@pytest.mark.parametrize("trouble", ["cut", "checksum"])
def test_an_older_whole_file_is_never_taken_for_the_new_one(host: FileHost, tmp_path: Path, trouble: str):
    fetch(host, tmp_path)
    host.files["/a.csv"] = b"newer\n" * 1000
    if trouble == "cut":  # right after the headers
        host.trouble("/a.csv").cut_after = [0]
    else:
        host.trouble("/a.csv").wrong_md5 = 1
        host.content_md5 = True
    done, _ = fetch(host, tmp_path)
    assert done and done.checksum != "unchanged"
    assert (tmp_path / "a.csv").read_bytes() == host.files["/a.csv"]


def test_a_part_longer_than_the_file_starts_again(host: FileHost, tmp_path: Path):
    host.trouble("/a.csv").cut_after = [1000] * 4
    with pytest.raises(StorageError):
        fetch(host, tmp_path)
    (tmp_path / "a.csv.part").write_bytes(b"x" * (len(BODY) + 1))
    host.trouble("/a.csv").statuses = [416]
    assert fetch(host, tmp_path)[0].bytes == len(BODY)


def test_too_large_is_refused(host: FileHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    with pytest.raises(StorageError, match="is larger than"):
        fetch(host, tmp_path)
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize(
    "url", ["http://example.com/a", "file:///etc/passwd", "ftp://127.0.0.1/a", "a.csv", "https://"]
)
def test_only_https_or_this_machine(tmp_path: Path, url: str):
    with pytest.raises(UsageError, match="is not an https address"):
        download(url, tmp_path / "a.csv")


def test_nobody_there(tmp_path: Path):
    with file_host() as gone:
        url = gone.url
    with pytest.raises(StorageError, match="cannot fetch"):
        download(url + "/a.csv", tmp_path / "a.csv", sleep=Waits())
