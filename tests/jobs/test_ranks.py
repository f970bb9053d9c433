"""Ranks of one training: what each is told, and what the outside hears of how they ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.ranks import Place, rank_environment
from jobs.train import set_defaults
from tests.workers import eventually

#: Stands in for the Python that runs `jobs.train`: writes down what it was told, then ends as the test says.
WORKER = """\
#!{python} -S
import json, os, signal, sys, time
rank = os.environ["RANK"]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
with open("being-told-" + rank, "w") as file:
    json.dump([sys.argv[1:], dict(os.environ)], file)
os.rename("being-told-" + rank, "told-" + rank)
end = os.environ.get("END_" + rank, "0")
if end == "wait":
    time.sleep(300)
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(end))
"""
RUN = """\
import sys, jobs.ranks
jobs.ranks._GRACE_S, sys.executable = {grace_s}, {python!r}
sys.exit(jobs.ranks.main(sys.argv[1:]))
"""
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start ranks whose workers are stand-ins."""
    python = tmp_path / "python"
    python.write_text(WORKER.format(python=sys.executable))
    python.chmod(0o755)
    started: list[subprocess.Popen[bytes]] = []

    def run(count: int, *, grace_s: float = 60.0, **env: str) -> subprocess.Popen[bytes]:
        code = RUN.format(grace_s=grace_s, python=str(python))
        outside = {name: value for name, value in os.environ.items() if not name.startswith("SKYPILOT")}
        outside["PYTHONPATH"] = str(Path(__file__).parents[2])
        command = [sys.executable, "-c", code, str(count), "job.json"]
        started.append(subprocess.Popen(command, env=outside | env, cwd=tmp_path))
        return started[-1]

    yield run
    for each in started:
        each.kill()
        each.wait()


def told(tmp_path: Path, rank: int) -> tuple[list[str], dict[str, Any]]:
    arguments, env = json.loads((tmp_path / f"told-{rank}").read_text())
    return arguments, env


def test_every_rank_knows_its_place(tmp_path: Path, start: Start) -> None:
    assert start(3).wait(timeout=60) == 0
    environments = [told(tmp_path, rank)[1] for rank in range(3)]
    assert [env["LOCAL_RANK"] for env in environments] == ["0", "1", "2"]
    assert {(env["WORLD_SIZE"], env["MASTER_ADDR"]) for env in environments} == {("3", "127.0.0.1")}
    assert len({env["MASTER_PORT"] for env in environments}) == 1
    assert told(tmp_path, 2)[0] == ["-m", "jobs.train", "job.json"]


def test_machines_agree_on_whom_to_ask(tmp_path: Path, start: Start) -> None:
    places = []
    for node in ("0", "1"):
        where = {
            "SKYPILOT_NODE_RANK": node,
            "SKYPILOT_NODE_IPS": "10.0.0.7\n10.0.0.8",
            "TUNEPLAN_RUN_ID": "goat",
        }
        assert start(2, **where).wait(timeout=60) == 0
        places += [told(tmp_path, rank)[1] for rank in (2 * int(node), 2 * int(node) + 1)]
    assert [env["RANK"] for env in places] == ["0", "1", "2", "3"]
    assert [env["LOCAL_RANK"] for env in places] == ["0", "1", "0", "1"]
    assert {(env["MASTER_ADDR"], env["WORLD_SIZE"]) for env in places} == {("10.0.0.7", "4")}
    assert len({env["MASTER_PORT"] for env in places}) == 1


@pytest.mark.parametrize(("end", "code"), [("75", 75), ("77", 77), ("1", 1), ("killed", 137)])
def test_the_first_failure_is_the_outcome_and_ends_the_others(
    tmp_path: Path, start: Start, end: str, code: int
) -> None:
    assert start(2, grace_s=0.1, END_0="wait", END_1=end).wait(timeout=60) == code


def test_a_stop_reaches_every_rank(tmp_path: Path, start: Start) -> None:
    process = start(2, END_0="wait", END_1="wait")
    eventually(lambda: all((tmp_path / f"told-{rank}").exists() for rank in range(2)))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75


def test_one_machine_alone_needs_no_skypilot() -> None:
    place = Place.of({"SKYPILOT_NODE_IPS": "10.0.0.7", "SKYPILOT_NODE_RANK": "0"})
    assert (place.node, place.nodes, place.master) == (0, 1, "127.0.0.1")
    assert rank_environment(place, 0, 1)["WORLD_SIZE"] == "1"


def test_a_process_that_trains_alone_sees_one_gpu() -> None:
    """Of a machine that has more; what somebody chose stays."""
    seen = {}
    for name, given in {
        "alone": {},
        "chosen": {"CUDA_VISIBLE_DEVICES": "2"},
        "one of one": {"WORLD_SIZE": "1"},
        "one of four": {"WORLD_SIZE": "4"},
    }.items():
        environ = dict(given)
        set_defaults(environ)
        seen[name] = environ.get("CUDA_VISIBLE_DEVICES")
    assert seen == {"alone": "0", "chosen": "2", "one of one": "0", "one of four": None}


def test_memory_segments_grow_unless_somebody_chose() -> None:
    chosen = {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}
    for environ, expected in (
        ({}, "expandable_segments:True"),
        (chosen, None),
        ({"PYTORCH_ALLOC_CONF": "x"}, "x"),
    ):
        given = dict(environ)
        set_defaults(given)
        assert given.get("PYTORCH_ALLOC_CONF") == expected
