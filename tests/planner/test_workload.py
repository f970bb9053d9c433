"""Tokens, steps and FLOPs."""

import pytest

from planner.architecture import parameter_counts
from planner.workload import flops_per_token, workload
from tests.planner.setups import lora, setup


def test_steps_and_tokens_of_epochs():
    work = workload(setup(sequence_tokens=512), 100_000, 50, 128, epochs=2)
    assert work.steps == 1563
    assert work.tokens_total == 100_000 * 50 * 2
    assert work.tokens_per_step == 128 * 50


def test_packing_fills_rows():
    loose = workload(setup(sequence_tokens=1000), 10_000, 100, 10)
    packed = workload(setup(sequence_tokens=1000), 10_000, 100, 10, packing=True)
    assert (loose.steps, packed.steps) == (1000, 100)
    assert loose.tokens_total == packed.tokens_total


def test_stated_steps_win():
    work = workload(setup(), 1000, 100, 10, epochs=5, steps=7)
    assert (work.steps, work.epochs) == (7, pytest.approx(0.07))
    assert work.tokens_total == 7 * 10 * 100


def test_long_examples_are_cut():
    assert workload(setup(sequence_tokens=256), 100, 1000, 10).tokens_total == 100 * 256


def test_flops_are_six_n_and_four_n():
    full = setup("llama-2-7b", sequence_tokens=1)
    n = parameter_counts(full.arch).matmul_active
    assert flops_per_token(full) == pytest.approx(6 * n, rel=1e-3)
    assert flops_per_token(setup("llama-2-7b", sequence_tokens=1, adapter=lora(8))) == pytest.approx(
        4 * n, rel=0.02
    )


def test_flops_grow_with_epochs_length_and_labels_do_not_matter_much():
    base = workload(setup(sequence_tokens=512), 1000, 500, 8)
    assert workload(setup(sequence_tokens=512), 1000, 500, 8, epochs=3).flops_total == pytest.approx(
        3 * base.flops_total
    )
    assert workload(setup(sequence_tokens=512), 1000, 250, 8).flops_total < base.flops_total
