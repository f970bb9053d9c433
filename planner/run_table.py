"""Rows of the table of published runs, as training set-ups on clusters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from planner.architecture import Adapter, ModelArchitecture, adapter_targets, load_architecture
from planner.hardware import GpuFacts, gpu_facts
from planner.setup import Cluster, Parallelism, TrainingSetup
from providers.errors import UsageError

Row = Mapping[str, str]
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_CLASS = re.compile(r"(\d+) ?GB-class")
_GPUS_PER_NODE = 8
# What published clusters of these chips have per machine, where a row does not say: one port a GPU.
_NETWORK_GBIT_PER_S = {"A100": 1600.0, "A800": 1600.0, "H100": 3200.0, "H200": 3200.0, "B200": 3200.0, "MI300": 3200.0}


class UnsupportedRunError(ValueError):
    """A row does not state enough, or states what the model cannot express; the message says what."""


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
        UnsupportedRunError: If model, GPU, length or micro-batch are missing or unknown, or the method is not one
            that the estimator can express.
    """
    arch = _architecture(row)
    cluster, speed_known = _cluster(row)
    adapter, quantization = _method(row, arch)
    gpus = cluster.gpus_per_node * cluster.nodes
    parallelism = _parallelism(row, gpus, adapter is None)
    micro_batch = max(1, round(_required(row, "micro_batch")))
    sequence = max(1, round(_required(row, "seq_len")))
    framework = _framework(row)
    setup = TrainingSetup(
        arch=arch,
        task=_task(row),
        adapter=adapter,
        quantization=quantization,
        precision=_precision(row, cluster.gpu),
        optimizer=_optimizer(row),
        sequence_tokens=sequence,
        micro_batch=micro_batch,
        grad_accum=_grad_accum(row, micro_batch, parallelism.data),
        gradient_checkpointing=_checkpointing(row, arch, framework),
        attention=_attention(row, framework),
        upcast_frozen=_upcast_frozen(row, quantization, framework, parallelism),
        fused_loss=_fused_loss(row),
        loss_bytes=_loss_bytes(row, framework),
        experts_quantised=(row.get("date") or "9") < "2025-12",
        framework=framework,
        offload=_offload(row),
        parallelism=parallelism,
        **_padding(row, sequence, micro_batch),
    )
    return Run(setup, cluster, speed_known, _number(row, "steps"), _total_tokens(row))


def _number(row: Row, column: str) -> float | None:
    match = _NUMBER.search(row.get(column) or "")
    return float(match.group()) if match else None


def _required(row: Row, column: str) -> float:
    value = _number(row, column)
    if value is None:
        raise UnsupportedRunError(f"{column} is not stated")
    return value


def _text(row: Row, column: str) -> str:
    return (row.get(column) or "").strip().lower()


def _architecture(row: Row) -> ModelArchitecture:
    name = row.get("model") or ""
    if not name:
        raise UnsupportedRunError("model is not stated")
    try:
        return load_architecture(name)
    except UsageError as error:
        raise UnsupportedRunError(error.message) from None


def _cluster(row: Row) -> tuple[Cluster, bool]:
    name = row.get("gpu") or ""
    memory = _number(row, "gpu_mem_gb")
    facts = gpu_facts(name, memory)
    known = facts is not None
    if facts is None:
        facts = _by_memory(name)
    gpus = round(_number(row, "num_gpus") or 1)
    nodes = round(_number(row, "num_nodes") or max(1, -(-gpus // _GPUS_PER_NODE)))
    same = memory is not None and abs(memory - facts.memory_gib) <= 0.12 * facts.memory_gib
    network = next((rate for chip, rate in _NETWORK_GBIT_PER_S.items() if facts.name.startswith(chip)), None)
    return Cluster(facts, max(1, gpus // nodes), nodes, None if same else memory, network), known


def _by_memory(name: str) -> GpuFacts:
    """A GPU named only by the size of its memory: enough for what fits, not for speed."""
    match = _CLASS.match(name)
    typical = {8: "RTX4060", 12: "RTX3060", 16: "T4", 24: "RTX4090", 40: "A100", 48: "L40S", 80: "A100-80GB"}
    facts = gpu_facts(typical[int(match[1])]) if match and int(match[1]) in typical else None
    if facts is None:
        raise UnsupportedRunError(f"GPU {name!r} is not known" if name else "gpu is not stated")
    return facts


_LORA = frozenset({"lora", "qlora", "dora", "qdora", "rslora", "adalora", "lora-fa", "pissa", "olora", "delora"})
_SMALL = frozenset(
    "ia3 prefix_tuning prompt_tuning p_tuning adaption_prompt adapter adapter_v2 ln_tuning vera randlora loha lokr boft"
    " oft hira c3a road shira miss bone trainable_tokens fourierft hra".split()
)


def _method(row: Row, arch: ModelArchitecture) -> tuple[Adapter | None, str]:
    method = _text(row, "method")
    bits = _number(row, "quant_bits")
    quantization = {4.0: "4bit", 8.0: "8bit"}.get(bits or 0.0, "none")
    if method in ("qlora", "qdora") and quantization == "none":
        quantization = "4bit"
    if method in ("full", "osf", ""):
        return None, quantization
    if method not in _LORA | _SMALL:
        raise UnsupportedRunError(f"method {method!r} is not expressed")
    rank = max(1, round(_number(row, "lora_rank") or (16 if method in _LORA else 8)))
    fp32 = "bf16-true" not in _text(row, "precision") and _framework(row) not in ("litgpt", "torchtune", "megatron", "unsloth")
    return Adapter("dora" if "dora" in method else "lora", rank, _targets(row, arch), fp32), quantization


def _targets(row: Row, arch: ModelArchitecture) -> tuple[str, ...]:
    text = _text(row, "lora_targets").split("(")[0]
    if "all" in text:
        return ("all-linear",)
    if text in ("self_attn", "attention", "attn"):
        return ("attention",)
    names = tuple(part.strip() for part in text.replace(";", ",").split(",") if part.strip())
    if not names:
        return ("q", "v")


    return names if adapter_targets(arch, Adapter("lora", 1, names)) else ("q", "v")


def _precision(row: Row, gpu: GpuFacts) -> str:
    text = _text(row, "precision")
    mixed = "mixed" in text or "amp" in text
    if "fp8" in text:
        return "amp_fp8" if mixed else "fp8"
    if "bf16" in text:
        return "amp_bf16" if mixed else "bf16"
    if "fp16" in text and "fp32" not in text or "int8" in text or text.startswith("16"):
        return "amp_fp16" if mixed else "fp16"
    if "tf32" in text:
        return "tf32"
    if "32" in text:
        return "fp32"
    return "bf16" if gpu.bf16_flops_per_s else "fp16"


def _optimizer(row: Row) -> str:
    text = _text(row, "optimizer")
    if "paged" in text:
        return "paged_adamw_8bit" if "8" in text.replace("32", "") else "paged_adamw_32bit"
    if "8bit" in text or "8-bit" in text:
        return "adamw_8bit"
    for name in ("adafactor", "sgd"):
        if name in text:
            return name
    if text == "lion":
        return "lion"
    return "adamw_fused" if "fused" in text or "apex" in text or "lamb" in text else "adamw"


_FRAMEWORKS = {
    "unsloth": "unsloth", "litgpt": "litgpt", "lit-gpt": "litgpt", "torchtune": "torchtune", "foundry": "llm-foundry",
    "composer": "llm-foundry", "megatron": "megatron", "nemo": "megatron", "transformer engine": "megatron",
    "openrlhf": "openrlhf", "dschat": "openrlhf",
}  # fmt: skip


def _framework(row: Row) -> str:
    text = _text(row, "framework")
    return next((name for part, name in _FRAMEWORKS.items() if part in text), "hf")


def _parallelism(row: Row, gpus: int, full: bool) -> Parallelism:
    text = _text(row, "parallelism")
    tensor, pipeline = _degree(text, "tp"), _degree(text, "pp")
    if "naive" in text:
        return Parallelism("pp", 1, 1, gpus)
    if tensor or pipeline:
        parts = (tensor or 1) * (pipeline or 1)
        return Parallelism("mixed", max(1, gpus // parts), tensor or 1, pipeline or 1)
    if "zero-3" in text or "zero3" in text or "stage 3" in text:
        return Parallelism("zero3", gpus)
    if "zero-2" in text or "zero2" in text or "zero-1" in text:
        return Parallelism("zero2", gpus)
    if gpus == 1:
        return Parallelism()
    if "shard_grad_op" in text:
        return Parallelism("zero2", gpus)
    if "fsdp" in text:
        return Parallelism("fsdp", gpus)
    return Parallelism("ddp" if "ddp" in text or not full else "fsdp", gpus)


def _degree(text: str, kind: str) -> int | None:
    match = re.search(kind + r"\s*=?\s*(\d+)", text)
    return int(match[1]) if match else None


def _grad_accum(row: Row, micro_batch: int, data: int) -> int:
    stated = _number(row, "grad_accum")
    if stated:
        return max(1, round(stated))
    batch = _number(row, "global_batch")
    return max(1, round(batch / (micro_batch * data))) if batch else 1


def _checkpointing(row: Row, arch: ModelArchitecture, framework: str) -> bool:
    text = _text(row, "grad_checkpointing")
    if text:
        return text not in ("false", "none", "no", "0")
    return arch.kind == "decoder" and framework in ("hf", "unsloth") and arch.hidden >= 2048


def _attention(row: Row, framework: str) -> str:
    text = _text(row, "flash_attn")
    if text in ("true", "flash", "fa2", "fa3") or framework in ("megatron", "unsloth"):
        return "flash"
    # Fused attention became transformers' default in December 2023.
    if text == "eager" or (text in ("", "false") and framework == "hf" and (row.get("date") or "9") < "2023-12"):
        return "eager"
    return "flash" if framework == "litgpt" else "sdpa"


def _fused_loss(row: Row) -> bool:
    text = _text(row, "liger_fused")
    return "liger" in text or text == "true"


def _upcast_frozen(row: Row, quantization: str, framework: str, parallelism: Parallelism) -> bool:
    """TRL and the PEFT examples called prepare_model_for_kbit_training on unsharded models until autumn 2025."""
    plain = framework == "hf" and any(part in _text(row, "framework") for part in ("trl", "peft", "hf+"))
    old = (row.get("date") or "9") < "2025-10"
    return quantization in ("4bit", "8bit") and plain and old and parallelism.kind not in ("fsdp", "zero3")


def _loss_bytes(row: Row, framework: str) -> float | None:
    """Until v4.46 transformers shifted a copy of the fp32 logits; fused cross-entropies keep two fp32 copies."""
    if "foak" in _text(row, "liger_fused"):
        return 8.0
    return 14.0 if framework == "hf" and (row.get("date") or "9") < "2024-11" else None


def _offload(row: Row) -> str:
    text = " ".join((_text(row, "offload"), _text(row, "parallelism")))
    if "activation" in text and "cpu" not in text:
        return "activations"
    if "adam" in text or "zero-2" in text and "offload" in text:
        return "optimizer"
    return "parameters" if "cpu" in text or "offload" in text else "none"


_TASKS = {
    "pretrain": "pretrain", "dpo": "dpo", "ppo": "ppo", "grpo": "grpo", "kto": "kto", "qa": "qa", "ner": "ner",
    "classification": "classification", "embedding": "embedding",
}  # fmt: skip


def _task(row: Row) -> str:
    return _TASKS.get(_text(row, "task"), "sft")


def _padding(row: Row, sequence: int, micro_batch: int) -> dict[str, float]:
    """Rows of unpacked data: a micro-batch is padded to its longest row, and the shorter ones carry padding."""
    tokens, steps, batch = (_number(row, name) for name in ("dataset_tokens", "steps", "global_batch"))
    if _text(row, "packing") != "false" or not (tokens and steps and batch):
        return {}
    mean = tokens / (steps * batch)
    if mean >= sequence:
        return {}
    padded = min(float(sequence), mean * longest_over_mean(micro_batch))
    return {"row_tokens": padded, "real_tokens_share": mean / padded}


def longest_over_mean(rows: int) -> float:
    """Expected longest of some rows over the mean, for lengths spread like published instruction data (cv 0.5).

    >>> round(longest_over_mean(1), 2), round(longest_over_mean(8), 2)
    (1.0, 1.69)
    """
    return 1.0 + 0.33 * (rows.bit_length() - 1 + (rows / 2 ** (rows.bit_length() - 1) - 1)) * 0.7


def _total_tokens(row: Row) -> float | None:
    tokens, epochs = _number(row, "dataset_tokens"), _number(row, "epochs")
    return tokens * (epochs or 1.0) if tokens else None
