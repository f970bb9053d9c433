"""Closed form and tracer on what `test_trace` leaves out: encoders, encoder-decoders, latent attention, DoRA, LoHa,
8-bit bases, scores, SGD, heads.
"""

import json
from importlib import resources

import pytest

from planner.architecture import Adapter
from planner.architecture.hf_config import read_config
from planner.memory import estimate_memory
from planner.setup import TrainingSetup
from planner.stacks import computed_by
from tests.planner.scripts import answer_of
from tests.planner.setups import cluster

FACTS = json.loads(resources.files("planner").joinpath("data", "models.json").read_text())["models"]
LLAMA, QWEN, LATENT = "meta-llama/Llama-3.1-8B", "Qwen/Qwen2.5-7B", "deepseek-ai/DeepSeek-V2-Lite"
ALL = {"rank": 8, "targets": ["all-linear"], "fp32": True}
LABELS = {"task": "classification"}
# Model, fields, adapter, tolerance.
KINDS = [
    ("bert-base-uncased", LABELS, None, 0.025),
    ("roberta-large", LABELS, {**ALL, "targets": ["query", "value"]}, 0.05),
    ("answerdotai/ModernBERT-base", LABELS, None, 0.025),
    (LLAMA, LABELS, ALL, 0.025),
    (LLAMA, {"attention": "eager"}, ALL, 0.025),
    (LLAMA, {"attention": "eager", "sequence_tokens": 2048, "micro_batch": 1}, ALL, 0.025),
    (
        LLAMA,
        {"attention": "eager", "sequence_tokens": 2048, "micro_batch": 1, "precision": "fp32"},
        None,
        0.025,
    ),
    ("bert-base-uncased", {**LABELS, "attention": "eager"}, None, 0.05),
    # under autocast a block that is computed again has one matrix of scores more than is counted
    ("bert-base-uncased", {**LABELS, "attention": "eager"}, {**ALL, "targets": ["query", "value"]}, 0.06),
    ("bert-base-uncased", {**LABELS, "optimizer": "sgd"}, None, 0.05),
    (LLAMA, {**LABELS, "optimizer": "sgd"}, None, 0.05),
    (LLAMA, {}, {**ALL, "kind": "dora", "rank": 16}, 0.06),
    ("Qwen/Qwen2.5-0.5B", {}, {**ALL, "kind": "dora"}, 0.025),
    (QWEN, {"optimizer": "sgd"}, None, 0.06),
    (LATENT, {}, ALL, 0.07),
    ("bigscience/bloom-7b1", {"attention": "eager"}, ALL, 0.03),
    (LLAMA, {"quantization": "8bit"}, ALL, 0.03),
    (LLAMA, {}, {**ALL, "kind": "loha"}, 0.03),
    ("meta-llama/Llama-4-Scout-17B-16E", {}, ALL, 0.04),
    ("t5-base", {}, {**ALL, "targets": ["q", "v"]}, 0.03),
    ("facebook/esm2_t30_150M_UR50D", LABELS, None, 0.04),
    ("google/electra-small-discriminator", LABELS, None, 0.03),
    ("facebook/xlm-roberta-xl", LABELS, None, 0.025),
    # its MLP, its embedding, an untied head and all keys are named otherwise in transformers than in the registry
    ("facebook/opt-6.7b", {}, ALL, 0.05),
    ("google/flan-t5-xl", {}, {**ALL, "targets": ["q", "v"]}, 0.03),
    ("Qwen/Qwen1.5-0.5B", {}, ALL, 0.03),
]
CASES = [(*kind, recomputed) for kind in KINDS for recomputed in (True, False)]


def facts_of(name):
    """Three blocks; of a mixture of experts with latent attention the dense ones, which run without a GPU."""
    fewer = {"num_hidden_layers": 3, "n_layer": 3, "num_layers": 3, "first_k_dense_replace": 3}
    facts = {key: fewer.get(key, value) for key, value in FACTS[name].items() if key != "sliding_window"}
    return facts | {"pad_token_id": 0}


def fields_of(case):
    fields = {"micro_batch": 2, "sequence_tokens": 512, "optimizer": "adamw"}
    return fields | case[1] | {"gradient_checkpointing": case[4]}


@pytest.fixture(scope="module")
def traced():
    asked = [(facts_of(case[0]), fields_of(case), case[2]) for case in CASES]
    return answer_of("traced_peaks.py", asked, limit_s=500)


@pytest.mark.parametrize(
    "index", range(len(CASES)), ids=[f"{c[0].split('/')[-1]}-{i}" for i, c in enumerate(CASES)]
)
def test_closed_form_equals_the_trace(traced, index):
    case = CASES[index]
    chosen = case[2]
    adapter = chosen and Adapter(
        chosen.get("kind", "lora"), chosen["rank"], tuple(chosen["targets"]), chosen["fp32"]
    )
    arch = computed_by("hf", read_config(facts_of(case[0]), "traced", "test"))
    setup = TrainingSetup(arch, adapter=adapter, framework="hf", **{"attention": "flash", **fields_of(case)})
    assert estimate_memory(setup, cluster()).allocated_bytes == pytest.approx(traced[index], rel=case[3])
