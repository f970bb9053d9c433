"""Canonical GPU names: every name that real catalogs, drivers and published runs use."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.gpus import CANONICAL_GPUS, canonical_gpu, gpu_boards, same_memory, suggest_gpus

HERE = Path(__file__).parent
CATALOGS = HERE.parents[2] / "shared" / "data" / "catalogs" / "v8"
RUNS = HERE.parents[2] / "shared" / "data" / "runs" / "measured_runs.csv"

with (HERE / "data" / "gpu_names.csv").open(newline="") as _file:
    NAMES = {row["name"]: row["canonical"] or None for row in csv.DictReader(_file)}


def test_the_list_of_names_is_not_small():
    assert len(NAMES) > 110


@pytest.mark.parametrize("name", NAMES)
def test_real_name(name: str):
    assert canonical_gpu(name) == NAMES[name]


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("A100-80GB-160GB", "A100-80GB"),  # Verda writes the memory of all GPUs behind that of one
        ("A100-40GB-320GB", "A100"),
        ("H100-80G-PCIe-NVLink", "H100-PCIe"),
        ("H100-80G-SXM5", "H100"),
        ("H100-MEGA", "H100"),  # the same GPU behind a faster network
        ("A6000", "RTXA6000"),
        ("RTX-6000-Ada", "RTX6000-Ada"),
        ("RTX6000", "RTX6000"),  # Turing, not Ada
        ("RTX 3090", "RTX3090"),
        ("Gaudi HL-205", "Gaudi"),
        ("tpu-v5p", None),
        ("24GB-class GPU", None),
        ("", None),
    ],
)
def test_traps(name: str, canonical: str | None):
    assert canonical_gpu(name) == canonical


def test_memory_decides_between_boards_unless_the_name_does():
    assert canonical_gpu("A100", 80) == "A100-80GB"
    assert canonical_gpu("A100", 39.6) == "A100"
    assert canonical_gpu("V100", 32) == "V100-32GB"
    assert canonical_gpu("A100-40GB", 80) == "A100"
    assert canonical_gpu("A100 PCIe", 80) == "A100-80GB-PCIe"


@pytest.mark.parametrize("name", CANONICAL_GPUS)
def test_canonical_names_stay_as_they_are(name: str):
    assert canonical_gpu(name) == name
    assert canonical_gpu(name.lower().replace("-", "_")) == name
    assert CANONICAL_GPUS[name] > 0


def test_boards_of_a_chip_are_canonical_names():
    assert set(gpu_boards("A100-80GB")) == {"A100", "A100-PCIe", "A100-80GB-PCIe"}
    assert gpu_boards("L4") == ()
    assert all(board in CANONICAL_GPUS for name in CANONICAL_GPUS for board in gpu_boards(name))


def test_suggestions_for_mistyped_names():
    assert suggest_gpus("H10O")[0] == "H100"
    assert suggest_gpus("A100-80BG")[0] == "A100-80GB"
    assert suggest_gpus("qwertz") == []


def test_same_memory_takes_gb_for_gib_but_not_the_next_board():
    assert same_memory(22888 / 1024, 24)
    assert same_memory(74.5, 80)
    assert not same_memory(94, 80)
    assert not same_memory(40, 80)


@settings(deadline=None)
@given(st.text(max_size=40), st.none() | st.floats(0, 1000))
def test_any_text_is_a_known_name_or_none(name: str, memory_gib: float | None):
    assert canonical_gpu(name, memory_gib) in {None, "CPU", *CANONICAL_GPUS}


@pytest.mark.skipif(not CATALOGS.exists(), reason="the full catalogs are not on this machine")
def test_the_list_covers_the_full_catalogs():
    found = set()
    for path in CATALOGS.glob("*/vms.csv"):
        with path.open(newline="") as file:
            found |= {row["AcceleratorName"] for row in csv.DictReader(file)} - {"", None}
    with RUNS.open(newline="") as file:
        found |= {row["gpu"] for row in csv.DictReader(file)} - {""}
    assert len(found) > 60
    assert found <= set(NAMES)
