"""The directory store keeps the contract, and what is special to directories."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from providers.directory_store import DirectoryStore, directory_of
from providers.errors import StorageError, UsageError
from providers.stores import open_store
from tests.providers.object_store_contract import ObjectStoreContract, Opener


class TestDirectoryStore(ObjectStoreContract):
    @pytest.fixture
    def open_again(self, tmp_path: Path) -> Opener:
        return lambda: open_store((tmp_path / "a store").as_uri())

    def test_private_files_are_no_keys(self, open_again: Opener) -> None:
        store = open_again()
        store.compare_and_swap("HEAD", b"x", None)
        assert [item.key for item in store.list("")] == ["HEAD"]
        with pytest.raises(StorageError):
            store.put(".store/lock", b"x")

    def test_a_symbolic_link_does_not_lead_out(self, tmp_path: Path) -> None:
        store = DirectoryStore(tmp_path / "root")
        (tmp_path / "outside").mkdir()
        (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
        with pytest.raises(StorageError) as caught:
            store.put("link/file", b"x")
        assert caught.value.code == "bad_key"
        assert list((tmp_path / "outside").iterdir()) == []

    def test_processes_share_the_lock(self, tmp_path: Path) -> None:
        script = textwrap.dedent("""
            import sys
            from pathlib import Path
            from providers.directory_store import DirectoryStore
            store = DirectoryStore(Path(sys.argv[1]))
            for _ in range(50):
                while True:
                    body, tag = store.get("count")
                    if store.compare_and_swap("count", str(int(body) + 1).encode(), tag):
                        break
        """)
        store = DirectoryStore(tmp_path)
        store.put("count", b"0")
        workers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(4)]
        assert [worker.wait() for worker in workers] == [0] * 4
        assert store.get("count")[0] == b"200"  # type: ignore[index]

    def test_a_full_disk_is_said_and_leaves_nothing(self, tmp_path: Path) -> None:
        """A limit on the size of files acts as a full disk does: the write fails half-way."""
        script = textwrap.dedent("""
            import resource, sys
            from pathlib import Path
            from providers.directory_store import DirectoryStore
            from providers.errors import StorageError
            root = Path(sys.argv[1])
            store = DirectoryStore(root / "store")
            store.put("HEAD", b"old")
            (root / "big").write_bytes(bytes(1 << 20))
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
            tag = store.get("HEAD")[1]
            for call in (
                lambda: store.put("HEAD", bytes(1 << 20)),
                lambda: store.compare_and_swap("HEAD", bytes(1 << 20), tag),
                lambda: store.put_if_absent("small", bytes(1 << 20)),
                lambda: store.put_file("blobs/big", root / "big"),
            ):
                try:
                    call()
                except StorageError as error:
                    assert error.hint == "free some disk space", error.hint
                else:
                    sys.exit("no error")
        """)
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
        store = DirectoryStore(tmp_path / "store")
        assert [(item.key, item.bytes) for item in store.list("")] == [("HEAD", 3)]
        assert [path.name for path in (tmp_path / "store" / ".store").iterdir()] == ["lock"]

    def test_a_root_that_is_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"x")
        with pytest.raises(StorageError, match="cannot open"):
            DirectoryStore(tmp_path / "file")


def test_uris_with_spaces_lead_back_to_their_directory(tmp_path: Path) -> None:
    directory = tmp_path / "with space & sign%"
    assert directory_of(directory.as_uri()) == directory
    assert open_store(directory.as_uri()).uri == directory.as_uri()


@pytest.mark.parametrize("uri", ["file://host/path", "file://relative", "/plain/path", "ftp://x/y", ""])
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        open_store(uri)
