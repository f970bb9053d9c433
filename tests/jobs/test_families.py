"""Families that transformers, peft or TRL treat in a way of their own: they train, adapters go where the estimate says,
and a step holds what it says.
"""

from __future__ import annotations

import json

import pytest

from benchmarks.small_jobs import SmallJob
from planner.memory import estimate_memory
from tests.jobs.test_step_peaks import MIB, measured_bytes
from tests.planner.setups import cluster

pytestmark = pytest.mark.train
_BLOCKS = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 2048}
_DECODER = {**_BLOCKS, "intermediate_size": 704, "num_key_value_heads": 2}
SHAPES = {
    "mixtral": {**_DECODER, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {
        **_DECODER, "head_dim": 64, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256,
    },
    "llama4_text": {**_DECODER, "head_dim": 64, "num_local_experts": 4, "intermediate_size_mlp": 704,
                    "interleave_moe_layer_step": 1},
    "gpt_oss": {**_DECODER, "head_dim": 64, "num_local_experts": 4, "num_experts_per_tok": 2},
    "bert": {**_BLOCKS, "intermediate_size": 1024, "attention_probs_dropout_prob": 0.0},
    "distilbert": {"dim": 256, "hidden_dim": 1024, "n_layers": 4, "n_heads": 4, "vocab_size": 2048,
                   "attention_dropout": 0.0},
}  # fmt: skip
_TOWER = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 14}  # fmt: skip
WITH_TOWERS = {
    "gemma3": {"text_config": {**_DECODER, "head_dim": 64}, "vision_config": _TOWER, "mm_tokens_per_image": 4},
    "gemma4": {
        "text_config": {**_DECODER, "head_dim": 64, "global_head_dim": 128, "hidden_size_per_layer_input": 0,
                        "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2,
                        "moe_intermediate_size": 128},
        "vision_config": {**_TOWER, "position_embedding_size": 64},
    },
    "mistral3": {"text_config": {**_DECODER, "head_dim": 64, "model_type": "mistral"},
                 "vision_config": {**_TOWER, "head_dim": 32, "model_type": "pixtral"}, "image_token_index": 2000},
    "qwen2_5_vl": {
        "text_config": {**_DECODER, "rope_parameters": {"rope_type": "default", "mrope_section": [8, 12, 12]}},
        "vision_config": {"hidden_size": 64, "intermediate_size": 128, "depth": 2, "num_heads": 2,
                          "out_hidden_size": 256},
        "image_token_id": 2000, "video_token_id": 2001,
    },
}  # fmt: skip
LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("mixtral", "lora"),
        ("llama4_text", "lora"),
        ("gpt_oss", "lora"),
        ("distilbert", "lora"),
        ("gemma3", "lora"),
        ("mistral3", "full"),
        pytest.param("gemma3", "full", marks=LONG),
        pytest.param("gemma3", "vera", marks=LONG),
        pytest.param("gemma4", "lora", marks=LONG),
        pytest.param("mistral3", "lora", marks=LONG),
        pytest.param("qwen2_5_vl", "lora", marks=LONG),
        pytest.param("qwen3_moe", "lora", marks=LONG),
        pytest.param("llama4_text", "full", marks=LONG),
        pytest.param("mixtral", "full", marks=LONG),
        pytest.param("bert", "full", marks=LONG),
    ],
)
def test_a_step_of_the_family_holds_what_the_closed_form_says(zygote, tmp_path, family, method):
    """Dropout of attention is left out: on a CPU it writes the scores out, on a GPU the fused kernel does not."""
    base = tmp_path / "base"
    arguments = [str(base), json.dumps({"model_type": family, **(SHAPES | WITH_TOWERS)[family]})]
    zygote.call("benchmarks.small_jobs:make_base", *arguments, log=tmp_path / "log")
    task = "classification" if "bert" in family else "sft"
    job = SmallJob(task, method, 6, 90, 3, precision="bf16", again=False, accumulated=1)
    setup = job.setup(base)
    if family in ("mixtral", "qwen3_moe"):
        setup = setup._replace(adapter=setup.adapter and setup.adapter._replace(targets=("attention",)))
    predicted = estimate_memory(setup, cluster("A100-80GB")).allocated_bytes
    measured = measured_bytes(zygote, tmp_path, base, job)
    assert predicted / MIB == pytest.approx(measured / MIB, rel=0.08)


def test_experts_routers_and_other_towers_are_left_alone(zygote, tmp_path):
    """Trained parameters of each family, as peft makes them and as the estimate counts them.

    BERT's pooler, which peft adapts, counts as part of the head there.
    """
    log = tmp_path / "log"
    shapes = {family: shape for family, shape in (SHAPES | WITH_TOWERS).items() if family != "bert"}
    zygote.call("tests.jobs.adapted:main", str(tmp_path / "counts.json"), json.dumps(shapes), log=log)
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert set(counts) == set(shapes)
    for family, (made, counted) in counts.items():
        assert made == counted, family
