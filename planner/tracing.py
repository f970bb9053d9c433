"""`plan estimate --trace`: the exact peak of the recommended candidate's step, beside the closed form's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from planner.answer import Answer
from planner.architecture import model_config
from planner.hardware import GpuFacts, gpu_facts
from planner.memory import estimate_memory
from planner.setup import Cluster, Parallelism, TrainingSetup
from planner.stacks import stack_of
from planner.trace import TracedPeak, trace_step
from planner.trace_model import towers
from providers.errors import UsageError

GIB = 2.0**30
_TASKS = frozenset({"sft", "pretrain", "classification", "reward", "ner", "qa"})
_OPTIMIZERS = frozenset({"adamw", "adamw_fused", "sgd"})
_KINDS = frozenset({"lora", "dora", "loha", "ia3"})
_PRECISIONS = frozenset({"bf16", "fp16", "fp32", "amp_bf16", "amp_fp16"})


@dataclass(frozen=True, slots=True)
class Traced:
    """A traced step against the closed form of the very same.

    Attributes:
        candidate_id: Of the candidate whose step was traced.
        setup: What was traced: the candidate's, on one GPU.
        peak: From the trace.
        closed_form_bytes: Allocated peak by formula, of the same set-up.
        seconds: That the trace took.
        changed: What of the candidate the trace leaves out, in words.
    """

    candidate_id: str
    setup: TrainingSetup
    peak: TracedPeak
    closed_form_bytes: float
    seconds: float
    changed: tuple[str, ...]

    @property
    def difference(self) -> float:
        """Closed form / traced - 1."""
        return self.closed_form_bytes / self.peak.peak_bytes - 1

    def document(self) -> dict[str, Any]:
        """The `trace` key of the estimate's JSON."""
        return {
            "candidate_id": self.candidate_id,
            "traced_allocated_gib": self.peak.peak_bytes / GIB,
            "closed_form_allocated_gib": self.closed_form_bytes / GIB,
            "phase": self.peak.phase,
            "operations": self.peak.operations,
            "seconds": self.seconds,
            "left_out": list(self.changed),
        }

    def text(self) -> str:
        """For a person."""
        one = self.setup
        phase = self.peak.phase.replace("_", " ")
        lines = [
            f"traced step of {one.arch.id}, one GPU, micro-batch {one.micro_batch} x {one.sequence_tokens} tokens",
            f"  traced       {_size(self.peak.peak_bytes)} of tensors at the peak ({phase})",
            f"  closed form  {_size(self.closed_form_bytes)} for the same ({self.difference:+.1%})",
            f"  {self.peak.operations:,} operations in {self.seconds:.0f} s",
        ]
        if self.changed:
            lines.append(f"  not in the trace, in the estimate: {', '.join(self.changed)}")
        return "\n".join(lines)


def _size(size_bytes: float) -> str:
    return f"{size_bytes / GIB:8.2f} GiB" if size_bytes >= GIB else f"{size_bytes / 2**20:8.1f} MiB"


def trace_answer(answer: Answer, progress: Callable[[int, str], None] | None = None) -> Traced | None:
    """Trace the recommended candidate; None where nothing fits.

    Args:
        answer: An estimate.
        progress: As in `planner.trace.trace_step`.

    Raises:
        MissingExtraError: Without torch, transformers and peft.
        UsageError: If the tracer cannot express the job, or the model's config.json is not here.
    """
    best = answer.estimate.recommended
    if best is None:
        return None
    index = answer.estimate.candidates.index(best)
    setup, changed = traceable(answer.estimate.priced[index].solved.fit.setup)
    config = model_config(setup.arch.id, answer.base_dir)
    began = time.monotonic()
    peak = trace_step(setup, config, progress=progress)
    closed = estimate_memory(setup, Cluster(_gpu(best.offer.gpu))).allocated_bytes
    return Traced(best.candidate_id, setup, peak, closed, time.monotonic() - began, changed)


def _gpu(name: str) -> GpuFacts:
    facts = gpu_facts(name)
    if facts is None:
        raise UsageError(f"GPU {name!r} is not known")
    return facts


def traceable(setup: TrainingSetup) -> tuple[TrainingSetup, tuple[str, ...]]:
    """The nearest set-up that a trace can run, and what of the candidate it leaves out.

    Raises:
        UsageError: If what is left would say nothing about the job.
    """
    _check(setup)
    adapter = setup.adapter
    if adapter is not None:
        adapter = adapter._replace(kind=adapter.kind if adapter.kind in _KINDS else "lora")
    plain = setup._replace(
        parallelism=Parallelism(),
        grad_accum=1,
        framework="hf" if stack_of(setup.framework).autocast else "other",
        fused_loss=False,
        loss_bytes=None,
        offload="none",
        offloads_activations=False,
        optimizer=setup.optimizer if setup.optimizer in _OPTIMIZERS else "adamw",
        keeps_quantised_inputs=False,
        compiled=False,
        attention="eager" if setup.attention == "eager" else "flash",
        repeats_keys=False,
        adapter=adapter,
    )
    return plain, tuple(_left_out(setup))


def _check(setup: TrainingSetup) -> None:
    if setup.task not in _TASKS:
        raise UsageError(
            f"--trace cannot run a step of {setup.task}",
            hint="it traces sft, pretrain, classification, ner, qa and reward",
        )
    if setup.quantization not in ("none", "4bit", "8bit"):
        hint = "it traces 4bit, 8bit and none"
        raise UsageError(f"--trace cannot run a base in {setup.quantization}", hint=hint)
    if setup.precision not in _PRECISIONS:
        raise UsageError(
            f"--trace cannot run {setup.precision}", hint="it traces bf16, fp16, fp32, amp_bf16 and amp_fp16"
        )


def _left_out(setup: TrainingSetup) -> Iterator[str]:
    if setup.parallelism.gpus_total > 1:
        yield f"{setup.parallelism.kind} over {setup.parallelism.gpus_total} GPUs"
    if setup.grad_accum > 1:
        yield "gradients held between micro-batches"
    if setup.framework not in ("hf", "other") or setup.fused_loss:
        yield "the tiled loss (the trace holds all logits)"
    yield from _of_attention(setup)
    if setup.optimizer not in _OPTIMIZERS:
        yield f"{setup.optimizer} (traced as AdamW)"
    away = (["activations"] if setup.offloads_activations else []) + [setup.offload]
    yield from (f"offload of {what}" for what in away if what != "none")
    if setup.adapter is None and towers(setup):
        yield "gradients and optimizer of the towers beside the language model"
    if setup.adapter is not None and setup.adapter.kind not in _KINDS:
        yield f"{setup.adapter.kind} (traced as LoRA)"


def _of_attention(setup: TrainingSetup) -> Iterator[str]:
    if setup.attention == "math":
        yield "attention's scores (torch has no fused kernel for this GPU or type)"
    if setup.repeats_keys:
        yield "keys and values repeated for each head (rows are padded)"
