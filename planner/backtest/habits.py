"""What a row of the table implies about its software: precision, kernels, loss, padding.

Stacks changed what they do over time; where a row does not say, its date and framework do.
"""

from __future__ import annotations

import re

from planner.architecture import ModelArchitecture
from planner.backtest.cells import Row, begun_before, cell, dated_before, denied, number
from planner.backtest.selection import recomputes_attention
from planner.hardware import GpuFacts
from planner.setup import Parallelism
from planner.stacks import MEGATRON, STACKS, runs_transformers_modules

_FRAMEWORKS = {
    "unsloth": "unsloth",
    "thunder": "thunder",
    "litgpt": "litgpt",
    "lit-gpt": "litgpt",
    "lit gpt": "litgpt",
    "torchtune": "torchtune",
    "foundry": "llm-foundry",
    "composer": "llm-foundry",
    "mosaic": "llm-foundry",
    "torchtitan": "torchtitan",
    "megatron-deepspeed": "megatron-deepspeed",
    "megatron": "megatron",
    "automodel": "hf",
    "nemo": "megatron",
    "nanotron": "megatron",
    "primus": "megatron",
    "paddle": "paddle",
    "openrlhf": "openrlhf",
    "prime-rl": "prime-rl",
    "internevo": "internevo",
    "tensorflow 1": "tensorflow",
    "dschat": "openrlhf",
    "deepspeed-chat": "openrlhf",
    "llm.c": "cuda",
    "llmq": "cuda",
    "pure cuda": "cuda",
}
_PRECISIONS = (("bfloat16", "bf16"), ("bfp16", "bf16"), ("brain float 16", "bf16"), ("float", "fp"), ("half", "fp16"),
               ("apex o1", "amp fp16"), ("apex", "fp16"), ("amp o2", "fp16"), ("o1", "amp fp16"),
               ("o2", "fp16"))  # fmt: skip
_HUGGING_FACE = (
    "hf", "trl", "peft", "transformers", "accelerate", "axolotl", "factory", "hugging", "optimum", "fastchat", "lmflow",
    "tuner", "swift", "llama-recipes", "llama-cookbook", "autotrain", "ludwig", "oumi", "verl", "alpaca", "vicuna",
    "qlora", "run_", "sfttrainer", "sentence-t", "setfit", "open-instruct", "llava", "fms", "fsdp_qlora", "soup",
    "alignment-handbook",
)  # fmt: skip
# When transformers got fused attention for a family, where that was later than for Llama.
_FUSED_SINCE = {"bert": "2024-05", "roberta": "2024-09", "xlm-roberta": "2024-09", "camembert": "2024-09",
                "distilbert": "2024-10", "electra": "2025-09", "gpt2": "2024-07", "gpt_neox": "2024-07",
                "opt": "2024-11"}  # fmt: skip
_FLASH_ATTENTION = "2022-12"  # since when Megatron may use it
#: Trainers that recompute unless they are told not to, or whose every example says so.
_RECOMPUTE = ("factory", "swift", "autotrain", "xtuner", "axolotl", "verl")
# Since when Megatron-LM and NeMo could run Transformer Engine's modules, and Megatron-LM does where it is not told
# otherwise (`--transformer-impl`, commits 3499542e and e7b74a4b).
_ENGINE, _ENGINE_UNASKED = "2022-12", "2024-04-02"
# Chips of AMD's for which torch has no fused attention (AOTriton is built from gfx90a on): sdpa writes scores out.
_NO_FUSED_KERNEL = frozenset({"gfx900", "gfx906", "gfx908", "gfx1011", "gfx1030"})
_FLASH_CAPABILITY = 7.5  # of the oldest NVIDIA chip that FlashAttention was written for
_BY_XLA = re.compile(r"\b(?:jax|maxtext|paxml|t5x|flax|keras 3)\b")  # Keras 3: `jit_compile="auto"`
_FUSING = frozenset({"liger", "foak", "compile", "compiled", "thunder", "fused", "true"})


def framework_of(row: Row) -> str:
    """The stack, plain transformers where nothing else is named."""
    text = cell(row, "framework")
    named = next((name for part, name in _FRAMEWORKS.items() if part in text), None)
    if "swift" in text and re.search(r"\b[tpe]p\s*=?\s*\d", cell(row, "parallelism")):
        return "megatron"  # Megatron-SWIFT: its trainers over transformers split no model
    if named is None and "deepspeed" in text and not any(part in text for part in _HUGGING_FACE):
        return "deepspeed"
    if named == "megatron" and _runs_own_modules(row):
        return "megatron-local"
    return named or "hf"


def _runs_own_modules(row: Row) -> bool:
    """Whether Megatron's blocks are written in torch: all were before Transformer Engine."""
    plain = re.match(r"megatron(?:[- ]lm)?\b(?!.*(?:\bte\b|engine|core|bridge|nemo))", cell(row, "framework"))
    return dated_before(row, _ENGINE_UNASKED if plain else _ENGINE)


def names_unknown_stack(row: Row) -> bool:
    """Whether a stack is named of which nothing is known here; it is then taken for transformers.

    What stands in brackets says what a stack is built on: "a-trainer (HF models)" is not transformers' Trainer.
    """
    text = cell(row, "framework")
    text = re.sub(r"\(.*?\)", " ", text).strip() or text
    known = (*_FRAMEWORKS, *_HUGGING_FACE, "deepspeed")
    return bool(text) and not any(part in text for part in known)


def has_own_loop(row: Row) -> bool:
    """Whether Hugging Face's models are trained by a loop of the stack's own, for all that its name says."""
    text = cell(row, "framework")
    own = re.search(r"\b(?:hf|hugging ?face|transformers) models?\b", text)
    plain = "own loop" in text and framework_of(row) == "hf"  # a loop over DeepSpeed's engine has its habits
    return own is not None or plain or names_unknown_stack(row)


def stack_of_run(row: Row, framework: str, parallelism: Parallelism) -> str:
    """The key of what trains: axolotl moved its examples to an FSDP2 of its own in July 2025 (pull request 2760);
    LLM-Shearing trains modules of its own with composer, none of them fused (`composer_llama.py`, 2023).
    """
    if framework == "litgpt" and dated_before(row, "2024-10"):
        return "litgpt-2023"
    if has_own_loop(row) or "shearing" in cell(row, "framework"):
        return "other"
    own_fsdp2 = "axolotl" in cell(row, "framework") and not dated_before(row, "2025-07")
    return "axolotl" if own_fsdp2 and parallelism.kind == "fsdp" else framework


def autocasts_shards(row: Row) -> bool:
    """Whether FSDP gathers weights in fp32 for autocast to cast: ATorch's `amp_native` wraps the model's `forward` and
    tells FSDP of no type (atorch/auto/opt_lib/amp_optimization.py and zero_optimization.py, 2023).
    """
    told = cell(row, "precision")
    return "atorch" in cell(row, "framework") and re.search("mixed|amp|fp32 master", told) is not None


def adapts_over_fsdp2(row: Row, framework: str, adapts: bool) -> bool:
    """litgpt's LoRA script shards by `fully_shard` since August 2025 (its pull request 2086), its others do not."""
    return adapts and framework == "litgpt" and not dated_before(row, "2025-08")


def names_fsdp2(row: Row) -> bool:
    """Whether the row says that FSDP is the one that shards parameter by parameter.

    >>> [names_fsdp2({"parallelism": text}) for text in ("FSDP2", "fsdp v2", "FSDP 2x8", "FSDP")]
    [True, True, False, False]
    """
    text = f"{cell(row, 'framework')} {cell(row, 'parallelism')}"
    return re.search(r"\bfsdp[- _]?(?:v|version[- _]?)?2\b", text) is not None


#: Of accelerate 1.11, the first whose `no_sync` reaches FSDP2.
_WAITING_SINCE = "2025-11"


def reduces_each_micro_batch(row: Row, stack: str) -> bool:
    """Whether sharded gradients did not wait for a step's last micro-batch."""
    return stack == "axolotl" and begun_before(row, _WAITING_SINCE)


def leaves_reduction_open(row: Row) -> bool:
    """Whether the row's range of dates has both ways in it."""
    return begun_before(row, _WAITING_SINCE) and not dated_before(row, _WAITING_SINCE)


def precision_of(row: Row, gpu: GpuFacts, autocasts: bool) -> str:
    """One of TrainingSetup's precisions; what the GPU is best at where a row does not say.

    From 1.7 (October 2020) to 1.11 torch ran fp32 products in TF32 on chips that have it, unasked; in NVIDIA's
    containers it still does, which set TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 (read in torch's aten/src/ATen/Context.h).

    Args:
        row: The run.
        gpu: What it ran on.
        autocasts: The stack trains all weights in fp32 under autocast where it is told "fp16": gradients in fp16 cannot
            be unscaled. Apex and DeepSpeed cast the model and keep masters beside it.
    """
    text = cell(row, "precision")
    for spelling, plain in _PRECISIONS:
        text = text.replace(spelling, plain)
    mixed = "amp_" if re.search("mixed|amp|autocast(?!=)|fp32 master", text) else ""
    if "fp8" in text:
        return mixed + "fp8"
    if "nvfp4" in text or "mxfp4" in text:
        return "fp4"
    if "bf16" in text:
        return mixed + "bf16"
    if "tf32" in text:
        return "tf32"
    if ("fp16" in text and "fp32" not in text) or "int8" in text or text.startswith("16"):
        return ("amp_" if autocasts and "true" not in text else mixed) + "fp16"
    if "32" in text or text in ("float", "full precision", "single"):
        unasked = not dated_before(row, "2020-10") and dated_before(row, "2022-07")
        unasked = unasked or re.search(r"\b(?:ngc|nvcr)\b", cell(row, "framework")) is not None
        return "tf32" if gpu.tf32_flops_per_s and unasked else "fp32"
    return mixed + ("bf16" if gpu.bf16_flops_per_s else "fp16")


def forced_precision(framework: str, arch: ModelArchitecture, gpu: GpuFacts) -> str:
    """fp32 where unsloth says that fp16 "won't work" and a chip has no bf16 (`FORCE_FLOAT32` in its loader.py, 2025,
    "gemma3"), else nothing.
    """
    forced = framework == "unsloth" and arch.model_type.startswith("gemma3") and not gpu.bf16_flops_per_s
    return "fp32" if forced else ""


def loads_in_fp32(row: Row, framework: str, parallelism: Parallelism) -> bool:
    """Soup leaves the type to transformers 4, which takes fp32 whatever a file has (its issue 339); DeepSpeed casts."""
    if framework == "litgpt" and "mixed" in cell(row, "precision"):
        return True  # Fabric's "bf16-mixed" leaves all weights in fp32, `init_module` makes them so
    if STACKS[framework].frozen_fp32 or (parallelism.kind == "fsdp" and autocasts_shards(row)):
        return True
    return "soup" in cell(row, "framework") and parallelism.kind in ("single", "ddp", "fsdp")


def checkpointing_of(
    row: Row, arch: ModelArchitecture, framework: str, gpus: int, *, plain_adapter: bool
) -> bool:
    """Stated, or the stack's default: Hugging Face recipes of big decoders and torchtune's recipes switch it on.

    DeepSpeed's engine alone recomputes nothing. Scripts around transformers' trainers leave adapters to
    TrainingArguments, whose own default is off; over a quantised base peft's prepare_model_for_kbit_training
    switches it on.

    Args:
        row: The run.
        arch: Its model.
        framework: The stack.
        gpus: In all.
        plain_adapter: An adapter is trained over a base that is not quantised.
    """
    text = cell(row, "grad_checkpointing")
    if text:  # Megatron's "selective" recomputes attention's scores, which a fused kernel never keeps
        return not denied(text) and not recomputes_attention(row, framework)
    if framework in ("unsloth", "torchtune", "torchtitan", "openrlhf") or recomputes_unasked(row):
        return True
    # `activation_checkpointing_policy={Block}` of its finetune/*.py, and none in pretrain.py
    if framework == "litgpt":
        return gpus > 1 and "pretrain" not in cell(row, "task")
    if arch.is_moe and "automodel" in cell(row, "framework"):
        return False  # its recipes of mixtures say `activation_checkpointing: false`
    if plain_adapter and framework == "hf" and not has_own_loop(row):
        return any(name in cell(row, "framework") for name in _RECOMPUTE)
    engine = framework == "deepspeed" and cell(row, "framework").startswith("deepspeed")
    recipes = framework in ("hf", "deepspeed", "llm-foundry") and not engine
    return recipes and arch.kind != "encoder" and arch.hidden >= 2048


def recomputes_unasked(row: Row) -> bool:
    """Unsloth always did; TRL's trainers do since 0.22 (August 2025)."""
    stack = cell(row, "framework")
    return "unsloth" in stack or ("trl" in stack and cell(row, "date") >= "2025-09")


def kept_caches(row: Row) -> int:
    """llama-recipes recomputed blocks by torch's wrapper and left `use_cache` on under FSDP until its pull request 165
    (September 2023); until 41 (25 July) a step's outputs had a name during the next. ATorch wraps them so too
    (atorch/auto/opt_lib/checkpoint_optimization.py), before keys and values were in an object of transformers 4.36.
    """
    if "fsdp" not in cell(row, "parallelism"):
        return 0
    if "atorch" in cell(row, "framework"):
        return 1 if dated_before(row, "2023-12-11") else 0
    if "llama-recipes" not in cell(row, "framework"):
        return 0
    return 2 if dated_before(row, "2023-07-25") else 1 if dated_before(row, "2023-09-06") else 0


def attention_of(row: Row, framework: str, arch: ModelArchitecture, gpu: GpuFacts) -> str:
    """Fused attention became transformers' default in December 2023, for some families later, for a few never.

    Megatron wrote its scores out before FlashAttention (end of 2022), and does on chips that have none; what it
    recomputes selectively are these scores.
    """
    text = cell(row, "flash_attn")
    if framework == "litgpt" and arch.logit_softcap:
        return "eager"  # `scaled_dot_product_attention` of its model.py caps scores, which it writes out
    transformers = runs_transformers_modules(framework) and "kernel" not in cell(row, "framework")
    if framework == "hf" and arch.kind == "encoder-decoder" and dated_before(row, "2026-01"):
        return "eager"
    since = _FUSED_SINCE.get(arch.model_type, "2023-12")
    late = transformers and (not arch.fused_attention or dated_before(row, since))
    written_out = late or framework == "tensorflow"
    if text.startswith(
        ("true", "yes", "flash", "fa2", "fa3", "fa-", "xformers", "1", "on", "cudnn", "te", "flex")
    ):
        return "flash"
    if not text and "atorch" in cell(row, "framework"):
        return "flash"  # its `module_replace` (atorch/auto/opt_lib/module_replace_optimization.py, 2023)
    if framework in MEGATRON and "selective" not in cell(row, "grad_checkpointing"):
        older = gpu.vendor == "nvidia" and float(gpu.capability) < _FLASH_CAPABILITY
        return "eager" if older or denied(text) or dated_before(row, _FLASH_ATTENTION) else "flash"
    if (
        framework in MEGATRON
        or framework in ("unsloth", "cuda")
        or (arch.is_moe and "automodel" in cell(row, "framework"))
    ):
        return "flash"  # AutoModel's mixtures attend with Transformer Engine or flex
    if (
        text == "eager"
        or (framework == "paddle" and denied(text))
        or (written_out and (not text or denied(text)))
    ):
        return "eager"
    if denied(text) and names_unknown_stack(row):
        return "eager"  # sdpa is fused, and so not what a loop of its own means
    return "eager" if gpu.capability in _NO_FUSED_KERNEL else "sdpa"


def fuses_kernels(row: Row) -> bool:
    """Whether memory-bound work is fused by kernels or a compiler, as XLA does with whole steps of JAX and Keras 3; of
    TensorFlow's graphs it compiles clusters (NVIDIA's examples do not gain as much).
    """
    text = cell(row, "liger_fused") + " " + cell(row, "framework")
    return bool(_FUSING & set(re.findall(r"[a-z]+", text))) or _BY_XLA.search(text) is not None


def recomputes_elementwise(row: Row) -> bool:
    """Whether Liger's modules, others like them or a compiler stand for transformers' norms and MLPs.

    Norms of flash-attn (`ops/triton/layer_norm.py`) keep their input, SwiGLU of xFormers its two products
    (`silu_bw_fused`), as Liger's do; foak takes Liger's loss alone.
    """
    text = f"{cell(row, 'liger_fused')} {cell(row, 'framework')}"
    fused = re.search(r"liger|\bcompiled?\b|\bswiglu\b", text) is not None and "foak" not in text
    return fused or _selects_like_kwai(row)


def recomputes_product(row: Row) -> bool:
    """Whether what a gated MLP multiplied is computed again: by xFormers' SwiGLU, by Megatron-Kwai's selection.

    Liger's function saves what it takes and no more (`LigerSiLUMulFunction`), and torch's compiler holds back what the
    backward pass would write out (`ban_recompute_materialized_backward` in torch/_functorch/config.py); but the linear
    module after either keeps its input for its own gradient.
    """
    return re.search(r"\bswiglu\b", cell(row, "liger_fused")) is not None or _selects_like_kwai(row)


def _selects_like_kwai(row: Row) -> bool:
    """Megatron-Kwai's selection computes norms and activations of MLPs again, not attention (its README, 2024)."""
    text = f"{cell(row, 'liger_fused')} {cell(row, 'framework')}"
    return "kwai" in text and "selective" in cell(row, "grad_checkpointing")


def fuses_loss(row: Row) -> bool:
    """Whether logits are never held whole."""
    text = cell(row, "liger_fused")
    return text == "true" or re.search(r"liger|\bcce\b|cut.?cross|fused (?:lm.?)?head", text) is not None


def is_unpacked(row: Row) -> bool:
    """Whether rows of different length are padded to the longest of their micro-batch."""
    text = cell(row, "packing")
    return denied(text) or text in ("unpacked", "not packed") or "longest" in text


def pads_rows(row: Row, micro_batch: int) -> bool:
    """Whether a mask hides padding: rows are filled up to a length, or to the longest of their micro-batch."""
    return "padded" in cell(row, "packing") or (is_unpacked(row) and micro_batch > 1)


def reuses_memory(row: Row, framework: str) -> bool:
    """Whether blocks left by rows of another length are used again: axolotl, unsloth, torchtune and torchtitan let
    the allocator's segments grow, peft's comparison of its methods empties the cache every ten steps.
    """
    text = cell(row, "framework")
    own_way = "axolotl" in text or re.match(r"peft [\d.]+", text) is not None
    return own_way or framework in ("unsloth", "torchtune", "torchtitan")


def drops_longer_rows(row: Row) -> bool:
    """ms-swift's `truncation_strategy` has always been "delete" where it is not told otherwise."""
    return "swift" in cell(row, "framework")


def padding_of(row: Row, sequence: int, micro_batch: int) -> tuple[float | None, float]:
    """Computed length of a row, and the share of it that is not padding.

    A micro-batch of unpacked data is padded to its longest row, and the shorter ones carry the padding.
    """
    tokens, steps, batch = (number(row, name) for name in ("dataset_tokens", "steps", "global_batch"))
    if not is_unpacked(row) or not (tokens and steps and batch):
        return None, 1.0
    mean = tokens / (steps * batch)
    if mean >= sequence:
        return None, 1.0
    padded = min(float(sequence), mean * longest_over_mean(micro_batch))
    return padded, mean / padded


def longest_over_mean(rows: int) -> float:
    """Expected longest of some rows over the mean, for lengths spread like published instruction data.

    A coefficient of variation of 0.45 and normal order statistics, which grow by about 0.51 standard deviations
    for each doubling.

    >>> round(longest_over_mean(1), 2), round(longest_over_mean(4), 2)
    (1.0, 1.46)
    """
    doublings = rows.bit_length() - 1
    return 1.0 + 0.45 * 0.51 * (doublings + rows / 2.0**doublings - 1.0)
