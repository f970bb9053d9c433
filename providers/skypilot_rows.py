"""One row of a SkyPilot catalog: numbers read strictly, the GPU named properly.

What catalogs get wrong, and what is done: the memory in `GpuInfo` is per GPU in some clouds, of all GPUs in
others, and squared by the count in one (Verda); RunPod writes GiB into a MiB field; names carry total memory
(`A100-80GB-160GB`) or hide the board (`A100` for 80 GB, `H100` for the PCIe and NVL boards). So memory is
read as evidence for the name, and the canonical name decides.
"""

from __future__ import annotations

import ast
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from providers.gpus import canonical_gpu, gpu_memory_gib, same_memory

Record = dict[str, str | None]

# Boards that a cloud's instance type implies and its accelerator name hides.
_BOARD_OF_INSTANCE = (
    ("azure", re.compile(r"Standard_NC\d+ads_A100_v4"), "A100-80GB-PCIe"),
    ("azure", re.compile(r"Standard_NCC?\d+\w+_H100_v5"), "H100-NVL"),
    ("lambda", re.compile(r"gpu_[124]x_a100"), "A100-PCIe"),
)
# NVv4 machines have an eighth to a half of a MI25 although the catalog counts one.
_SLICES = {"Standard_NV4as_v4": 0.125, "Standard_NV8as_v4": 0.25, "Standard_NV16as_v4": 0.5}
# Clouds whose GpuInfo has the memory of all GPUs where that of one belongs.
_TOTAL_MEMORY = frozenset({"vast", "verda"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_VAST_NAME = re.compile(r"^\d+x-(.+)-\d+-\d+$")


@dataclass(frozen=True, slots=True)
class GpuMachine:
    """A row as read, prices still as posted.

    Attributes:
        gpus: 0 for a machine without a GPU, a fraction for a slice of one.
        flags: Doubts about the machine itself.
        on_demand_flags: Doubts about its on-demand price.
        catalog_gpu: The GPU as the catalog names it.
    """

    cloud: str
    region: str
    zone: str | None
    instance_type: str | None
    gpu: str
    gpus: float
    gpu_mem_gib: float | None
    vcpus: float | None
    ram_gib: float | None
    on_demand_usd_per_hour: float | None
    spot_usd_per_hour: float | None
    flags: tuple[str, ...] = ()
    on_demand_flags: tuple[str, ...] = ()
    catalog_gpu: str = ""


def parse_machine(cloud: str, record: Record) -> GpuMachine:
    """Read one row.

    Raises:
        ValueError: It is malformed; the message says how.
    """
    name = _text(record, "AcceleratorName")
    instance = _text(record, "InstanceType")
    gpus = _gpu_count(name, instance, record)
    gpu, memory_gib, flags = _gpu(cloud, instance, name, gpus, record) if name else ("CPU", None, ())
    return GpuMachine(
        cloud=cloud,
        region=_required(record, "Region"),
        zone=_text(record, "AvailabilityZone") or None,
        instance_type=instance or None,
        gpu=gpu,
        gpus=gpus,
        gpu_mem_gib=memory_gib,
        vcpus=_number(record, "vCPUs"),
        ram_gib=_number(record, "MemoryGiB"),
        on_demand_usd_per_hour=_number(record, "Price"),
        # Vast writes 0.00 where nobody takes bids; nothing that is rented costs nothing.
        spot_usd_per_hour=_number(record, "SpotPrice"),
        flags=flags,
        catalog_gpu=name,
    )


def _gpu_count(name: str, instance: str, record: Record) -> float:
    count = _number(record, "AcceleratorCount")
    if not name:
        return 0
    if not count:
        raise ValueError(f"{name} without AcceleratorCount")
    return count * _SLICES.get(instance, 1)


def _gpu(
    cloud: str, instance: str, name: str, gpus: float, record: Record
) -> tuple[str, float | None, tuple[str, ...]]:
    info = _gpu_info(record.get("GpuInfo") or "")
    sizes = _sizes_gib(info, gpus, totals=cloud in _TOTAL_MEMORY)
    gpu = _canonical(cloud, instance, name, str(info.get("name") or ""), sizes)
    if gpu is None:
        return name, sizes[0] if sizes else None, ("unknown_gpu",)
    nominal = gpu_memory_gib(gpu)
    agrees = not sizes or nominal is None or any(same_memory(size, nominal) for size in sizes)
    return gpu, nominal, () if agrees else ("memory_mismatch",)


def _canonical(cloud: str, instance: str, name: str, info_name: str, sizes: list[float]) -> str | None:
    for where, pattern, board_name in _BOARD_OF_INSTANCE:
        if cloud == where and pattern.fullmatch(instance):
            return board_name
    if cloud == "vast":
        name = _VAST_NAME.sub(r"\1", instance)
    hints = f"{instance} {info_name}".upper().replace("_", " ")
    board = " PCIe" if "PCIE" in hints else " NVL" if re.search(r"\bNVL\b", hints) else ""
    for size in sizes:
        gpu = canonical_gpu(name + board, size)
        if gpu and same_memory(size, gpu_memory_gib(gpu) or 0):
            return gpu
    return canonical_gpu(name + board)


def _sizes_gib(info: dict[str, Any], gpus: float, *, totals: bool) -> list[float]:
    """What the memory figure can mean for one GPU, likeliest first."""
    size = _nested(info, "gpus", 0, "memoryinfo", "sizeinmib")
    if not isinstance(size, int | float) or size <= 0 or gpus < 1:
        return []
    if size < 1024:  # GiB in the MiB field
        return [float(size), size / gpus]
    per_gpu = [size / 1024, size / gpus / 1024]
    return per_gpu[::-1] if totals else per_gpu


def _gpu_info(text: str) -> dict[str, Any]:
    """GpuInfo is JSON, a Python literal (perhaps with null) or a bare name; keys come back lower case."""
    if not text.lstrip().startswith("{"):
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = ast.literal_eval(text.replace(": null", ": None"))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ValueError("GpuInfo is neither JSON nor a literal") from None
    info: dict[str, Any] = _lower_keys(value)
    return info | {"name": _nested(info, "gpus", 0, "name")}


def _lower_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key).lower(): _lower_keys(item) for key, item in value.items()}
    return [_lower_keys(item) for item in value] if isinstance(value, list) else value


def _nested(value: Any, *path: str | int) -> Any:
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def _text(record: Record, column: str) -> str:
    """The cell without control characters, which no name has and no terminal should see."""
    return _CONTROL.sub(" ", record.get(column) or "").strip()


def _required(record: Record, column: str) -> str:
    if not (text := _text(record, column)):
        raise ValueError(f"no {column}")
    return text


def _number(record: Record, column: str) -> float | None:
    """A finite non-negative number, None if the cell is empty."""
    if not (text := _text(record, column)):
        return None
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{column} {text!r} is not a number") from None
    if not math.isfinite(number) or not 0 <= number < 1e7:
        raise ValueError(f"{column} {text!r} is out of range")
    return number
