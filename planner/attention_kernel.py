"""What torch runs where transformers calls `scaled_dot_product_attention`: not always a fused kernel."""

from __future__ import annotations

from planner.hardware import GpuFacts
from planner.setup import TrainingSetup

_OLDEST_WITH_FLASH = 8.0  # compute capability; torch builds its flash kernel for no older chip


def dispatched(setup: TrainingSetup, gpu: GpuFacts, *, masked: bool, repeats: bool = False) -> TrainingSetup:
    """The set-up with the kernel that its sdpa ends in, where heads share keys and values.

    Without a mask transformers hands torch fewer key heads than query heads (`use_gqa_in_sdpa` in
    transformers/integrations/sdpa_attention.py, since 4.54 of July 2025; its pull request 39412); of torch's kernels
    only flash takes them, which needs 16 bits and an A100 or later, and else torch falls back to its math kernel
    without a word (transformers' issue 48633). With a mask it repeats keys and values, as it always did before, and
    where it writes scores out itself (`repeat_kv` in each model's `eager_attention_forward`).

    Args:
        setup: What is trained.
        gpu: On what.
        masked: Rows are padded, or told apart by a mask.
        repeats: Transformers is older, or calls sdpa from modules that repeat.
    """
    grouped = setup.arch.kv_size < setup.arch.q_size and not setup.arch.kv_lora_rank
    if not grouped or setup.attention not in ("sdpa", "eager"):
        return setup
    windowed = 0 < setup.arch.sliding_window < setup.sequence_tokens  # a mask tells of it
    if masked or windowed or repeats or setup.attention == "eager":
        return setup._replace(repeats_keys=True)
    falls_back = lacks_flash(gpu) or (gpu.vendor == "nvidia" and attends_in_fp32(setup))
    return setup._replace(attention="math") if falls_back else setup


def lacks_flash(gpu: GpuFacts) -> bool:
    """Whether a GPU is too old for torch's flash kernel. Besides this only its maker decides what runs there."""
    return gpu.vendor == "nvidia" and float(gpu.capability) < _OLDEST_WITH_FLASH


def attends_in_fp32(setup: TrainingSetup) -> bool:
    """Whether queries, keys and values reach the kernel in fp32: autocast casts them (`lower_precision_fp`)."""
    return setup.precision in ("fp32", "tf32") or computes_prepared_in_fp32(setup)


def computes_prepared_in_fp32(setup: TrainingSetup) -> bool:
    """Whether what is not quantised of a prepared base computes in fp32.

    `prepare_model_for_kbit_training` (peft/utils/other.py, since 0.3) holds all that is not quantised in fp32, and
    products of bitsandbytes return the type that they were given (`Linear4bit.forward`). Trainers compute such a model
    under autocast in 16 bits; a loop of its own has none unless it enters it.
    """
    return setup.upcast_frozen and setup.framework == "other" and setup.precision in ("bf16", "fp16")
