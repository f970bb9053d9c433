"""Closed form and tracer under autocast, and where no logits hide what blocks hold."""

import pytest

from tests.planner.scripts import answer_of
from tests.planner.traced import closed_form, facts_of

QWEN, GPT2, BERT, NEOX = "Qwen/Qwen2.5-1.5B", "gpt2-medium", "bert-large-uncased", "EleutherAI/pythia-410m"
QV = {"rank": 8, "targets": ["q", "v"], "fp32": True}
ALL = {**QV, "targets": ["all-linear"]}
KEPT = {"gradient_checkpointing": False}
WORDS = {"task": "sft"}
MIXED = {"precision": "amp_bf16"}
# Model, fields, adapter, tolerance.
CASES = [
    (QWEN, {}, None, 0.025),
    (QWEN, KEPT, None, 0.025),
    (QWEN, MIXED, None, 0.025),
    (QWEN, MIXED | KEPT, None, 0.025),
    (QWEN, {}, QV | {"fp32": False}, 0.025),
    (QWEN, KEPT, QV, 0.025),
    (QWEN, {}, ALL, 0.025),
    (QWEN, KEPT, ALL, 0.025),
    (QWEN, KEPT, ALL | {"dropout": True}, 0.025),
    (QWEN, MIXED | {"frozen_fp32": True}, ALL, 0.025),
    (QWEN, WORDS, None, 0.025),  # embedding and head share their weights
    (GPT2, MIXED | KEPT, None, 0.025),
    (GPT2, {}, QV, 0.07),
    (NEOX, {}, None, 0.03),
    (BERT, MIXED | KEPT, None, 0.07),
    ("distilbert-base-uncased", WORDS, QV, 0.05),
]


def _asked(case):
    usual = {"task": "classification", "micro_batch": 16, "sequence_tokens": 512, "optimizer": "sgd"}
    return facts_of(case[0]), usual | case[1], case[2]


@pytest.fixture(scope="module")
def traced():
    return answer_of("traced_peaks.py", [_asked(case) for case in CASES], limit_s=500)


@pytest.mark.parametrize(
    "index", range(len(CASES)), ids=[f"{c[0].split('/')[-1]}-{i}" for i, c in enumerate(CASES)]
)
def test_closed_form_equals_the_trace(traced, index):
    case = CASES[index]
    assert closed_form(*_asked(case)) == pytest.approx(traced[index], rel=case[3])
