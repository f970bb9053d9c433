"""A disk that is full: one clear error, and what was there before is there after, to the last byte."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import Result

from tests.file_host import file_host
from tests.hub_host import HostedModel, hub_host
from tests.planner.test_simulate import _JOBS, _files

Run = Callable[..., Result]
GOAT = Path(__file__).parents[2] / "examples" / "tiny-goat"
ROBERTA = GOAT.parent / "roberta-sentiment.yaml"
COLUMNS = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region\n"
CATALOG = COLUMNS + "".join(f"p5-{n},H100,8,192,2048,,55,30,us-east-1\n" for n in range(900))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB that the test may fill."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place]
    try:
        mounted = subprocess.run(words, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount")
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(disk: Path, spare_bytes: int = 0) -> None:
    """Leave this much."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            file.truncate(max(file.tell() - spare_bytes, 0))


def files(disk: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(disk)): path.read_bytes()
        for path in disk.rglob("*")
        if path.is_file() and path.name != "filler"
    }


def refused(disk: Path, run: Callable[[], Result]) -> str:
    """The one error of a command on a full disk, which leaves nothing."""
    before = files(disk)
    result = run()
    assert result.exit_code not in (0, 130), result.stdout
    assert result.stderr.count("error: ") == 1 and "internal error" not in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    # A part of a download is kept, with its tag: it goes on where it stopped. A lock is an empty file that stays.
    kept = (".jsonl.part", ".jsonl.tag", ".lock")
    after = {name: content for name, content in files(disk).items() if not name.endswith(kept)}
    left = {name for name, content in after.items() if before.get(name) != content}
    assert not left and set(before) <= set(after)
    return result.stderr


WRITERS: dict[str, tuple[object, ...]] = {
    "plan": ("estimate", ROBERTA, "--out", "{disk}/plan.json"),
    "plot": ("estimate", ROBERTA, "--plot", "{disk}/plot.svg"),
    "picture": ("estimate", ROBERTA, "--plot", "{disk}/plot.png"),
    "risk": ("simulate", ROBERTA, "--jobs", "20", "--plot", "{disk}/risk.svg"),
    "replay": ("simulate", "--traces", "{data}", "--jobs", "{jobs}", "--out", "{disk}/results.csv"),
    "spec": ("init", "{disk}/spec.yaml", "--yes"),
    "prices": ("prices", "import", "{v8}", "--out", "{disk}/prices.csv"),
    "predictions": ("backtest", "{runs}", "--out", "{disk}/predictions.csv"),
}


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, str]:
    """Files that commands read."""
    (tmp_path / "v8" / "aws").mkdir(parents=True)
    (tmp_path / "v8" / "aws" / "vms.csv").write_text(CATALOG)
    rows = "".join(f"{n},meta-llama/Llama-3.1-8B,NoSuchGPU\n" for n in range(99))
    (tmp_path / "runs.csv").write_text(f"id,model,gpu\n{rows}")
    data, jobs = _files(tmp_path, _JOBS)
    return {
        "v8": str(tmp_path / "v8"),
        "runs": str(tmp_path / "runs.csv"),
        "data": str(data),
        "jobs": str(jobs),
    }


@pytest.mark.parametrize("old", [False, True], ids=["new", "over-an-old-one"])
@pytest.mark.parametrize("name", WRITERS)
def test_files_are_written_whole_or_not_at_all(
    run_plan: Run, disk: Path, inputs: dict[str, str], name: str, old: bool
) -> None:
    words = [str(word).format(disk=disk, **inputs) for word in WRITERS[name]]
    target = disk / words[-1 if name != "spec" else 1].rpartition("/")[2]
    if old:
        if name == "spec":
            pytest.skip("a spec that exists is never written over")
        target.write_text("as it was\n")
    fill(disk)
    said = refused(disk, lambda: run_plan(*words))
    assert target.name in said


@pytest.mark.parametrize("spare_bytes", [0, 8192, 65536])
def test_the_ledger(run_plan: Run, disk: Path, monkeypatch: pytest.MonkeyPatch, spare_bytes: int) -> None:
    monkeypatch.setenv("PLAN_HOME", str(disk / "home"))
    fill(disk, spare_bytes)
    words = ("launch", GOAT / "spec.yaml", "--infra", "local", "--run-id", "goat-1", "--no-cap", "--yes")
    result = run_plan(*words)
    assert result.exit_code != 0 and "internal error" not in result.stderr, result.stderr
    assert result.stderr.count("error: ") == 1
    (disk / "filler").unlink()
    shown = json.loads(run_plan("runs", "-o", "json").stdout)
    assert [run["state"] for run in shown["runs"]] in ([], ["queued"], ["failed"])
    run_plan("cancel", "goat-1")


def test_the_prices_in_use_stay(run_plan: Run, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAN_HOME", str(disk / "home"))
    monkeypatch.setattr("providers.web._WAITS_S", ())
    monkeypatch.setattr("providers.download._WAITS_S", ())
    with file_host() as host:
        host.files["/aws/vms.csv"] = (COLUMNS + "p5,H100,8,192,2048,,55,30,us-east-1\n").encode()
        assert run_plan("prices", "update", "--url", host.url).exit_code == 0
        kept = (disk / "home" / "cache" / "prices.csv").read_bytes()
        host.files["/aws/vms.csv"] = CATALOG.encode()
        fill(disk, 4096)
        result = run_plan("prices", "update", "--url", host.url)
        assert result.exit_code not in (0, 130) and "internal error" not in result.stderr, result.stderr
        assert result.stderr.count("error: ") == 1
        assert (disk / "home" / "cache" / "prices.csv").read_bytes() == kept
        (disk / "filler").unlink()
        again = run_plan("prices", "update", "--url", host.url)
        assert again.exit_code == 0, again.stderr
        assert "read 900 rows" in again.stdout


def test_fetched_data_and_models(
    run_plan: Run, disk: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLAN_HOME", str(disk / "home"))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with ExitStack() as hosts:
        hub = hosts.enter_context(hub_host())
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        rows = b'{"text": "one and one is two"}\n' * 9000
        hub.models["lab/sums"] = HostedModel({"data/train-0.jsonl": rows})
        spec = tmp_path / "spec.yaml"
        spec.write_text("name: x\nmodel: llama-3.2-1b\ndata: {train: lab/sums}\n")
        (disk / "home").mkdir()
        fill(disk, 16384)
        refused(disk, lambda: run_plan("data", "fetch", spec))
        (disk / "filler").unlink()
        assert run_plan("data", "fetch", spec).exit_code == 0
