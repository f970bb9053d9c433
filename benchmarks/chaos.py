"""The chaos campaign at full length, with its result as a table.

    python benchmarks/chaos.py [--rounds 20] [--seed 1] [--parts DIR] [--out benchmarks/results/chaos.md]

Nine times `rounds` kills of a payload without torch, `rounds` kills of the real trainer, five times `rounds` pairs of
replicas, in pieces with a seed each. With `--parts` a campaign that was cut off goes on after the last whole piece.
Needs the extras s3, train, dev and test. `make test-long` runs the same as tests.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.chaos.campaign import Scene, Tally, campaign  # noqa: E402 - the tests are no installed package
from tests.chaos.fault_proxy import fault_proxy  # noqa: E402
from tests.chaos.fencing import Fencing, fencing  # noqa: E402
from tests.chaos.payload import STORE_MODULES  # noqa: E402
from tests.chaos.payload_run import PayloadRun  # noqa: E402
from tests.chaos.trainer_run import TrainerRun  # noqa: E402
from tests.jobs.runs import Runs  # noqa: E402
from tests.jobs.zygote import TRAINING, Zygote  # noqa: E402
from tests.seaweed import Seaweed, seaweed  # noqa: E402

T = TypeVar("T", Tally, Fencing)


_PIECE = {"payload": 15, "twins": 10, "trainer": 2}
_MODULES = {"payload": STORE_MODULES, "twins": STORE_MODULES, "trainer": TRAINING}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parts", type=Path, help="directory that keeps the pieces that are done")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rounds, seed = options.rounds, options.seed
    counts = {"payload": 9 * rounds, "twins": 5 * rounds, "trainer": rounds}
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in counts}
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch, seaweed(Path(scratch) / "server") as server:
        os.environ.update(server.environment)
        parts = options.parts or Path(scratch) / "parts"
        parts.mkdir(parents=True, exist_ok=True)
        for kind, count in counts.items():
            for number, size in enumerate(_pieces(count, _PIECE[kind])):
                name = f"{kind}-{seed}-{number}-of-{size}"
                kept = parts / f"{name}.json"
                if not kept.exists():
                    tally = _piece(kind, size, 1000 * seed + number, Path(scratch) / name, server)
                    kept.write_text(json.dumps(vars(tally)))
                    print(name, tally, flush=True)
                found[kind].append(json.loads(kept.read_text()))
    payload, trainer = (_sum(Tally, found[kind]) for kind in ("payload", "trainer"))
    twins = _sum(Fencing, found["twins"])
    text = report(payload, trainer, twins, rounds, seed)
    print(text)
    if options.out:
        options.out.write_text(text)
    return 1 if payload.problems or trainer.problems or twins.problems else 0


def _pieces(count: int, size: int) -> list[int]:
    return [min(size, count - start) for start in range(0, count, size)]


def _piece(kind: str, size: int, seed: int, root: Path, server: Seaweed) -> Tally | Fencing:
    root.mkdir()
    zygote = Zygote(_MODULES[kind])
    try:
        with fault_proxy(server.endpoint) as proxy:
            scene = Scene(zygote, server, proxy, root)
            if kind == "twins":
                return fencing(scene, size, seed)
            make = PayloadRun
            if kind == "trainer":
                undisturbed = TrainerRun.undisturbed(Runs(scene.zygote, scene.root))
                make = partial(TrainerRun, undisturbed=undisturbed)
            return campaign(make, scene, size, seed)
    finally:
        zygote.close()


def _sum(cls: type[T], pieces: list[dict[str, Any]]) -> T:
    """All pieces as one: numbers, counters and lists are added."""
    total: dict[str, Any] = {}
    for name, value in vars(cls()).items():
        values = [piece[name] for piece in pieces]
        total[name] = (
            sum(map(Counter, values), Counter()) if isinstance(value, dict) else sum(values, type(value)())
        )
    return cls(**total)


def report(payload: Tally, trainer: Tally, twins: Fencing, rounds: int, seed: int) -> str:
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    columns = (payload, trainer)
    rows = [
        ("kill -9", [sum(one.kills.values()) for one in columns]),
        *(
            (f"... while: {stage}", [one.kills[stage] for one in columns])
            for stage in _all(payload.kills, trainer.kills)
        ),
        ("attempts that ended by themselves on faults", [one.ended_by_faults for one in columns]),
        ("attempts on a disk that was full", [one.full_disks for one in columns]),
        ("acknowledged commits", [one.commits for one in columns]),
        ("restores, each checked", [one.restores for one in columns]),
        ("runs finished, each checked", [one.finished_runs for one in columns]),
        *(
            (f"fault: {name}", [one.faults[name] for one in columns])
            for name in _all(payload.faults, trainer.faults)
        ),
        (
            "**acknowledged steps lost, corrupt restores, wrong final weights**",
            [len(one.problems) for one in columns],
        ),
    ]
    table = "\n".join(f"| {name} | {counts[0]} | {counts[1]} |" for name, counts in rows)
    problems = "\n".join(
        f"- {text[:500]}" for text in (*payload.problems, *trainer.problems, *twins.problems)
    )
    return f"""# Chaos

{datetime.now(UTC):%Y-%m-%d}, commit {commit}, seed {seed}. Reproduce, here or as tests with `make test-long`:

    python benchmarks/chaos.py --rounds {rounds} --seed {seed}

Workers are killed at random moments of training, saving, uploading, committing, restoring and taking over, with a
real S3 server (SeaweedFS) behind a proxy that refuses (503), says nothing, loses answers, cuts and corrupts what is
read (with and without a checksum that would tell) and is full for a while; the disk of some attempts is too small for
a checkpoint. After every kill each committed checkpoint is read without faults and compared with what it must hold.

| | payload without torch | real trainer |
|---|---|---|
{table}

Two replicas of one run:

| | |
|---|---|
| rounds | {twins.rounds} |
| ... with the older replica paused during the takeover | {twins.paused} |
| rounds in which the older one was refused a commit | {twins.fenced} |
| commits acknowledged to the older replica, all before the takeover | {twins.commits_of_older} |
| commits acknowledged to the newer replica | {twins.commits_of_newer} |
| **commits by a fenced replica** (by the chain of tags of all writes of HEAD) | {len(twins.problems)} |

{problems or "No problem was found."}
"""


def _all(*counters: Counter[str]) -> list[str]:
    return sorted(set().union(*counters))


if __name__ == "__main__":
    sys.exit(main())
