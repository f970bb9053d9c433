"""Rows of the table of published runs, as training set-ups on clusters."""

from __future__ import annotations

import re
from dataclasses import dataclass

from planner.architecture import (
    Adapter,
    ModelArchitecture,
    adapter_targets,
    load_architecture,
    parameter_counts,
)
from planner.backtest import habits
from planner.backtest.cells import Row, UnsupportedRunError, cell, dated_before, number, required
from planner.hardware import GpuFacts, gpu_facts
from planner.setup import Cluster, Parallelism, TrainingSetup
from planner.stacks import stack_of
from providers.errors import UsageError

_CLASS = re.compile(r"(\d+) ?GB-class")
_TYPICAL = {8: "RTX4060", 12: "RTX3060", 16: "T4", 24: "RTX4090", 40: "A100", 48: "L40S", 80: "A100-80GB"}
_GPUS_PER_NODE = 8
# What published clusters of these chips have per machine where a row does not say: one port a GPU.
_NETWORK_GBIT_PER_S = {"A100": 1600.0, "A800": 1600.0, "H100": 3200.0, "H200": 3200.0, "B200": 3200.0}
_LORA = frozenset(
    ["lora", "qlora", "dora", "qdora", "rslora", "adalora", "lora-fa", "pissa", "olora", "delora"]
)
_SMALL = frozenset(
    [
        "ia3",
        "prefix_tuning",
        "prompt_tuning",
        "p_tuning",
        "adaption_prompt",
        "adapter",
        "adapter_v2",
        "ln_tuning",
        "vera",
        "randlora",
        "loha",
        "lokr",
        "boft",
        "oft",
        "hira",
        "c3a",
        "road",
        "shira",
        "miss",
        "bone",
        "trainable_tokens",
        "fourierft",
        "hra",
    ]
)
_TASKS = frozenset(["pretrain", "dpo", "ppo", "grpo", "kto", "qa", "ner", "classification", "embedding"])


@dataclass(frozen=True, slots=True)
class Run:
    """One row.

    Attributes:
        setup: What was trained.
        cluster: On what.
        speed_known: False where the GPU is only known by its memory.
        steps: Optimizer steps, None if not stated.
        total_tokens: Tokens of all epochs, None if not stated.
    """

    setup: TrainingSetup
    cluster: Cluster
    speed_known: bool
    steps: float | None
    total_tokens: float | None


def read_run(row: Row) -> Run:
    """Translate a row.

    Raises:
        UnsupportedRunError: If model, GPU, length or micro-batch are missing or unknown, or the method is not
            one that the estimator can express.
    """
    arch = _architecture(row)
    cluster, speed_known = _cluster(row)
    gpus = cluster.gpus_per_node * cluster.nodes
    micro_batch, sequence = required(row, "micro_batch"), required(row, "seq_len")
    framework = habits.framework_of(row)
    adapter, quantization = _method(row, arch, framework)
    parallelism = _parallelism(row, gpus, arch, adapter is None)
    row_tokens, real_share = habits.padding_of(row, sequence, micro_batch)
    task = cell(row, "task")
    setup = TrainingSetup(
        arch=arch,
        task=task if task in _TASKS else "sft",
        adapter=adapter,
        quantization=quantization,
        precision=habits.precision_of(row, cluster.gpu),
        optimizer=habits.optimizer_of(row),
        sequence_tokens=sequence,
        micro_batch=micro_batch,
        grad_accum=_grad_accum(row, micro_batch, parallelism.data),
        gradient_checkpointing=habits.checkpointing_of(row, arch, framework, gpus),
        attention=habits.attention_of(row, framework),
        fused_loss=habits.fuses_loss(row),
        framework=framework,
        offload=habits.offload_of(row),
        parallelism=parallelism,
        upcast_frozen=habits.upcasts_frozen(row, quantization, framework, parallelism),
        keeps_quantised_inputs=quantization == "4bit" and dated_before(row, "2024-01"),
        experts_quantised=dated_before(row, "2025-12"),
        loss_bytes=habits.loss_bytes_of(row, framework),
        row_tokens=row_tokens,
        real_tokens_share=real_share,
        compiled=habits.fuses_kernels(row),
    )
    tokens, epochs = number(row, "dataset_tokens"), number(row, "epochs")
    return Run(
        setup, cluster, speed_known, number(row, "steps"), tokens * (epochs or 1.0) if tokens else None
    )


def _architecture(row: Row) -> ModelArchitecture:
    name = row.get("model") or ""
    if not name:
        raise UnsupportedRunError("model is not stated")
    try:
        return load_architecture(name)
    except UsageError as error:
        raise UnsupportedRunError(error.message) from None


def _cluster(row: Row) -> tuple[Cluster, bool]:
    """The cluster, and whether the GPU is known by more than its memory."""
    name = row.get("gpu") or ""
    memory = number(row, "gpu_mem_gb")
    known = gpu_facts(name, memory)
    facts = known or _by_memory(name)
    gpus = max(1, round(number(row, "num_gpus") or 1))
    nodes = max(1, round(number(row, "num_nodes") or -(-gpus // _GPUS_PER_NODE)))
    same = memory is not None and abs(memory - facts.memory_gib) <= 0.12 * facts.memory_gib
    network = next((rate for chip, rate in _NETWORK_GBIT_PER_S.items() if facts.name.startswith(chip)), None)
    return Cluster(facts, max(1, gpus // nodes), nodes, None if same else memory, network), known is not None


def _by_memory(name: str) -> GpuFacts:
    """A GPU named only by the size of its memory: enough for what fits, not for speed."""
    match = _CLASS.match(name)
    facts = gpu_facts(_TYPICAL.get(int(match[1]), "")) if match else None
    if facts is None:
        raise UnsupportedRunError(f"GPU {name!r} is not known" if name else "gpu is not stated")
    return facts


def _method(row: Row, arch: ModelArchitecture, framework: str) -> tuple[Adapter | None, str]:
    """The adapter (None for full fine-tuning) and the base's quantisation."""
    method = cell(row, "method")
    quantization = {4.0: "4bit", 8.0: "8bit"}.get(number(row, "quant_bits") or 0.0, "none")
    if method in ("qlora", "qdora") and quantization == "none":
        quantization = "4bit"
    if method in ("full", "osf", ""):
        return None, quantization
    if method not in _LORA | _SMALL:
        raise UnsupportedRunError(f"method {method!r} is not expressed")
    rank = max(1, round(number(row, "lora_rank") or (16 if method in _LORA else 8)))
    fp32 = framework == "hf" and "true" not in cell(row, "precision").replace("autocast=true", "")
    kind = "dora" if "dora" in method else "lora"
    return Adapter(kind, rank, _targets(row, arch), fp32, stack_of(framework).adapter_dropout), quantization


def _targets(row: Row, arch: ModelArchitecture) -> tuple[str, ...]:
    text = cell(row, "lora_targets").split("(")[0]
    if "all" in text:
        return ("all-linear",)
    if text in ("self_attn", "attention", "attn"):
        return ("attention",)
    names = tuple(part.strip() for part in text.replace(";", ",").split(",") if part.strip())
    found = adapter_targets(arch, Adapter("lora", 1, names)) if names else ()
    return names if found else ("q", "v")


def _parallelism(row: Row, gpus: int, arch: ModelArchitecture, full: bool) -> Parallelism:
    text = cell(row, "parallelism").replace("zero-", "zero").replace("stage ", "zero")
    tensor, pipeline = _degree(text, "tp"), _degree(text, "pp")
    if "naive" in text:
        return Parallelism("pp", 1, 1, gpus)
    if tensor or pipeline:
        parts = (tensor or 1) * (pipeline or 1)
        return Parallelism("mixed", max(1, gpus // parts), tensor or 1, pipeline or 1)
    if "zero3" in text:
        return Parallelism("zero3", gpus)
    if "zero2" in text or "zero1" in text:
        return Parallelism("zero2", gpus)
    if gpus == 1:
        return Parallelism()
    if "shard_grad_op" in text:
        return Parallelism("zero2", gpus)
    if "ddp" in text:
        return Parallelism("ddp", gpus)
    big = full and parameter_counts(arch).total > 2e9
    return Parallelism("fsdp" if "fsdp" in text or big else "ddp", gpus)


def _degree(text: str, kind: str) -> int | None:
    match = re.search(kind + r"\s*=?\s*(\d+)", text)
    return int(match[1]) if match else None


def _grad_accum(row: Row, micro_batch: int, data: int) -> int:
    stated = number(row, "grad_accum")
    if stated:
        return max(1, round(stated))
    batch = number(row, "global_batch")
    return max(1, round(batch / (micro_batch * data))) if batch else 1
