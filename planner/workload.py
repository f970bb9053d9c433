"""How much there is to compute: tokens, steps and FLOPs, from the data's size and the batch."""

from __future__ import annotations

import math
from typing import NamedTuple

from planner.architecture import ModelArchitecture, adapter_parameters, parameter_counts
from planner.setup import TrainingSetup
from planner.stacks import stack_of

# Forward passes of the whole model beyond the trained one, per training token: the frozen reference; kto's loss also
# scores each prompt with another one's answer, by both models, for its reference point; ppo scores its answers with the
# old policy, a critic and a reward model as well.
_EXTRA_FORWARDS = {"dpo": 1, "kto": 3, "grpo": 1, "ppo": 3}
_ROWS = {"dpo": 2, "reward": 2}
#: Tasks whose head has an output for each class, not for each word.
_WITHOUT_WORDS = frozenset({"classification", "reward", "ner", "qa", "embedding"})


class Workload(NamedTuple):
    """The whole training, on any machine.

    Attributes:
        samples: Training examples in one epoch.
        epochs: Passes over them.
        steps: Optimizer steps.
        tokens_per_step: Tokens between two optimizer steps, padding not counted.
        tokens_total: Over all steps.
        flops_total: Model FLOPs over all steps, recomputation not counted.
    """

    samples: int
    epochs: float
    steps: int
    tokens_per_step: float
    tokens_total: float
    flops_total: float


def rows_of(task: str) -> int:
    """Sequences that one example of a task holds: preference pairs are two."""
    return _ROWS.get(task, 1)


def micro_batch_tokens(setup: TrainingSetup) -> float:
    """Tokens that one GPU computes at a time, padding included."""
    length = setup.row_tokens or float(setup.sequence_tokens)
    return setup.micro_batch * length * rows_of(setup.task) / setup.parallelism.context


def attended_tokens(setup: TrainingSetup) -> float:
    """Length of what a token's attention reaches: its row, or its own sample of a packed one."""
    row = setup.row_tokens or float(setup.sequence_tokens)
    return row if setup.attended_tokens is None else min(row, setup.attended_tokens)


def extra_forwards(task: str, loss: str = "auto", *, reference: bool = True) -> int:
    """Further forward passes that a task runs beside the trained one.

    >>> extra_forwards("kto"), extra_forwards("kto", "apo_zero_unpaired"), extra_forwards("grpo", reference=False)
    (3, 1, 0)
    """
    if task in ("dpo", "grpo") and not reference:
        return 0
    return 1 if loss == "apo_zero_unpaired" else _EXTRA_FORWARDS.get(task, 0)


def scores_words(task: str) -> bool:
    """Whether the model's output head has a value for each word of the vocabulary."""
    return task not in _WITHOUT_WORDS


def tiles_head(setup: TrainingSetup) -> bool:
    """Whether logits are made a tile at a time, and again in the backward pass: TRL 1.16's head, which we launch."""
    as_usual = setup.loss_bytes is None and setup.arch.kind == "decoder"
    return as_usual and scores_words(setup.task) and stack_of(setup.framework).tiled_head


def samples_answers(setup: TrainingSetup) -> bool:
    """Whether the GPUs that train a policy sample its answers too."""
    return setup.task in ("grpo", "ppo") and not stack_of(setup.framework).samples_elsewhere


def flops_per_token(setup: TrainingSetup) -> float:
    """Model FLOPs of one training token: 6N for full fine-tuning, 4N and the adapters' 6n for adapters.

    N are the parameters in matrix products that one token uses; attention adds 6 (full: three passes, causal
    half) times sequence times width in every block, or times the samples of a packed row that do not see each other.
    Norms and softmax are left out (under 2 %).

    >>> from planner.architecture import load_architecture
    >>> round(flops_per_token(TrainingSetup(load_architecture("llama-2-7b"), sequence_tokens=4096)) / 1e9, 1)
    42.9
    """
    n = parameter_counts(setup.arch, setup.task, setup.labels).matmul_active
    passes = 6 if setup.adapter is None else 4
    adapter = 0 if setup.adapter is None else adapter_parameters(setup.arch, setup.adapter)
    return (
        passes * n
        + 6 * adapter
        + 3 * attention_flops_per_token(setup.arch, attended_tokens(setup))
        + 2 * n * extra_forwards(setup.task, setup.preference_loss, reference=setup.reference)
    )


def attention_flops_per_token(arch: ModelArchitecture, length: float, causal: bool | None = None) -> float:
    """FLOPs of scores and weighted values in one forward pass, over all blocks, per token."""
    causal = arch.kind == "decoder" if causal is None else causal
    keys = scored_keys(arch, length, causal)
    return (
        2.0 * keys * (arch.q_size + arch.attention_width) * (arch.attention_layers + 2 * arch.decoder_layers)
    )


# Families of which each n-th block sees all tokens, the others a window (`layer_types` in transformers).
_ALL_SEEN_EVERY = {
    "gemma2": 2, "gemma3_text": 6, "gemma4_text": 6, "gpt_oss": 2, "cohere2": 4, "olmo3": 4, "exaone4": 4,
    "modernbert": 3,
}  # fmt: skip


def windowed_share(arch: ModelArchitecture, length: float) -> float:
    """Share of the blocks whose queries see fewer tokens than a row of this length has."""
    if not arch.sliding_window or length <= arch.sliding_window:
        return 0.0
    every = _ALL_SEEN_EVERY.get(arch.model_type)
    return 1.0 if every is None else 1.0 - 1.0 / every


def scored_keys(arch: ModelArchitecture, length: float, causal: bool) -> float:
    """Keys that a query is scored with, on average over tokens and blocks.

    >>> from planner.architecture import load_architecture
    >>> scored_keys(load_architecture("openai/gpt-oss-20b"), 4096, True)  # half of the blocks see 128
    1088.0
    """
    seen = length / 2 if causal else length
    narrow = windowed_share(arch, length)
    return (1 - narrow) * seen + narrow * arch.sliding_window


def workload(
    setup: TrainingSetup,
    samples: int,
    tokens_per_sample: float,
    global_batch: int,
    epochs: float = 1.0,
    steps: int | None = None,
    packing: bool = False,
) -> Workload:
    """Steps and tokens of a training.

    Args:
        setup: Model, method and sequence length.
        samples: Training examples.
        tokens_per_sample: Mean tokens of one example (of both answers together, for preference pairs).
        global_batch: Rows between two optimizer steps over all GPUs.
        epochs: Passes over the data.
        steps: Optimizer steps instead of epochs.
        packing: Rows are filled with several examples.
    """
    tokens = min(tokens_per_sample, float(setup.sequence_tokens * rows_of(setup.task)))
    rows = samples * tokens / setup.sequence_tokens if packing else float(samples)
    per_epoch = max(1.0, rows / global_batch)
    total_steps = steps if steps is not None else max(1, math.ceil(round(per_epoch * epochs, 9)))
    tokens_per_step = global_batch * (setup.sequence_tokens if packing else tokens)
    tokens_total = tokens_per_step * total_steps if steps is not None else samples * tokens * epochs
    return Workload(
        samples=samples,
        epochs=epochs if steps is None else total_steps / per_epoch,
        steps=total_steps,
        tokens_per_step=tokens_per_step,
        tokens_total=tokens_total,
        flops_total=tokens_total * flops_per_token(setup),
    )
