"""Bytes per parameter and per activation that a precision, an optimizer and a way of sharding imply."""

from __future__ import annotations

from typing import NamedTuple

from planner.memory.optimizers import FOREACH, state_width
from planner.setup import TrainingSetup
from planner.shape_cache import by_shape
from planner.stacks import MEGATRON, stack_of

#: Families whose sums are normed before they go on ("post-norm"): autocast has layer norms return fp32, and with them
#: the residual stream, whatever the type of the weights.
_NORMED_SUMS = frozenset(
    ["bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "mpnet", "deberta", "deberta-v2", "bart",
     "marian"]
)  # fmt: skip


class Widths(NamedTuple):
    """Bytes per value.

    Attributes:
        weight: Of a trainable parameter as it is stored.
        frozen: Of a frozen, unquantised parameter.
        gradient: Of a trainable parameter's gradient.
        master: Further copy of a trainable parameter kept by the optimizer.
        state: Optimizer state of one parameter in all.
        step: Temporary of the optimizer's step for one parameter.
        activation: Of an activation inside a block.
        residual: Of the residual stream between blocks.
        compute: Of a parameter as it enters a matrix product.
        gathered: Of one as FSDP gathers it, and of its gradient before it is reduced.
        cast_cache: Low-precision copy of a trainable parameter that autocast keeps during a step.
        reference: Of a parameter of a frozen copy beside the trained model.
    """

    weight: float
    frozen: float
    gradient: float
    master: float
    state: float
    step: float
    activation: float
    residual: float
    compute: float
    gathered: float
    cast_cache: float
    reference: float


def is_sharded(kind: str) -> bool:
    """Whether trainable parameters, gradients and states are spread over the data-parallel ranks."""
    return kind in ("fsdp", "zero3")


def adapts_over_older_fsdp(setup: TrainingSetup) -> bool:
    """Whether adapters are trained under the FSDP of flat parameters, where the gradients of the blocks' inputs stay
    until the backward pass ends.
    """
    older = setup.parallelism.kind == "fsdp" and not setup.shards_parameters
    return older and setup.adapter is not None


def frozen_get_gradients(setup: TrainingSetup) -> bool:
    """Whether frozen weights of a block get gradients with its adapters, all being in one flat parameter."""
    return adapts_over_older_fsdp(setup) and stack_of(setup.framework).mixes_frozen


def is_mixed(setup: TrainingSetup) -> bool:
    """Whether autocast is on: over weights in fp32, and for adapters where the stack has it so."""
    if setup.precision.startswith("amp_"):
        return True
    return (
        stack_of(setup.framework).autocast
        and setup.adapter is not None
        and setup.precision in ("bf16", "fp16")
    )


@by_shape
def widths(setup: TrainingSetup) -> Widths:
    """Widths of a set-up.

    Weights trained in fp16 have masters and states in fp32, as Apex (O2) and DeepSpeed keep them.
    Pure bf16 holds everything in two bytes; mixed precision (`amp_*`), FSDP as accelerate runs it and ZeRO
    keep trainable parameters in fp32 (16 bytes a parameter in all with AdamW). ZeRO's step flattens the gradients of a
    partition and casts them to fp32 (DeepSpeed's `single_grad_partition`); Megatron adds gradients up in fp32 (18 bytes
    a parameter in its `theoretical_memory_usage.py`). Where norms and embeddings of a quantised base are in fp32, its
    products return what they were given, fp32: with a few real steps the closed form agrees within 12 %
    (tests/planner/test_prepared.py).
    """
    kind, stack = setup.parallelism.kind, stack_of(setup.framework)
    low = 4.0 if setup.precision in ("fp32", "tf32") else 2.0
    mixed = setup.precision.startswith("amp_")
    megatron, full = setup.framework in MEGATRON, setup.adapter is None
    # steps are too small for weights in fp16
    beside = full and (setup.precision == "fp16" or (stack.masters_beside and low == 2.0 and not mixed))
    zero = kind in ("zero1", "zero2", "zero3") or beside
    master_fp32 = low == 4.0 or mixed or (kind == "fsdp" and stack.fp32_master)
    if megatron:
        mixed, zero, master_fp32 = False, True, False
    weight = 4.0 if master_fp32 and not zero else low
    if setup.adapter is not None:
        weight = 4.0 if setup.adapter.fp32 else 2.0
        zero = megatron  # its optimizer keeps masters of whatever it trains
    base_fp32 = low == 4.0 or (mixed and (full or setup.frozen_fp32))
    gathered_low = setup.frozen_fp32 and kind == "fsdp"  # what is computed with is cast on its way
    # Autocast leaves what an embedding in fp32 looks up in fp32, and so every sum on it. A gathered one is in the type
    # that is computed in (`param_dtype` of both FSDPs' mixed precision), as is a module that DeepSpeed has cast.
    looked_up_fp32 = base_fp32 and (kind not in ("fsdp", "zero1", "zero2", "zero3") or setup.gathers_fp32)
    normed_fp32 = is_mixed(setup) and not setup.cpu_autocast and setup.arch.model_type in _NORMED_SUMS
    state = state_width(setup, 4.0 if zero else weight)
    blockwise = setup.optimizer == "badam"
    # DeepSpeed copies its shard of the weights into masters (`clone().float()`) whatever they are in
    cloned = full and kind in ("zero1", "zero2", "zero3") and not megatron
    masters = cloned or ((zero or blockwise) and low == 2.0)
    return Widths(
        weight=weight,
        frozen=4.0 if base_fp32 or gathered_low else 2.0,
        gradient=4.0 if blockwise else _of_gradient(setup, low) if zero else weight,
        master=4.0 if masters else 0.0,
        state=state,
        step=_of_step(setup, low, masters=masters) if zero else _foreach(setup, weight),
        activation=4.0 if setup.upcast_frozen else low,
        residual=4.0 if low == 4.0 or looked_up_fp32 or setup.upcast_frozen or normed_fp32 else 2.0,
        compute=low,
        gathered=4.0 if setup.gathers_fp32 else low,
        cast_cache=2.0 if mixed and full and not is_sharded(kind) else 0.0,
        reference=4.0 if low == 4.0 else 2.0,
    )


def _adds_in_fp32(setup: TrainingSetup) -> bool:
    """Whether gradients are added up in fp32: DeepSpeed does so under Megatron where they are not in fp16."""
    if setup.framework == "megatron-deepspeed":
        return "fp16" not in setup.precision
    return setup.framework in MEGATRON


def _of_gradient(setup: TrainingSetup, low: float) -> float:
    """Megatron frees the gradient that it adds, and DeepSpeed's `BF16_Optimizer` keeps it (`clear_lp_grads`)."""
    if not _adds_in_fp32(setup):
        return low
    return 4.0 + low if setup.framework == "megatron-deepspeed" else 4.0


def _of_step(setup: TrainingSetup, low: float, *, masters: bool) -> float:
    """The gradients in fp32, beside those of a partition made flat (the same where they are in fp32 already), or a
    temporary of torch's own optimizer.
    """
    stack = stack_of(setup.framework)
    if not masters or _adds_in_fp32(setup) or stack.fused_step:
        return 0.0
    if low == 4.0:
        return low
    return 4.0 + (_foreach(setup, 4.0) if stack.masters_beside else low)


def _foreach(setup: TrainingSetup, weight: float) -> float:
    """torch's own optimizers step on all parameters at once since 2.0, with a temporary as large."""
    apart = setup.older_torch or setup.steps_in_backward or setup.optimizer not in FOREACH
    return 0.0 if apart or not stack_of(setup.framework).foreach_step else weight
