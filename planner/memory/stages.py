"""How a schedule of pipeline stages spreads blocks, embeddings and micro-batches: what the fullest stage holds.

The first stage has the embedding beside its blocks, and the last the head (a copy of the embedding, where they share
weights); Megatron's `theoretical_memory_usage.py` counts both in its "most loaded shard". Under 1F1B a stage has a
micro-batch in flight for itself and for each stage behind it (Narayanan et al. 2021, "Efficient Large-Scale Language
Model Training on GPU Clusters", section 2.2; `num_pipe_buffers` of DeepSpeed), and up to twice as many parts of a
micro-batch where stages are interleaved.
"""

from __future__ import annotations

from typing import NamedTuple

from planner.architecture import parameter_counts
from planner.memory.collectives import head_parameters, is_classifier
from planner.setup import TrainingSetup
from planner.stacks import stack_of


class Blocks(NamedTuple):
    """Blocks of a stage.

    Attributes:
        edge: Of the first and last stage.
        inner: Of the others.
    """

    edge: float
    inner: float


def is_scheduled(setup: TrainingSetup) -> bool:
    """Whether stages work at the same time; where layers are only laid out, they lie evenly."""
    return setup.parallelism.stages_at_once > 1


def stage_blocks(setup: TrainingSetup) -> Blocks:
    """Blocks that a stage holds; those left over make some stages one larger.

    Where the blocks and two more fill the stages, embedding and head are each counted as a block: Megatron's
    `account_for_embedding_in_pipeline_split`, DeepSpeed's `type:transformer|embedding`; Llama 3 405B has 126 blocks in
    16 stages, BLOOM 70 in 12.
    """
    blocks, stages = setup.arch.layers + setup.arch.decoder_layers, setup.parallelism.pipeline
    if not is_scheduled(setup):
        return Blocks(blocks / stages, blocks / stages)
    if blocks % stages and (blocks + 2) % stages == 0:
        each = (blocks + 2) // stages
        return Blocks(max(1, each - 1), each)
    each = -(-blocks // stages)
    return Blocks(each, each)


def blocks_in_flight(setup: TrainingSetup) -> float:
    """Blocks whose activations wait for their backward pass on the first stage, or on the second where it has more."""
    parallel, held = setup.parallelism, stage_blocks(setup)
    if is_scheduled(setup) and setup.virtual_stages > 1:
        return _interleaved(setup) / setup.virtual_stages * held.edge
    first = min(parallel.stages_at_once, setup.grad_accum)
    second = min(parallel.stages_at_once - 1, setup.grad_accum)
    return max(held.edge * first, held.inner * second)


def _interleaved(setup: TrainingSetup) -> int:
    """Parts that the first stage has computed forward and not backward: `get_pp_rank_microbatches` of Megatron-LM's
    schedules warms up with two for each stage behind it and one part of all micro-batches for each further part, and
    holds one more.
    """
    stages, parts = setup.parallelism.pipeline, setup.virtual_stages
    return min(2 * (stages - 1) + (parts - 1) * stages + 1, parts * setup.grad_accum)


def outputs_in_flight(setup: TrainingSetup) -> int:
    """Outputs of a stage that it keeps until their gradients come: DeepSpeed's `pipe_buffers` do, and Megatron gives
    back what it has sent (`deallocate_output_tensor`).
    """
    if not (is_scheduled(setup) and stack_of(setup.framework).keeps_outputs):
        return 0
    return min(setup.parallelism.pipeline, setup.grad_accum)


def share_of_stage(setup: TrainingSetup) -> float:
    """Share of all parameters on the fullest stage."""
    if not is_scheduled(setup):
        return 1.0 / setup.parallelism.pipeline
    counts, held = parameter_counts(setup.arch, setup.task, setup.labels), stage_blocks(setup)
    head = head_parameters(setup)
    shared = setup.arch.tied_embeddings and not is_classifier(setup)
    blocks = counts.total - counts.embedding - (0 if shared else head)
    block = blocks / (setup.arch.layers + setup.arch.decoder_layers)
    fullest = max(held.edge * block + max(counts.embedding, head), held.inner * block)
    return min(1.0, fullest / counts.total)


def share_of_blocks(setup: TrainingSetup) -> float:
    """Share of all blocks on the stage that has most of them, and so of what adapters add to them."""
    return max(stage_blocks(setup)) / (setup.arch.layers + setup.arch.decoder_layers)
