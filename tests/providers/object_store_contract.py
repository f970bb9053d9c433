"""What any object store must do; each store's test class inherits it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from providers.errors import StorageError
from providers.object_store import ObjectStore

WRITERS = 24
Opener = Callable[[], ObjectStore]

BAD_KEYS = ["", "/etc/passwd", "../out", "a/../../out", "a//b", "a/./b", "a/", ".", "..", "a\0b"]


class ObjectStoreContract:
    """Subclasses give a fixture `open_again`, which opens the same prefix with a handle of its own."""

    @pytest.fixture
    def store(self, open_again: Opener) -> ObjectStore:
        return open_again()

    def test_absent_key_is_none(self, store: ObjectStore) -> None:
        assert store.get("HEAD") is None
        store.delete("HEAD")

    def test_put_replaces_and_get_gives_body_and_tag(self, store: ObjectStore) -> None:
        store.put("progress.json", b"one")
        first = store.get("progress.json")
        store.put("progress.json", b"two")
        second = store.get("progress.json")
        assert first is not None
        assert second is not None
        assert (first[0], second[0]) == (b"one", b"two")
        assert first[1] != second[1]

    def test_put_if_absent_writes_once(self, store: ObjectStore) -> None:
        assert store.put_if_absent("manifests/1.json", b"first") is True
        assert store.put_if_absent("manifests/1.json", b"second") is False
        found = store.get("manifests/1.json")
        assert found is not None
        assert found[0] == b"first"

    def test_swap_needs_the_present_tag(self, store: ObjectStore) -> None:
        first = store.compare_and_swap("HEAD", b"one", None)
        assert first is not None
        assert store.compare_and_swap("HEAD", b"x", None) is None
        assert store.compare_and_swap("HEAD", b"x", "0" * 64) is None
        second = store.compare_and_swap("HEAD", b"two", first)
        assert second is not None
        assert store.compare_and_swap("HEAD", b"x", first) is None
        assert store.get("HEAD") == (b"two", second)

    def test_swap_of_a_deleted_object_loses(self, store: ObjectStore) -> None:
        tag = store.compare_and_swap("HEAD", b"one", None)
        store.delete("HEAD")
        assert store.compare_and_swap("HEAD", b"two", tag) is None
        assert store.get("HEAD") is None

    def test_of_many_writers_one_creates(self, open_again: Opener) -> None:
        won = race(lambda number: open_again().put_if_absent("once", str(number).encode()))
        assert sum(won) == 1
        found = open_again().get("once")
        assert found is not None
        assert won[int(found[0])]

    def test_of_many_swaps_each_round_has_one_winner(self, open_again: Opener) -> None:
        """Every writer adds one with its own read, until it wins: no addition is lost."""
        open_again().compare_and_swap("count", b"0", None)

        def add_one(_: int) -> bool:
            store = open_again()
            while True:
                found = store.get("count")
                assert found is not None
                if store.compare_and_swap("count", str(int(found[0]) + 1).encode(), found[1]):
                    return True

        assert all(race(add_one))
        found = open_again().get("count")
        assert found is not None
        assert int(found[0]) == WRITERS

    def test_files_go_there_and_back(self, store: ObjectStore, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(bytes(range(256)) * (5 << 12) + b"odd end")  # 5 MiB and a bit: more than one part
        key = "blobs/" + hashlib.sha256(source.read_bytes()).hexdigest()
        assert store.put_file(key, source) is True
        assert store.put_file(key, source) is False
        assert "blobs/" + store.get_file(key, target) == key
        assert target.read_bytes() == source.read_bytes()

    def test_a_blob_cut_short_is_sent_again(self, store: ObjectStore, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(b"whole content")
        store.put("blobs/x", b"whole")
        assert store.put_file("blobs/x", source) is True
        store.get_file("blobs/x", target)
        assert target.read_bytes() == b"whole content"

    def test_empty_bodies_are_bodies(self, store: ObjectStore, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        assert store.put_file("blobs/empty", tmp_path / "empty") is True
        found = store.get("blobs/empty")
        assert found is not None
        assert found[0] == b""
        assert store.get_file("blobs/empty", tmp_path / "back") == hashlib.sha256(b"").hexdigest()
        assert (tmp_path / "back").read_bytes() == b""

    def test_a_missing_file_is_said_to_be_missing(self, store: ObjectStore, tmp_path: Path) -> None:
        with pytest.raises(StorageError) as caught:
            store.get_file("blobs/none", tmp_path / "target")
        assert caught.value.code == "not_found"

    def test_list_is_in_key_order_with_sizes(self, store: ObjectStore) -> None:
        bodies = {"a/2": b"22", "a/10": b"1010", "a/b/c": b"", "ab": b"x", "HEAD": b"h"}
        for key, body in bodies.items():
            store.put(key, body)
        assert [item.key for item in store.list("")] == sorted(bodies)
        sizes = [(item.key, item.bytes) for item in store.list("a/")]
        assert sizes == [("a/10", 4), ("a/2", 2), ("a/b/c", 0)]
        assert [item.key for item in store.list("a")] == ["a/10", "a/2", "a/b/c", "ab"]
        assert list(store.list("none/")) == []

    def test_delete_removes_only_its_key(self, store: ObjectStore) -> None:
        store.put("a/1", b"1")
        store.put("a/2", b"2")
        store.delete("a/1")
        assert [item.key for item in store.list("")] == ["a/2"]

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_keys_that_lead_elsewhere_are_refused(self, store: ObjectStore, key: str, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"x")
        calls: list[Callable[[], object]] = [
            lambda: store.put(key, b"x"),
            lambda: store.put_if_absent(key, b"x"),
            lambda: store.put_file(key, tmp_path / "file"),
            lambda: store.compare_and_swap(key, b"x", None),
            lambda: store.get(key),
            lambda: store.get_file(key, tmp_path / "out"),
            lambda: store.delete(key),
        ]
        for call in calls:
            with pytest.raises(StorageError) as caught:
                call()
            assert caught.value.code == "bad_key"


def race(act: Callable[[int], bool]) -> list[bool]:
    """Run `act(number)` in as many threads as there are writers, all let go at once; their answers."""
    answers: list[bool | None] = [None] * WRITERS
    barrier = threading.Barrier(WRITERS)

    def run(number: int) -> None:
        barrier.wait()
        answers[number] = act(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None not in answers
    return [bool(answer) for answer in answers]
