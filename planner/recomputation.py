"""What a step computes twice to save memory: all blocks, every n-th, or all but chosen operations of each."""

from __future__ import annotations

from typing import NamedTuple

from planner.architecture import ModelArchitecture, parameter_counts
from planner.setup import TrainingSetup


class Recomputed(NamedTuple):
    """Shares of the blocks' forward pass that the backward pass repeats.

    Attributes:
        products: Of matrix products.
        attention: Of attention's scores and values.
        elementwise: Of memory-bound work and launches.
    """

    products: float
    attention: float
    elementwise: float


def recomputed(setup: TrainingSetup) -> Recomputed:
    """Shares of a set-up; with every second product kept, as by torchtitan, the others are little over a third."""
    if not setup.gradient_checkpointing:
        return Recomputed(0.0, float(setup.recomputes_attention), 0.0)
    share = setup.recomputed_blocks
    if not setup.keeps_products:
        return Recomputed(share, share, share)
    return Recomputed(share * (1 - _kept_work(setup.arch)), 0.0, share)


def kept_values(arch: ModelArchitecture) -> float:
    """Values per token of a block that selection by operation keeps: outputs of attention and every second product.

    torchtitan's `_save_list` (and torchtune's copy of it): `aten.mm` is counted within a block, odd calls are kept, in
    the order queries, keys, values, output, then the MLP's. Experts' grouped products are other operations.
    """
    gated = arch.mlp_matrices == 3  # the fifth and seventh product, of a plain MLP the fifth
    mlp = _inner(arch) + (arch.hidden if gated else 0)
    return float(arch.q_size + arch.v_size + arch.attention_width + mlp)


def _inner(arch: ModelArchitecture) -> int:
    return arch.shared_intermediate if arch.is_moe else arch.intermediate


def _kept_work(arch: ModelArchitecture) -> float:
    """Share of the blocks' products, by work, whose outputs are kept."""
    of_mlp = (2 if arch.mlp_matrices == 3 else 1) * _inner(arch)
    kept = arch.hidden * (arch.q_size + arch.v_size + of_mlp)
    shapes = parameter_counts(arch).shapes
    whole = sum(s.count * s.inputs * s.outputs * s.share for s in shapes)
    return min(1.0, kept * (arch.layers + arch.decoder_layers) / whole)
