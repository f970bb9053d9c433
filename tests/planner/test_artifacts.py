"""Disk by what is kept where."""

import pytest

from planner.artifacts import checkpoint_bytes, disk_bytes, machine_share, result_bytes
from planner.setup import Parallelism
from tests.planner.setups import lora, setup

SIZES = {"weight_bytes": 16e9, "checkpoint": 5e9, "result": 1e9, "data_bytes": 4e8}


def test_only_the_own_disk_holds_the_checkpoints_that_stay():
    few, many = (disk_bytes(local=True, **SIZES, keep=keep) for keep in (2, 10))
    assert many - few == pytest.approx(8 * 5e9)
    assert disk_bytes(local=False, **SIZES, keep=2) == disk_bytes(local=False, **SIZES, keep=10)


def test_a_rented_machine_needs_its_software():
    alone = disk_bytes(local=False, weight_bytes=0.0, checkpoint=0.0, result=0.0, data_bytes=0.0, keep=2)
    assert 10e9 < alone < 20e9


def test_each_of_several_machines_holds_its_own_shards_and_the_checkpoint_it_goes_on_from():
    shards, copies = (setup(parallelism=Parallelism(kind, 32)) for kind in ("fsdp", "ddp"))
    assert machine_share(shards, 4) == 0.25
    assert machine_share(copies, 4) == 1.0
    alone = disk_bytes(local=False, **SIZES, keep=2)
    assert alone - disk_bytes(local=False, **SIZES, keep=2, share=0.25) == pytest.approx(2.0 * 5e9)


def test_the_best_checkpoint_waits_beside_the_newest():
    last, best = (disk_bytes(local=False, **SIZES, keep=2, chooses_best=best) for best in (False, True))
    assert best - last == pytest.approx(5e9)
    last, best = (disk_bytes(local=True, **SIZES, keep=2, chooses_best=best) for best in (False, True))
    assert best - last == pytest.approx(2 * 5e9)


def test_data_lies_where_it_was_on_ones_own_machine_and_is_copied_to_a_rented_one():
    more = SIZES | {"data_bytes": 5e8}
    for local, copied in ((True, 0.0), (False, 1e8)):
        grown = disk_bytes(local=local, **more, keep=2) - disk_bytes(local=local, **SIZES, keep=2)
        assert grown == pytest.approx(copied)


@pytest.mark.parametrize(
    ("fields", "weight", "state"),
    [
        ({}, 2, 4),
        ({"precision": "amp_fp16"}, 4, 8),  # as a full training in fp16 is launched
        ({"precision": "tf32"}, 4, 8),
        ({"parallelism": Parallelism("fsdp", 8)}, 4, 8),
        ({"optimizer": "paged_adamw_32bit"}, 2, 8),
        ({"optimizer": "sgd"}, 2, 0),  # without momentum, as the worker has it
        ({"adapter": lora()}, 4, 8),
    ],
)
def test_a_checkpoint_has_what_the_memory_model_holds(fields, weight, state):
    some = setup(**fields)
    assert checkpoint_bytes(some, 1000) == pytest.approx(1000 * (weight + state))
    assert result_bytes(some, 1000) == pytest.approx(1000 * weight)
