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


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX4090-Laptop"),  # a quarter of the board's rate
        ("RTX 3070 Ti Mobile", "RTX3070-Ti-Laptop"),
        ("GeForce RTX 3080 Laptop GPU 16GB", "RTX3080-Laptop-16GB"),
        ("4060 laptop", "RTX4060-Laptop"),
        ("NVIDIA GeForce GTX 1660 SUPER", "GTX1660-Super"),
        ("1660 Ti", "GTX1660-Ti"),
        ("rtx 3080", "RTX3080"),
        ("RTX 3080 12GB", "RTX3080-12GB"),
        ("RTX 4060 Ti 8GB", "RTX4060-Ti-8GB"),
        ("RTX 5060 Ti", "RTX5060-Ti"),
        ("4060 Ti 8GB", "RTX4060-Ti-8GB"),
        ("3080 laptop 16GB", "RTX3080-Laptop-16GB"),
        ("AMD Radeon RX 7900 XT", "RX7900-XT"),
        ("7900 XTX", "RX7900-XTX"),
        ("9070xt", "RX9070-XT"),
        ("AMD Radeon PRO W7800", "W7800"),
        ("AMD Radeon AI PRO R9700", "R9700"),
        ("Intel(R) Arc(TM) B580 Graphics", "Arc-B580"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTXPRO6000MaxQ"),
        ("NVIDIA RTX PRO 4000 Blackwell", "RTXPRO4000"),
        ("RTX PRO 5000 72GB", "RTXPRO5000-72GB"),
        ("NVIDIA RTX 4000 SFF Ada Generation", "RTX4000-SFF-Ada"),
        ("Quadro GV100", "GV100"),
        ("Quadro RTX 5000", "RTX5000"),
        ("Tesla K40", "K40"),
        ("AMD Instinct MI60", "MI60"),
        ("GB200 NVL72", "GB200"),
        ("A800", "A800-80GB"),
        ("RTX 4090", "RTX4090"),
        ("4000", None),  # a Quadro, an RTX or an Ada
        ("Apple M3 Max", None),
    ],
)
def test_what_people_own_and_rent(name: str, canonical: str | None):
    assert canonical_gpu(name) == canonical


def test_memory_decides_between_boards_unless_the_name_does():
    assert canonical_gpu("A100", 80) == "A100-80GB"
    assert canonical_gpu("A100", 39.6) == "A100"
    assert canonical_gpu("V100", 32) == "V100-32GB"
    assert canonical_gpu("A100-40GB", 80) == "A100"
    assert canonical_gpu("A100 PCIe", 80) == "A100-80GB-PCIe"
    assert canonical_gpu("NVIDIA GeForce RTX 4060 Ti", 7.996) == "RTX4060-Ti-8GB"
    assert canonical_gpu("NVIDIA GeForce RTX 3080 Laptop GPU", 16) == "RTX3080-Laptop-16GB"


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
    assert suggest_gpus("RTX409")[0] == "RTX4090"
    assert suggest_gpus("RTX 4070 Ti Supr")[0] == "RTX4070-Ti-Super"
    assert suggest_gpus("RX 7900 XTZ")[0] in ("RX7900-XTX", "RX7900-XT")
    assert suggest_gpus("MI300")[0] in ("MI300X", "MI300A")
    assert suggest_gpus("RTX 4090 Lptop")[0] == "RTX4090-Laptop"
    assert suggest_gpus("L40X")[0].startswith("L40")


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
