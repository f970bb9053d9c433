"""Peak memory of the busiest GPU, component by component."""

from __future__ import annotations

from collections.abc import Callable

from planner.candidates import Candidate
from planner.explain.terms import Section, Term, Value, corrected_by, correction_of
from planner.memory.constants import CONSTANTS
from planner.memory.precision import widths
from planner.pricing import Priced
from planner.setup import TrainingSetup
from planner.workload import rows_of, tiles_head

_SOURCE = "planner/memory: closed form, checked against published peaks (ACCURACY.md)"

_FORMULAS = {
    "weights": "parameters x bytes of one, over the shards",
    "adapters": "trained x bytes of one, over the shards",
    "gradients": "trained x bytes of one, as far as they exist at the peak",
    "optimizer": "trained x (states + master copy), over the shards",
    "optimizer_step_temporary": "a temporary as large as the weights while the optimizer steps",
    "activations": "tokens x blocks x what a block keeps (with checkpointing: its input, and one whole block)",
    "logits_loss": "a tile of logits, the scored values and their gradients, a trained head's gradient in fp32; while"
    " answers are sampled, a piece of the prompts inside a block",
    "comm_buffers": "gathered blocks and buckets of the collectives",
    "reference_models": "frozen copies that the task needs",
    "kv_cache": "keys and values of the rows that are generated at once",
    "fragmentation": "cached but unused blocks of the allocator",
    "context": "CUDA context, kernels and communication library; on a CPU the process",
}


_GIB = 2.0**30
_HOST_SOURCE = "planner/memory/host: closed form, from the code of torch, transformers and safetensors"
_HOST_FORMULAS = {
    "weights": "parameters x bytes of one, pinned where the GPU copies them from",
    "gradients": "trained x bytes of one, pinned likewise",
    "optimizer": "trained x (states + master copy), of all processes here",
    "reference models": "frozen copies that the task needs",
    "rounding": "pinned memory comes in powers of two, for each tensor",
    "data": "each process: 2.25 copies of the text and 53 bytes a token, measured; nothing of it is on a disk",
    "training": "on a CPU: what stands under memory of one GPU",
    "loading or saving": "the largest of weights as they are read, states gone on from, and files as they are written",
    "processes": "Python, CUDA and libraries: 4 GiB and 2.5 for each process",
}


def memory(candidate: Candidate, priced: Priced) -> Section:
    """What is in GPU memory at the peak."""
    setup, estimate = priced.solved.fit.setup, priced.solved.fit.memory
    terms = tuple(
        Term(name, value, "GiB", _FORMULAS.get(name, ""), _inputs(name, setup))
        for name, value in candidate.memory.components_gib.items()
    )
    total = Term("nvml", candidate.memory.nvml_gib, "GiB", f"sum, at the peak ({estimate.peak_phase})")
    return Section(
        "memory", "memory of one GPU", _SOURCE, terms, total, (*_bounds(candidate), *_learned(priced))
    )


def host_memory(candidate: Candidate, priced: Priced) -> Section:
    """What one machine needs beside its GPUs' memory."""
    setup, parts = priced.solved.fit.setup, priced.solved.host_parts_bytes
    terms = tuple(
        Term(name, value / _GIB, "GiB", _HOST_FORMULAS.get(name, ""), _inputs(name, setup))
        for name, value in parts.items()
    )
    stated = Term("stated", candidate.offer.ram_gib, "GiB", "what the seller says of a machine")
    total = Term("host", candidate.host_ram_gib, "GiB", "sum")
    return Section("host_memory", "memory of one machine", _HOST_SOURCE, terms, total, (stated,))


def _bounds(candidate: Candidate) -> tuple[Term, ...]:
    memory = candidate.memory
    return (
        Term("allocated", memory.allocated_gib, "GiB", "tensors: nvml without context and fragmentation"),
        Term("reserved", memory.reserved_gib, "GiB", "what the allocator holds: nvml without the context"),
        Term(
            "upper",
            memory.upper_gib,
            "GiB",
            "nvml x upper",
            {"upper": memory.upper_gib / memory.nvml_gib},
            error="exceeded by at most one run in twenty",
        ),
        Term(
            "limit",
            memory.limit_gib,
            "GiB",
            "what a process can get on this GPU",
            {"gpu": candidate.offer.gpu},
        ),
        Term(
            "verdict",
            candidate.fit_in_a_word,
            "",
            "how likely tensors and context stay within the limit: fits from 17 in 20, oom to 1 in 5; tight: the upper"
            " bound is beyond it",
        ),
    )


def _learned(priced: Priced) -> tuple[Term, ...]:
    correction = correction_of(priced, "memory")
    if not correction.runs:
        return ()
    formula = "every component is the formula's times this"
    return (Term("correction", correction.factor, "", formula, source=corrected_by(correction)),)


def _inputs(name: str, setup: TrainingSetup) -> dict[str, Value]:
    found = _INPUTS.get(name)
    return {} if found is None else found(setup)


def _weights(setup: TrainingSetup) -> dict[str, Value]:
    shards = setup.parallelism.data if setup.parallelism.kind == "fsdp" else 1
    width = widths(setup).weight if setup.adapter is None else widths(setup).frozen
    if setup.quantization != "none":
        return {"base": setup.quantization, "unquantised bytes": width, "shards": shards}
    return {"bytes": width, "shards": shards}


def _trained(setup: TrainingSetup) -> dict[str, Value]:
    return {"bytes": widths(setup).weight}


def _gradients(setup: TrainingSetup) -> dict[str, Value]:
    return {"bytes": widths(setup).gradient}


def _optimizer(setup: TrainingSetup) -> dict[str, Value]:
    width = widths(setup)
    return {"optimizer": setup.optimizer, "states": width.state, "master": width.master}


def _activations(setup: TrainingSetup) -> dict[str, Value]:
    return {
        "tokens": setup.micro_batch * setup.sequence_tokens,
        "blocks": setup.arch.layers + setup.arch.decoder_layers,
        "checkpointing": "on" if setup.gradient_checkpointing else "off",
        "bytes": widths(setup).activation,
    }


def _logits(setup: TrainingSetup) -> dict[str, Value]:
    loss = "in tiles" if tiles_head(setup) else f"as {setup.framework} computes it"
    tokens = setup.micro_batch * setup.sequence_tokens * rows_of(setup.task)
    return {"tokens": tokens, "vocabulary": setup.arch.vocab, "loss": loss}


def _collectives(setup: TrainingSetup) -> dict[str, Value]:
    return {"parallelism": setup.parallelism.kind, "ranks": setup.parallelism.gpus_total}


def _slack(_: TrainingSetup) -> dict[str, Value]:
    return {"of activations": CONSTANTS["slack_activations"], "base GiB": CONSTANTS["slack_base"]}


_INPUTS: dict[str, Callable[[TrainingSetup], dict[str, Value]]] = {
    "weights": _weights,
    "adapters": _trained,
    "gradients": _gradients,
    "optimizer": _optimizer,
    "activations": _activations,
    "logits_loss": _logits,
    "comm_buffers": _collectives,
    "fragmentation": _slack,
}
