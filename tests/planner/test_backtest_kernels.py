"""What kernels and losses a row's model, stack and chip imply, and what a row leaves open of them."""

import pytest

from planner.backtest import estimate_run
from planner.backtest.rows import read_run
from planner.memory import estimate_memory
from tests.planner.setups import cluster, setup
from tests.planner.test_backtest import ROW


def test_chips_without_a_fused_kernel_write_their_scores_out():
    row = ROW | {"date": "2025-09", "flash_attn": "", "num_gpus": "1", "gpu_mem_gb": ""}
    seen = [read_run(row | {"gpu": gpu}).setup.attention for gpu in ("MI100", "MI210", "A100-80GB")]
    assert seen == ["eager", "sdpa", "sdpa"]


def test_megatron_may_leave_the_sequence_whole_where_nobody_says():
    row = ROW | {
        "framework": "Megatron-LM", "date": "2025-01", "num_gpus": "8", "parallelism": "TP8", "method": "full",
        "micro_batch": "8", "grad_checkpointing": "false", "optimizer": "distributed adam",
    }  # fmt: skip
    open_, told = (estimate_run(row | {"parallelism": text}).memory for text in ("TP8", "TP8 SP"))
    without = read_run(row | {"parallelism": "TP8 no SP"})
    assert open_.nvml_bytes == told.nvml_bytes
    assert open_.upper_bytes == estimate_memory(without.setup, without.cluster).upper_bytes > told.upper_bytes


def test_activations_on_the_host_leave_one_blocks_on_the_gpu():
    """Megatron-Kwai and Transformer Engine offload what is not computed again, or a share of it."""
    here = setup(framework="megatron", gradient_checkpointing=False, micro_batch=1, sequence_tokens=32768)
    where = cluster("B300", 1)
    held = [
        estimate_memory(some, where).allocated_bytes
        for some in (here, *(here._replace(offloads_activations=True, offloaded_share=s) for s in (0.5, 0.8)))
    ]
    assert held[0] - held[2] == pytest.approx(0.8 / 0.5 * (held[0] - held[1]), rel=0.01)
    row = ROW | {"grad_checkpointing": "false", "offload": "activations(cpu) ratio 0.3"}
    told = read_run(row).setup
    assert (told.offload, told.offloads_activations, told.offloaded_share) == ("none", True, 0.3)


@pytest.mark.parametrize(
    ("framework", "compiled"),
    [
        ("MaxText (JAX, Transformer Engine attention)", True),
        ("Keras 3 (TensorFlow)", True),
        ("Keras 2 (TensorFlow)", False),
        ("TensorFlow 1.15 XLA", False),
        ("trl SFTTrainer", False),
    ],
)
def test_xla_fuses_what_jax_and_keras_3_run(framework, compiled):
    assert read_run(ROW | {"framework": framework}).setup.compiled == compiled


def test_stacks_with_adapters_in_the_bases_type_move_fewer_bytes():
    """mistral-finetune holds LoRA in fp32 for the optimizer's step alone; PEFT's is in fp32 all along."""
    row = ROW | {"flash_attn": "true", "grad_checkpointing": "true", "packing": "padded"}
    own, peft = (read_run(row | {"framework": name}).setup for name in ("mistral-finetune", "HF PEFT"))
    assert not own.adapter.fp32
    assert peft.adapter.fp32
    assert not read_run(row | {"framework": "Keras 3 (JAX)"}).setup.adapter.fp32


def test_unsloth_trains_gemma_3_in_fp32_on_chips_without_bf16():
    """In fp16 its activations overflow; quantised, its products are in fp16 all the same."""
    row = ROW | {"model": "unsloth/gemma-3-270m-it", "framework": "unsloth", "precision": "fp16", "gpu": "T4"}
    told = {
        gpu: read_run(row | {"gpu": gpu, "gpu_mem_gb": ""}).setup.precision for gpu in ("T4", "A100-80GB")
    }
    assert told == {"T4": "fp32", "A100-80GB": "fp16"}
    assert read_run(row | {"gpu_mem_gb": "", "model": "unsloth/Llama-3.2-1B"}).setup.precision == "fp16"
    assert read_run(row | {"gpu_mem_gb": "", "method": "qlora", "quant_bits": "4"}).setup.precision == "fp16"


def test_composer_trains_modules_that_are_not_fused_as_well():
    """LLM Foundry's are; LLM-Shearing's are written in plain torch."""
    names = {"llm-foundry/composer": "llm-foundry", "composer + FSDP (LLM-Shearing)": "other"}
    assert {name: read_run(ROW | {"framework": name}).setup.framework for name in names} == names
