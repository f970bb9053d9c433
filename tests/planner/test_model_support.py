"""What a model cannot be trained for is said with the estimate and refused at the launch."""

import pytest

from planner.architecture import load_architecture, parameter_counts
from planner.model_support import missing_kernels, unsupported_model
from tests.planner.factories import question_of, spec_of

SCOUT = "meta-llama/Llama-4-Scout-17B-16E"


@pytest.mark.parametrize(
    ("model", "task", "paths"),
    [
        (SCOUT, "classification", ["task"]),
        (SCOUT, "sft", []),
        ("ibm-granite/granite-3.1-2b-instruct", "reward", ["task"]),
        ("meta-llama/Llama-3.1-8B", "classification", []),
        ("microsoft/deberta-v3-base", "sft", ["task"]),
        ("microsoft/deberta-v3-base", "classification", []),
        ("t5-base", "dpo", ["task"]),
        ("Qwen/Qwen-14B", "sft", ["model.id"]),
        ("google/gemma-3-4b-it", "classification", []),
        ("mistralai/Mistral-Small-3.1-24B-Base-2503", "sft", []),
        ("mistralai/Mistral-Small-3.1-24B-Base-2503", "reward", ["task"]),
        ("meta-llama/Llama-3.2-11B-Vision-Instruct", "sft", ["model.id"]),
        ("OpenGVLab/InternVL3-8B", "dpo", ["model.id"]),
    ],
)
def test_what_transformers_cannot_load_is_found(model, task, paths):
    found = list(unsupported_model(spec_of(model={"id": model}, task=task), load_architecture(model)))
    assert [finding.path for finding in found] == paths
    assert all(finding.code == "not_yet_supported" and finding.hint for finding in found)
    assert ("not_yet_supported" in dict(question_of(model={"id": model}, task=task).job.warnings)) == bool(
        paths
    )


def test_blocks_that_transformers_does_not_recompute_are_left_whole():
    """MPNet has no gradient checkpointing: a worker that is told to switch it on would end there."""
    mpnet, roberta = "microsoft/mpnet-base", "roberta-base"
    short = {"task": "classification", "train": {"sequence_length": 128}}
    assert question_of(model={"id": mpnet}, **short).freedom.gradient_checkpointing is False
    assert question_of(model={"id": roberta}, **short).freedom.gradient_checkpointing is None
    asked = {**short, "train": {"gradient_checkpointing": True}}
    for name, paths in ((mpnet, ["train.gradient_checkpointing"]), (roberta, [])):
        found = unsupported_model(spec_of(model={"id": name}, **asked), load_architecture(name))
        assert [finding.path for finding in found] == paths


@pytest.mark.parametrize(
    ("model", "method", "trained"),
    [
        ("google/gemma-3-4b-it", "full", 3_880_263_168),
        ("Qwen/Qwen3.5-9B", "full", None),
        ("Qwen/Qwen3-8B", "full", None),
    ],
)
def test_only_the_text_tower_is_trained_and_the_estimate_says_so(model, method, trained):
    question = question_of(model={"id": model}, method={"kind": method})
    told = dict(question.job.warnings)
    published = load_architecture(model)
    assert ("text_only" in told) == bool(published.published_type)
    if trained is not None:
        assert question.trainable == trained
        assert "420 M" in told["text_only"]
        assert parameter_counts(question.base.arch).total == 4_300_079_472
    else:  # what is not loaded takes no memory
        assert parameter_counts(question.base.arch).total == question.trainable


def test_a_models_own_code_has_to_be_trusted():
    trusted = spec_of(model={"id": "Qwen/Qwen-14B", "trust_remote_code": True})
    assert not list(unsupported_model(trusted, load_architecture("Qwen/Qwen-14B")))


@pytest.mark.parametrize(
    ("model", "environment", "missing"),
    [
        ("Qwen/Qwen3.5-9B", {}, True),
        ("Qwen/Qwen3.5-9B", {"packages": ["flash-linear-attention>=0.6"]}, False),
        ("Qwen/Qwen3.5-9B", {"image": "docker:somebody/with-kernels"}, False),
        ("Qwen/Qwen3.5-9B", {"python": "/opt/venv/bin/python"}, False),
        ("Qwen/Qwen3.5-9B", {"python": "3.11"}, True),
        ("Qwen/Qwen3-8B", {}, False),
    ],
)
def test_kernels_that_the_estimate_counts_on_are_asked_for(model, environment, missing):
    spec = spec_of(model={"id": model}, environment=environment)
    found = list(missing_kernels(spec, load_architecture(model)))
    assert [finding.path for finding in found] == ["environment.packages"] * missing
    told = dict(question_of(model={"id": model}, environment=environment).job.warnings)
    assert ("missing_kernels" in told) == missing
