"""The commit protocol: what was acknowledged is found again, what is damaged is not used, one attempt owns a run."""

from __future__ import annotations

import contextlib
import json
import random
import threading
from pathlib import Path

import pytest

from jobs.checkpoint import CheckpointStore, FencedError, Restored
from jobs.committed import hash_file, read_head, read_manifest, verify_files
from jobs.manifest import BLOBS, HEAD_KEY, Head, parse_head, sha256_of
from providers.directory_store import DirectoryStore
from providers.errors import CorruptDataError, StorageError
from tests.jobs.faulty_store import FaultyStore, no_fault


def write(directory: Path, step: int, *, same: str = "unchanged") -> Path:
    """A directory as the trainer saves it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "adapter_model.safetensors").write_text(f"weights of step {step}")
    (directory / "optimizer.pt").write_text(f"moments of step {step}")
    (directory / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    (directory / "tokenizer.json").write_text(same)
    (directory / "training_args.bin").write_bytes(b"a pickle, not part of a checkpoint")
    return directory


def owner(store_or_root: object, keep: int = 3) -> CheckpointStore:
    """A new attempt that has taken over."""
    store = DirectoryStore(store_or_root) if isinstance(store_or_root, Path) else store_or_root
    checkpoints = CheckpointStore(store, "run-1", keep=keep)  # type: ignore[arg-type]
    checkpoints.take_over()
    return checkpoints


def with_steps(tmp_path: Path, *steps: int, keep: int = 3) -> CheckpointStore:
    """An attempt that has committed these steps."""
    checkpoints = owner(tmp_path / "store", keep)
    for step in steps:
        checkpoints.publish(write(tmp_path / f"saved-{step}", step), step)
    return checkpoints


def restore(tmp_path: Path) -> Restored | None:
    """What a new attempt finds."""
    return owner(tmp_path / "store").restore(tmp_path / "restored")


def blob_of(tmp_path: Path, step: int, name: str) -> Path:
    """The stored file of a committed step."""
    store = DirectoryStore(tmp_path / "store")
    head = read_head(store)
    assert head is not None
    pointer = next(one for one in head.checkpoints if one.step == step)
    entry = next(file for file in read_manifest(store, pointer).files if file.path == name)
    return tmp_path / "store" / BLOBS / entry.sha256


def test_a_fresh_run_has_nothing_to_restore(tmp_path: Path) -> None:
    assert restore(tmp_path) is None


def test_what_was_committed_comes_back(tmp_path: Path) -> None:
    reference = with_steps(tmp_path, 10).publish(write(tmp_path / "saved-20", 20), 20)
    restored = restore(tmp_path)
    assert restored is not None
    assert restored.manifest.step == reference.step == 20
    assert restored.manifest.total_bytes == reference.bytes
    assert restored.damaged == ()
    found = {path.name: path.read_text() for path in (tmp_path / "restored").iterdir()}
    assert found == {
        "adapter_model.safetensors": "weights of step 20",
        "optimizer.pt": "moments of step 20",
        "trainer_state.json": '{"global_step": 20}',
        "tokenizer.json": "unchanged",
    }


def test_equal_files_are_stored_and_sent_once(tmp_path: Path) -> None:
    store = FaultyStore(tmp_path / "store", no_fault)
    checkpoints = owner(store)
    checkpoints.publish(write(tmp_path / "one", 1), 1)
    checkpoints.publish(write(tmp_path / "two", 2), 2)
    assert store.count("put_file") == 4 + 3
    manifest = read_manifest(store, checkpoints.head.checkpoints[0])
    assert manifest.total_bytes - manifest.new_bytes == len("unchanged")


def test_steps_are_numbers_not_text(tmp_path: Path) -> None:
    with_steps(tmp_path, 8500, 9500, 10000)
    restored = restore(tmp_path)
    assert restored is not None
    assert restored.manifest.step == 10000


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = with_steps(tmp_path, 1, 2, 3, 4, 5, keep=2)
    assert [pointer.step for pointer in checkpoints.head.checkpoints] == [5, 4]
    store = DirectoryStore(tmp_path / "store")
    assert len(list(store.list("manifests/"))) == 2
    assert len(list(store.list("blobs/"))) == 2 * 3 + 1


def test_the_best_stays_until_there_is_a_better_one(tmp_path: Path) -> None:
    checkpoints = owner(tmp_path / "store", keep=1)
    for step in range(1, 7):
        checkpoints.publish(write(tmp_path / f"saved-{step}", step), step, best=step in (2, 5))
        assert checkpoints.sweep(grace_s=0, now_s=9e12) == 0
        best = checkpoints.fetch_best(tmp_path / "best")
        assert (best and best.step) == {1: None, 2: 2, 3: 2, 4: 2}.get(step, 5)
    head = read_head(checkpoints.store)
    assert head is not None and [pointer.step for pointer in head.pointers] == [6, 5]
    assert (tmp_path / "best" / "optimizer.pt").read_text() == "moments of step 5"
    assert len(list(checkpoints.store.list("manifests/"))) == 2


def test_a_committed_step_may_be_found_to_be_the_best_later(tmp_path: Path) -> None:
    checkpoints = owner(tmp_path / "store", keep=1)
    for step in (1, 2):
        checkpoints.publish(write(tmp_path / f"saved-{step}", step), step, best=step == 1)
    again = owner(tmp_path / "store", keep=1)
    again.mark_best(2)
    assert [pointer.step for pointer in again.head.pointers] == [2]
    assert len(list(again.store.list("manifests/"))) == 1
    again.publish(write(tmp_path / "saved-3", 3), 3)
    assert [pointer.step for pointer in again.head.pointers] == [3, 2]
    with pytest.raises(FencedError):
        checkpoints.mark_best(2)


def test_what_is_best_is_also_something_to_go_on_from(tmp_path: Path) -> None:
    checkpoints = owner(tmp_path / "store", keep=1)
    for step in (1, 2, 3):
        checkpoints.publish(write(tmp_path / f"saved-{step}", step), step, best=step == 1)
    spoil(blob_of(tmp_path, 3, "optimizer.pt"), "cut")
    restored = restore(tmp_path)
    assert restored is not None and restored.manifest.step == 1


def test_a_best_one_after_the_point_to_go_on_from_is_found_again_not_kept(tmp_path: Path) -> None:
    checkpoints = owner(tmp_path / "store", keep=2)
    for step in (1, 2):
        checkpoints.publish(write(tmp_path / f"saved-{step}", step), step, best=step == 2)
    spoil(blob_of(tmp_path, 2, "optimizer.pt"), "cut")
    again = owner(tmp_path / "store", keep=2)
    again.restore(tmp_path / "restored")
    assert again.head.best is None
    again.publish(write(tmp_path / "new-2", 2), 2, best=True)
    assert again.fetch_best(tmp_path / "best") is not None


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", "trainer_state.json"])
@pytest.mark.parametrize("damage", ["one byte", "cut", "gone", "empty"])
def test_a_damaged_file_means_the_one_before(tmp_path: Path, name: str, damage: str) -> None:
    with_steps(tmp_path, 10, 20)
    spoil(blob_of(tmp_path, 20, name), damage)
    restored = restore(tmp_path)
    assert restored is not None
    assert restored.manifest.step == 10
    assert len(restored.damaged) == 1
    assert restored.damaged[0].startswith(f"step 20: {name} is ")
    assert (tmp_path / "restored" / "optimizer.pt").read_text() == "moments of step 10"


@pytest.mark.parametrize("damage", ["one byte", "cut", "gone", "empty"])
def test_a_damaged_manifest_means_the_one_before(tmp_path: Path, damage: str) -> None:
    checkpoints = with_steps(tmp_path, 10, 20)
    spoil(tmp_path / "store" / checkpoints.head.checkpoints[0].manifest, damage)
    restored = restore(tmp_path)
    assert restored is not None
    assert restored.manifest.step == 10
    assert "manifests/" in restored.damaged[0]


def spoil(path: Path, damage: str) -> None:
    """Damage a stored file."""
    body = bytearray(path.read_bytes())
    if damage == "one byte":
        body[len(body) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"one byte": bytes(body), "cut": bytes(body[:-1]), "empty": b""}[damage])


def test_nothing_intact_is_an_error_not_a_new_start(tmp_path: Path) -> None:
    with_steps(tmp_path, 10, 20)
    for step in (10, 20):
        spoil(blob_of(tmp_path, step, "optimizer.pt"), "one byte")
    with pytest.raises(CorruptDataError, match=r"no checkpoint .* is intact: step 20: .*; step 10: "):
        restore(tmp_path)


def test_a_store_that_cannot_be_reached_is_no_reason_to_go_back(tmp_path: Path) -> None:
    with_steps(tmp_path, 10, 20)
    store = FaultyStore(
        tmp_path / "store", lambda name, key, count: "refused" if name == "get_file" else None
    )
    with pytest.raises(StorageError, match="slow down"):
        owner(store).restore(tmp_path / "restored")


def test_a_bad_transfer_is_repeated(tmp_path: Path) -> None:
    with_steps(tmp_path, 10, 20)

    class BadFirst(FaultyStore):
        def get_file(self, key: str, target: Path) -> str:
            right = super().get_file(key, target)
            if self.count("get_file", key) > 1:
                return right
            target.write_bytes(b"garbage on the way")
            return hash_file(target)

    restored = owner(BadFirst(tmp_path / "store", no_fault)).restore(tmp_path / "restored")
    assert restored is not None
    assert restored.manifest.step == 20


def test_an_interrupted_restore_goes_on_with_the_files_that_are_missing(tmp_path: Path) -> None:
    with_steps(tmp_path, 10, 20)
    away = lambda name, key, count: "refused" if (name, key) == ("get_file", last) else None  # noqa: E731
    last = BLOBS + blob_of(tmp_path, 20, "trainer_state.json").name
    with pytest.raises(StorageError, match="slow down"):
        owner(FaultyStore(tmp_path / "store", away)).restore(tmp_path / "restored")
    target = tmp_path / "restored"
    (target / "optimizer.pt").write_text("moments of step 2?")  # as long, but damaged
    (target / "of-another-kind").mkdir()
    (target / "rng_state.pth").write_text("of another step")
    store = FaultyStore(tmp_path / "store", no_fault)
    restored = owner(store).restore(target)
    assert restored is not None
    assert sorted(path.name for path in target.iterdir()) == [one.path for one in restored.manifest.files]
    fetched = {one.path: store.count("get_file", BLOBS + one.sha256) for one in restored.manifest.files}
    assert fetched == {
        "adapter_model.safetensors": 0,
        "optimizer.pt": 1,
        "tokenizer.json": 0,
        "trainer_state.json": 1,
    }
    assert (target / "optimizer.pt").read_text() == "moments of step 20"


def test_a_damaged_blob_is_sent_again_when_its_content_comes_back(tmp_path: Path) -> None:
    """The tokenizer is part of every checkpoint: a damaged copy must not spoil those to come."""
    with_steps(tmp_path, 10, 20)
    spoil(blob_of(tmp_path, 20, "optimizer.pt"), "one byte")
    again = owner(tmp_path / "store")
    restored = again.restore(tmp_path / "restored")
    assert restored is not None
    assert restored.manifest.step == 10
    again.publish(write(tmp_path / "saved-20-again", 20), 20)
    last = restore(tmp_path)
    assert last is not None
    assert (last.manifest.step, last.damaged) == (20, ())


def test_a_check_that_fails_is_a_damage(tmp_path: Path) -> None:
    with_steps(tmp_path, 10, 20)

    def check(directory: Path) -> None:
        if "20" in (directory / "trainer_state.json").read_text():
            raise CorruptDataError("no scheduler")

    restored = owner(tmp_path / "store").restore(tmp_path / "restored", check)
    assert restored is not None
    assert (restored.manifest.step, restored.damaged) == (10, ("step 20: no scheduler",))


def forge(tmp_path: Path, change: object) -> None:
    """Rewrite the newest manifest and its hash in HEAD, as somebody with access to the store could."""
    store = DirectoryStore(tmp_path / "store")
    head = json.loads((tmp_path / "store" / HEAD_KEY).read_text())
    path = tmp_path / "store" / head["checkpoints"][0]["manifest"]
    manifest = json.loads(path.read_text())
    change(manifest)  # type: ignore[operator]
    path.write_text(json.dumps(manifest))
    head["checkpoints"][0]["sha256"] = sha256_of(path.read_bytes())
    del head["sha256"]
    store.put(HEAD_KEY, json.dumps(head).encode())


@pytest.mark.parametrize(
    "name",
    ["../../evil", "/etc/passwd", "a/b.safetensors", "evil.pkl", "training_args.bin", "run.py", "", "HEAD\n"],
)
def test_names_that_no_checkpoint_has_are_refused(tmp_path: Path, name: str) -> None:
    with_steps(tmp_path, 10, 20)
    forge(tmp_path, lambda manifest: manifest["files"][0].update(path=name))
    restored = restore(tmp_path)
    assert restored is not None
    assert restored.manifest.step == 10
    assert "refused" in restored.damaged[0]
    assert not (tmp_path / "evil").exists()


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    with_steps(tmp_path, 10, 20)
    forge(tmp_path, lambda manifest: manifest["files"].append(manifest["files"][0]))
    restored = restore(tmp_path)
    assert restored is not None
    assert "twice" in restored.damaged[0]


def test_a_manifest_of_the_future_stops_us(tmp_path: Path) -> None:
    """Going back to an older checkpoint would throw away what a newer version did."""
    with_steps(tmp_path, 10, 20)
    forge(tmp_path, lambda manifest: manifest.update(schema_version=2))
    with pytest.raises(StorageError, match="has format 2, this version reads 1") as caught:
        restore(tmp_path)
    assert caught.value.code == "future_format"
    assert caught.value.hint == "update tuneplan"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"schema": "other"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schema": "tuneplan/head", "fence": "x"}',
    ],
)
def test_a_damaged_head_stops_us(tmp_path: Path, body: bytes) -> None:
    with_steps(tmp_path, 10)
    (tmp_path / "store" / HEAD_KEY).write_bytes(body)
    with pytest.raises(CorruptDataError, match="HEAD"):
        restore(tmp_path)
    assert (tmp_path / "store" / HEAD_KEY).read_bytes() == body


def test_one_wrong_bit_anywhere_in_head_stops_us(tmp_path: Path) -> None:
    """Else a digit of a name that became another digit would quietly throw a checkpoint away."""
    with_steps(tmp_path, 10, 20)
    path = tmp_path / "store" / HEAD_KEY
    body = path.read_bytes()
    for place in range(0, len(body), 11):
        path.write_bytes(body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :])
        if not (harmless := only_the_layout_or_the_checksums_name(path.read_bytes(), body)):
            with pytest.raises(StorageError):
                read_head(DirectoryStore(tmp_path / "store"))
        assert not harmless or read_head(DirectoryStore(tmp_path / "store")) == parse_head(body)


def only_the_layout_or_the_checksums_name(one: bytes, other: bytes) -> bool:
    """Whether both are JSON of the same content, as far as it counts."""
    with contextlib.suppress(ValueError):
        first, second = json.loads(one), json.loads(other)
        return bool(first == second or "sha256" not in first)
    return False


@pytest.mark.parametrize("key", [HEAD_KEY, "manifests/"])
def test_documents_damaged_on_their_way_are_read_again(tmp_path: Path, key: str) -> None:
    with_steps(tmp_path, 10, 20)

    class BadTwice(FaultyStore):
        def get(self, key_: str) -> tuple[bytes, str] | None:
            found = super().get(key_)
            bad = found is not None and key_.startswith(key) and self.count("get", key_) <= 2
            return (found[0].replace(b"2", b"3", 1), found[1]) if found and bad else found

    restored = owner(BadTwice(tmp_path / "store", no_fault)).restore(tmp_path / "restored")
    assert restored is not None
    assert (restored.manifest.step, restored.damaged) == (20, ())


def test_head_of_a_writer_that_gave_no_checksum_is_read(tmp_path: Path) -> None:
    with_steps(tmp_path, 10)
    head = json.loads((tmp_path / "store" / HEAD_KEY).read_text())
    del head["sha256"]
    (tmp_path / "store" / HEAD_KEY).write_text(json.dumps(head))
    restored = restore(tmp_path)
    assert restored is not None
    assert restored.manifest.step == 10


def test_head_cannot_point_elsewhere(tmp_path: Path) -> None:
    with_steps(tmp_path, 10)
    head = json.loads((tmp_path / "store" / HEAD_KEY).read_text())
    head["checkpoints"][0]["manifest"] = "../other/manifest.json"
    del head["sha256"]
    (tmp_path / "store" / HEAD_KEY).write_text(json.dumps(head))
    with pytest.raises(CorruptDataError, match="impossible manifest"):
        restore(tmp_path)


def test_a_newer_attempt_fences_the_older(tmp_path: Path) -> None:
    old = with_steps(tmp_path, 10)
    new = owner(tmp_path / "store")
    assert new.head.fence == old.head.fence + 1
    with pytest.raises(FencedError, match=r"attempt 1 lost .* to attempt 2"):
        old.publish(write(tmp_path / "late", 11), 11)
    with pytest.raises(FencedError):
        old.publish_output(tmp_path / "late", 11)
    with pytest.raises(FencedError):
        old.sweep(grace_s=0)
    assert [pointer.step for pointer in new.head.checkpoints] == [10]
    restored = restore(tmp_path)
    assert restored is not None
    assert restored.manifest.step == 10


def test_of_many_attempts_that_take_over_at_once_each_has_its_own_fence(tmp_path: Path) -> None:
    barrier, fences = threading.Barrier(8), []

    def take_over() -> None:
        checkpoints = CheckpointStore(DirectoryStore(tmp_path / "store"), "run-1")
        barrier.wait()
        fences.append(checkpoints.take_over().fence)

    threads = [threading.Thread(target=take_over) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fences) == list(range(1, 9))


def test_two_attempts_race_and_no_commit_of_the_fenced_one_stays(tmp_path: Path) -> None:
    """The older one commits as fast as it can while the newer one takes over, many times."""
    older, newest = owner(tmp_path / "store"), None
    for first_step in range(0, 25_000, 1000):
        acknowledged: list[int] = []
        thread = threading.Thread(
            target=commit_until_fenced, args=(older, tmp_path, first_step, acknowledged)
        )
        thread.start()
        newer = owner(tmp_path / "store")
        thread.join()
        newest = acknowledged[-1] if acknowledged else newest
        assert (newer.head.newest.step if newer.head.newest else None) == newest
        head = read_head(DirectoryStore(tmp_path / "store"))
        assert head == newer.head
        older = newer


def commit_until_fenced(
    old: CheckpointStore, tmp_path: Path, first_step: int, acknowledged: list[int]
) -> None:
    """Commit step after step; returns when fenced."""
    with contextlib.suppress(FencedError):
        for step in range(first_step, first_step + 1000):
            old.publish(write(tmp_path / f"old-{first_step}", step), step)
            acknowledged.append(step)
        pytest.fail("never fenced")


@pytest.mark.parametrize("operation", ["put_file", "put_if_absent", "compare_and_swap"])
@pytest.mark.parametrize("fault", ["refused", "lost", "retried"])
def test_a_fault_loses_nothing_that_was_acknowledged(tmp_path: Path, operation: str, fault: str) -> None:
    """The commit of step 20 meets one fault and is tried again."""
    store = FaultyStore(tmp_path / "store", no_fault)
    checkpoints = owner(store)
    checkpoints.publish(write(tmp_path / "saved-10", 10), 10)
    before = store.count(operation)
    store.fault = lambda name, _, count: fault if (name, count) == (operation, before + 1) else None
    saved = write(tmp_path / "saved-20", 20)
    if fault == "retried":
        checkpoints.publish(saved, 20)
    else:
        with pytest.raises(StorageError):
            checkpoints.publish(saved, 20)
        interim = restore_without_takeover(tmp_path)
        assert interim in (10, 20)
        checkpoints.publish(saved, 20)
    checkpoints.publish(write(tmp_path / "saved-30", 30), 30)
    assert [pointer.step for pointer in checkpoints.head.checkpoints] == [30, 20, 10]
    restored = restore(tmp_path)
    assert restored is not None
    assert (restored.manifest.step, restored.damaged) == (30, ())


def restore_without_takeover(tmp_path: Path) -> int:
    """Step of the newest checkpoint, fully verified."""
    store = DirectoryStore(tmp_path / "store")
    head = read_head(store)
    assert head is not None
    assert head.newest is not None
    manifest = read_manifest(store, head.newest)
    verify_files(store, manifest, tmp_path / "scratch")
    return manifest.step


@pytest.mark.parametrize("fault", ["lost", "retried"])
def test_a_takeover_whose_answer_is_lost(tmp_path: Path, fault: str) -> None:
    with_steps(tmp_path, 10)
    store = FaultyStore(tmp_path / "store", lambda name, _, __: fault if name == "compare_and_swap" else None)
    checkpoints = CheckpointStore(store, "run-1")
    if fault == "lost":
        with pytest.raises(StorageError, match="reset"):
            checkpoints.take_over()
    else:
        assert checkpoints.take_over().fence == 2
    assert owner(tmp_path / "store").head.fence == 3


@pytest.mark.parametrize("seed", range(10))
def test_random_faults_never_lose_an_acknowledged_step(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    acknowledged = 0
    for _ in range(4):

        def fault(name: str, key: str, count: int) -> str | None:
            kinds = ("refused", "lost", "retried") if name != "delete" else ("refused", "retried")
            return rng.choice(kinds) if rng.random() < 0.05 else None

        store = FaultyStore(tmp_path / "store", fault)
        try:
            checkpoints = owner(store, keep=2)
            restored = checkpoints.restore(tmp_path / "restored")
        except StorageError:
            continue
        first = restored.manifest.step if restored else 0
        assert first >= acknowledged
        assert restored is None or restored.damaged == ()
        for step in range(first + 1, first + 6):
            try:
                acknowledged = checkpoints.publish(write(tmp_path / "saved", step), step).step
            except FencedError:
                raise
            except StorageError:
                continue
    assert (restore_without_takeover(tmp_path) if acknowledged else 0) >= acknowledged


def test_sweeping_removes_left_overs_and_nothing_else(tmp_path: Path) -> None:
    checkpoints = with_steps(tmp_path, 10, 20)
    store = DirectoryStore(tmp_path / "store")
    store.put("blobs/" + "0" * 64, b"an upload that was never committed")
    store.put("manifests/000000000015-000001.json", b"{}")
    now_s = max(item.modified_s for item in store.list(""))
    assert checkpoints.sweep(grace_s=60, now_s=now_s + 30) == 0
    assert checkpoints.sweep(grace_s=60, now_s=now_s + 90) == 2
    restored = restore(tmp_path)
    assert restored is not None
    assert restored.damaged == ()


def test_the_output_outlives_retention(tmp_path: Path) -> None:
    checkpoints = with_steps(tmp_path, 10, keep=1)
    reference = checkpoints.publish_output(write(tmp_path / "final", 10), 10)
    for step in (20, 30):
        checkpoints.publish(write(tmp_path / f"saved-{step}", step), step)
    store = DirectoryStore(tmp_path / "store")
    head = read_head(store)
    assert head is not None
    assert head.output is not None
    assert head.output.sha256 == reference.manifest_sha256
    verify_files(store, read_manifest(store, head.output), tmp_path / "scratch")


def test_head_is_read_by_us_as_we_write_it(tmp_path: Path) -> None:
    checkpoints = with_steps(tmp_path, 10)
    head = read_head(DirectoryStore(tmp_path / "store"))
    assert head == checkpoints.head
    assert head != Head()
