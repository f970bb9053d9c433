"""Facts of GPUs: complete, dense, and in the right units."""

import pytest

from planner.hardware import cpu_facts, gpu_facts, known_gpus
from providers.gpus import CANONICAL_GPUS


def test_every_canonical_gpu_has_facts():
    assert set(known_gpus()) == set(CANONICAL_GPUS)


@pytest.mark.parametrize("name", sorted(CANONICAL_GPUS))
def test_facts_are_plausible(name):
    facts = gpu_facts(name)
    assert facts is not None
    assert facts.name == name
    assert 0.85 * facts.memory_gib < facts.usable_gib < facts.memory_gib
    assert facts.source
    assert facts.attainable_source
    best = max(facts.bf16_flops_per_s or 0, facts.fp16_flops_per_s or 0, facts.fp32_flops_per_s)
    assert 0.35 * best < facts.attainable_flops_per_s <= best
    assert facts.memory_bytes_per_s > facts.pcie_bytes_per_s


@pytest.mark.parametrize(
    ("name", "dense"), [("H200", 989), ("H100", 989), ("A100", 312), ("B200", 2250), ("L4", 121)]
)
def test_peaks_are_dense(name, dense):
    assert gpu_facts(name).bf16_flops_per_s == dense * 1e12


def test_names_in_any_spelling():
    assert gpu_facts("NVIDIA A100-SXM4-80GB") == gpu_facts("A100", 80)
    assert gpu_facts("A100").memory_gib == 40
    assert gpu_facts("no such card") is None


def test_old_chips_have_no_bf16():
    assert gpu_facts("T4").bf16_flops_per_s is None
    assert gpu_facts("V100").bf16_flops_per_s is None


def test_laptops_are_slower_than_boards_of_the_same_number():
    for name in CANONICAL_GPUS:
        if "-Laptop" in name:
            board = gpu_facts(name.split("-Laptop")[0]) or gpu_facts(
                "RTX4060"
            )  # there is no board of some numbers
            assert gpu_facts(name).attainable_flops_per_s < board.attainable_flops_per_s, name
            assert "assumed" in gpu_facts(name).attainable_source


def test_vendors():
    amd = ("RX9070-XT", "R9700", "W6800", "W7800", "Radeon-VII", "MI60")
    assert {gpu_facts(name).vendor for name in amd} == {"amd"}
    assert {gpu_facts(name).vendor for name in ("Arc-B580", "Arc-Pro-B60")} == {"intel"}
    assert gpu_facts("RTX4090-Laptop").vendor == "nvidia"


def test_cpu_grows_with_cores():
    assert cpu_facts(4, 16).attainable_flops_per_s == 2 * cpu_facts(2, 16).attainable_flops_per_s
    assert cpu_facts(2, 16).usable_gib == 16


def test_the_worker_and_the_estimate_agree_on_what_is_tiny() -> None:
    from jobs import build
    from planner.hardware import ONE_CORE_PARAMETERS

    assert build._TINY_PARAMETERS == ONE_CORE_PARAMETERS
    assert cpu_facts(8, 16, ONE_CORE_PARAMETERS - 1).fp32_flops_per_s == cpu_facts(1, 16).fp32_flops_per_s
    assert cpu_facts(8, 16, ONE_CORE_PARAMETERS).fp32_flops_per_s == cpu_facts(8, 16).fp32_flops_per_s


@pytest.mark.parametrize(("name", "most"), [("MI300X", 708), ("MI325X", 831), ("MI355X", 1565)])
def test_amd_reaches_three_quarters_of_its_best_shape_in_workloads(name, most):
    """AMD measured 831 TFLOP/s at most and 616 typically on an MI325X; training takes 0.89 of what is here."""
    facts = gpu_facts(name)
    assert facts is not None
    assert facts.attainable_flops_per_s / 1e12 == pytest.approx(0.74 * most / 0.89, rel=0.02)
    assert "published measurements" in facts.attainable_source
