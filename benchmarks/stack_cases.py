"""What `benchmarks.stack_traces` traces, and the closed form of the same."""

from __future__ import annotations

from typing import NamedTuple

from planner.architecture import Adapter
from planner.architecture.hf_config import read_config
from planner.memory import estimate_memory
from planner.setup import TrainingSetup
from planner.stacks import computed_by, stack_of
from tests.planner.setups import cluster
from tests.planner.traced import facts_of

_QV = {"lora_query": True, "lora_value": True}
_ALL = {f"lora_{name}": True for name in ("query", "key", "value", "projection", "mlp")}


class Case(NamedTuple):
    stack: str
    name: str  # as the stack calls the model
    model: str  # on the Hub
    script: str
    lora: dict
    precision: str
    recomputed: bool
    rows: int = 1
    tokens: int = 1024
    layers: int = 3
    accumulated: int = 1
    quantised: bool = False

    @property
    def targets(self):
        if self.stack == "torchtune":
            more = ("o", "gate", "up", "down") if self.lora.get("apply_lora_to_mlp") else ()
            return ("q", "v", *more) if self.lora else ()
        return () if not self.lora else ("all-linear",) if self.lora.get("lora_mlp") else ("q", "v")

    @property
    def label(self):
        method = ("qlora" if self.quantised else "lora") if self.lora else "full"
        if self.lora:
            method += "-qv" if set(self.targets) == {"q", "v"} else "-all"
        kept = "recomputed" if self.recomputed else "kept"
        batch = f"{self.rows}x{self.tokens} a{self.accumulated}"
        return f"{self.stack} {self.name} {method} {self.precision} {kept} {batch}"


LITGPT = {
    "Llama-3.1-8B": "meta-llama/Llama-3.1-8B", "Llama-2-7b-hf": "meta-llama/Llama-2-7b-hf",
    "tiny-llama-1.1b": "TinyLlama/TinyLlama-1.1B", "pythia-410m": "EleutherAI/pythia-410m",
    "phi-2": "microsoft/phi-2", "falcon-7b": "tiiuae/falcon-7b", "Gemma-2b": "google/gemma-2b",
    "Mistral-7B-v0.1": "mistralai/Mistral-7B-v0.1", "Gemma-2-2b": "google/gemma-2-2b",
    "stablelm-base-alpha-3b": "stabilityai/stablelm-base-alpha-3b",
    "Qwen2.5-0.5B": "Qwen/Qwen2.5-0.5B", "Qwen3-8B": "Qwen/Qwen3-8B",
}  # fmt: skip


def _litgpt():
    for name, model in LITGPT.items():
        for lora in ({}, _QV, _ALL):
            fields = lora and {"lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.05, **lora}
            script = "lora" if lora else "full"
            for precision in ("bf16", "amp_bf16", "fp32"):
                for recomputed in (False, True):
                    for rows in (1, 4):
                        one = Case("litgpt", name, model, script, fields, precision, recomputed, rows)
                        yield one
                        if lora and precision == "bf16":
                            yield one._replace(quantised=True)


_TUNE = {"lora_rank": 8, "lora_alpha": 16}
#: As the recipes' configurations have it, and on every product.
_TUNE_LORA = {"lora_attn_modules": ["q_proj", "v_proj", "output_proj"], "apply_lora_to_mlp": True, **_TUNE}
_TUNE_QV = {"lora_attn_modules": ["q_proj", "v_proj"], **_TUNE}
TORCHTUNE = {
    "llama3_1": ("llama3_1_8b", "meta-llama/Llama-3.1-8B"), "llama2": ("llama2_7b", "meta-llama/Llama-2-7b-hf"),
    "qwen2_5": ("qwen2_5_7b_base", "Qwen/Qwen2.5-7B"), "gemma": ("gemma_2b", "google/gemma-2b"),
    "mistral": ("mistral_7b", "mistralai/Mistral-7B-v0.1"), "llama3_2": ("llama3_2_1b", "meta-llama/Llama-3.2-1B"),
}  # fmt: skip


def _torchtune():
    for package, (builder, model) in TORCHTUNE.items():
        for lora in ({}, _TUNE_LORA, _TUNE_QV):
            name = f"{package}.{'lora_' if lora else ''}{builder}"
            script = "lora_finetune" if lora else "full_finetune"
            for recomputed in (False, True):
                for rows, accumulated in ((1, 1), (4, 1), (4, 2)):
                    yield Case(
                        "torchtune",
                        name,
                        model,
                        script,
                        lora,
                        "bf16",
                        recomputed,
                        rows,
                        accumulated=accumulated,
                    )


CASES = [*_litgpt(), *_torchtune()]


def closed_form(case):
    facts = facts_of(case.model) | {"num_hidden_layers": case.layers}
    arch = computed_by(case.stack, read_config(facts, "traced", "test"))
    dropout = stack_of(case.stack).adapter_dropout
    low = case.precision == "bf16"
    adapter = Adapter("lora", 8, case.targets, fp32=not low, dropout=dropout) if case.lora else None
    setup = TrainingSetup(
        arch, adapter=adapter, framework=case.stack, precision=case.precision, optimizer="adamw",
        attention="eager" if case.stack == "litgpt" and arch.logit_softcap else "flash",
        micro_batch=case.rows, sequence_tokens=case.tokens, grad_accum=case.accumulated,
        quantization="4bit" if case.quantised else "none", gradient_checkpointing=case.recomputed,
        frozen_fp32=bool(case.lora) and case.precision == "amp_bf16",
    )  # fmt: skip
    return estimate_memory(setup, cluster("B300"))
