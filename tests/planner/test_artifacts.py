"""Disk by what is kept where."""

import pytest

from planner.artifacts import disk_bytes

SIZES = {"weight_bytes": 16e9, "checkpoint": 5e9, "result": 1e9, "data_tokens": 1e8}


def test_only_the_own_disk_holds_the_checkpoints_that_stay():
    few, many = (disk_bytes(local=True, **SIZES, keep=keep) for keep in (2, 10))
    assert many - few == pytest.approx(8 * 5e9)
    assert disk_bytes(local=False, **SIZES, keep=2) == disk_bytes(local=False, **SIZES, keep=10)


def test_a_rented_machine_needs_its_software():
    alone = disk_bytes(local=False, weight_bytes=0.0, checkpoint=0.0, result=0.0, data_tokens=0.0, keep=2)
    assert 10e9 < alone < 20e9
