"""Rows of the table of published runs, as training set-ups on clusters."""

from __future__ import annotations

import re
from dataclasses import dataclass

from planner.architecture import Adapter
from planner.backtest import habits
from planner.backtest.cells import Row, UnsupportedRunError, cell, dated_before, number, required
from planner.backtest.losses import fuses_loss, loss_bytes_of
from planner.backtest.machines import (
    cluster_of,
    gpus_of,
    parallelism_of,
    replicas_of,
    sequence_parallel_of,
    virtual_stages_of,
)
from planner.backtest.methods import method_of
from planner.backtest.models import architecture_of
from planner.backtest.optimizers import optimizer_of, optimizer_rank_of, steps_in_backward
from planner.backtest.partly import trained_share_of
from planner.backtest.selection import (
    keeps_products_of,
    offloaded_share_of,
    recomputed_blocks_of,
    recomputes_attention,
)
from planner.backtest.unstated import unstated
from planner.setup import Cluster, Parallelism, TrainingSetup
from planner.stacks import computed_by
from planner.throughput import Doubt

_TASKS = frozenset(
    ["pretrain", "dpo", "ppo", "grpo", "kto", "reward", "qa", "ner", "classification", "embedding"]
)
# Parts of the names that tables give tasks, the first that fits counts.
_SAME_TASKS = {"ppo": "ppo", "rlhf": "ppo", "reward": "reward", "dpo": "dpo", "orpo": "dpo", "simpo": "dpo",
               "cpo": "dpo", "ipo": "dpo", "bco": "kto", "kto": "kto", "grpo": "grpo", "rloo": "grpo", "rlvr": "grpo",
               "dapo": "grpo", "gspo": "grpo", "reinforce": "grpo", "remax": "grpo", "squad": "qa", "question": "qa",
               "token class": "ner", "token-class": "ner", "prm": "ner", "process reward": "ner",
               "classification": "classification", "glue": "classification", "mlm": "pretrain",
               "masked": "pretrain", "pre-train": "pretrain", "pretrain": "pretrain", "contrastive": "embedding",
               "retriev": "embedding", "similarity": "embedding"}  # fmt: skip
#: They need further models or inputs, of which rows say nothing and no formula here knows.
_NOT_EXPRESSED = re.compile(r"distil|\bgkd\b|\bonline|\bnash|\bxpo\b|multi-?modal|\bvision|\bvlm\b|\bvqa\b|image|audio"
                            r"|speech|\basr\b|\btts\b|video|diffusion")  # fmt: skip
#: Preference losses that ask no frozen copy.
_WITHOUT_REFERENCE = ("orpo", "simpo", "cpo")


@dataclass(frozen=True, slots=True)
class Run:
    """One row.

    Attributes:
        setup: What was trained.
        cluster: On what.
        speed_known: False where the GPU is only known by its memory.
        steps: Optimizer steps, None if not stated.
        total_tokens: Tokens of all epochs, None if not stated.
        doubts: What the row leaves open, as errors of the predicted time.
    """

    setup: TrainingSetup
    cluster: Cluster
    speed_known: bool
    steps: float | None
    total_tokens: float | None
    doubts: tuple[Doubt, ...]


def read_run(row: Row) -> Run:
    """Translate a row.

    Raises:
        UnsupportedRunError: If it lacks model, GPU, length or micro-batch, or one of them or the method is unknown.
    """
    framework = habits.framework_of(row)
    arch = computed_by(framework, architecture_of(row))
    cluster, speed_known = cluster_of(row)
    adapter, quantization = method_of(row, arch, framework)
    parallelism = parallelism_of(row, gpus_of(row), arch, adapter is None)
    micro_batch, sequence = _micro_batch(row, parallelism.data), required(row, "seq_len")
    stack = habits.stack_of_run(row, framework, parallelism)
    row_tokens, real_share = habits.padding_of(row, sequence, micro_batch)
    setup = TrainingSetup(
        arch=arch,
        task=_task(row),
        reference=not any(loss in cell(row, "task") + cell(row, "method") for loss in _WITHOUT_REFERENCE),
        adapter=adapter,
        quantization=quantization,
        precision=habits.precision_of(row, cluster.gpu, _may_autocast(row, framework, parallelism, adapter)),
        optimizer=optimizer_of(row),
        optimizer_rank=optimizer_rank_of(row),
        steps_in_backward=steps_in_backward(row),
        reduces_each_micro_batch=habits.reduces_each_micro_batch(row, stack),
        trained_share=trained_share_of(row, arch),
        older_torch=dated_before(row, "2023-03"),
        sequence_tokens=sequence,
        micro_batch=micro_batch,
        grad_accum=_grad_accum(row, micro_batch, parallelism.data),
        gradient_checkpointing=habits.checkpointing_of(
            row, arch, framework, gpus_of(row), plain_adapter=adapter is not None and quantization == "none"
        ),
        recomputed_blocks=recomputed_blocks_of(row),
        keeps_products=keeps_products_of(row),
        recomputes_attention=recomputes_attention(row, framework),
        attention=habits.attention_of(row, framework, arch, cluster.gpu),
        fused_loss=fuses_loss(row),
        framework=stack,
        offload=habits.offload_of(row),
        offloads_activations=habits.offloads_activations(row),
        offloaded_share=offloaded_share_of(row),
        pins_host_memory=habits.pins_host_memory(row),
        parallelism=parallelism,
        virtual_stages=virtual_stages_of(row),
        sequence_parallel=sequence_parallel_of(row),
        replicas=replicas_of(row, gpus_of(row), parallelism),
        upcast_frozen=habits.upcasts_frozen(row, quantization, framework, parallelism),
        keeps_quantised_inputs=habits.keeps_quantised_inputs(row, framework, quantization),
        experts_quantised=habits.quantises_experts(row),
        loss_bytes=loss_bytes_of(row, framework, arch, parallelism),
        varied_lengths=habits.is_unpacked(row) and not habits.reuses_memory(row, framework),
        drops_longer_rows=habits.drops_longer_rows(row),
        row_tokens=row_tokens,
        real_tokens_share=real_share,
        padded=framework == "hf" and cluster.gpu.vendor == "nvidia" and habits.pads_rows(row, micro_batch),
        recomputes_elementwise=habits.recomputes_elementwise(row),
        compiled=habits.fuses_kernels(row) or cluster.gpu.name.startswith("Gaudi"),
    )
    return Run(setup, cluster, speed_known, _steps(row), _total_tokens(row), tuple(unstated(row, setup)))


def _steps(row: Row) -> float | None:
    return number(row, "steps") or None


def _total_tokens(row: Row) -> float | None:
    tokens = number(row, "dataset_tokens")
    return tokens * (number(row, "epochs") or 1.0) if tokens else None


def _may_autocast(row: Row, framework: str, parallelism: Parallelism, adapter: Adapter | None) -> bool:
    """Whether "bf16" of a full fine-tuning may be transformers' autocast over weights in fp32."""
    plainly_spread = parallelism.kind in ("single", "ddp", "fsdp")
    return adapter is None and framework == "hf" and plainly_spread and not habits.names_unknown_stack(row)


def _task(row: Row) -> str:
    """One of the tasks, plain fine-tuning where a table has another word; a method may name one ("DPO full").

    Raises:
        UnsupportedRunError: If it needs more than the row's model and text.

    >>> _task({"task": "classification-as-lm"}), _task({"task": "rlhf (ppo)"}), _task({"task": "summarization"})
    ('sft', 'ppo', 'sft')
    >>> _task({"method": "DPO full"}), _task({"method": "lora"})
    ('dpo', 'sft')
    """
    text = cell(row, "task") or cell(row, "method")
    if _NOT_EXPRESSED.search(text):
        raise UnsupportedRunError(f"task {text!r} is not expressed")
    if text in _TASKS:
        return text
    words = re.findall(r"[a-z]+", text)
    if text == "rm" or (not cell(row, "task") and "rm" in words):
        return "reward"
    alike = (task for part, task in _SAME_TASKS.items() if part in text and not text.endswith("-as-lm"))
    return next(alike, "sft")


def _micro_batch(row: Row, data: int) -> int:
    """Stated, or what global batch and accumulation leave for one GPU."""
    batch, accumulated = number(row, "global_batch"), number(row, "grad_accum")
    if not number(row, "micro_batch") and batch and accumulated:
        return max(1, round(batch / accumulated / data))
    return required(row, "micro_batch")


def _grad_accum(row: Row, micro_batch: int, data: int) -> int:
    stated = number(row, "grad_accum")
    if stated:
        return max(1, round(stated))
    batch = number(row, "global_batch")
    return max(1, round(batch / (micro_batch * data))) if batch else 1
