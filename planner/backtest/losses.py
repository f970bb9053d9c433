"""Bytes that published runs hold for each vocabulary entry and token at the loss, by stack, family and date."""

from __future__ import annotations

from planner.architecture import ModelArchitecture
from planner.backtest import habits
from planner.backtest.cells import Row, cell, dated_before, number
from planner.setup import Parallelism
from planner.stacks import STACKS, runs_transformers_modules

#: Families whose logits transformers left in their own type until all took `ForCausalLMLoss` (4.48, January 2025).
_LOGITS_AS_COMPUTED = frozenset({"gpt2", "opt", "bloom", "falcon", "gpt_bigcode"})
#: Loops that give a model no labels and take the cross-entropy of what it returns (`forward` of
#: universal-llm-trainer's models, September 2025).
_OWN_CRITERIA = ("plain pytorch", "universal-llm-trainer")
#: Logits in 16 bits, their gradient in their place (unsloth/kernels/cross_entropy_loss.py), and the copy in fp32 that
#: accelerate makes of a model's outputs under autocast (`convert_outputs_to_fp32`).
_LOGITS_COPIED = 6.0
_IN_16_BITS = 4.0  # logits and their gradients
_CHUNKS = 8  # parts in which torchtitan and torchtune take the loss
_SMALL = 8.0  # logits, a shifted copy or their log-probabilities, and two gradients, in 16 bits each


def loss_bytes_of(
    row: Row, framework: str, arch: ModelArchitecture, precision: str, parallelism: Parallelism
) -> float | None:
    """None where the stack's own figure holds."""
    in_16_bits = precision in ("bf16", "fp16") and runs_transformers_modules(framework)
    return (
        _SMALL
        if in_16_bits and _keeps_type(row, framework, arch, parallelism)
        else _of_stack(row, framework, precision)
    )


def _keeps_type(row: Row, framework: str, arch: ModelArchitecture, parallelism: Parallelism) -> bool:
    """Whether nothing casts logits: in modules of one's own, and in older ones of transformers under DeepSpeed or in a
    loop of one's own, which compute in the type of the weights. The first Qwen's own modules never cast theirs; its
    finetune.py runs DeepSpeed on one GPU where the base is quantised (`finetune_qlora_single_gpu.sh`).
    """
    if any(name in cell(row, "framework") for name in _OWN_CRITERIA):
        return not cell(row, "quant_bits")  # whose norms and head are fp32
    deepspeed = framework == "deepspeed" or parallelism.kind in ("zero1", "zero2", "zero3")
    unknown = habits.names_unknown_stack(row)
    if arch.model_type == "qwen":
        packed = "qwen finetune.py" in cell(row, "framework") and number(row, "quant_bits") is not None
        return packed or (deepspeed and not unknown)
    return arch.model_type in _LOGITS_AS_COMPUTED and dated_before(row, "2025-01") and (deepspeed or unknown)


def _of_stack(row: Row, framework: str, precision: str) -> float | None:
    """Until v4.46 transformers shifted a copy of the fp32 logits; fused cross-entropies keep two fp32 copies; TRL
    computes the loss in chunks since 1.7 (June 2026), which Soup does not take. torchtune held shifted fp32 logits
    until the backward pass was over, beside log-probabilities and two gradients, up to 0.2; in chunks, as since in all
    its recipes, it does not, and compiled a chunk keeps its logits alone, which it is given in bf16. torchtitan
    compiles the loss with the model (again since April 2025), which leaves the logits and their gradients in bf16.
    Unsloth cuts the cross-entropy since December 2024 (its issue 1298).
    """
    if framework == "torchtune":
        old = dated_before(row, "2024-09") and "chunk" not in cell(row, "liger_fused")
        return 16.0 if old else 2.0 + 2.0 / _CHUNKS if habits.fuses_kernels(row) else None
    if framework == "unsloth":
        return _LOGITS_COPIED if dated_before(row, "2024-12") else None
    if framework == "torchtitan":
        return _of_torchtitan(row)
    stack = cell(row, "framework")
    if "trl" in stack and "soup" not in stack and cell(row, "date") >= "2026-07":
        return STACKS["trl"].loss_bytes
    if "foak" in cell(row, "liger_fused"):
        return 8.0
    if framework == "hf" and dated_before(row, "2024-11"):
        return 14.0
    return _named_outputs(row, precision) if framework == "hf" and "own loop" in stack else None


def _of_torchtitan(row: Row) -> float | None:
    """In chunks it takes the loss alone where it is told to (its pull request 996, March 2025): an eighth in fp32
    beside the logits and their gradients in bf16. Since May 2026 it takes the head with it unasked, and no logits are
    held whole (`ChunkedCELoss`, its issue 3117; its graph trainer followed later).
    """
    each = STACKS["torchtitan"].loss_bytes
    if not dated_before(row, "2026-05") and "graph" not in cell(row, "framework"):
        return each / _CHUNKS
    if "chunk" in cell(row, "liger_fused"):
        return _IN_16_BITS + (each - 2.0) / _CHUNKS
    return _IN_16_BITS if habits.fuses_kernels(row) and not dated_before(row, "2025-04") else None


def _named_outputs(row: Row, precision: str) -> float:
    """Trainers let go of a model's outputs before the backward pass; a loop that calls `out.loss.backward()` has the
    logits beside the copy in fp32 and two gradients. They are in fp32 where peft cast the head of a quantised base.
    """
    whole = number(row, "quant_bits") is not None or precision in ("fp32", "tf32")
    return STACKS["hf"].loss_bytes + (4.0 if whole else 2.0)
