"""Rows of the table of published runs, as training set-ups on clusters."""

from __future__ import annotations

import re
from dataclasses import dataclass

from planner.attention_kernel import dispatched
from planner.backtest import habits, offloads
from planner.backtest.cells import Row, UnsupportedRunError, cell, dated_before, number, required
from planner.backtest.losses import loss_bytes_of
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
from planner.backtest.partly import reached_share_of, trained_share_of
from planner.backtest.quantised import keeps_quantised_inputs, quantises_experts, upcasts_frozen
from planner.backtest.samples import doubts_of_samples, with_untold_samples
from planner.backtest.selection import (
    keeps_products_of,
    offloaded_share_of,
    offloads_masters,
    recomputed_blocks_of,
    recomputes_attention,
    selects_unasked,
)
from planner.backtest.unstated import unstated
from planner.hardware import GpuFacts
from planner.setup import Cluster, Parallelism, TrainingSetup
from planner.stacks import computed_by, runs_transformers_modules, stack_of
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
        UnsupportedRunError: If something needed is missing or unknown, or the estimator expresses no such method.
    """
    framework = habits.framework_of(row)
    arch = computed_by(framework, architecture_of(row))
    (cluster, speed_known), gpus = cluster_of(row), gpus_of(row)
    adapter, quantization = method_of(row, arch, framework)
    parallelism = _sharded_alone(parallelism_of(row, gpus, arch, adapter is None), framework)
    micro_batch, sequence = _micro_batch(row, parallelism.data), required(row, "seq_len")
    autocasts = adapter is None and _may_autocast(row, framework, parallelism)
    precision = quantization == "none" and habits.forced_precision(framework, arch, cluster.gpu)
    precision = precision or habits.precision_of(row, cluster.gpu, autocasts)
    stack = habits.stack_of_run(row, framework, parallelism)
    fp32 = quantization == "none" and habits.loads_in_fp32(row, framework, parallelism)
    row_tokens, real_share = habits.padding_of(row, sequence, micro_batch)
    setup = TrainingSetup(
        arch=arch,
        task=_task(row),
        reference=_asks_reference(row, framework),
        adapter=adapter,
        quantization=quantization,
        precision=_under_autocast(precision, parallelism) if fp32 else precision,
        optimizer=optimizer_of(row),
        optimizer_rank=optimizer_rank_of(row),
        steps_in_backward=steps_in_backward(row),
        reduces_each_micro_batch=habits.reduces_each_micro_batch(row, stack),
        trained_share=trained_share_of(row, arch),
        sequence_tokens=sequence,
        micro_batch=micro_batch,
        grad_accum=_grad_accum(row, micro_batch, parallelism.data),
        gradient_checkpointing=habits.checkpointing_of(
            row, arch, framework, gpus, plain_adapter=adapter is not None and quantization == "none"
        ),
        recomputed_blocks=recomputed_blocks_of(row),
        attention=habits.attention_of(row, framework, arch, cluster.gpu),
        fused_loss=habits.fuses_loss(row),
        framework=stack,
        offload=offloads.offload_of(row),
        offloads_activations=offloads.offloads_activations(row),
        parallelism=parallelism,
        replicas=replicas_of(row, gpus, parallelism),
        upcast_frozen=upcasts_frozen(row, quantization, framework, parallelism),
        frozen_fp32=adapter is not None and fp32,
        keeps_quantised_inputs=keeps_quantised_inputs(row, framework, quantization),
        experts_quantised=quantises_experts(row),
        loss_bytes=loss_bytes_of(row, framework, arch, precision, parallelism),
        varied_lengths=habits.is_unpacked(row) and not habits.reuses_memory(row, framework),
        row_tokens=row_tokens,
        real_tokens_share=real_share,
        padded=framework == "hf" and cluster.gpu.vendor == "nvidia" and habits.pads_rows(row, micro_batch),
        compiled=habits.fuses_kernels(row) or cluster.gpu.name.startswith("Gaudi"),
    )
    if speed_known:
        setup = _with_kernel(row, framework, setup, cluster.gpu)
    setup = with_untold_samples(row, framework, _with_parts(row, framework, _recomputing(row, setup)))
    doubts = [*unstated(row, setup), *(doubts_of_samples(row, setup, cluster) if speed_known else ())]
    return Run(setup, cluster, speed_known, *_lasts(row), tuple(doubts))


_FEWER_KEYS_SINCE = "2025-08"  # transformers 4.54 hands sdpa fewer key heads than query heads


def _with_kernel(row: Row, framework: str, setup: TrainingSetup, gpu: GpuFacts) -> TrainingSetup:
    """With the kernel that sdpa ends in, where transformers' own modules call it."""
    if not runs_transformers_modules(framework) or habits.names_unknown_stack(row):
        return setup
    masked = habits.pads_rows(row, setup.micro_batch)
    repeats = dated_before(row, _FEWER_KEYS_SINCE) or "repeated" in cell(row, "flash_attn")
    return dispatched(setup, gpu, masked=masked, repeats=repeats)


def _with_parts(row: Row, framework: str, setup: TrainingSetup) -> TrainingSetup:
    """With what is split, left out, kept, repeated or sent to the host beside the usual ways."""
    return setup._replace(
        recomputes_elementwise=habits.recomputes_elementwise(row),
        recomputes_product=habits.recomputes_product(row),
        gathers_fp32=habits.autocasts_shards(row),
        newer_fsdp=habits.names_fsdp2(row)
        or habits.adapts_over_fsdp2(row, setup.framework, setup.adapter is not None),
        older_torch=dated_before(row, "2023-03"),
        drops_longer_rows=habits.drops_longer_rows(row),
        keeps_products=keeps_products_of(row) or selects_unasked(row, framework, setup.arch),
        virtual_stages=virtual_stages_of(row),
        sequence_parallel=sequence_parallel_of(row),
        recomputes_attention=recomputes_attention(row, framework),
        reached_share=reached_share_of(row, setup.arch),
        offloads_masters=offloads_masters(row),
        offloaded_share=offloaded_share_of(row),
        pins_host_memory=offloads.pins_host_memory(row),
        one_thread_a_rank=offloads.one_thread_a_rank(row, setup.parallelism.kind),
    )


def _recomputing(row: Row, setup: TrainingSetup) -> TrainingSetup:
    """With what matters where blocks are recomputed alone; others keep keys, values and MLPs anyway."""
    if not setup.gradient_checkpointing:
        return setup
    return setup._replace(kept_caches=habits.kept_caches(row), tiled_mlp=offloads.tiles_mlp(row))


def _lasts(row: Row) -> tuple[float | None, float | None]:
    """Steps and tokens of the whole run, each None where it is not stated."""
    tokens, epochs = number(row, "dataset_tokens"), number(row, "epochs")
    return number(row, "steps") or None, tokens * (epochs or 1.0) if tokens else None


def _sharded_alone(parallelism: Parallelism, framework: str) -> Parallelism:
    alone = parallelism.kind == "single" and stack_of(framework).shards_one
    return parallelism._replace(kind="fsdp") if alone else parallelism


def _may_autocast(row: Row, framework: str, parallelism: Parallelism) -> bool:
    """Whether "bf16" of a full fine-tuning may be transformers' autocast over weights in fp32."""
    plainly_spread = parallelism.kind in ("single", "ddp", "fsdp")
    return framework == "hf" and plainly_spread and not habits.names_unknown_stack(row)


def _under_autocast(precision: str, parallelism: Parallelism) -> str:
    """Weights in fp32 are computed with under autocast, or in shards as they are gathered."""
    casts = parallelism.kind != "fsdp" and precision in ("bf16", "fp16")
    return f"amp_{precision}" if casts else precision


def _asks_reference(row: Row, framework: str) -> bool:
    """Whether the trainer holds a frozen copy; engines that sample elsewhere score answers as they come."""
    text = cell(row, "task") + cell(row, "method")
    return not stack_of(framework).samples_elsewhere and not any(loss in text for loss in _WITHOUT_REFERENCE)


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
