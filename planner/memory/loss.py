"""Memory of the output head and the loss while they are computed."""

from __future__ import annotations

from planner.memory.constants import CONSTANTS
from planner.memory.precision import Widths, is_mixed, is_sharded
from planner.setup import TrainingSetup
from planner.stacks import stack_of
from planner.workload import scores_words, tiles_head

#: A tile of the fused head of TRL 1.16 (`trl/kernels/chunked_logprob.py`): positions and words that are scored at once.
_TILE_TOKENS, _TILE_WORDS = 4096, 32768
#: Of a row, that litgpt's head takes at a time (`lm_head_chunk_size` of its scripts for adapters).
_CHUNK_TOKENS = 128
#: Values of one position that its forward pass keeps or adds up, in fp32.
_STATISTICS = 10
#: Copies of a tile in fp32 where there is no Triton and the tile is folded in torch (`_backward_tile`).
_FOLDED_COPIES = 7.25


def loss_bytes(setup: TrainingSetup, width: Widths, tokens: float, *, on_cpu: bool) -> float:
    """What a GPU holds for the loss at its largest, logits and their gradients; the activations not among it.

    Args:
        setup: The training.
        width: Of the set-up's values.
        tokens: Positions of a micro-batch.
        on_cpu: The tiles of a fused head are folded without its kernels.
    """
    if tiles_head(setup):
        return _tiled(setup, width, tokens, on_cpu=on_cpu)
    return _whole(setup, width, tokens) * tokens + _copies_of_head(setup, width)


def _copies_of_head(setup: TrainingSetup, width: Widths) -> float:
    """A frozen head in fp32 is cast by autocast for each chunk of it anew, and each product keeps its copy: autocast
    holds copies of trained weights alone (`cached_cast` in torch's aten/src/ATen/autocast_mode.cpp). The first is
    among `planner.memory.model_state.Casts`.
    """
    chunked = stack_of(setup.framework).casts_logits and setup.adapter is not None
    if is_sharded(setup.parallelism.kind):  # cast as they are gathered
        return 0.0
    if not (
        chunked and setup.frozen_fp32 and setup.precision.startswith("amp_") and scores_words(setup.task)
    ):
        return 0.0
    chunks = -(-setup.sequence_tokens // _CHUNK_TOKENS)
    return (chunks - 1) * width.compute * setup.arch.vocab * setup.arch.hidden


def kept_logits(setup: TrainingSetup, tokens: float) -> float:
    """Bytes of logits that a loop has under a name until the next ones are there, wherever a step is."""
    if not scores_words(setup.task) or setup.fused_loss:
        return 0.0
    each = stack_of(setup.framework).kept_logits
    return each * setup.arch.vocab / setup.parallelism.tensor * tokens


def _cast_whole(setup: TrainingSetup, width: Widths, tokens: float) -> float:
    """Where logits come from the model in fp32 whole, as Lightning Fabric hands them to litgpt's scripts.

    Cast, they lie beside those in the type that is computed in and the last step's. In the loss they lie beside their
    log-probabilities, and where the head's product is one (`fit` of finetune/full.py) beside the gradients of
    the loss's chunks and the same put together again; `fit` of finetune/lora.py takes the head itself in chunks
    of 128 tokens, the two gradients of one of which come at a time. A quantised head is unpacked for each, beside the
    last step's logits and those of other chunks that are not cast yet.
    """
    capped = width.activation if setup.arch.logit_softcap else 0.0
    cast = width.activation + 4.0 if width.activation < 4.0 else width.activation
    arriving = stack_of(setup.framework).kept_logits + cast + capped
    if setup.adapter is None:
        return max(arriving, 3 * 4.0 + capped)
    chunk = min(1.0, _CHUNK_TOKENS * setup.micro_batch / tokens)
    unpacked = width.compute * setup.arch.hidden / tokens if setup.quantization != "none" else 0.0
    uncast = stack_of(setup.framework).kept_logits + width.activation + unpacked
    return max(arriving, 2 * 4.0 * (1.0 + chunk) + capped, uncast + capped)


def _whole(setup: TrainingSetup, width: Widths, tokens: float) -> float:
    """For each position, where all logits are held at once.

    Capped logits are a copy, but in kernels that cap them on their way (unsloth/kernels/cross_entropy_loss.py, July
    2024). Encoders and T5 take the cross-entropy in the model's own precision: log-probabilities and two gradients.
    """
    if not scores_words(setup.task):
        return 0.0
    each = stack_of(setup.framework).loss_bytes if setup.loss_bytes is None else setup.loss_bytes
    if setup.fused_loss:
        each = CONSTANTS["fused_loss"]
    elif stack_of(setup.framework).casts_logits and setup.loss_bytes is None:
        each = _cast_whole(setup, width, tokens)
    elif setup.arch.kind != "decoder" and not is_mixed(setup):
        each = 3 * width.activation
    elif setup.arch.logit_softcap and not stack_of(setup.framework).fused_kernels:
        each += width.activation
    return each * setup.arch.vocab / setup.parallelism.tensor


def _tiled(setup: TrainingSetup, width: Widths, tokens: float, *, on_cpu: bool) -> float:
    """The head's backward pass: one tile of logits, the scored positions, and their gradients added up in fp32.

    A head that is trained has its whole gradient added up in fp32 too, beside the one in its own type at the end.
    """
    hidden, words, compute = setup.arch.hidden, setup.arch.vocab, width.compute
    if setup.task == "grpo":  # prompts are not scored; of other tasks' rows nothing says how much they are
        tokens = min(tokens, float(setup.micro_batch * setup.generated_tokens))
    rows = min(tokens, _TILE_TOKENS)
    tile = rows * _TILE_WORDS * compute
    if on_cpu:  # what is never touched takes no memory there
        tile = rows * min(words, _TILE_WORDS) * (compute + _FOLDED_COPIES * 4.0)
    again = 0.0 if width.activation == 4.0 else width.activation
    held = tokens * (hidden * (width.activation + 4.0 + again) + 4.0 * _STATISTICS)
    if setup.adapter is None:
        held += words * hidden * (4.0 + (0.0 if width.gradient == 4.0 else width.gradient))
    return tile + held
