"""How a row's stack and model hold the logits and the loss."""

from __future__ import annotations

import re

from planner.architecture import ModelArchitecture
from planner.backtest.cells import Row, cell, dated_before
from planner.backtest.habits import fuses_kernels, is_packed
from planner.setup import Parallelism
from planner.stacks import STACKS


def fuses_loss(row: Row) -> bool:
    """Whether logits are never held whole."""
    text = cell(row, "liger_fused")
    return text == "true" or re.search(r"liger|\bcce\b|cut.?cross|fused (?:lm.?)?head", text) is not None


def loss_bytes_of(
    row: Row, framework: str, arch: ModelArchitecture, parallelism: Parallelism
) -> float | None:
    """Until v4.46 transformers shifted a copy of the fp32 logits; fused cross-entropies keep two fp32 copies; TRL
    computes the loss in chunks since 1.7 (June 2026). torchtune held shifted fp32 logits until the backward pass was
    over, beside log-probabilities and two gradients, up to 0.2; in chunks, as since in all its recipes, it does not.
    torchtitan compiles the loss with the model (again since April 2025), which leaves the logits and their gradients
    in bf16. Qwen's first models bring code of their own, which leaves the logits in 16 bits; then autocast makes the
    loss take them in fp32, which DeepSpeed does without.
    """
    if arch.layout == "qwen" and framework == "hf":
        return 8.0 if parallelism.kind.startswith("zero") or is_packed(row) else 12.0
    if framework == "torchtune":
        old = dated_before(row, "2024-09") and "chunk" not in cell(row, "liger_fused")
        return 16.0 if old else None
    if framework == "torchtitan":
        return 4.0 if fuses_kernels(row) and not dated_before(row, "2025-04") else None
    if "trl" in cell(row, "framework") and cell(row, "date") >= "2026-07":
        return STACKS["trl"].loss_bytes
    if "foak" in cell(row, "liger_fused"):
        return 8.0
    return 14.0 if framework == "hf" and dated_before(row, "2024-11") else None
