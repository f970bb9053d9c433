"""What a row leaves open: doubts about its predicted time, and what else its words allow.

A run whose source says everything is predicted better than one of which half has to be assumed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from planner.architecture import Adapter
from planner.backtest.cells import Row, cell, number
from planner.backtest.habits import (
    has_own_loop,
    is_unpacked,
    leaves_reduction_open,
    recomputes_unasked,
)
from planner.backtest.selection import keeps_products_of
from planner.setup import TrainingSetup
from planner.throughput import Doubt

_RECOMPUTATION_FULL, _RECOMPUTATION_ADAPTER = 0.13, 0.18  # a third, or half, of the compute in between
_FRAMEWORK, _PRECISION, _PACKING, _LENGTHS, _ADAPTER = 0.12, 0.08, 0.08, 0.20, 0.20
# Loops that nobody has tuned, mostly slower; trainers in CUDA and padding that is masked are told apart.
_STACK, _STACK_QUICKER = 0.35, 0.5
_ORTHOGONAL = 0.60  # rotations of whole inputs are built for each step
_LOADS_BY_DEFAULT = frozenset({"hf", "other"})  # scripts that may leave a frozen base's type to transformers
_LORA_LIKE = ("lora", "dora", "loha", "lokr", "full", "osf", "pissa")
_QLORA_RANK = 64
_SMALLEST_RECOMPUTED = 1024  # hidden width from which recipes recompute activations


def leaves_recomputation_open(row: Row, setup: TrainingSetup) -> bool:
    """Whether activations may be kept or recomputed, for all that the row says."""
    told = cell(row, "grad_checkpointing") or recomputes_unasked(row)
    return not told and setup.arch.hidden >= _SMALLEST_RECOMPUTED


def left_open(row: Row, setup: TrainingSetup) -> Iterator[TrainingSetup]:
    """Larger set-ups that differ only in what the row says nothing of: "fits" would be a guess where one does not."""
    if leaves_recomputation_open(row, setup) and setup.gradient_checkpointing:
        yield setup._replace(gradient_checkpointing=False)
    adapter = _largest_usual(row, setup)
    if adapter is not None:
        yield setup._replace(adapter=adapter)


def also_allowed(row: Row, setup: TrainingSetup) -> Iterator[TrainingSetup]:
    """Larger set-ups that the row's words, read loosely, allow as well as the usual one that it was read as."""
    if leaves_masters_open(row, setup):
        yield setup._replace(precision=f"amp_{setup.precision}", frozen_fp32=setup.adapter is not None)
    if setup.gradient_checkpointing and keeps_products_of(row):
        yield setup._replace(gradient_checkpointing=False)
    if setup.reduces_each_micro_batch and leaves_reduction_open(row):
        yield setup._replace(reduces_each_micro_batch=False)
    plain = setup._replace(sequence_parallel=False) if leaves_sequence_open(row, setup) else setup
    if leaves_distributed_optimizer_open(row, setup):
        plain = plain._replace(parallelism=setup.parallelism._replace(kind="tp"))
    if plain is not setup:
        yield plain


def _largest_usual(row: Row, setup: TrainingSetup) -> Adapter | None:
    """QLoRA's own adapters (rank 64 on all linear layers), where a row tells no size; None where it tells all.

    PEFT's default, which such a row is read as, trains a tenth of that.
    """
    adapter = setup.adapter
    if adapter is None or adapter.kind not in ("lora", "dora") or number(row, "trainable_params_m"):
        return None
    rank, targets = number(row, "lora_rank"), cell(row, "lora_targets")
    if rank and targets:
        return None
    return adapter._replace(
        rank=adapter.rank if rank else max(adapter.rank, _QLORA_RANK),
        targets=adapter.targets if targets else ("all-linear",),
    )


def leaves_distributed_optimizer_open(row: Row, setup: TrainingSetup) -> bool:
    """Whether each data-parallel rank may hold all states: Megatron-LM spreads them only where it is told to
    (`--use-distributed-optimizer`), NeMo and Megatron Bridge always.
    """
    told = re.search(r"zero|dist", f"{cell(row, 'parallelism')} {cell(row, 'optimizer')}")
    return (
        is_plain_megatron(row)
        and told is None
        and setup.adapter is None
        and setup.parallelism.kind == "mixed"
    )


def leaves_sequence_open(row: Row, setup: TrainingSetup) -> bool:
    """Whether tensor-parallel ranks may each have the whole sequence between products, as in Megatron-LM where it is
    not told otherwise.
    """
    return is_plain_megatron(row) and setup.shares_sequence and setup.sequence_parallel is None


def is_plain_megatron(row: Row) -> bool:
    """Whether the stack is Megatron-LM, and no recipes around it."""
    return cell(row, "framework") in ("megatron", "megatron-lm", "megatron lm")


def leaves_masters_open(row: Row, setup: TrainingSetup) -> bool:
    """Whether "bf16" may mean weights in bf16 or autocast over weights in fp32, as Trainer(bf16=True) trains a model
    that was loaded as transformers did by default until version 5, under adapters as well.
    """
    loose = setup.precision in ("bf16", "fp16") and "true" not in cell(row, "precision")
    if setup.adapter is None:
        return loose and setup.parallelism.kind in ("single", "ddp", "fsdp")
    by_default = setup.quantization == "none" and setup.framework in _LOADS_BY_DEFAULT
    return loose and by_default and setup.parallelism.kind in ("single", "ddp")


def unstated(row: Row, setup: TrainingSetup) -> list[Doubt]:
    """One doubt for each thing that decides the speed and that a row does not say."""
    found = []
    if leaves_recomputation_open(row, setup):
        size = _RECOMPUTATION_FULL if setup.adapter is None else _RECOMPUTATION_ADAPTER
        found.append(Doubt(size, "recomputation is not stated"))
    for column, size in (("framework", _FRAMEWORK), ("precision", _PRECISION), ("packing", _PACKING)):
        if not cell(row, column):
            found.append(Doubt(size, f"{column} is not stated"))
    if has_own_loop(row):
        found.append(Doubt(_STACK, f"nothing is known of {cell(row, 'framework')}", _STACK_QUICKER))
    if is_unpacked(row) and setup.row_tokens is None:
        found.append(Doubt(_LENGTHS, "lengths of unpacked rows are not stated"))
    method = cell(row, "method")
    if setup.trained_share < 1:
        found.append(Doubt(_ADAPTER, f"{method} trains a part of the weights"))
    elif setup.adapter is not None and method and not any(name in method for name in _LORA_LIKE):
        size = _ORTHOGONAL if "oft" in method or method == "hra" else _ADAPTER
        found.append(Doubt(size, f"{method} is timed as LoRA"))
    return found
