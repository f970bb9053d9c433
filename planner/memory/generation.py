"""Memory while a policy samples its answers."""

from __future__ import annotations

from typing import NamedTuple

from jobs.spec_rules import prompt_piece
from planner.memory.precision import is_sharded, widths
from planner.setup import TrainingSetup


class Generation(NamedTuple):
    """At the worst moment of sampling, beside what lies there all the time.

    Attributes:
        cache: Keys and values, bytes.
        passing: Of the forward pass, bytes.
        gathered: What collectives hold, bytes.
    """

    cache: float
    passing: float
    gathered: float = 0.0


def generation_bytes(setup: TrainingSetup, gathered: tuple[float, float] = (0.0, 0.0)) -> Generation:
    """All answers of an optimizer step are sampled before the first is learned from, as TRL does.

    Either a piece of the prompts passes through a block, or the last token of the longest answer is sampled: the cache
    is whole then. A layer's is copied as it grows.

    Args:
        setup: The training.
        gathered: Bytes that collectives hold inside a block and at the head.
    """
    in_block, at_head = gathered
    rows = setup.micro_batch * setup.grad_accum
    prompt = max(setup.sequence_tokens - setup.generated_tokens, 1)
    token = rows * _passing(setup, prompt)
    logits = 8.0 * rows * setup.arch.vocab  # of one position, and their probabilities, in fp32
    moments = [(setup.sequence_tokens, logits, at_head)]
    moments += [(done, piece * token, in_block) for done, piece in _pieces(setup, rows, prompt)]
    layers = max(setup.arch.attention_layers, 1)
    held = ((cache_bytes(setup, rows, tokens), *beside) for tokens, *beside in moments)
    return max((Generation(cache, passing + cache / layers, comm) for cache, passing, comm in held), key=sum)


def _pieces(setup: TrainingSetup, rows: int, prompt: int) -> list[tuple[int, int]]:
    """Tokens of each prompt that are done with the last whole piece and with the rest, and tokens of these pieces."""
    kind = "full" if setup.adapter is None else setup.adapter.kind
    piece = prompt_piece(rows, prompt, kind, in_shards=is_sharded(setup.parallelism.kind))
    if piece is None:
        return [(prompt, prompt)]
    return [(prompt // piece * piece, piece), (prompt, prompt % piece)]


def cache_bytes(setup: TrainingSetup, rows: int, tokens: float) -> float:
    """Keys and values of rows of so many tokens."""
    arch = setup.arch
    return widths(setup).compute * rows * tokens * (arch.kv_size + arch.v_size) * arch.attention_layers


def _passing(setup: TrainingSetup, prompt: int) -> float:
    """Bytes of a token inside a block, none kept for a backward pass.

    The embeddings, the block's input, its residual and the normed values; rotations; the MLP's gate, values and
    product, and what an adapter adds to one of them; the mask. Sampling goes without autocast: an adapter in fp32
    casts its input, and its product, the same scaled and the sum are in fp32; in shards it is gathered as computed.
    """
    arch, width = setup.arch, widths(setup).compute
    inner = float(arch.intermediate)
    if arch.is_moe:
        inner = float(max(inner, arch.experts_per_token * arch.moe_intermediate + arch.shared_intermediate))
    values = 4 * arch.hidden + 2 * arch.q_size / arch.heads + (3 if arch.mlp_matrices == 3 else 2) * inner
    if setup.attention == "eager":
        values += 3.0 * arch.heads * prompt
    added = 0.0
    if setup.adapter is not None:
        cast = setup.adapter.fp32 and width < 4.0 and setup.parallelism.kind != "fsdp"
        added = 10.0 * inner + 4.0 * arch.hidden if cast else width * inner
    return width * values + added + prompt
