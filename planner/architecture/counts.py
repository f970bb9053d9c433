"""Exact parameter counts from the facts alone."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from planner.architecture.linears import LinearShape, linear_shapes
from planner.architecture.model import ModelArchitecture

CLASSIFIERS = frozenset({"classification", "reward", "ner", "qa"})


class ParameterCounts(NamedTuple):
    """Parameters of a model with the head that its task needs.

    Attributes:
        total: All, tied weights once.
        trainable: Those that a full fine-tuning trains.
        active: Those that one token uses (fewer than total in a mixture of experts).
        embedding: Token, position and type embeddings.
        head: Output or classification head; 0 where it shares the embedding's weights.
        linear: In the blocks' linear modules.
        other: Norms and the rest.
        matmul_active: Parameters that take part in a matrix product for one token, the head included
            even if tied, the input embedding not: what FLOPs are counted from.
        shapes: The linear modules.
    """

    total: int
    trainable: int
    active: int
    embedding: int
    head: int
    linear: int
    other: int
    matmul_active: int
    shapes: tuple[LinearShape, ...]


@lru_cache(maxsize=512)
def parameter_counts(arch: ModelArchitecture, task: str = "sft", labels: int = 2) -> ParameterCounts:
    """Count as transformers builds the model for the task, equal to the last parameter.

    Args:
        arch: The model.
        task: classification, reward, qa and ner get their head, everything else the language-model head.
        labels: Classes, for classification and ner.

    >>> from planner.architecture import load_architecture
    >>> parameter_counts(load_architecture("meta-llama/Llama-3.1-8B")).total
    8030261248
    """
    shapes = linear_shapes(arch)
    linear = sum(shape.parameters for shape in shapes)
    idle = sum(round(shape.parameters * (1 - shape.share)) for shape in shapes)
    embedding = _embedding(arch)
    head, head_matmul = _head(arch, task, labels)
    other = _other(arch, task) + arch.extra_parameters
    total = linear + embedding + head + other
    return ParameterCounts(
        total=total,
        trainable=total - arch.idle_parameters,
        active=total - idle,
        embedding=embedding,
        head=head,
        linear=linear,
        other=other,
        matmul_active=linear - idle + head_matmul,
        shapes=shapes,
    )


def norm_parameters(arch: ModelArchitecture) -> int:
    """Parameters of one norm of the hidden width."""
    return arch.hidden * (2 if arch.norm == "layer" else 1)


def norm_count(arch: ModelArchitecture) -> int:
    """Norms of the hidden width.

    A decoder block that attends to the encoder has one norm more; each stack begins and ends in norms of its own.
    """
    norms = (arch.layers + arch.decoder_layers) * arch.norms_per_layer + arch.decoder_layers
    return norms + (2 if arch.decoder_layers else 1) * (arch.final_norm + arch.embedding_norm)


def _embedding(arch: ModelArchitecture) -> int:
    width = arch.embedding_width or arch.hidden
    projections = 2 * arch.embedding_width * arch.hidden
    rows = arch.position_rows + arch.token_types
    return arch.vocab * width + rows * arch.hidden + projections


def _head(arch: ModelArchitecture, task: str, labels: int) -> tuple[int, int]:
    """Parameters of the head, and those of its matrix product."""
    h, width = arch.hidden, arch.embedding_width or arch.hidden
    if task in CLASSIFIERS:
        return _classification_head(arch, task, 1 if task == "reward" else labels)
    if arch.kind == "encoder":  # masked-language-model head: a dense layer, its norm and the tied decoder
        norm = width * (2 if arch.norm == "layer" else 1)
        head = h * width + norm + (width + arch.vocab if arch.layout != "modernbert" else arch.vocab)
        return head, h * width + arch.vocab * width
    product = arch.vocab * width
    return (0 if arch.tied_embeddings else product) + (arch.vocab if arch.head_bias else 0), product


def _classification_head(arch: ModelArchitecture, task: str, labels: int) -> tuple[int, int]:
    h = arch.hidden
    if arch.kind == "decoder":
        return h * labels, h * labels
    labels = 2 if task == "qa" else labels
    final = h * labels + labels
    if task != "classification":
        return final, final
    if arch.layout == "modernbert":
        return h * h + norm_parameters(arch) + final, h * h + final
    return h * h + h + final, h * h + final


def _other(arch: ModelArchitecture, task: str) -> int:
    blocks = arch.layers + arch.decoder_layers
    norms = norm_count(arch) * norm_parameters(arch)
    per_block = (blocks - arch.linear_layers - arch.wide_layers) * _qk_norm(
        arch
    ) + blocks * arch.extra_per_layer
    per_block += arch.wide_layers * 2 * arch.wide_head_dim
    return norms + per_block + arch.linear_layers * _linear_attention(arch) + arch.relative_positions


def _linear_attention(arch: ModelArchitecture) -> int:
    """Of a gated delta rule beside its projections: convolution, decay and step of each head, norm of a head."""
    heads = arch.linear_value_heads
    head = arch.linear_value_width // heads if heads else 0
    return arch.linear_width * arch.linear_kernel + 2 * heads + head


def _qk_norm(arch: ModelArchitecture) -> int:
    if arch.kv_lora_rank:  # latent attention norms its compressed queries and keys
        return arch.q_lora_rank + arch.kv_lora_rank
    if arch.qk_norm == "head":
        return 2 * arch.head_dim
    return arch.q_size + arch.kv_size if arch.qk_norm == "full" else 0
