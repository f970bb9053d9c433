"""Disk by what is kept where."""

import pytest

from planner.artifacts import disk_bytes, machine_share
from planner.setup import Parallelism
from tests.planner.setups import setup

SIZES = {"weight_bytes": 16e9, "checkpoint": 5e9, "result": 1e9, "data_tokens": 1e8}


def test_only_the_own_disk_holds_the_checkpoints_that_stay():
    few, many = (disk_bytes(local=True, **SIZES, keep=keep) for keep in (2, 10))
    assert many - few == pytest.approx(8 * 5e9)
    assert disk_bytes(local=False, **SIZES, keep=2) == disk_bytes(local=False, **SIZES, keep=10)


def test_a_rented_machine_needs_its_software():
    alone = disk_bytes(local=False, weight_bytes=0.0, checkpoint=0.0, result=0.0, data_tokens=0.0, keep=2)
    assert 10e9 < alone < 20e9


def test_each_of_several_machines_holds_its_own_shards_and_the_checkpoint_it_goes_on_from():
    shards, copies = (setup(parallelism=Parallelism(kind, 32)) for kind in ("fsdp", "ddp"))
    assert machine_share(shards, 4) == 0.25
    assert machine_share(copies, 4) == 1.0
    alone = disk_bytes(local=False, **SIZES, keep=2)
    assert alone - disk_bytes(local=False, **SIZES, keep=2, share=0.25) == pytest.approx(1.5 * 5e9)
