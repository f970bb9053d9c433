"""What single trainers hold, as their code has it and as published runs measured it."""

import pytest

from planner.backtest import estimate_run, read_run
from planner.memory import estimate_memory, model_state
from planner.memory.activations import block_activations, ring_backward
from planner.memory.block_form import BlockForm
from planner.memory.precision import widths
from planner.stacks import stack_of
from planner.throughput.sampling import sampling_seconds
from planner.throughput.terms import step_shape

PRIME = {
    "model": "Qwen/Qwen3-4B-Instruct-2507", "task": "grpo", "precision": "bf16", "gpu": "H100-80GB", "gpu_mem_gb": "80",
    "num_gpus": "1", "parallelism": "single", "seq_len": "16384", "micro_batch": "1", "grad_accum": "2",
    "grad_checkpointing": "true", "flash_attn": "true", "liger_fused": "fused LM head", "date": "2026-01",
    "framework": "prime-rl trainer (compile)", "method": "lora", "lora_rank": "16",
}  # fmt: skip
SMALL = {"model": "Qwen/Qwen3-0.6B", "method": "full", "lora_rank": ""}


@pytest.mark.parametrize(
    ("change", "published_gib"),
    [({}, 23.303), ({"seq_len": "65536"}, 41.994), ({"offload": "activations"}, 20.568),
     ({"num_gpus": "8", "parallelism": "FSDP"}, 10.256), (SMALL, 12.528), (SMALL | {"seq_len": "65536"}, 19.561),
     (SMALL | {"seq_len": "65536", "date": "2026-06"}, 11.729)],
)  # fmt: skip
def test_prime_rl_holds_all_weights_in_fp32(change, published_gib):
    """Its benchmarks (`benchmarks/baselines`): `fully_shard` on one GPU too, and no engine beside the trainer."""
    estimate = estimate_run(PRIME | change)
    assert estimate.memory.reserved_bytes / 2**30 == pytest.approx(published_gib, rel=0.08)
    assert estimate.memory.components_bytes["kv_cache"] == 0
    assert sampling_seconds(estimate.run.setup, estimate.run.cluster) == 0


@pytest.mark.parametrize(("tokens", "published_gib"), [("16384", 31.648), ("65536", 63.68)])
def test_experts_outputs_are_weighted_in_fp32(tokens, published_gib):
    """A copy of each token for each of its experts, as `MoE._run_routed_experts` has it in torchtitan and prime-rl."""
    mixture = PRIME | {"model": "Qwen/Qwen3-30B-A3B-Instruct-2507", "num_gpus": "8", "parallelism": "FSDP"}
    estimate = estimate_run(mixture | {"seq_len": tokens})
    assert estimate.memory.reserved_bytes / 2**30 == pytest.approx(published_gib, rel=0.12)
    arch = estimate.run.setup.arch
    plain, weighted = (
        block_activations(arch, None, BlockForm(2.0, 2.0, True, True, fp32_routing=flag))
        for flag in (False, True)
    )
    assert (weighted.saved - plain.saved, weighted.backward - plain.backward) == (
        4.0 * 8 * 2048,
        10.0 * 8 * 2048,
    )
    assert stack_of("torchtitan").fp32_routing


def test_prime_rl_offloads_unasked_since_june_2026():
    before, after, told = (
        estimate_run(PRIME | SMALL | {"date": date, "offload": offload}).run.setup
        for date, offload in (("2026-01", ""), ("2026-07", ""), ("2026-07", "none"))
    )
    assert (after.offload, after.offloads_activations) == ("optimizer", True)
    for setup in (before, told):
        assert (setup.offload, setup.offloads_activations) == ("none", False)


MIXTURE = {
    "model": "Qwen/Qwen3-30B-A3B", "method": "full", "lora_rank": "", "task": "sft", "gpu": "H200", "gpu_mem_gb": "141",
    "num_gpus": "8", "parallelism": "FSDP", "seq_len": "8192", "grad_accum": "1", "date": "2026-08",
    "precision": "bf16 mixed (fp32 master)", "framework": "prime-rl (FSDP2)", "flash_attn": "",
}  # fmt: skip


@pytest.mark.parametrize(("tokens", "published_gib"), [("8192", 63.1), ("65536", 90.3)])
def test_no_offload_of_the_optimizer_says_nothing_of_blocks_inputs(tokens, published_gib):
    """PrimeIntellect-ai/prime-rl, pull request 3234: the column "No offload"; experts are spread unasked."""
    row = PRIME | MIXTURE | {"seq_len": tokens, "offload": "no optimizer offload"}
    estimate = estimate_run(row)
    setup = estimate.run.setup
    assert (setup.offload, setup.offloads_activations, setup.parallelism.expert) == ("none", True, 8)
    assert estimate.memory.reserved_bytes / 2**30 == pytest.approx(published_gib, rel=0.05)
    assert read_run(row | {"date": "2026-05"}).setup.parallelism.expert == 1
    assert read_run(row | {"num_gpus": "6"}).setup.parallelism.expert == 2


def test_masters_on_the_host_leave_what_is_computed_with_on_the_gpu():
    """`full_offload` of the same pull request: 17.5 GiB, with what passes from GPU to host not counted here."""
    plain = PRIME | MIXTURE
    setup = read_run(plain | {"offload": "masters+optimizer+gradients cpu"}).setup
    assert setup.offloads_masters and setup.offload == "optimizer"
    assert setup.shape != setup._replace(offloads_masters=False).shape
    whole = model_state(read_run(plain | {"offload": "no optimizer offload"}).setup)
    state = model_state(setup)
    assert state.weights == whole.weights / 2
    assert state.gradients == state.optimizer == state.step == 0
    assert state.host_parts == {
        "weights": whole.weights, "gradients": whole.gradients, "optimizer": whole.optimizer,
    }  # fmt: skip
    assert estimate_run(plain | {"offload": "masters+optimizer cpu"}).memory.reserved_bytes / 2**30 < 17.5


def test_fsdp_shards_experts_over_the_ranks_that_expert_parallelism_leaves():
    """torchtitan's `apply_fsdp`: experts on the `dp_mod_ep` mesh, so that a rank gathers its own experts alone."""
    row = PRIME | MIXTURE | {"framework": "torchtitan", "liger_fused": "", "grad_checkpointing": "selective"}
    whole, spread = (read_run(row | {"parallelism": how}).setup for how in ("FSDP", "FSDP+EP4"))
    assert model_state(whole).weights == pytest.approx(model_state(spread).weights)
    assert model_state(whole).optimizer == pytest.approx(model_state(spread).optimizer)
    assert model_state(spread).comm.backward < model_state(whole).comm.backward / 2


def test_deepspeed_copies_weights_in_fp32_into_masters():
    """`_create_fp32_partitions` of stage3.py: `clone().float()`, whatever they are in; ChatGLM3's demo trains so."""
    row = {
        "model": "THUDM/chatglm3-6b", "method": "full", "task": "sft", "precision": "fp32", "gpu": "80GB-class GPU",
        "gpu_mem_gb": "80", "num_gpus": "4", "parallelism": "ZeRO-3", "seq_len": "384", "micro_batch": "1",
        "grad_accum": "1", "grad_checkpointing": "false", "packing": "padded to longest of batch", "date": "2024-01",
        "framework": "HF Seq2SeqTrainer deepspeed",
    }  # fmt: skip
    estimate = estimate_run(row)
    assert widths(estimate.run.setup).master == 4.0
    assert estimate.memory.nvml_bytes / 2**30 == pytest.approx(47.21, rel=0.08)
    assert widths(read_run(row | {"parallelism": "DDP"}).setup).master == 0.0


LONG = {
    "model": "Qwen/Qwen3-0.6B", "method": "full", "task": "sft", "precision": "bf16", "gpu": "H100-80GB",
    "gpu_mem_gb": "80", "num_gpus": "8", "parallelism": "FSDP2 CP8", "seq_len": "1048576", "micro_batch": "1",
    "grad_accum": "1", "grad_checkpointing": "true", "framework": "TRL SFTTrainer (FSDP2)", "date": "2026-08",
}  # fmt: skip


@pytest.mark.parametrize(("offload", "published_gb"), [("", 27.9), ("activations(checkpoints to cpu)", 20.8)])
def test_context_parallel_gathers_keys_and_values_of_all_ranks(offload, published_gb):
    """huggingface/accelerate, pull request 4175: a million tokens of Qwen3-0.6B on eight GPUs; 6 and 8 % too low."""
    estimate = estimate_run(LONG | {"offload": offload})
    assert estimate.memory.allocated_bytes / 1e9 == pytest.approx(published_gb, rel=0.09)


def test_the_ring_of_torch_is_no_other_stacks_and_larger_on_more_ranks():
    setup = read_run(LONG | {"offload": "activations"}).setup
    spread = setup.parallelism
    ranks = [ring_backward(setup.arch, 2.0, each) for each in (2, 8)]
    assert ranks[1] - ranks[0] == 2.0 * 6 * (setup.arch.kv_size + setup.arch.v_size)
    rings, own, ulysses = (
        estimate_memory(setup._replace(framework=name, parallelism=spread._replace(kind=kind)), cluster)
        for cluster in [read_run(LONG).cluster]
        for name, kind in (("trl", "fsdp"), ("prime-rl", "fsdp"), ("hf", "zero3"))
    )
    activations = [each.components_bytes["activations"] for each in (rings, own, ulysses)]
    assert activations[0] > max(activations[1:])


@pytest.mark.parametrize(
    ("model", "checkpointing", "keeps"),
    [("meta-llama/Llama-3.1-8B", "", True), ("meta-llama/Llama-3.1-70B", "", False),
     ("meta-llama/Llama-3.1-8B", "full", False), ("meta-llama/Llama-3.1-8B", "selective", True)],
)  # fmt: skip
def test_torchtitan_recomputes_unasked(model, checkpointing, keeps):
    row = PRIME | MIXTURE | {"framework": "torchtitan", "model": model, "grad_checkpointing": checkpointing}
    setup = read_run(row).setup
    assert (setup.gradient_checkpointing, setup.keeps_products) == (True, keeps)


@pytest.mark.parametrize(
    ("tokens", "quantised", "published_gib"),
    [("1024", True, 6.668), ("1024", False, 7.228)],
)
def test_a_loop_that_names_a_models_outputs_keeps_their_logits(tokens, quantised, published_gib):
    """Anassbzdd/fitcheck, scripts/measure.py (September 2026): `out.loss.backward()`, Qwen2.5-1.5B on a T4."""
    row = {
        "model": "Qwen/Qwen2.5-1.5B-Instruct", "method": "qlora" if quantised else "lora", "lora_rank": "32",
        "quant_bits": "4" if quantised else "", "lora_targets": "q_proj,k_proj,v_proj,o_proj", "precision": "fp16",
        "optimizer": "adamw", "gpu": "T4", "gpu_mem_gb": "16", "num_gpus": "1", "parallelism": "single",
        "seq_len": tokens, "micro_batch": "2", "grad_accum": "1", "grad_checkpointing": "true", "flash_attn": "sdpa",
        "framework": "transformers 5.17 + peft 0.20 (own loop)", "date": "2026-09", "task": "sft",
    }  # fmt: skip
    estimate = estimate_run(row)
    assert estimate.run.setup.loss_bytes == (16.0 if quantised else 14.0)
    assert estimate.memory.allocated_bytes / 2**30 == pytest.approx(published_gib, rel=0.03)
    assert read_run(row | {"framework": "HF Trainer + PEFT"}).setup.loss_bytes is None


def test_embedding_and_head_of_prime_rl_are_units_of_their_own_where_they_share_no_weights():
    """Otherwise the root gathers both, with gradients, until the backward pass ends (`setup_fsdp`)."""
    spread = PRIME | {"method": "full", "lora_rank": "", "num_gpus": "8", "parallelism": "FSDP"}
    tied, untied = (
        estimate_run(spread | {"model": name}).run.setup for name in (PRIME["model"], "Qwen/Qwen3-8B")
    )
    roots = [2.0 * setup.arch.vocab * setup.arch.hidden for setup in (tied, untied)]
    assert model_state(tied).comm.end > 2 * roots[0]
    assert model_state(untied).comm.end < 2 * roots[1]


GLM = {
    "model": "THUDM/chatglm-6b", "precision": "fp16", "gpu": "A40", "gpu_mem_gb": "48", "num_gpus": "4",
    "date": "2023-12", "parallelism": "ZeRO-2", "seq_len": "1560", "micro_batch": "1", "grad_accum": "4",
    "grad_checkpointing": "false", "framework": "DeepSpeed (own loop)", "method": "lora", "lora_rank": "16",
    "lora_targets": "query_key_value",
}  # fmt: skip


def test_loops_over_transformers_modules_had_their_attention_written_out_too():
    """liucongg/ChatGLM-Finetuning: THUDM's modules keep each head's softmax in fp32 and its copy in fp16."""
    assert read_run(GLM).setup.attention == "eager"
    assert read_run(GLM | {"date": "2025-12"}).setup.attention == "sdpa"
    assert read_run(GLM | {"framework": "DeepSpeed transformer kernels"}).setup.attention == "sdpa"
    scores = 28 * 32 * 1560**2 * 6.0
    again = estimate_run(GLM | {"date": "2025-12"}).memory.components_bytes["activations"]
    held = estimate_run(GLM).memory.components_bytes["activations"]
    assert held - again == pytest.approx(scores, rel=0.01)


def test_a_bucket_of_zero_2_is_whole_however_little_is_trained():
    own, under_transformers = (
        estimate_run(GLM | {"framework": name}).memory.components_bytes["comm_buffers"]
        for name in (GLM["framework"], "HF Trainer")
    )
    assert own == 1e9
    assert under_transformers < 0.1e9


def test_activations_of_frozen_first_blocks_are_not_kept():
    """Published: 24 GB with the last four of 28 blocks trained and all recomputed, 5 GB more with none recomputed."""
    freeze = GLM | {"method": "freeze_last4", "lora_rank": "", "lora_targets": ""}
    kept, again = (
        estimate_run(freeze | {"grad_checkpointing": text}).memory.allocated_bytes
        for text in ("false", "true")
    )
    assert 1.5e9 < kept - again < 6e9
    last, all_blocks = (read_run(freeze | {"method": name}).setup for name in ("freeze_last4", "lisa"))
    assert (last.reached_share, all_blocks.reached_share) == (4 / 28, 1.0)
    assert step_shape(last).passes_memory < 2.0 < 3.0 == step_shape(all_blocks).passes_memory


SOUP = {
    "model": "meta-llama/Llama-3.1-8B", "precision": "bf16", "gpu": "H100-80GB", "gpu_mem_gb": "80", "num_gpus": "1",
    "date": "2026-08", "parallelism": "single", "seq_len": "1024", "micro_batch": "4", "grad_accum": "1",
    "grad_checkpointing": "false", "framework": "Soup CLI (transformers + TRL SFTTrainer + PEFT)", "method": "lora",
    "lora_rank": "16", "lora_targets": "q_proj,v_proj",
}  # fmt: skip


@pytest.mark.parametrize(("liger", "published_gib"), [("", 70.99), ("liger", 61.81)])
def test_soup_loads_bases_in_fp32(liger, published_gib):
    """Its issue 339: `from_pretrained` gets no type, and transformers 4 takes fp32; its TRL holds all logits."""
    estimate = estimate_run(SOUP | {"liger_fused": liger})
    assert estimate.memory.reserved_bytes / 2**30 == pytest.approx(published_gib, rel=0.06)
    setup = estimate.run.setup
    assert (setup.precision, setup.frozen_fp32) == ("amp_bf16", True)
    cast = step_shape(setup).products - step_shape(setup._replace(frozen_fp32=False)).products
    assert cast > 2 * 8e9  # each forward pass casts each weight anew
    packed = read_run(SOUP | {"method": "qlora", "quant_bits": "4"}).setup
    sharded = read_run(SOUP | {"num_gpus": "4", "parallelism": "FSDP"}).setup
    deepspeed = read_run(SOUP | {"num_gpus": "4", "parallelism": "ZeRO-3"}).setup
    assert not packed.frozen_fp32
    assert (sharded.precision, sharded.frozen_fp32) == ("bf16", True)
    assert (deepspeed.precision, deepspeed.frozen_fp32) == ("bf16", False)


BOOK = {
    "model": "gpt2", "method": "full", "gpu": "A100-40GB", "gpu_mem_gb": "40", "num_gpus": "1", "parallelism": "single",
    "seq_len": "1024", "micro_batch": "8", "grad_accum": "1", "grad_checkpointing": "false", "date": "2025-04",
    "task": "pretrain",
}  # fmt: skip


def test_a_loop_of_its_own_without_fused_attention_writes_its_scores_out():
    """Published by rasbt/LLMs-from-scratch: 26.3 GiB of GPT-2 in fp32 with eight rows of 1,024; sdpa comes later."""
    row = BOOK | {"framework": "plain PyTorch 2.6 training loop", "precision": "fp32", "flash_attn": "false"}
    estimate = estimate_run(row)
    assert estimate.run.setup.attention == "eager"
    assert estimate.memory.reserved_bytes / 2**30 == pytest.approx(26.3, rel=0.08)
    assert read_run(row | {"framework": "HF Trainer"}).setup.attention == "sdpa"
    assert read_run(row | {"flash_attn": "true"}).setup.attention == "flash"


@pytest.mark.parametrize(
    ("change", "loss_bytes"),
    [({"framework": "plain PyTorch loop"}, 8.0), ({"framework": "plain PyTorch loop", "precision": "fp32"}, None),
     ({"framework": "universal-llm-trainer (PyTorch, HF models)"}, 8.0),
     ({"framework": "universal-llm-trainer (PyTorch, HF models)", "method": "qlora", "quant_bits": "4"}, None),
     ({"framework": "HF Trainer"}, None), ({"framework": "HF Trainer", "date": "2022-10"}, 14.0),
     ({"framework": "DeepSpeed", "date": "2022-10", "parallelism": "ZeRO-3", "num_gpus": "4"}, 8.0),
     ({"framework": "DeepSpeed", "date": "2022-10", "parallelism": "ZeRO-3", "num_gpus": "4",
       "model": "meta-llama/Llama-2-7b-hf"}, None),
     ({"framework": "DeepSpeed", "parallelism": "ZeRO-3", "num_gpus": "4"}, None),
     ({"framework": "HF Trainer", "date": "2023-12", "parallelism": "naive PP", "num_gpus": "2",
       "model": "Qwen/Qwen-7B"}, 14.0),
     ({"framework": "PaddlePaddle", "date": "2023-12", "parallelism": "ZeRO-2", "num_gpus": "4",
       "model": "Qwen/Qwen-7B"}, None)],
)  # fmt: skip
def test_nothing_cast_logits_of_some_families(change, loss_bytes):
    assert (
        read_run(BOOK | {"precision": "bf16", "flash_attn": "true"} | change).setup.loss_bytes == loss_bytes
    )


RECIPES = {
    "model": "meta-llama/Llama-2-7b-hf", "precision": "pure_bf16", "gpu": "A100-40GB", "gpu_mem_gb": "40",
    "num_gpus": "4", "parallelism": "FSDP", "seq_len": "2048", "micro_batch": "4", "grad_accum": "1",
    "grad_checkpointing": "true", "packing": "true", "framework": "llama-recipes", "method": "lora", "lora_rank": "8",
    "lora_targets": "q_proj,v_proj",
}  # fmt: skip


@pytest.mark.parametrize(("date", "caches", "active_gb"), [("2023-07", 2, 20.20), ("2023-08", 1, 15.22)])
def test_llama_recipes_left_the_cache_on(date, caches, active_gb):
    """Published in its pull request 41: peak active memory with a step's outputs named during the next, and without."""
    estimate = estimate_run(RECIPES | {"date": date})
    assert estimate.run.setup.kept_caches == caches
    assert estimate.memory.allocated_bytes == pytest.approx(active_gb * 1e9, rel=0.05)


def test_caches_are_off_elsewhere():
    later = estimate_run(RECIPES | {"date": "2023-10"})
    other = read_run(RECIPES | {"date": "2023-08", "framework": "HF Trainer"}).setup
    kept = read_run(RECIPES | {"date": "2023-08", "grad_checkpointing": "false"}).setup
    assert (later.run.setup.kept_caches, other.kept_caches, kept.kept_caches) == (0, 0, 0)
    named = estimate_memory(later.run.setup._replace(kept_caches=2), later.run.cluster)
    cache, logits = 32 * 8192 * 2 * 4096 * 2.0, 4.0 * 32000 * 8192
    more = named.allocated_bytes - later.memory.allocated_bytes
    assert more == pytest.approx(cache + logits, rel=0.03)  # the peak comes a little later without them


def test_a_criterion_of_ones_own_takes_logits_as_they_come():
    """Published: 36 GB of Llama-3.1-8B with LoRA and two rows of 8,192 on an H100, and 51 of Gemma 7B."""
    row = BOOK | {"framework": "universal-llm-trainer (PyTorch, HF models)", "method": "lora", "lora_rank": "8",
                  "lora_targets": "all-linear", "precision": "bf16", "seq_len": "8192", "micro_batch": "2",
                  "grad_checkpointing": "true", "packing": "padded", "date": "2025", "gpu": "H100-80GB",
                  "gpu_mem_gb": "80", "task": "sft"}  # fmt: skip
    for model, published in (("meta-llama/Llama-3.1-8B", 36), ("google/gemma-7b", 51)):
        assert estimate_run(row | {"model": model}).memory.reserved_bytes / 2**30 == pytest.approx(
            published, rel=0.2
        )


@pytest.mark.parametrize(
    ("model", "tokens", "published_gb"),
    [("Qwen/Qwen-1_8B", "4096", 10.2), ("Qwen/Qwen-7B", "8192", 23.5), ("Qwen/Qwen-7B", "2048", 13.9),
     ("Qwen/Qwen-72B", "4096", 68.0)],
)  # fmt: skip
def test_the_first_qwen_does_not_cast_its_logits(model, tokens, published_gb):
    """Qwen's own table of memory: a base packed with GPTQ under DeepSpeed, in fp16."""
    row = BOOK | {"framework": "HF Trainer Qwen finetune.py", "model": model, "method": "qlora", "quant_bits": "4",
                  "lora_rank": "64", "lora_targets": "all-linear", "precision": "fp16", "seq_len": tokens,
                  "micro_batch": "1", "grad_accum": "8", "grad_checkpointing": "true", "flash_attn": "true",
                  "date": "2023-12", "gpu": "A100-80GB", "gpu_mem_gb": "80", "task": "sft"}  # fmt: skip
    assert estimate_run(row).memory.reserved_bytes / 2**30 == pytest.approx(published_gb, rel=0.15)
    spread = {"method": "lora", "quant_bits": "", "precision": "bf16"}
    assert read_run(row | spread | {"num_gpus": "4", "parallelism": "ZeRO-2"}).setup.loss_bytes == 8.0
    assert read_run(row | spread).setup.loss_bytes == 14.0  # Trainer's autocast takes the loss in fp32


@pytest.mark.parametrize(
    ("stages", "data", "tensor", "published_gib"), [(2, 4, 1, 76), (1, 4, 2, 71), (2, 2, 2, 51)]
)
def test_megatron_keeps_what_its_last_product_takes(stages, data, tensor, published_gib):
    """Llama-3-8B with Megatron-Core 0.6 and nothing recomputed (FlagPerf, training/nvidia/llama3_8B-megatron)."""
    row = BOOK | {"framework": "Megatron-Core 0.6.0", "model": "meta-llama/Meta-Llama-3-8B", "method": "full",
                  "precision": "bf16", "gpu": "A100-80GB", "gpu_mem_gb": "80", "num_gpus": "8", "seq_len": "8192",
                  "parallelism": f"ZeRO-1 TP{tensor} PP{stages} DP{data}", "micro_batch": "1", "global_batch": "512",
                  "grad_checkpointing": "selective", "flash_attn": "true", "date": "2024-06", "task": "pretrain",
                  "lora_rank": "", "lora_targets": "", "quant_bits": "", "grad_accum": ""}  # fmt: skip
    assert estimate_run(row).memory.nvml_bytes / 2**30 == pytest.approx(published_gib, rel=0.12)
    some = estimate_run(row).run.setup
    kept, again = (
        block_activations(some.arch, None, BlockForm(2.0, 2.0, True, True, keeps_product=flag)).saved
        for flag in (True, False)
    )
    assert kept - again == 2.0 * some.arch.intermediate
    assert read_run(row | {"framework": "Megatron-LM (Kwai fork)"}).setup.recomputes_elementwise


def test_adapters_on_experts_are_most_of_what_is_trained():
    """axolotl's README of GLM-4.7-Flash: about 24 GiB without them, 34 with; in 8 bits 48 GB are too few."""
    row = BOOK | {"framework": "axolotl", "model": "zai-org/GLM-4.7-Flash", "method": "qlora", "quant_bits": "4",
                  "lora_rank": "32", "lora_targets": "q_proj,v_proj,k_proj,o_proj", "gpu": "48GB-class GPU",
                  "gpu_mem_gb": "48", "optimizer": "adamw_torch_8bit", "seq_len": "2048", "micro_batch": "2",
                  "grad_accum": "4", "grad_checkpointing": "true", "date": "2026-01", "task": "sft"}  # fmt: skip
    on_experts = row | {"lora_targets": "q_proj,v_proj,k_proj,o_proj,experts"}
    without, experts = (estimate_run(some).memory.reserved_bytes / 2**30 for some in (row, on_experts))
    assert without == pytest.approx(24, rel=0.1)
    assert experts == pytest.approx(34, rel=0.1)
    assert estimate_run(on_experts | {"method": "lora", "quant_bits": "8"}).memory.verdict != "fits"


def test_megatron_adapts_experts_and_keeps_masters_of_adapters():
    row = BOOK | {"framework": "Megatron-SWIFT", "model": "Qwen/Qwen3-30B-A3B-Base", "method": "lora",
                  "seq_len": "8192", "lora_rank": "32", "lora_targets": "all-linear", "num_gpus": "4",
                  "parallelism": "EP4 DP4"}  # fmt: skip
    run = estimate_run(row)
    parts, adapter = run.memory.components_bytes, run.run.setup.adapter
    assert adapter is not None
    assert adapter.experts
    assert parts["gradients"] == pytest.approx(2 * parts["adapters"], rel=0.01)  # added up in fp32
    assert parts["optimizer"] == pytest.approx(
        6 * parts["adapters"], rel=0.05
    )  # masters and two moments, in fp32
    assert not read_run(row | {"framework": "ms-swift", "parallelism": "DDP"}).setup.adapter.experts
