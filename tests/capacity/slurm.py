"""Stand-ins for Slurm's commands, with a file as the cluster: they print what Slurm 22.05 prints, in the same columns.

`python slurm.py COMMAND STATE ARGUMENTS...`; `install` writes executables that do that. The real Slurm
is in tests/e2e/test_slurm_reservation.py.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any


def install(folder: Path, **state: Any) -> Path:
    """Write scontrol, sinfo, squeue and ssh into a folder; returns the file of the cluster's state."""
    folder.mkdir(exist_ok=True)
    file = folder / "cluster.json"
    file.write_text(json.dumps({"nodes": {}, "jobs": [], "reservations": [], "faults": {}, **state}))
    for name in ("scontrol", "sinfo", "squeue"):
        command = folder / name
        command.write_text(
            f'#!/bin/sh\nexec {sys.executable} -I -S {Path(__file__).absolute()} {name} {file} "$@"\n'
        )
        command.chmod(0o755)
    ssh = folder / "ssh"  # what a login node's shell does with the last word
    ssh.write_text(
        f'#!/bin/sh\nfor last; do :; done\necho "$@" >> {folder}/ssh.log\nPATH={folder}:$PATH exec sh -c "$last"\n'
    )
    ssh.chmod(0o755)
    return file


def main(command: str, file: Path, words: list[str]) -> int:
    assert os.environ.get("TZ") == "UTC", "times must be asked for in UTC"
    cluster = json.loads(file.read_text())
    if command == "sinfo":
        print("\n".join(f"{name} {state}" for name, state in cluster["nodes"].items()))
        return 0
    if command == "squeue":
        return _squeue(cluster, words)
    words = [word for word in words if word != "-o"]
    done = {"create": _create, "show": _show, "delete": _delete}[words[0]](cluster, words)
    file.write_text(json.dumps(cluster))
    return done


def _squeue(cluster: dict[str, Any], words: list[str]) -> int:
    only = words[words.index("-R") + 1] if "-R" in words else None
    for job in cluster["jobs"]:
        if only is not None and job["reservation"] == only:
            print(job["nodes"])
        if only is None:
            print("|".join(str(job[key]) for key in ("id", "start", "end", "nodes", "reservation")))
    return 0


def _create(cluster: dict[str, Any], words: list[str]) -> int:
    given = dict(word.split("=", 1) for word in words[2:])
    name, faults = given["ReservationName"], cluster["faults"]
    fault = faults.pop(name, "ok")
    if fault == "denied":
        print("Error creating the reservation: Access/permission denied", file=sys.stderr)
        return 1
    if any(row["ReservationName"] == name for row in cluster["reservations"]):
        print("Error creating the reservation: Reservation name already in use", file=sys.stderr)
        return 1
    start = (
        datetime.now(UTC).replace(tzinfo=None, microsecond=0)
        if given["StartTime"] == "now"
        else datetime.fromisoformat(given["StartTime"])
    )
    minutes = timedelta(minutes=int(given["Duration"]))
    nodes = str(
        min(int(given["NodeCnt"]), len(cluster["nodes"]))
    )  # the real one says nothing of the others either
    row = {
        "ReservationName": name,
        "StartTime": start.isoformat(),
        "EndTime": (start + minutes).isoformat(),
        "Duration": str(minutes).replace(" day, ", "-").replace(" days, ", "-"),
        "Nodes": "n[1-2]",
        "NodeCnt": nodes,
        "CoreCnt": nodes,
        "Features": "(null)",
        "PartitionName": given["PartitionName"],
        "Flags": "SPEC_NODES",
        "TRES": "cpu=2",
        "Users": given["Users"],
        "State": "INACTIVE",
    }
    if fault != "lose_before":
        cluster["reservations"].append(row)
    if fault in ("lose_before", "lose_after"):
        print("Connection to the cluster closed by remote host", file=sys.stderr)
        return 255
    print(f"Reservation created: {name}")
    return 0


def _show(cluster: dict[str, Any], words: list[str]) -> int:
    name = words[2] if len(words) > 2 else None
    rows = [row for row in cluster["reservations"] if name in (None, row["ReservationName"])]
    if name is not None and not rows:
        print(f"Reservation {name} not found")
        return 1
    for row in rows:
        print(" ".join(f"{key}={value}" for key, value in row.items()))
    if not rows:
        print("No reservations in the system")
    return 0


def _delete(cluster: dict[str, Any], words: list[str]) -> int:
    name = words[1].partition("=")[2]
    cluster["reservations"] = [row for row in cluster["reservations"] if row["ReservationName"] != name]
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
