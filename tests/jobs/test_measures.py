"""Held-out rows are scored as from whole logits, without holding any."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.evaluate import Measure, _batches
from jobs.measures import token_measure
from jobs.preference_measures import _answer_logps
from jobs.rollout import Judge, _pieces
from tests.jobs.tiny_models import GOAT
from tests.jobs.zygote import Zygote

WORDS, ROWS, TOKENS = 61, 3, 9


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("the head was asked for logits")


def score_without_logits(_: list[str]) -> None:
    """In a process that has torch: both ways of scoring a batch, held against logits computed before."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, **shape)).eval()
    ids = torch.randint(WORDS, (ROWS, TOKENS))
    counted = torch.rand(ROWS, TOKENS) < 0.6
    counted[:, 0] = True  # a label with nothing before it
    counted[0] = False
    counted[0, :2] = True
    with torch.no_grad():
        logits = model(ids).logits[:, :-1]
        ids[0, 1] = logits[0, 0].argmax()  # the first row's only label is the most likely word
        logits = model(ids).logits[:, :-1]
        each = torch.log_softmax(logits, -1).gather(2, ids[:, 1:, None])[:, :, 0]
        right = logits.argmax(-1) == ids[:, 1:]
        add_fused_lm_head(model, outputs=("log_probs", "is_top1"))
        model.lm_head.forward = forbidden
        mask = torch.ones_like(ids)
        labels = ids.masked_fill(~counted, -100)
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        loss, tokens, exact, rows = token_measure().of_batch(model, dict(batch))
        sums = _answer_logps(model, {**batch, "completion_mask": counted.long()})
    kept = counted[:, 1:]
    assert loss == pytest.approx(-each[kept].sum().item(), rel=1e-4)
    assert (tokens, rows) == (int(kept.sum()), ROWS)
    assert exact == int((right | ~kept).all(1).sum()) >= 1
    assert sums == pytest.approx((each * kept).sum(1).tolist(), rel=1e-4)


def answer_in_pieces(_: list[str]) -> None:
    """In a process that has torch: prompts of many lengths, at once and in pieces shorter than the padding."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(GOAT / "base").eval()
    tokenizer = AutoTokenizer.from_pretrained(GOAT / "base")
    prompts = ["7 + 5 = ", "12345 + 6789 = ", "1 + 1 = 2, 2 + 2 = 4, 3 + 3 = "]
    with torch.no_grad():
        whole, pieces = (
            Judge(tokenizer, [], 12, 3, given)._answers(model, prompts)
            for given in ({}, {"prefill_chunk_size": 5})
        )
    assert whole == pieces
    assert all(whole)


@pytest.mark.train
def test_prompts_in_pieces_are_answered_as_whole_ones(zygote: Zygote, tmp_path: Path) -> None:
    zygote.call("tests.jobs.test_measures:answer_in_pieces", log=tmp_path / "log")


@pytest.mark.parametrize(
    ("settings", "kind", "length", "pieces"),
    [
        ({}, "lora", 128, {}),
        ({}, "lora", 129, {"prefill_chunk_size": 128}),
        ({"fsdp": "full_shard"}, "lora", 129, {}),
        ({}, "prompt_tuning", 129, {}),
    ],
)
def test_many_long_prompts_are_taken_in_pieces(
    settings: dict[str, str], kind: str, length: int, pieces: dict[str, int]
) -> None:
    job = SimpleNamespace(method=SimpleNamespace(kind=kind))
    of = SimpleNamespace(job=job, settings=settings, train={"prompt": ["x", "x" * length]})
    assert _pieces(of, 64) == pieces  # type: ignore[arg-type]


@pytest.mark.train
def test_scores_are_those_of_whole_logits(zygote: Zygote, tmp_path: Path) -> None:
    zygote.call("tests.jobs.test_measures:score_without_logits", log=tmp_path / "log")


def test_long_rows_are_scored_one_by_one() -> None:
    config = SimpleNamespace(hidden_size=4096, intermediate_size=14336)
    measure = Measure(forbidden, forbidden, len)
    short, long = ["x" * 100] * 10, ["x" * 4096] * 3
    assert _batches(long, measure, config) == [(0, 1), (1, 1), (2, 1)]
    # 100 tokens of 59,392 values of four bytes: eleven rows in 256 MiB
    assert _batches(short, measure, config) == [(0, 10)]
    assert _batches(short, Measure(forbidden, forbidden, len, sequences=2), config) == [(0, 5), (5, 5)]
    assert _batches(short, Measure(forbidden, forbidden, len, most_rows=8), config) == [(0, 8), (8, 2)]
