"""The chaos campaign at full length, with its result as a table.

    python benchmarks/chaos.py [--rounds 20] [--seed 1] [--out benchmarks/results/chaos.md]

Nine times `rounds` kills of a payload without torch, `rounds` kills of the real trainer, five times `rounds` pairs of
replicas. Needs the extras s3, train, dev and test. `make test-long` runs the same as tests.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

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
from tests.seaweed import seaweed  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rounds, seed = options.rounds, options.seed
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch, seaweed(Path(scratch) / "server") as server:
        os.environ.update(server.environment)

        def act(name: str, modules: tuple[str, ...], play: Callable[[Scene], object]) -> object:
            root = Path(scratch) / name
            root.mkdir()
            zygote = Zygote(modules)
            try:
                with fault_proxy(server.endpoint) as proxy:
                    found = play(Scene(zygote, server, proxy, root))
            finally:
                zygote.close()
            print(found, flush=True)
            return found

        payload = act("payload", STORE_MODULES, lambda scene: campaign(PayloadRun, scene, 9 * rounds, seed))
        twins = act("twins", STORE_MODULES, lambda scene: fencing(scene, 5 * rounds, seed))
        trainer = act("trainer", TRAINING, lambda scene: _trainer(scene, rounds, seed))
    assert isinstance(payload, Tally) and isinstance(trainer, Tally) and isinstance(twins, Fencing)
    text = report(payload, trainer, twins, seed)
    print(text)
    if options.out:
        options.out.write_text(text)
    return 1 if payload.problems or trainer.problems or twins.problems else 0


def _trainer(scene: Scene, kills: int, seed: int) -> Tally:
    undisturbed = TrainerRun.undisturbed(Runs(scene.zygote, scene.root))
    return campaign(partial(TrainerRun, undisturbed=undisturbed), scene, kills, seed)


def report(payload: Tally, trainer: Tally, twins: Fencing, seed: int) -> str:
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

    python benchmarks/chaos.py --rounds {sum(trainer.kills.values())} --seed {seed}

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
