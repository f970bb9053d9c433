"""Rows that are longer than a model has positions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.answer import estimate_spec
from planner.architecture import load_architecture
from planner.errors import SpecError
from planner.intake import gather
from planner.positions import most_tokens, position_blockers
from planner.spec import FineTuneSpec
from tests.planner.factories import NOW, offer_of, snapshot_of, spec_of

CLASSES = {"task": "classification", "data": {"tokens_per_sample": 200}}
GPT2 = {"model": "gpt2", "data": {"tokens_per_sample": 200}}


def length(tokens: int) -> dict[str, Any]:
    return {"train": {"sequence_length": tokens, "packing": False}}


@pytest.mark.parametrize(
    ("model", "most"),
    [("roberta-large", 512), ("bert-base-uncased", 512), ("facebook/opt-1.3b", 2048), ("gpt2", 1024)],
)
def test_positions_of_a_model(model: str, most: int) -> None:
    assert most_tokens(load_architecture(model)) == most


@pytest.mark.parametrize(
    ("sections", "path", "said"),
    [
        (
            {**CLASSES, "model": "roberta-large", **length(513)},
            "train.sequence_length",
            "513 tokens are more than the 512",
        ),
        ({**GPT2, **length(2048)}, "train.sequence_length", "more than the 1,024 positions of gpt2"),
        (
            {**GPT2, **length(1024), "method": {"kind": "prompt_tuning", "virtual_tokens": 8}},
            "train.sequence_length",
            "1,024 tokens and 8 learned ones before them",
        ),
        (
            {**GPT2, **length(64), "task": "grpo", "rollout": {"completion_tokens": 2000}},
            "rollout.completion_tokens",
            "",
        ),
    ],
)
def test_longer_rows_are_an_error_with_its_place(sections: dict[str, Any], path: str, said: str) -> None:
    spec = spec_of(**sections)
    with pytest.raises(SpecError) as caught:
        gather(spec, Path(), NOW)
    (found,) = caught.value.findings
    assert found.path == path
    assert said in found.message
    assert list(position_blockers(spec, Path())) == [found]


@pytest.mark.parametrize(
    "sections",
    [
        {**CLASSES, "model": "roberta-large", **length(512)},
        {**CLASSES, "model": "microsoft/deberta-v3-base", **length(512)},
        {**GPT2, **length(1016), "method": {"kind": "prompt_tuning", "virtual_tokens": 8}},
        # rotary, and nothing is known of what it was made for
        {"model": "h2oai/h2o-danube2-1.8b-base", **length(200_000)},
    ],
)
def test_rows_that_have_a_place_are_passed(sections: dict[str, Any]) -> None:
    warnings = gather(spec_of(**sections), Path(), NOW).job.warnings
    assert "beyond_context" not in dict(warnings)


@pytest.mark.parametrize(
    ("method", "room"), [("full", 512), ({"kind": "prompt_tuning", "virtual_tokens": 12}, 500)]
)
def test_the_default_length_is_no_longer_than_the_positions(method: Any, room: int) -> None:
    text = {"name": "x", "model": "roberta-large", "method": method, **CLASSES}
    spec = FineTuneSpec.model_validate({**text, "data": {"samples": 100, "tokens_per_sample": 900}})
    answer = estimate_spec(spec, Path(), snapshot_of(offer_of()), NOW)
    assert answer.estimate.question.job.sequence_tokens == room
    assert answer.spec.train.sequence_length == room
    assert answer.plan().spec.train.sequence_length == room
    assert not list(position_blockers(spec, Path()))


def test_rotary_positions_go_on_with_a_warning(tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config |= {"intermediate_size": 128, "vocab_size": 1000, "max_position_embeddings": 4096}
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = spec_of(model=str(tmp_path), **length(8192))
    told = dict(gather(spec, tmp_path, NOW).job.warnings)["beyond_context"]
    assert "rows have up to 8,192 tokens" in told
    assert "was made for 4,096" in told
    assert not list(position_blockers(spec, tmp_path))
    short = spec_of(model=str(tmp_path), data={"max_tokens_per_sample": 1000}, **length(8192))
    assert "beyond_context" not in dict(gather(short, tmp_path, NOW).job.warnings)
