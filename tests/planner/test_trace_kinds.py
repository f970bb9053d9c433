"""Closed form and tracer on what `test_trace` leaves out: encoders, encoder-decoders, latent attention, DoRA, LoHa,
8-bit bases, scores, SGD, heads.
"""

import pytest

from tests.planner.scripts import answer_of
from tests.planner.traced import closed_form, facts_of

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


def _asked(case):
    usual = {"micro_batch": 2, "sequence_tokens": 512, "optimizer": "adamw"}
    return facts_of(case[0]), usual | case[1] | {"gradient_checkpointing": case[4]}, case[2]


@pytest.fixture(scope="module")
def traced():
    return answer_of("traced_peaks.py", [_asked(case) for case in CASES], limit_s=500)


@pytest.mark.parametrize(
    "index", range(len(CASES)), ids=[f"{c[0].split('/')[-1]}-{i}" for i, c in enumerate(CASES)]
)
def test_closed_form_equals_the_trace(traced, index):
    case = CASES[index]
    assert closed_form(*_asked(case)) == pytest.approx(traced[index], rel=case[3])
