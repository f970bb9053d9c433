"""How stacks held a quantised base, and what they kept beside it."""

from __future__ import annotations

from planner.backtest import habits
from planner.backtest.cells import Row, cell, dated_before
from planner.setup import Parallelism


def upcasts_frozen(row: Row, quantization: str, framework: str, parallelism: Parallelism) -> bool:
    """Scripts around Hugging Face's trainers call peft's prepare_model_for_kbit_training on unsharded models, TRL did
    so unasked until autumn 2025. LLaMA-Factory, ms-swift, fms-acceleration and fsdp_qlora prepare models their
    own way, axolotl casts them back, and peft leaves weights as they are that came packed (GPTQ and its kin).
    """
    text = cell(row, "framework")
    own_way = any(part in text for part in ("factory", "swift", "fms", "axolotl", "fsdp_qlora"))
    prepared = framework == "hf" and not own_way and not habits.names_unknown_stack(row)
    told = f"{cell(row, 'method')} {cell(row, 'precision')} {text} {cell(row, 'model')}"
    packed = any(name in told for name in ("gptq", "awq", "aqlm", "eetq", "hqq"))
    today = "trl" in text and not dated_before(row, "2025-10")
    sharded = parallelism.kind in ("fsdp", "zero3")
    return quantization in ("4bit", "8bit") and prepared and not (sharded or today or packed)


def keeps_quantised_inputs(row: Row, framework: str, quantization: str) -> bool:
    """bitsandbytes kept the input of each 4-bit product until 0.43.2 (July 2024), and integer copies of an 8-bit one's
    until 0.45 (December 2024); litgpt stayed at 0.42 until the end of that year, unsloth has products of its own.
    """
    last = "2025-01" if framework == "litgpt" or quantization == "8bit" else "2024-08"
    return quantization in ("4bit", "8bit") and framework != "unsloth" and dated_before(row, last)


def quantises_experts(row: Row) -> bool:
    """Fused experts, which transformers has since 5 (December 2025), stay in their type under bitsandbytes; axolotl
    quantises them as it loads them (`quantize_moe_experts`). NeMo AutoModel's mixtures have blocks of its own, with
    grouped products (`GroupedExpertsDeepEP`).
    """
    text = cell(row, "framework")
    return "axolotl" in text or (dated_before(row, "2025-12") and "automodel" not in text)
