"""What a GPU (or the CPU of this machine) can do: memory, arithmetic rates, links; each with its source."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from providers.gpus import CPU, canonical_gpu

_GPUS = Path(__file__).parent / "data" / "gpus.json"
# A matmul reaches about this share of a dense peak where nobody has published a measurement.
ATTAINABLE_SHARE = 0.78
# One core of a cloud server (AMD EPYC) in fp32 matmul as torch runs it, measured at widths 128 to 1024.
CPU_FLOPS_PER_CORE = 90e9


class GpuFacts(NamedTuple):
    """One GPU; rates are dense (never the sparse figure of a data sheet) and per second, links per direction.

    Attributes:
        name: Canonical name (`providers.gpus`).
        vendor: nvidia, amd, intel or cpu.
        memory_gib: Nominal memory.
        usable_gib: Memory a process can get, its own context included.
        bf16_flops_per_s: None where the chip has no bf16 units.
        fp16_flops_per_s: Matrix units with fp32 accumulation.
        tf32_flops_per_s: None where there is none.
        fp32_flops_per_s: Vector units.
        fp8_flops_per_s: None where there is none.
        attainable_flops_per_s: What a large 16-bit matmul reaches.
        memory_bytes_per_s: Bandwidth of the device memory.
        link_bytes_per_s: NVLink, Infinity Fabric or the like inside the machine, None if PCIe only.
        pcie_bytes_per_s: To the host, and to other GPUs without a link.
        capability: CUDA compute capability, or the vendor's architecture name.
        source: Where the data-sheet figures come from.
        attainable_source: Where the attainable rate comes from.
        launch_s: Host time of one kernel launch.
        cache_bytes: Last-level cache, where it is large enough to hold activations; 0 elsewhere.
    """

    name: str
    vendor: str
    memory_gib: float
    usable_gib: float
    bf16_flops_per_s: float | None
    fp16_flops_per_s: float | None
    tf32_flops_per_s: float | None
    fp32_flops_per_s: float
    fp8_flops_per_s: float | None
    attainable_flops_per_s: float
    memory_bytes_per_s: float
    link_bytes_per_s: float | None
    pcie_bytes_per_s: float
    capability: str
    source: str
    attainable_source: str
    launch_s: float = 9e-6
    cache_bytes: float = 0.0


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = json.loads(_GPUS.read_text(encoding="utf-8"))
    return table


def known_gpus() -> tuple[str, ...]:
    """Canonical names with facts."""
    return tuple(_table())


@lru_cache(maxsize=1024)
def gpu_facts(name: str, memory_gib: float | None = None) -> GpuFacts | None:
    """Facts by name in any spelling, None if the GPU is not known.

    Args:
        name: As a cloud, a driver or a paper writes it.
        memory_gib: Tells boards of one chip apart where the name does not.

    >>> gpu_facts("NVIDIA H200").bf16_flops_per_s / 1e12
    989.0
    """
    canonical = canonical_gpu(name, memory_gib)
    if canonical == CPU:
        return cpu_facts(1, memory_gib or 8.0)
    row = _table().get(canonical or "")
    return None if row is None or canonical is None else _facts(canonical, row)


def _facts(name: str, row: dict[str, Any]) -> GpuFacts:
    def rate(key: str) -> float | None:
        return None if row[key] is None else row[key] * 1e12

    best = rate("bf16_tflops") or rate("fp16_tflops") or rate("fp32_tflops") or 0.0
    measured = rate("attainable_tflops")
    link = row["link_gb_per_s"]
    return GpuFacts(
        name=name,
        vendor=_vendor(name),
        memory_gib=row["memory_gib"],
        usable_gib=row["usable_gib"],
        bf16_flops_per_s=rate("bf16_tflops"),
        fp16_flops_per_s=rate("fp16_tflops"),
        tf32_flops_per_s=rate("tf32_tflops"),
        fp32_flops_per_s=row["fp32_tflops"] * 1e12,
        fp8_flops_per_s=rate("fp8_tflops"),
        attainable_flops_per_s=measured or ATTAINABLE_SHARE * best,
        memory_bytes_per_s=row["memory_gb_per_s"] * 1e9,
        link_bytes_per_s=None if link is None else link * 1e9,
        pcie_bytes_per_s=row["pcie_gb_per_s"] * 1e9,
        capability=row["capability"],
        source=row["source"],
        cache_bytes=row.get("cache_mib", 0) * 2.0**20,
        attainable_source=row["attainable_source"] or f"{ATTAINABLE_SHARE:.0%} of the dense peak, assumed",
    )


def _vendor(name: str) -> str:
    if name.startswith(("MI", "Radeon", "RX", "R9", "W6", "W7")):
        return "amd"
    return "intel" if name.startswith(("Gaudi", "Max", "Arc")) else "nvidia"


#: The worker trains a smaller model on a CPU with one thread (`jobs.fine_tune`).
ONE_CORE_PARAMETERS = 20_000_000


def cpu_facts(cores: int, ram_gib: float, parameters: int | None = None) -> GpuFacts:
    """A machine without GPU as if it were one: for tiny models, tests and the demonstration.

    Args:
        cores: Cores that torch may use.
        ram_gib: Memory that the process may use.
        parameters: Of the model; the worker trains a tiny one on one core, where threads would only wait.
    """
    if parameters is not None and parameters < ONE_CORE_PARAMETERS:
        cores = 1
    rate = CPU_FLOPS_PER_CORE * max(1, cores)
    return GpuFacts(
        name=CPU,
        vendor="cpu",
        memory_gib=ram_gib,
        usable_gib=ram_gib,
        bf16_flops_per_s=None,
        fp16_flops_per_s=None,
        tf32_flops_per_s=None,
        fp32_flops_per_s=rate,
        fp8_flops_per_s=None,
        attainable_flops_per_s=rate,
        memory_bytes_per_s=10e9 * max(1, cores),
        link_bytes_per_s=None,
        pcie_bytes_per_s=5e9,
        capability="cpu",
        source="one core of a cloud server, measured; memory bandwidth assumed",
        attainable_source="one core of a cloud server, measured",
        launch_s=12e-6,
    )
