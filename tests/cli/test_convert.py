"""`plan init --from` and `plan export`: configurations as people have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from planner.convert import from_axolotl, from_trl, to_axolotl
from planner.specfile import load_spec
from planner.yaml_source import parse_yaml
from tests.planner.factories import spec_of

RunPlan = Callable[..., Result]

QLORA = """\
base_model: meta-llama/Llama-3.1-8B
model_type: LlamaForCausalLM
load_in_8bit: false
load_in_4bit: true
datasets:
  - {path: train.jsonl, type: alpaca, ds_type: json}
  - {path: more.jsonl, type: alpaca}
dataset_prepared_path:
val_set_size: 0.05
output_dir: ./outputs/qlora
adapter: qlora
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
sequence_len: 4096
sample_packing: true
pad_to_sequence_len: true
wandb_project: mine
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 4
optimizer: paged_adamw_32bit
lr_scheduler: cosine
learning_rate: 0.0002
bf16: auto
tf32: false
gradient_checkpointing: true
logging_steps: 1
flash_attention: true
warmup_steps: 10
weight_decay: 0.0
neftune_noise_alpha: 5
fsdp:
special_tokens:
  pad_token: <|end_of_text|>
"""
FULL_DPO = """\
base_model: Qwen/Qwen2.5-7B-Instruct
revision_of_model: abc123
rl: dpo
datasets:
  - {path: argilla/ultrafeedback, type: chatml.intel, split: train}
sequence_len: 2048
sample_packing: true
deepspeed: deepspeed_configs/zero3.json
gradient_accumulation_steps: 8
micro_batch_size: 1
max_steps: 500
warmup_steps: 50
optimizer: adamw_torch_fused
lr_scheduler: linear
learning_rate: 5e-7
fp16: true
gradient_checkpointing: offload
save_steps: 100
save_total_limit: 3
"""
TRL_SFT = """\
model_name_or_path: mistralai/Mistral-7B-v0.3
torch_dtype: bfloat16
attn_implementation: flash_attention_2
use_peft: true
load_in_4bit: true
lora_r: 16
lora_alpha: 32
lora_target_modules: [q_proj, k_proj, v_proj, o_proj]
lora_task_type: CAUSAL_LM
dataset_name: train.jsonl
dataset_train_split: train
max_seq_length: 2048
packing: true
per_device_train_batch_size: 4
gradient_accumulation_steps: 2
learning_rate: 2.0e-4
lr_scheduler_type: constant_with_warmup
warmup_ratio: 0.1
num_train_epochs: 3
optim: adamw_bnb_8bit
bf16: true
gradient_checkpointing: true
eval_strategy: steps
eval_steps: 200
save_strategy: epoch
report_to: wandb
push_to_hub: true
seed: 42
assistant_only_loss: true
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    row = {"prompt": "a " * 200, "completion": "b " * 50}
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for _ in range(50)))
    return tmp_path


def converted(run_plan: RunPlan, text: str, *words: str) -> tuple[dict[str, Any], Result]:
    Path("theirs.yml").write_text(text)
    result = run_plan("init", "spec.yaml", "--from", "theirs.yml", "--name", "job", *words)
    assert result.exit_code == 0, result.stderr
    return load_spec(Path("spec.yaml")).spec.canonical(), result


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("alpaca", "prompt_completion"),
        ("sharegpt", "messages"),
        ("chat_template", "messages"),
        ("alpaca_chat.load_qa", None),
        ({"field_instruction": "question"}, None),
    ],
)
def test_a_type_of_axolotl_is_a_format_or_told(kind: object, known: str | None) -> None:
    found = from_axolotl({"base_model": "x", "datasets": [{"path": "a.jsonl", "type": kind}]})
    assert found.sections["data"].get("format") == known
    assert ("datasets[0].type" in found.left) == (known is None)


def test_axolotl_qlora(run_plan: RunPlan) -> None:
    spec, result = converted(run_plan, QLORA, "--gpus", "2")
    assert spec["model"]["id"] == "meta-llama/Llama-3.1-8B"
    assert spec["method"] == {
        "kind": "qlora",
        "rank": 32,
        "alpha": 16,
        "dropout": 0.05,
        "targets": "all-linear",
        "virtual_tokens": 20,
    }
    train = spec["train"]
    assert (train["global_batch"], train["micro_batch"], train["epochs"]) == (16, 2, 4)
    assert (train["sequence_length"], train["packing"], train["attention"]) == (4096, True, "flash")
    assert (train["optimizer"], train["precision"], train["learning_rate"]) == (
        "paged_adamw_32bit",
        "bf16",
        2e-4,
    )
    assert (spec["data"]["train"], spec["data"]["format"]) == ("train.jsonl", "prompt_completion")
    for key in ("datasets[1]", "val_set_size", "warmup_steps", "neftune_noise_alpha"):
        assert f"not taken over: {key}: " in result.stderr
    assert "wandb_project" not in result.stderr
    assert "# Not needed here: " in Path("spec.yaml").read_text()
    assert run_plan("estimate", "spec.yaml").exit_code == 0


def test_axolotl_full_dpo(run_plan: RunPlan) -> None:
    spec, result = converted(run_plan, FULL_DPO)
    assert (spec["task"], spec["method"]["kind"], spec["data"]["format"]) == ("dpo", "full", "preference")
    train = spec["train"]
    assert (train["steps"], train["epochs"], train["warmup"], train["packing"]) == (500, None, 0.1, False)
    assert (train["precision"], train["gradient_checkpointing"]) == ("fp16", True)
    assert (spec["checkpoints"]["every"], spec["checkpoints"]["keep"]) == ("100 steps", 3)
    assert spec["model"]["revision"] == "abc123"
    for text in ("packing is off", "nothing is offloaded", "deepspeed", "no file here"):
        assert text in result.stderr


def test_trl_sft(run_plan: RunPlan) -> None:
    spec, result = converted(run_plan, TRL_SFT)
    assert spec["method"]["kind"] == "qlora" and len(spec["method"]["targets"]) == 4
    train = spec["train"]
    assert (train["global_batch"], train["micro_batch"], train["epochs"]) == (8, 4, 3)
    assert (train["optimizer"], train["attention"], train["seed"]) == ("adamw_8bit", "flash", 42)
    assert (train["scheduler"], train["warmup"]) == ("constant", 0.1)
    assert spec["evaluate"]["every"] == "200 steps"
    for text in (
        "task sft is told by the keys",
        "constant_with_warmup",
        "dataset_train_split",
        "assistant_only_loss",
    ):
        assert text in result.stderr
    assert run_plan("estimate", "spec.yaml").exit_code == 0


@pytest.mark.parametrize(
    ("keys", "task"),
    [
        ("beta: 0.1", "dpo"),
        ("num_generations: 8", "grpo"),
        ("desirable_weight: 1.0", "kto"),
        ("seed: 1", "sft"),
    ],
)
def test_trl_tasks_are_told_by_their_keys(run_plan: RunPlan, keys: str, task: str) -> None:
    text = f"model_name_or_path: Qwen/Qwen2.5-7B\n{keys}\n"
    assert converted(run_plan, text)[0]["task"] == task
    Path("spec.yaml").unlink()
    assert converted(run_plan, text, "--task", "reward")[0]["task"] == "reward"


@pytest.mark.parametrize(
    ("model", "task", "kind"), [("qwen2.5-7b", "sft", "lora"), ("roberta-large", "classification", "full")]
)
def test_a_models_id_is_enough(run_plan: RunPlan, model: str, task: str, kind: str) -> None:
    assert run_plan("init", "--from", model).exit_code == 0
    spec = load_spec(Path("spec.yaml")).spec
    assert (spec.task, spec.method.kind) == (task, kind)
    assert run_plan("estimate", "spec.yaml").exit_code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\n", "no configuration of axolotl or TRL"),
        ("base_model: x\nlearning_rate: fast\n", "not understood"),
        ("base_model: x\ndatasets: [1]\n", "not understood"),
        ("base_model: [\n", "theirs.yml:"),
        ("model_name_or_path: x\nmax_length: -5\n", "train.sequence_length"),
    ],
)
def test_what_is_not_understood_is_one_clear_error(run_plan: RunPlan, text: str, said: str) -> None:
    Path("theirs.yml").write_text(text)
    result = run_plan("init", "--from", "theirs.yml", "--name", "x")
    assert result.exit_code == 2 and said in result.stderr
    assert not Path("spec.yaml").exists()


def test_sources_that_are_not_there(run_plan: RunPlan) -> None:
    assert run_plan("init", "--from", "gone.yml").exit_code == 2
    result = run_plan("init", "--from", "no/such-model")
    assert result.exit_code == 2 and "is not known" in result.stderr
    assert run_plan("init", "--from", "qwen2.5-7b", "--model", "x").exit_code == 2


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {
            "method": {"kind": "qlora", "rank": 8, "targets": ("q_proj",)},
            "data": {"train": "train.jsonl", "format": "messages"},
        },
        {
            "method": {"kind": "dora"},
            "train": {"precision": "fp16", "gradient_checkpointing": True, "micro_batch": 4},
        },
        {"task": "dpo", "train": {"packing": False}, "data": {"train": "p.jsonl", "format": "preference"}},
        {
            "method": {"kind": "full"},
            "train": {"optimizer": "adamw_8bit", "steps": 100, "attention": "eager"},
        },
    ],
)
def test_what_is_exported_comes_back(sections: dict[str, Any]) -> None:
    spec = spec_of(**sections)
    there = to_axolotl(spec, gpus=2)
    back = from_axolotl(there.sections, gpus=2).sections
    assert back["task"] == spec.task and back["model"]["id"] == spec.model.id
    method, train = spec.method, spec.train
    assert back["method"]["kind"] == method.kind
    if method.kind != "full":
        assert (back["method"]["rank"], back["method"]["alpha"]) == (method.rank, method.effective_alpha())
    for key in (
        "global_batch",
        "sequence_length",
        "packing",
        "learning_rate",
        "optimizer",
        "precision",
        "seed",
    ):
        assert back["train"][key] == getattr(train, key), key
    assert back["train"].get("steps") == train.steps


def test_export_is_yaml_and_tells_what_it_leaves(
    run_plan: RunPlan, golden: Callable[[str, str], None]
) -> None:
    example = Path(__file__).parents[2] / "examples" / "llama-3.1-8b-lora.yaml"
    result = run_plan("export", "--to", "axolotl", example)
    assert result.exit_code == 0
    assert parse_yaml(result.stdout).data["base_model"] == "meta-llama/Llama-3.1-8B-Instruct"
    assert "not taken over: where" in result.stderr
    golden("export", result.stdout)


def test_a_batch_that_does_not_divide_is_refused(run_plan: RunPlan) -> None:
    Path("spec.yaml").write_text("name: x\nmodel: roberta-large\ntask: classification\n")
    assert run_plan("export", "--to", "axolotl", "spec.yaml").exit_code == 2
    Path("spec.yaml").write_text("name: x\nmodel: qwen2.5-7b\ntrain: {global_batch: 3}\n")
    result = run_plan("export", "--to", "axolotl", "spec.yaml", "--gpus", "2")
    assert result.exit_code == 2 and "does not divide" in result.stderr


def test_nothing_is_dropped_in_silence() -> None:
    for convert, text in ((from_axolotl, QLORA), (from_axolotl, FULL_DPO), (from_trl, TRL_SFT)):
        given = parse_yaml(text).data
        conversion = convert({**given, "brand_new_key": 1})
        assert conversion.left["brand_new_key"] == "no counterpart"
        assert conversion.given == {}


@pytest.mark.parametrize(
    ("given", "offload", "left"),
    [
        ({"fsdp": "full_shard auto_wrap offload"}, "parameters", ["fsdp"]),
        (
            {"fsdp": ["full_shard"], "fsdp_config": {"fsdp_offload_params": True}},
            "parameters",
            ["fsdp", "fsdp_config"],
        ),
        ({"fsdp_config": {"offload_params": False}}, None, ["fsdp_config"]),
        ({"deepspeed": "deepspeed_configs/zero3_bf16_cpuoffload_all.json"}, "parameters", ["deepspeed"]),
        (
            {"deepspeed": {"zero_optimization": {"offload_param": {"device": "cpu"}}}},
            "parameters",
            ["deepspeed"],
        ),
        ({"deepspeed": {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}}, None, ["deepspeed"]),
        ({"deepspeed": "zero3.json"}, None, ["deepspeed"]),
    ],
)
def test_what_lies_on_the_host_is_taken_over(
    given: dict[str, Any], offload: str | None, left: list[str]
) -> None:
    for found in (from_axolotl({"base_model": "x", **given}), from_trl({"model_name_or_path": "x", **given})):
        assert found.sections["train"].get("offload") == offload
        assert sorted(found.left) == left
        assert any("offload" in note for note in found.notes) == (
            "deepspeed" in given and "offload" in str(given)
        )


def test_parameters_on_the_host_come_back_from_axolotl() -> None:
    spec = spec_of(method="full", train={"offload": "parameters"}, data={"train": "train.jsonl"})
    theirs = to_axolotl(spec).sections
    assert theirs["fsdp_config"]["offload_params"] is True
    assert from_axolotl(theirs).sections["train"]["offload"] == "parameters"
    assert "fsdp_config" not in to_axolotl(spec_of(data={"train": "train.jsonl"})).sections
