"""A run that is killed, stopped, damaged or doubled ends with the very same weights as an undisturbed one."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.codec import encode
from jobs.committed import fetch_files, read_manifest
from jobs.manifest import BLOBS, HEAD_KEY, sha256_of
from jobs.spec import JobSpec, LimitsJob
from jobs.stop_request import KEY, stop_request
from tests.jobs.metadata_server import SPOT, metadata_server
from tests.jobs.runs import Runs, renamed
from tests.jobs.zygote import Zygote

pytestmark = pytest.mark.train

KINDS = ("lora", "full")


@pytest.fixture(scope="module")
def undisturbed(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hash of the final weights of each kind of run."""
    runs = Runs(zygote, tmp_path_factory.mktemp("undisturbed"))
    hashes = {}
    for kind in KINDS:
        runs.complete(runs.sft(kind, kind=kind))
        hashes[kind] = runs.weights(kind)
    assert len(set(hashes.values())) == len(KINDS)
    return hashes


def saving(runs: Runs, name: str, step: int) -> Callable[[], bool]:
    """The trainer has begun to write the checkpoint of this step."""
    work = runs.root / name / "work"
    return lambda: any(work.glob(f"attempt-*/saving/checkpoint-{step}"))


def uploading(runs: Runs, name: str) -> Callable[[], bool]:
    """A blob is in the store that no committed manifest names."""
    blobs = runs.root / name / "store" / "blobs"
    before = len(list(blobs.iterdir())) if blobs.exists() else 0
    return lambda: blobs.exists() and len(list(blobs.iterdir())) > before


def committed(runs: Runs, name: str, step: int) -> Callable[[], bool]:
    """HEAD names a checkpoint of this step or a later one."""
    return lambda: runs.newest_step(name) >= step


def handing_over(runs: Runs, name: str) -> Callable[[], bool]:
    """The finished model is being written."""
    work = runs.root / name / "work"
    return lambda: any(work.glob("attempt-*/output"))


def after(seconds: float) -> Callable[[], bool]:
    """That long after now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_every_stage(runs: Runs, undisturbed: dict[str, str], kind: str) -> None:
    """Loading, saving, uploading, right after a commit, in the last evaluation, in handing over."""
    job = runs.sft("run", kind=kind)
    moments = [
        lambda: lambda: runs.head("run").fence >= 1,
        lambda: saving(runs, "run", 4),
        lambda: uploading(runs, "run"),
        lambda: committed(runs, "run", runs.newest_step("run") + 4),
        lambda: saving(runs, "run", 24),
        lambda: handing_over(runs, "run"),
    ]
    reached = 0
    for moment in moments:
        assert runs.interrupt(job, moment()) == -signal.SIGKILL, runs.log("run")
        assert runs.newest_step("run") >= reached
        reached = runs.newest_step("run")
    assert reached >= 20
    progress = runs.complete(job)
    assert runs.weights("run") == undisturbed[kind]
    assert progress.fence == len(moments) + 1
    assert progress.resumed_from_step is not None
    assert progress.resumed_from_step >= reached
    assert "passed over" not in runs.log("run")


def test_killed_at_random_moments(runs: Runs, undisturbed: dict[str, str]) -> None:
    rng = random.Random(11)
    job, reached, codes = runs.sft("run"), 0, []
    while len(codes) < 6 and 0 not in codes:  # a fast machine may be done before it is killed
        codes.append(runs.interrupt(job, after(rng.uniform(0.2, 1.2))))
        assert codes[-1] in (0, -signal.SIGKILL)
        assert runs.newest_step("run") >= reached
        reached = runs.newest_step("run")
    assert -signal.SIGKILL in codes
    runs.complete(job)
    assert runs.weights("run") == undisturbed["lora"]


def test_what_was_restored_and_handed_over_goes_from_the_disk(runs: Runs) -> None:
    """A checkpoint of a whole model is several times as large as the model."""
    job, work = runs.sft("run"), runs.root / "run" / "work"
    runs.interrupt(job, committed(runs, "run", 4))
    runs.interrupt(job, committed(runs, "run", runs.newest_step("run") + 4))
    assert "resuming from step" in runs.log("run")
    assert (work / "attempt-2").exists() and not (work / "attempt-2" / "restored").exists()
    runs.complete(job)
    assert [path.name for path in work.iterdir()] == ["progress.json"]


def test_the_base_is_evaluated_once(runs: Runs) -> None:
    job = runs.sft("run")
    runs.interrupt(job, committed(runs, "run", 4))
    before = runs.store("run").get("base-scores.json")
    progress = runs.complete(job)
    assert before is not None
    assert runs.log("run").count("base: exact_match") == 1
    assert {metric.name: metric.base for metric in progress.metrics} == json.loads(before[0])["values"]


@pytest.mark.parametrize("use", ["train", "eval"])
def test_an_attempt_with_other_data_is_refused(runs: Runs, undisturbed: dict[str, str], use: str) -> None:
    job = runs.sft("run")
    runs.interrupt(job, committed(runs, "run", 4))
    reached = runs.newest_step("run")
    data = runs.root / "data" / f"{use}.jsonl"
    before = data.read_text()
    data.write_text("".join(before.splitlines(keepends=True)[1:]))
    assert runs.finish(job) == 78
    assert runs.progress("run").exit_reason == f"the {use} data {data} is not what this run began with"
    assert runs.newest_step("run") == reached
    data.write_text(before)
    runs.complete(job)
    assert runs.weights("run") == undisturbed["lora"]


def test_sigterm_commits_the_step_it_is_at(runs: Runs, undisturbed: dict[str, str]) -> None:
    job = replace(runs.sft("run"), checkpoints=replace(runs.sft("run").checkpoints, every_steps=1000))
    code = runs.interrupt(job, lambda: "training from step 0" in runs.log("run"), signal.SIGTERM)
    progress = runs.progress("run")
    assert code == 75
    assert progress.state == "preempted"
    assert progress.exit_reason == "told to stop by SIGTERM"
    assert 1 <= runs.newest_step("run") == progress.step < 24
    final = runs.complete(job)
    assert final.resumed_from_step == progress.step
    assert final.lost_steps == 0
    assert runs.weights("run") == undisturbed["lora"]


def test_a_stop_asked_for_in_the_store_commits_the_step_it_is_at_and_binds_one_launch(
    runs: Runs, undisturbed: dict[str, str]
) -> None:
    plain = runs.sft("run")
    at = LimitsJob(launch=2, launched_at="2026-11-22T12:00:00.000Z")
    job = replace(plain, checkpoints=replace(plain.checkpoints, every_steps=1000), limits=at)
    store = runs.store("run")
    store.put(KEY, stop_request("run", 2, "2026-11-21T12:00:00.000Z"))  # of a ledger that was lost
    pid = runs.start(job, "tests.jobs.runs:train_looking_often")
    while "training from step 0" not in runs.log("run"):
        time.sleep(0.001)
    store.put(KEY, stop_request("run", 2, at.launched_at))
    assert runs.zygote.wait(pid) == 77, runs.log("run")
    progress = runs.progress("run")
    assert (progress.state, progress.exit_reason) == ("preempted", "asked to end")
    assert 1 <= runs.newest_step("run") == progress.step < 24
    assert runs.zygote.wait(runs.start(job)) == 77  # restarted by its backend: the launch shall end
    runs.complete(replace(job, limits=replace(at, launch=3)))
    assert runs.weights("run") == undisturbed["lora"]


@pytest.mark.parametrize(("left_s", "code"), [(120, 75), (-1, 76)])
def test_a_spot_notice(runs: Runs, undisturbed: dict[str, str], left_s: int, code: int) -> None:
    """With time for a checkpoint there is one; without, the run ends at once and says so by its exit code."""
    plain = runs.sft("run")
    job = replace(plain, checkpoints=replace(plain.checkpoints, every_steps=1000, hazard_per_h=0.5))
    with metadata_server("aws") as cloud:
        (runs.root / "run" / "metadata").write_text(cloud.endpoint)
        pid = runs.start(job, "tests.jobs.runs:train_on_a_rented_machine")
        while "training from step 0" not in runs.log("run"):
            time.sleep(0.001)
        at = datetime.now(UTC) + timedelta(seconds=left_s)
        cloud.says[SPOT] = json.dumps({"action": "terminate", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"})
        assert runs.zygote.wait(pid) == code, runs.log("run")
    progress = runs.progress("run")
    assert (progress.state, progress.exit_reason) == ("preempted", "AWS spot interruption")
    assert runs.newest_step("run") == (progress.step if code == 75 else 0)
    runs.complete(plain)
    assert runs.weights("run") == undisturbed["lora"]


def test_a_full_disk_ends_the_run_with_a_clear_error(runs: Runs, undisturbed: dict[str, str]) -> None:
    job = runs.sft("run")
    runs.interrupt(job, committed(runs, "run", 8))
    reached = runs.newest_step("run")
    pid = runs.start(job, "tests.jobs.runs:train_on_a_small_disk")
    assert runs.zygote.wait(pid) == 1
    last = runs.log("run").splitlines()[-2:]
    assert last[0].startswith("error: no checkpoint of step ")
    assert "can be saved: the disk of this machine is full" in last[0]
    assert (
        last[1]
        == "hint: free some disk space, or take a machine with a larger disk; committed checkpoints stand"
    )
    assert runs.newest_step("run") == reached
    runs.complete(job)
    assert runs.weights("run") == undisturbed["lora"]


def test_sigterm_before_the_first_step_has_nothing_to_commit(runs: Runs) -> None:
    job = runs.sft("run")
    code = runs.interrupt(job, lambda: "examples to learn from" in runs.log("run"), signal.SIGTERM)
    assert code == 76
    assert runs.newest_step("run") == 0
    assert runs.progress("run").state == "preempted"


def test_sigterm_after_training_needs_no_new_checkpoint(runs: Runs, undisturbed: dict[str, str]) -> None:
    job = runs.sft("run")
    code = runs.interrupt(job, committed(runs, "run", 24), signal.SIGTERM)
    if code == 0:
        pytest.skip("the run ended before the signal reached it")
    assert code == 75
    runs.complete(job)
    assert runs.weights("run") == undisturbed["lora"]


def test_a_fenced_attempt_ends_and_its_successor_finishes(runs: Runs, undisturbed: dict[str, str]) -> None:
    job = runs.sft("run", every=1)
    older = runs.start(job)
    while runs.newest_step("run") < 3:
        time.sleep(0.001)
    newer = runs.start(job)
    assert runs.zygote.wait(older) == 1
    assert runs.zygote.wait(newer) == 0
    assert "attempt 1 lost" in runs.log("run")
    assert runs.progress("run").fence == 2
    assert runs.progress("run").state == "done"
    assert runs.weights("run") == undisturbed["lora"]


@pytest.fixture(scope="module")
def killed(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store of a run that was killed with several committed checkpoints."""
    runs = Runs(zygote, tmp_path_factory.mktemp("killed"))
    runs.interrupt(runs.sft("run", every=4), committed(runs, "run", 12))
    assert runs.newest_step("run") < 24
    return runs.root / "run" / "store"


@pytest.fixture
def interrupted(runs: Runs, killed: Path) -> JobSpec:
    """A copy of that run."""
    shutil.copytree(killed, runs.root / "run" / "store")
    return runs.sft("run", every=4)


def drop(name: str) -> Callable[[Path], None]:
    """The newest manifest does not name the file, as if it had been forgotten when saving."""

    def damage(store: Path) -> None:
        rewrite(store, lambda files: [file for file in files if file["path"] != name])

    return damage


def plant(name: str, body: bytes) -> Callable[[Path], None]:
    """The newest manifest names this content, with the right hash."""

    def damage(store: Path) -> None:
        (store / BLOBS / sha256_of(body)).write_bytes(body)
        entry = {"path": name, "bytes": len(body), "sha256": sha256_of(body)}
        rewrite(store, lambda files: [*(file for file in files if file["path"] != name), entry])

    return damage


def flip(name: str) -> Callable[[Path], None]:
    """One bit of the stored file is wrong."""

    def damage(store: Path) -> None:
        path = next(file for file in newest_files(store) if file["path"] == name)
        blob = store / BLOBS / str(path["sha256"])
        body = bytearray(blob.read_bytes())
        body[len(body) // 2] ^= 1
        blob.write_bytes(body)

    return damage


def newest_files(store: Path) -> list[dict[str, object]]:
    """Files of the newest manifest."""
    head = json.loads((store / HEAD_KEY).read_text())
    files: list[dict[str, object]] = json.loads((store / head["checkpoints"][0]["manifest"]).read_text())[
        "files"
    ]
    return files


def rewrite(store: Path, change: Callable[[list[dict[str, object]]], list[dict[str, object]]]) -> None:
    """Forge the newest manifest and its hash in HEAD."""
    head = json.loads((store / HEAD_KEY).read_text())
    path = store / head["checkpoints"][0]["manifest"]
    manifest = json.loads(path.read_text())
    manifest["files"] = change(manifest["files"])
    path.write_text(json.dumps(manifest))
    head["checkpoints"][0]["sha256"] = sha256_of(path.read_bytes())
    head.pop("sha256", None)
    (store / HEAD_KEY).write_text(json.dumps(head))


class Bomb:
    """Unpickling this would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.trace,)


DAMAGES = {
    "flipped weights": flip("adapter_model.safetensors"),
    "flipped optimizer": flip("optimizer.pt"),
    "no optimizer": drop("optimizer.pt"),
    "no scheduler": drop("scheduler.pt"),
    "no random state": drop("rng_state.pth"),
    "no trainer state": drop("trainer_state.json"),
    "no weights": drop("adapter_model.safetensors"),
    "optimizer that is no tensor file": plant("optimizer.pt", b"not a zip"),
    "scheduler of another kind": plant("scheduler.pt", pickle.dumps([1, 2])),
    "weights with a wrong header": plant("adapter_model.safetensors", b"\xff" * 64),
    "trainer state that is no JSON": plant("trainer_state.json", b"{"),
}


#: One of each way that a checkpoint can be no good; the other damages are tried in the long suite.
FIRST = ("flipped weights", "no optimizer", "no trainer state", "scheduler of another kind")


@pytest.mark.parametrize(
    "damage", [name if name in FIRST else pytest.param(name, marks=pytest.mark.long) for name in DAMAGES]
)
def test_a_damaged_checkpoint_is_passed_over(
    runs: Runs, interrupted: JobSpec, undisturbed: dict[str, str], damage: str
) -> None:
    newest, older = (pointer.step for pointer in runs.head("run").checkpoints[:2])
    DAMAGES[damage](runs.root / "run" / "store")
    progress = runs.complete(interrupted)
    assert f"passed over a damaged checkpoint: step {newest}: " in runs.log("run")
    assert progress.resumed_from_step == older
    assert runs.weights("run") == undisturbed["lora"]


def test_what_a_killed_attempt_had_restored_is_not_downloaded_again(
    runs: Runs, interrupted: JobSpec, undisturbed: dict[str, str]
) -> None:
    """Shown by a file that only the scratch directory has whole."""
    newest = runs.head("run").checkpoints[0]
    restored = runs.root / "run" / "work" / "attempt-1" / "restored"
    fetch_files(runs.store("run"), read_manifest(runs.store("run"), newest), restored)
    (restored / "optimizer.pt").write_bytes(b"cut off")
    flip("adapter_model.safetensors")(runs.root / "run" / "store")
    progress = runs.complete(interrupted)
    assert progress.resumed_from_step == newest.step
    assert runs.weights("run") == undisturbed["lora"]


def test_a_pickle_bomb_does_not_go_off(runs: Runs, interrupted: JobSpec, undisturbed: dict[str, str]) -> None:
    trace = runs.root / "it went off"
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        plant(name, pickle.dumps(Bomb(trace)))(runs.root / "run" / "store")
    runs.complete(interrupted)
    assert "is refused" in runs.log("run")
    assert not trace.exists()
    assert runs.weights("run") == undisturbed["lora"]


def test_no_intact_checkpoint_ends_the_run(runs: Runs, interrupted: JobSpec) -> None:
    for blob in (runs.root / "run" / "store" / BLOBS).iterdir():
        blob.write_bytes(b"")
    assert runs.finish(interrupted) == 1
    assert "is intact" in runs.log("run")
    assert runs.progress("run").state == "failed"


def test_a_torn_progress_document_is_no_obstacle(runs: Runs, interrupted: JobSpec) -> None:
    runs.store("run").put("progress.json", b'{"schema": "tuneplan/prog')
    assert runs.complete(interrupted).state == "done"
    assert "what the attempt before said is lost" in runs.log("run")


def test_the_scaler_of_a_loss_goes_on(runs: Runs) -> None:
    scaled = "tests.jobs.runs:train_with_a_scaler"
    job = runs.sft("scaled", steps=12)
    assert runs.zygote.wait(runs.start(job, scaled)) == 0, runs.log("scaled")
    twin = renamed(runs, job, "twin")
    runs.interrupt(twin, lambda: runs.newest_step("twin") >= 4, function=scaled)
    assert runs.zygote.wait(runs.start(twin, scaled)) == 0, runs.log("twin")
    assert (runs.progress("twin").resumed_from_step or 0) >= 4
    last = [
        {
            entry.path: entry.sha256
            for entry in read_manifest(runs.store(name), runs.head(name).checkpoints[0]).files
        }
        for name in ("scaled", "twin")
    ]
    assert last[0]["scaler.pt"] == last[1]["scaler.pt"]
    assert runs.weights("twin") == runs.weights("scaled")


def test_lost_steps_are_counted(runs: Runs) -> None:
    job = runs.sft("run", steps=24, every=4)
    runs.interrupt(job, committed(runs, "run", 8))
    store = runs.store("run")
    said = runs.progress("run")
    newest = runs.newest_step("run")
    store.put("progress.json", encode(replace(said, step=newest + 3, lost_steps=2)).encode())
    progress = runs.complete(job)
    assert progress.resumed_from_step == newest
    assert progress.lost_steps == 5


def test_equal_jobs_give_equal_weights(runs: Runs, undisturbed: dict[str, str]) -> None:
    job = renamed(runs, runs.sft("run", every=7), "other")
    runs.complete(job)
    assert runs.weights("other") == undisturbed["lora"]
