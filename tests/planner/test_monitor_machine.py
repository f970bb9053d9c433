"""The monitor's machine: its task, commands on it, and the note of what it costs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from planner.bundle import INSTALL_SCRIPT
from planner.monitor_machine import (
    PRICES,
    Hired,
    MonitorMachine,
    command_document,
    monitor_document,
    monitor_machine,
    note_hired,
    read_answers,
    read_hired,
    setup_document,
)
from planner.own_wheel import build_wheel, write_installable
from providers.errors import CorruptDataError, UsageError
from providers.sealed import VARIABLE, seal

ROOT = Path(__file__).parents[2]


def test_this_tuneplan_is_installed_from_its_own_wheel(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    content = wheel.read_bytes()
    wheel.unlink()
    assert build_wheel(tmp_path).read_bytes() == content
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--python"]
    subprocess.run([*install, str(venv / "bin/python"), str(wheel)], check=True)
    where = "import planner, jobs, providers; print(planner.__file__, jobs.__file__, providers.__file__)"
    said = subprocess.run(
        [str(venv / "bin/python"), "-c", where], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert all(path.startswith(str(venv)) for path in said.stdout.split())
    assert (venv / "bin/plan").is_file()
    assert list(venv.rglob("planner/requirements.lock")) and list(venv.rglob("planner/schemas/spec.json"))


def test_what_installs_it_names_the_wheel_by_its_hash(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "old").touch()
    write_installable(code, ("launch", "s3"))
    names = {path.name for path in code.iterdir()}
    assert {INSTALL_SCRIPT, "requirements.txt", "constraints.txt"} < names and "old" not in names
    wish, mark = (code / "requirements.txt").read_text().splitlines()
    assert wish.endswith(".whl[launch,s3]") and (code / wish.partition("[")[0]).is_file()
    assert mark.startswith("# ")


def test_its_tasks_are_for_the_place_and_ask_the_same_server(tmp_path: Path) -> None:
    setup = setup_document(monitor_machine("aws"), tmp_path)
    assert setup["resources"] == {"infra": "aws/us-east-1", "instance_type": "r6a.large", "disk_size": 64}
    monitor = monitor_document(monitor_machine("aws"), tmp_path, "https://sky.example")
    assert monitor["envs"] == {"SKYPILOT_API_SERVER_ENDPOINT": "https://sky.example"}
    assert "resources" not in monitor and "monitor run" in monitor["run"]
    slurm = monitor_machine("slurm/bed")
    assert setup_document(slurm, tmp_path)["resources"] == {"infra": "slurm/bed", "cpus": "2+"}
    assert monitor_document(slurm, tmp_path, None)["resources"] == {"cpus": "1+"}  # commands run beside it
    assert command_document(["status"], tmp_path, "x", slurm, None)["resources"] == {"cpus": "1+"}
    assert monitor_machine("aws/eu-west-1") == MonitorMachine("aws", "eu-west-1")
    with pytest.raises(UsageError, match="no small machine of vast"):
        monitor_machine("vast")


def test_a_command_there_is_told_as_if_it_ran_here(tmp_path: Path) -> None:
    """The script is run by a real shell, with something in the place of `plan`."""
    program = tmp_path / "tuneplan/env/bin/plan"
    program.parent.mkdir(parents=True)
    program.with_name("python").symlink_to(sys.executable)
    program.write_text(
        '#!/bin/sh\npwd >&2\nls >&2\necho "$A_SECRET" "$PLAN_HOME" >&2\nprintf "%s|" "$@"\nexit 5\n'
    )
    program.chmod(0o755)
    staged = tmp_path / "sky_workdir"
    staged.mkdir()
    (staged / "plan.json").touch()
    (staged / PRICES).write_text("newer")
    prices = tmp_path / "tuneplan/home/cache/prices.csv"
    prices.parent.mkdir(parents=True)
    prices.write_text("older")
    os.utime(prices, (0, 0))
    words = ("launch", "a b", "$(id)", "'; rm -rf ~; '")
    document = command_document(words, staged, "run 1", None, None)
    share = seal({"A_SECRET": "known there"}, staged)
    assert "known there" not in share + document["run"]
    said = subprocess.run(
        ["bash", "-c", document["run"]],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", VARIABLE: share, "PYTHONPATH": str(ROOT)},
        cwd=staged,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    answers = list(read_answers(said.stdout.splitlines()))
    before = [answer.line for answer in answers if not answer.on_stdout]
    there = tmp_path / "plans/run 1"
    assert before == [str(there), "plan.json", "sealed", f"known there {tmp_path}/tuneplan/home"]
    assert prices.read_text() == "newer"
    assert {path.name for path in there.iterdir()} == {"plan.json", PRICES}  # the share is gone
    printed = "".join(answer.line for answer in answers if answer.on_stdout)
    assert printed == "".join(f"{word}|" for word in words)
    assert [answer.exit_code for answer in answers if answer.exit_code is not None] == [5]


def test_what_was_hired_is_on_record_until_it_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "state/monitor-machine.json"
    assert read_hired(path) is None
    hired = Hired(monitor_machine("aws"), "2026-11-01T00:00:00Z", ("HF_TOKEN",))
    note_hired(path, hired)
    assert read_hired(path) == hired
    assert hired.usd("2026-11-02T00:00:00Z") == pytest.approx(24 * 0.1134)
    assert "$2.72 so far" in hired.text("2026-11-02T00:00:00Z")
    unknown = Hired(monitor_machine("slurm/bed"), hired.since_at, ())
    assert unknown.usd("2026-11-02T00:00:00Z") is None and "not known" in unknown.text("2026-11-02T00:00:00Z")
    for damaged in ("{", json.dumps({"machine": {"cloud": "aws"}}), "[]"):
        path.write_text(damaged)
        with pytest.raises(CorruptDataError, match="cannot be read"):
            read_hired(path)
