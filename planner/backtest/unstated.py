"""What a row leaves open, as doubts about its predicted time.

A run whose source says everything is predicted better than one of which half has to be assumed.
"""

from __future__ import annotations

from planner.backtest.cells import Row, cell
from planner.setup import TrainingSetup
from planner.throughput import Doubt

_RECOMPUTATION_FULL, _RECOMPUTATION_ADAPTER = 0.13, 0.18  # a third, or half, of the compute in between
_FRAMEWORK, _PRECISION, _PACKING, _LENGTHS, _ADAPTER = 0.12, 0.08, 0.08, 0.20, 0.20
_LORA_LIKE = ("lora", "dora", "full", "osf", "pissa")
_SMALLEST_RECOMPUTED = 1024  # hidden width from which recipes recompute activations


def leaves_recomputation_open(row: Row, setup: TrainingSetup) -> bool:
    """Whether activations may be kept or recomputed, for all that the row says."""
    return not cell(row, "grad_checkpointing") and setup.arch.hidden >= _SMALLEST_RECOMPUTED


def unstated(row: Row, setup: TrainingSetup) -> list[Doubt]:
    """One doubt for each thing that decides the speed and that a row does not say."""
    found = []
    if leaves_recomputation_open(row, setup):
        size = _RECOMPUTATION_FULL if setup.adapter is None else _RECOMPUTATION_ADAPTER
        found.append(Doubt(size, "recomputation is not stated"))
    for column, size in (("framework", _FRAMEWORK), ("precision", _PRECISION), ("packing", _PACKING)):
        if not cell(row, column):
            found.append(Doubt(size, f"{column} is not stated"))
    if cell(row, "packing") == "false" and setup.row_tokens is None:
        found.append(Doubt(_LENGTHS, "lengths of unpacked rows are not stated"))
    method = cell(row, "method")
    if method and not any(name in method for name in _LORA_LIKE):
        found.append(Doubt(_ADAPTER, f"{method} is timed as LoRA"))
    return found
