"""Killed at random moments behind a network that loses, corrupts and refuses: nothing acknowledged is ever lost.

The default suite has a sample; `make test-long` has ROUNDS rounds with the trainer and nine times as many without.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.chaos.campaign import Scene, Tally, campaign
from tests.chaos.fault_proxy import FaultProxy, fault_proxy
from tests.chaos.fencing import Fencing, fencing
from tests.chaos.payload import STORE_MODULES
from tests.chaos.payload_run import PayloadRun
from tests.chaos.trainer_run import TrainerRun
from tests.jobs.runs import Runs
from tests.jobs.zygote import Zygote
from tests.seaweed import Seaweed

SEED = int(os.environ.get("SEED", "1"))
ROUNDS = int(os.environ.get("ROUNDS", "20"))


@pytest.fixture
def proxy(s3_server: Seaweed) -> Iterator[FaultProxy]:
    with fault_proxy(s3_server.endpoint) as one:
        yield one


@pytest.fixture(scope="module")
def small_zygote() -> Iterator[Zygote]:
    """A process that can fork workers without torch."""
    one = Zygote(STORE_MODULES)
    yield one
    one.close()


@pytest.fixture
def scene(small_zygote: Zygote, s3_server: Seaweed, proxy: FaultProxy, tmp_path: Path) -> Scene:
    return Scene(small_zygote, s3_server, proxy, tmp_path)


@pytest.fixture
def training_scene(zygote: Zygote, s3_server: Seaweed, proxy: FaultProxy, tmp_path: Path) -> Scene:
    return Scene(zygote, s3_server, proxy, tmp_path)


def check(tally: Tally, kills: int) -> None:
    """Nothing was lost, and the kills happened."""
    assert tally.problems == []
    assert sum(tally.kills.values()) == kills
    assert tally.finished_runs > 0


def check_fencing(found: Fencing, rounds: int) -> None:
    """No commit by a fenced replica, and there were fenced ones."""
    assert found.problems == []
    assert found.rounds == rounds
    assert found.fenced > rounds // 4
    assert found.commits_of_newer > 0


def test_a_sample_of_kills(scene: Scene) -> None:
    check(campaign(PayloadRun, scene, 10, SEED), 10)


@pytest.mark.train
def test_a_sample_of_kills_of_the_trainer(training_scene: Scene) -> None:
    undisturbed = TrainerRun.undisturbed(Runs(training_scene.zygote, training_scene.root))
    check(campaign(partial(TrainerRun, undisturbed=undisturbed), training_scene, 2, SEED), 2)


def test_a_sample_of_twins(scene: Scene) -> None:
    check_fencing(fencing(scene, 3, SEED), 3)


@pytest.mark.long
def test_many_kills(scene: Scene) -> None:
    check(campaign(PayloadRun, scene, 9 * ROUNDS, SEED), 9 * ROUNDS)


@pytest.mark.long
@pytest.mark.train
def test_many_kills_of_the_trainer(training_scene: Scene) -> None:
    undisturbed = TrainerRun.undisturbed(Runs(training_scene.zygote, training_scene.root))
    check(campaign(partial(TrainerRun, undisturbed=undisturbed), training_scene, ROUNDS, SEED), ROUNDS)


@pytest.mark.long
def test_many_twins(scene: Scene) -> None:
    check_fencing(fencing(scene, 5 * ROUNDS, SEED), 5 * ROUNDS)
