from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from planner.errors import Finding
from planner.spec import FineTuneSpec
from planner.spec_rules import broken_rules
from planner.support import unsupported, unsupported_spread
from planner.units import Every, GpuFilter


def spec(**keys: Any) -> FineTuneSpec:
    return FineTuneSpec.model_validate({"name": "run", "model": "org/name"} | keys)


def paths(findings: list[Finding]) -> list[str]:
    return [finding.path for finding in findings]


def test_a_single_text_stands_for_the_main_key_of_a_section() -> None:
    short = spec(method="qlora", data="train.jsonl", checkpoints="file:///c", output="out", notify="CHAT_URL")
    long = spec(
        model={"id": "org/name"},
        method={"kind": "qlora"},
        data={"train": "train.jsonl"},
        checkpoints={"uri": "file:///c"},
        output={"uri": "out"},
        notify=("CHAT_URL",),
    )
    assert short == long


def test_a_single_text_stands_for_a_list_of_one() -> None:
    where = spec(where={"clouds": "aws", "regions": "us-east-1", "gpus": "H100:8", "market": "spot"}).where
    assert where.clouds == ("aws",)
    assert where.regions == ("us-east-1",)
    assert where.gpus == ("H100:8",)
    assert where.market == ("spot",)
    assert spec(environment={"secrets": "HF_TOKEN"}).environment.secrets == ("HF_TOKEN",)


def test_an_empty_section_means_its_defaults() -> None:
    sections = (
        "method",
        "data",
        "train",
        "evaluate",
        "goal",
        "where",
        "environment",
        "checkpoints",
        "output",
    )
    assert spec(**dict.fromkeys(sections)) == spec()


def test_what_people_write_is_parsed_by_accessors() -> None:
    where = spec(where={"gpus": ("h100:1..8", "A100-SXM4-80GB"), "gpu_memory": "24GB..", "nodes": 4}).where
    assert where.gpu_filters() == (GpuFilter("H100", 1, 8), GpuFilter("A100-80GB", 1, None))
    assert where.gpu_memory_range_gib() == (24, math.inf)
    assert where.nodes_range() == (4, 4)
    assert spec(where={"nodes": "1..4"}).where.nodes_range() == (1, 4)
    assert spec().where.gpu_filters() is None
    assert spec().where.gpu_memory_range_gib() is None
    assert spec(goal={"deadline": "2030-01-01"}).goal.deadline_at() == datetime(
        2030, 1, 1, 23, 59, 59, tzinfo=UTC
    )
    assert spec().goal.deadline_at() is None
    assert spec(goal={"within": "1d", "budget": "$50"}).goal.within == 86400
    assert spec(checkpoints={"every": "100 steps"}).checkpoints.every_parsed() == Every(steps=100)
    assert spec().checkpoints.every_parsed().is_auto
    assert spec(evaluate={"every": "10m"}).evaluate.every_parsed() == Every(seconds=600)
    assert spec().evaluate.every_parsed() is None


def test_defaults_that_depend_on_other_keys() -> None:
    assert spec().effective_quantization() == "none"
    assert spec(method="qlora").effective_quantization() == "4bit"
    assert spec(quantization="8bit").effective_quantization() == "8bit"
    assert spec(model="unsloth/Qwen3-8B-bnb-4bit").effective_quantization() == "4bit"
    assert spec(method={"rank": 8}).method.effective_alpha() == 16
    assert spec(method={"rank": 8, "alpha": 4}).method.effective_alpha() == 4


def test_a_spec_never_changes() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        spec().train.epochs = 3  # type: ignore[misc]


SPECS = st.fixed_dictionaries(
    {"name": st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True), "model": st.just("org/name")},
    optional={
        "labels": st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=2),
        "method": st.sampled_from(
            ["full", "lora", {"kind": "qlora", "rank": 8, "targets": ["q_proj", "v_proj"]}]
        ),
        "train": st.fixed_dictionaries(
            {},
            optional={
                "steps": st.integers(1, 10**12),
                "learning_rate": st.floats(1e-9, 1),
                "packing": st.booleans(),
            },
        ),
        "goal": st.fixed_dictionaries(
            {}, optional={"within": st.integers(1, 10**6).map("{}s".format), "budget": st.floats(0.01, 1e6)}
        ),
        "where": st.fixed_dictionaries(
            {}, optional={"nodes": st.integers(1, 1024), "gpus": st.just(["H100:1..8"])}
        ),
    },
)


@given(SPECS)
def test_the_canonical_form_reads_back_as_an_equal_spec_with_the_same_hash(keys: dict[str, Any]) -> None:
    first = FineTuneSpec.model_validate(keys)
    again = FineTuneSpec.model_validate(json.loads(json.dumps(first.canonical())))
    assert again == first
    assert again.hash() == first.hash()


def test_the_hash_names_what_is_said_not_how() -> None:
    assert spec(goal={"within": "24h"}).hash() == spec(goal={"within": "1 day"}).hash()
    assert spec(where={"gpus": ["h100"]}).hash() == spec(where={"gpus": "H100"}).hash()
    assert spec().hash() != spec(train={"seed": 1}).hash()
    assert spec().hash().startswith("sha256:")
    assert len(spec().hash()) == 71


@pytest.mark.parametrize(
    ("keys", "broken"),
    [
        ({"train": {"epochs": 1, "steps": 10}}, ["train.steps"]),
        ({"goal": {"deadline": "2030-01-01", "within": "1d"}}, ["goal.within"]),
        ({"goal": {"objective": "cheapest_by_deadline"}}, ["goal.objective"]),
        ({"goal": {"objective": "cheapest_by_deadline", "within": "1d"}}, []),
        ({"goal": {"objective": "fastest_within_budget"}}, ["goal.objective"]),
        ({"goal": {"objective": "fastest_within_budget", "budget": 5}}, []),
        ({"method": "qlora", "quantization": "8bit"}, ["quantization"]),
        ({"method": "qlora", "quantization": "4bit"}, []),
        ({"method": "full", "quantization": "4bit"}, ["quantization"]),
        ({"model": "unsloth/Qwen3-8B-bnb-4bit", "method": "full"}, ["model.id"]),
        ({"model": "unsloth/Qwen3-8B-bnb-4bit", "quantization": "none"}, ["quantization"]),
        ({"model": "unsloth/Qwen3-8B-bnb-4bit", "quantization": "4bit"}, []),
        ({"method": "full", "quantization": "none"}, []),
        ({"method": {"kind": "lora", "targets": ["q_proj", "model.lm_head"]}}, ["method.targets"]),
        ({"task": "reward", "method": {"kind": "lora", "targets": ["q_proj", "lm_head"]}}, []),
        ({"evaluate": {"metric": "accuracy"}}, ["evaluate.metric"]),
        ({"task": "classification", "evaluate": {"metric": "accuracy"}}, []),
        (
            {"task": "classification", "goal": {"metric": {"name": "perplexity", "at_least": 1}}},
            ["goal.metric.name"],
        ),
        ({"goal": {"metric": {"name": "loss", "at_least": 1}}}, ["goal.metric.name"]),
        (
            {"data": "train.jsonl", "goal": {"metric": {"name": "exact_match", "at_least": 1}}},
            ["goal.metric"],
        ),
        (
            {"evaluate": {"metric": "loss"}, "goal": {"metric": {"name": "exact_match", "at_least": 0.5}}},
            ["goal.metric.name"],
        ),
        ({"data": {"format": "label"}}, ["data.format"]),
        ({"task": "dpo", "data": {"format": "preference"}}, []),
        ({"train": {"micro_batch": 32, "global_batch": 16}}, ["train.micro_batch"]),
        ({"train": {"micro_batch": 16, "global_batch": 16}}, []),
        ({"task": "classification", "train": {"packing": True}}, ["train.packing"]),
        ({"environment": {"env": {"A": "1"}, "secrets": ["A"]}}, ["environment.env.A"]),
        ({"environment": {"env": {"HF_TOKEN": "x"}}}, ["environment.env.HF_TOKEN"]),
        ({"environment": {"env": {"TOKENIZERS_PARALLELISM": "x"}}}, []),
        (
            {
                "train": {"epochs": 1, "steps": 1, "packing": True},
                "task": "reward",
                "method": "full",
                "quantization": "fp8",
            },
            ["train.steps", "quantization", "train.packing"],
        ),
    ],
)
def test_contradictions_are_found_all_at_once(keys: dict[str, Any], broken: list[str]) -> None:
    assert paths(broken_rules(spec(**keys))) == broken


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"method": "ia3", "quantization": "8bit"}, "method.kind"),
        ({"quantization": "fp8"}, "quantization"),
        ({"output": "ftp://host/x"}, "output.uri"),
        ({"checkpoints": "hdfs://host/x"}, "checkpoints.uri"),
        ({"environment": {"image": "x"}}, "environment.image"),
        ({"environment": {"setup": "x"}}, "environment.setup"),
        ({"environment": {"packages": "x"}}, "environment.packages"),
        ({"method": "adalora"}, "method.kind"),
        ({"method": "p_tuning"}, "method.kind"),
        ({"train": {"precision": "fp8"}}, "train.precision"),
    ],
)
def test_what_cannot_be_launched_yet_can_be_estimated(keys: dict[str, Any], path: str) -> None:
    asked = spec(**keys)
    assert unsupported(asked) == []
    (finding,) = unsupported(asked, for_launch=True)
    assert finding.path == path
    assert finding.code == "not_yet_supported"
    assert "not yet supported" in finding.message
    assert finding.hint


@pytest.mark.parametrize(
    ("keys", "kind", "path"),
    [
        ({"method": "qlora"}, "fsdp", "quantization"),
        ({"method": "vera"}, "fsdp", "method.kind"),
        ({"train": {"optimizer": "adamw_8bit"}}, "fsdp", "train.optimizer"),
        ({}, "zero3", "where.gpus"),
        ({}, "tp", "where.gpus"),
    ],
)
def test_what_cannot_be_spread_over_gpus_yet(keys: dict[str, Any], kind: str, path: str) -> None:
    findings = list(unsupported_spread(spec(**keys), kind, 8))
    assert path in paths(findings)
    assert all(one.code == "not_yet_supported" and one.hint for one in findings)
    assert f"a model spread over 8 GPUs ({kind})" in findings[0].message


def test_what_can_be_spread_over_gpus() -> None:
    for keys in (
        {},
        {"method": "full"},
        {"method": "lora", "train": {"optimizer": "sgd"}},
        *({"task": task} for task in ("classification", "dpo", "reward", "kto", "grpo")),
        *({"method": kind} for kind in ("dora", "ia3", "prompt_tuning")),
    ):
        assert list(unsupported_spread(spec(**keys), "fsdp", 8)) == []
    assert list(unsupported_spread(spec(method="qlora"), "ddp", 8)) == []


def test_what_runs_today_has_nothing_against_it() -> None:
    for task in ("sft", "classification"):
        for kind in ("full", "lora", "dora", "rslora"):
            keys = {
                "checkpoints": "file:///c",
                "output": "out",
                "data": "train.jsonl",
                "evaluate": {"every": "9 steps"},
            }
            assert unsupported(spec(task=task, method=kind, **keys), for_launch=True) == []


def test_reserved_machines_cannot_be_estimated_yet() -> None:
    assert paths(unsupported(spec(where={"market": "reserved"}))) == ["where.market"]
