"""What an optimizer keeps of each trained weight."""

from __future__ import annotations

from planner.architecture import parameter_counts
from planner.setup import TrainingSetup

#: Values per parameter and bytes of each; None takes the width of the weights. Blocks of 8 bits carry an fp32 scale
#: every 256 values (bitsandbytes), of 4 bits every 128 (torchao's `AdamW4bit`).
_STATES: dict[str, tuple[float, float | None]] = {
    "adamw": (2, None), "adamw_fused": (2, None), "adamw_8bit": (2, 1.02), "adamw_4bit": (2, 0.53),
    "adamw_bf16": (2, 2.0),  # moments alone in bf16 (Megatron's `--exp-avg-dtype bf16`, its precision-aware optimizer)
    "paged_adamw_32bit": (2, 4.0), "paged_adamw_8bit": (2, 1.02),
    "adafactor": (0.01, 4.0), "lion": (1, None), "lion_8bit": (1, 1.02), "sgd": (0, None), "sgd_momentum": (1, None),
    "rmsprop": (1, None),  # the squares; Adagrad's sum of them is as large
    "came": (1, None),  # a first moment, all else factored (arXiv 2307.02047)
    "ademamix": (3, None), "ademamix_8bit": (3, 1.02),  # two first moments (arXiv 2409.03137)
    "adan": (4, None),  # three moments and the last gradient (arXiv 2208.06677, the authors' code)
    "prodigy": (4, None),  # Adam's, a weighted sum of gradients and the first weights (arXiv 2306.06101)
    "badam": (2, 4.0),  # of the block that is trained, beside an fp32 copy of it (arXiv 2404.02827)
}  # fmt: skip
#: Of an m x n matrix (m <= n): projection m r and two moments r n (GaLore, arXiv 2403.03507, table 1); the moments
#: alone, whose projection is drawn anew from a seed (APOLLO, arXiv 2412.05270, table 1); one momentum (Muon).
#: Embedding, head and norms keep Adam's two moments.
_BY_MATRIX = frozenset({"galore", "galore_8bit", "apollo", "muon"})
_RANK = 128  # transformers' default for GaLore and APOLLO
#: Step on all parameters at once with a temporary as large; SGD adds to the weights in place.
FOREACH = frozenset({"adamw", "rmsprop"})


def state_width(setup: TrainingSetup, width: float) -> float:
    """Bytes of optimizer state for one trained parameter, on average.

    Args:
        setup: The training.
        width: Bytes of a value that is kept in the type of the weights.

    >>> from planner.architecture import load_architecture
    >>> llama = TrainingSetup(load_architecture("llama-2-7b"), precision="bf16")
    >>> [round(state_width(llama._replace(optimizer=name), 2.0), 2) for name in ("adamw", "galore", "apollo", "lion")]
    [4.0, 0.31, 0.28, 2.0]
    """
    if setup.optimizer not in _BY_MATRIX:
        values, each = _STATES[setup.optimizer]
        return values * (each or width)
    if setup.adapter is not None:  # small matrices, of full rank
        return width * (1 if setup.optimizer == "muon" else 2)
    counts = parameter_counts(setup.arch, setup.task, setup.labels)
    moment = 1.02 if setup.optimizer.endswith("8bit") else width
    kept = matrices = 0.0
    for shape in counts.shapes:
        small, large = sorted((shape.inputs, shape.outputs))
        rank = min(setup.optimizer_rank or _RANK, small)
        each_matrix = {
            "muon": width * small * large,
            "apollo": width * 2 * rank * large,
        }.get(setup.optimizer, width * rank * small + moment * 2 * rank * large)
        kept += shape.count * each_matrix
        matrices += shape.count * small * large
    return (kept + 2 * moment * (counts.trainable - matrices)) / counts.trainable
