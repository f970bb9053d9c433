"""Memory moves the right way, its parts explain its peak, and errors found elsewhere do not happen here."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.architecture import parameter_counts
from planner.memory import base_weight_bytes, estimate_memory, model_state
from planner.memory.generation import generation_bytes
from planner.memory.linears import adapter_products
from planner.memory.loss import loss_bytes
from planner.memory.precision import widths
from planner.memory.verdict import fit_probability, need_log_sd, verdict_of
from planner.setup import Parallelism
from tests.planner.setups import QKVO, cluster, lora, setup, setups, spread

GIB = 2**30
ROOMY = cluster("B300", 8)


def allocated(some_setup, where=ROOMY):
    return estimate_memory(some_setup, where).allocated_bytes


@given(setups)
def test_parts_sum_to_the_peak(some):
    memory = estimate_memory(some, ROOMY)
    assert sum(memory.components_bytes.values()) == pytest.approx(memory.nvml_bytes)
    assert 0 < memory.allocated_bytes < memory.reserved_bytes < memory.nvml_bytes < memory.upper_bytes
    assert min(memory.components_bytes.values()) >= 0


@pytest.mark.parametrize(
    ("kind", "width"), [("single", 4.0), ("ddp", 4.0), ("fsdp", 2.0), ("zero2", 2.0), ("zero3", 2.0)]
)
def test_between_blocks_autocast_alone_leaves_fp32(kind, width):
    """Sharded weights are gathered in 16 bits, the embedding's too: what recomputed blocks keep is half as large."""
    mixed = spread(setup(precision="amp_bf16", framework="hf", gradient_checkpointing=True), kind, 4)
    assert widths(mixed).residual == width
    assert widths(mixed._replace(precision="bf16")).residual == 2.0
    assert widths(mixed._replace(precision="fp32")).residual == 4.0


def test_loha_multiplies_its_factors_out():
    """A matrix as large as each weight stays for the backward pass, in 16 bits under autocast, beside twice the factors
    of LoRA; two in fp32 are passing, of one module.
    """
    plain, product = (
        setup(adapter=lora()._replace(kind=kind, targets=("q", "v")), gradient_checkpointing=False)
        for kind in ("lora", "loha")
    )
    factors = 16.0 * (model_state(product).trainable - model_state(plain).trainable)
    more = allocated(product) - allocated(plain) - factors
    assert more == pytest.approx(2.0 * 32 * (4096 * 4096 + 4096 * 1024), rel=0.25)


def test_dora_keeps_copies_of_weights_that_it_multiplies_by_again():
    """Of one block where the others' are made again; an adapter in the base's type copies only what it unpacks."""
    dropped = setup(adapter=lora(16, ("all-linear",), dropout=True)._replace(kind="dora"), framework="trl")
    plain, low = (
        dropped.adapter._replace(**{name: value}) for name, value in (("kind", "lora"), ("fp32", False))
    )
    block = 2.0 * parameter_counts(dropped.arch).linear / dropped.arch.layers
    some = [dropped, *(dropped._replace(adapter=adapter) for adapter in (plain, low))]
    some.append(some[-1]._replace(quantization="4bit"))
    assert [adapter_products(each)[0] for each in some] == [
        pytest.approx(block),
        0.0,
        0.0,
        pytest.approx(block),
    ]
    assert allocated(dropped) > allocated(some[1]) + 0.9 * block


@given(setups, st.sampled_from([2, 3, 8]))
def test_more_tokens_need_more(some, factor):
    assert allocated(some._replace(sequence_tokens=some.sequence_tokens * factor)) >= allocated(some)
    assert allocated(some._replace(micro_batch=some.micro_batch * factor)) >= allocated(some)


@given(setups, st.sampled_from([2, 4, 16]))
def test_higher_rank_needs_more(some, factor):
    small = some._replace(adapter=lora(8))
    assert allocated(small._replace(adapter=lora(8 * factor))) > allocated(small)


@given(setups)
def test_quantised_base_needs_less(some):
    """On one GPU: a small model in eight shards has less to save than the copy that 4 bits are unpacked into."""
    few = some._replace(adapter=lora(), gradient_checkpointing=True, micro_batch=1, sequence_tokens=512)
    few = few._replace(parallelism=Parallelism())
    if few.framework == "litgpt":  # over a quantised base its embedding has a gradient since October 2024
        few = few._replace(framework="litgpt-2023")
    plain, eight, four = (few._replace(quantization=q) for q in ("none", "8bit", "4bit"))
    assert allocated(four) < allocated(eight) < allocated(plain)


def test_eight_bit_products_keep_their_inputs():
    """With many tokens and nothing recomputed an 8-bit base may need more than a 16-bit one: read in bitsandbytes."""
    many = setup(adapter=lora(), gradient_checkpointing=False, micro_batch=8, sequence_tokens=4096)
    eight = many._replace(quantization="8bit")
    assert allocated(eight) > allocated(many)
    assert allocated(eight._replace(keeps_quantised_inputs=True)) > allocated(eight)


@given(setups)
def test_checkpointing_saves_activations(some):
    kept = some._replace(gradient_checkpointing=False, micro_batch=8)
    assert allocated(kept._replace(gradient_checkpointing=True)) <= allocated(kept)


@given(setups)
def test_eager_attention_never_saves(some):
    assert allocated(some._replace(attention="eager")) >= allocated(some._replace(attention="flash"))


@given(setups)
def test_fused_loss_never_costs(some):
    assert allocated(some._replace(fused_loss=True)) <= allocated(some._replace(fused_loss=False))


@given(setups)
def test_light_optimizers_need_less(some):
    full = some._replace(adapter=None, quantization="none", precision="bf16", framework="hf")
    heavy = allocated(full._replace(optimizer="adamw"))
    fused = allocated(full._replace(optimizer="adamw_fused"))
    eight = allocated(full._replace(optimizer="adamw_8bit"))
    sgd = allocated(full._replace(optimizer="sgd"))
    assert heavy >= fused >= eight
    assert heavy >= sgd


@given(st.sampled_from(["fsdp", "zero1", "zero2", "zero3"]), st.sampled_from([2, 4, 8]), st.booleans())
def test_more_shards_need_less(kind, gpus, full):
    base = setup(adapter=None if full else lora(), framework="hf")
    assert allocated(spread(base, kind, 2 * gpus)) <= allocated(spread(base, kind, gpus))


def test_frameworks_differ_where_they_do():
    one = setup(adapter=lora(), micro_batch=8, sequence_tokens=4096)
    peaks = {name: allocated(one._replace(framework=name)) for name in ("hf", "litgpt", "unsloth", "trl")}
    assert peaks["unsloth"] < peaks["trl"] < peaks["litgpt"] < peaks["hf"]


def test_full_fine_tune_in_pure_bf16_takes_ten_bytes_a_parameter():
    # Mistral-7B, torch AdamW: published 72.44 GB on one A100, whatever the batch (fms-acceleration).
    memory = estimate_memory(setup("mistral-7b-v0.1", framework="hf", optimizer="adamw"), cluster())
    assert memory.peak_phase == "optimizer_step"
    assert memory.allocated_bytes / 1e9 == pytest.approx(72.44, rel=0.005)


def test_fsdp_of_accelerate_keeps_fp32():
    # Llama-3-8B on two GPUs: 64 GB static each, 80.3 GB peak (fms-acceleration).
    two = spread(setup("meta-llama/Meta-Llama-3-8B", framework="hf", optimizer="adamw"), "fsdp", 2)
    state = model_state(two)
    assert (state.static + state.gradients) / 1e9 == pytest.approx(64.3, rel=0.005)
    assert allocated(two) / 1e9 == pytest.approx(80.3, rel=0.03)


def test_lora_with_fused_loss_matches_published_slope():
    # Llama-3-8B LoRA with Liger: 24.9, 33.6 and 50.9 GB at 4, 8 and 16 rows of 4096 tokens (fms-acceleration).
    for rows, truth in ((4, 24.906), (8, 33.568), (16, 50.891)):
        one = setup(
            "meta-llama/Meta-Llama-3-8B", adapter=lora(), fused_loss=True, framework="hf", micro_batch=rows,
            sequence_tokens=4096, optimizer="adamw",
        )  # fmt: skip
        assert allocated(one) / 1e9 == pytest.approx(truth, rel=0.02)


def test_gradient_accumulation_under_fsdp_holds_unsharded_gradients():
    # Mistral-7B in bf16 on eight GPUs with accumulation: 22 GB where shards alone would be 9 GB.
    base = spread(setup("mistral-7b-v0.1", framework="hf"), "fsdp", 8)
    gradients = 2 * parameter_counts(base.arch).total
    assert allocated(base._replace(grad_accum=4)) - allocated(base) > 0.9 * gradients


def test_lora_is_not_silently_quantised():
    plain = setup(adapter=lora())
    assert base_weight_bytes(plain) == 2 * parameter_counts(plain.arch).total
    assert base_weight_bytes(plain._replace(quantization="4bit")) < 0.4 * base_weight_bytes(plain)


def test_lora_on_one_a6000_as_measured():
    # Llama-3.1-8B, r 16 on q, k, v, o, one row of 2048 tokens: 20.55 GB, where peers said 5.0 to 23.8 GB.
    one = setup(adapter=lora(), framework="hf", sequence_tokens=2048, optimizer="adamw_fused")
    assert allocated(one, cluster("A6000")) / 1e9 == pytest.approx(20.55, rel=0.07)


def test_untied_head_is_counted():
    arch = setup().arch
    tied = replace(arch, tied_embeddings=True)
    difference = parameter_counts(arch).total - parameter_counts(tied).total
    assert difference == arch.vocab * arch.hidden


def test_grouped_keys_are_not_full_width():
    few = setup(adapter=lora(), gradient_checkpointing=False, micro_batch=8, fused_loss=True)
    many = few._replace(arch=replace(few.arch, kv_heads=few.arch.heads))
    assert allocated(few) < allocated(many)


def test_gib_are_not_gb():
    memory = estimate_memory(setup(), cluster("A100-80GB"))
    assert memory.limit_bytes / GIB == pytest.approx(79.2, rel=0.01)


def test_fused_experts_are_not_quantised():
    moe = setup("mistralai/Mixtral-8x7B-v0.1", adapter=lora(), quantization="4bit")
    assert base_weight_bytes(moe) > 80e9
    assert base_weight_bytes(moe._replace(experts_quantised=True)) < 30e9


def test_preference_tuning_holds_a_reference_only_without_adapters():
    full = setup(task="dpo", framework="hf")
    weights = 2 * parameter_counts(full.arch).total
    assert model_state(full).references == weights
    assert model_state(full._replace(adapter=lora())).references == 0


def test_offload_moves_state_to_the_host():
    base = spread(setup(framework="hf"), "zero3", 4)
    away = base._replace(offload="parameters")
    here = estimate_memory(base, ROOMY)
    there = estimate_memory(away, ROOMY)
    assert there.allocated_bytes < 0.6 * here.allocated_bytes
    assert sum(model_state(away).host_parts.values()) > sum(model_state(base).host_parts.values())


def test_reserved_never_exceeds_a_card_that_the_tensors_fit():
    tight = setup("llama-2-7b", adapter=lora(64), micro_batch=6, sequence_tokens=2048, framework="hf")
    card = cluster("RTX4090")
    memory = estimate_memory(tight, card)
    assert memory.allocated_bytes < memory.limit_bytes
    assert memory.nvml_bytes <= max(memory.limit_bytes, 1.03 * memory.allocated_bytes + GIB)


def test_verdicts():
    one = setup(adapter=lora(), sequence_tokens=2048)
    assert estimate_memory(one, cluster("A100-80GB")).verdict == "fits"
    assert estimate_memory(one, cluster("T4")).verdict == "oom"
    assert estimate_memory(one._replace(adapter=None), cluster("A100-80GB")).verdict != "fits"


def test_margins_follow_from_how_sure_the_need_is():
    sure, unsure = need_log_sd(setup(framework="hf")), need_log_sd(setup(framework="other"))
    experts = need_log_sd(setup("Qwen/Qwen3-30B-A3B", framework="other"))
    assert sure < unsure < experts
    # 13 % of room is enough for a set-up that runs cover well, and not for a stack that nobody knows
    assert [verdict_of(20e9, 1e9, 24.4e9, log_sd) for log_sd in (sure, unsure)] == ["fits", "borderline"]
    # nor does a doubt make a need out of reach that is little larger
    assert [verdict_of(20e9, 1e9, 19.9e9, log_sd) for log_sd in (sure, unsure)] == ["oom", "borderline"]
    assert verdict_of(20e9, 1e9, 19.9e9, unsure, certain=19e9) == "oom"
    assert fit_probability(20e9, 1e9, 24e9, 0.0) == pytest.approx(1.0)  # of a job whose repeats do not differ
    assert fit_probability(20e9, 1e9, 0.5e9) == 0.0


@given(setups)
def test_a_bigger_card_never_fits_less(some):
    order = ["oom", "borderline", "fits"]
    small, large = (estimate_memory(some, cluster(gpu, 8)).verdict for gpu in ("A100-80GB", "H200"))
    assert order.index(small) <= order.index(large)


def test_pipeline_and_tensor_parts_share_the_weights():
    """The first stage has an embedding beside its blocks, and the last a head."""
    base = setup("meta-llama/Llama-3.1-70B", framework="megatron", adapter=lora(16, QKVO))
    counts = parameter_counts(base.arch)
    blocks = counts.total - counts.embedding - counts.head
    assert model_state(base._replace(parallelism=Parallelism("mixed", 1, 2, 4))).weights == pytest.approx(
        2.0 * (blocks / 4 + counts.embedding) / 2
    )


def test_sampling_holds_the_answers_of_a_whole_step():
    # Llama-3.1-8B keeps 128 KiB a token: 8 KV heads of 128, keys and values, 32 layers, two bytes.
    few = setup(
        task="grpo", adapter=lora(), micro_batch=8, grad_accum=1, sequence_tokens=1024, generated_tokens=960
    )
    many = few._replace(grad_accum=64)
    small, large = (estimate_memory(one, cluster("H200")) for one in (few, many))
    assert small.peak_phase != "generation"
    assert small.components_bytes["kv_cache"] == 0
    assert large.peak_phase == "generation"
    assert large.components_bytes["kv_cache"] == pytest.approx(512 * 1024 * 128 * 1024)
    assert sum(large.components_bytes.values()) == pytest.approx(large.nvml_bytes)


@pytest.mark.parametrize(("kind", "tokens"), [("single", 8192), ("fsdp", 512 * 960)])
def test_prompts_pass_in_pieces_before_the_first_answer_but_in_shards(kind, tokens):
    many = setup(task="grpo", adapter=lora(), micro_batch=8, grad_accum=64, sequence_tokens=1024)
    spread_out = many._replace(generated_tokens=64, parallelism=Parallelism(kind, 8 if kind == "fsdp" else 1))
    prompts = generation_bytes(spread_out._replace(sequence_tokens=960 + 1, generated_tokens=1))
    # four values as wide as the model, rotations, three as wide as the MLP, two bytes each, an adapter's and the mask
    values, adapter = 4 * 4096 + 2 * 128 + 3 * 14336, 4 * 4096 + 10 * 14336
    if kind == "fsdp":  # gathered in the type that is computed in, nothing is cast
        adapter = 2 * 14336
    cache = 512 * 960 * 128 * 1024
    passing = tokens * (2 * values + adapter + 960) + cache / 32
    assert prompts.passing == pytest.approx(passing, rel=0.002)
    assert prompts.cache == pytest.approx(cache, rel=0.002)
    assert estimate_memory(spread_out, cluster("H200", 8)).peak_phase == "generation"


def test_a_tiled_head_holds_one_tile_and_a_trained_ones_gradient_in_fp32():
    one = setup(framework="trl", sequence_tokens=8192, micro_batch=1)
    head = one.arch.vocab * one.arch.hidden
    tile, row = 4096 * 32768 * 2, one.arch.hidden * (2 + 4 + 2) + 40
    assert loss_bytes(one, widths(one), 8192, on_cpu=False) == tile + 8192 * row + head * (4 + 2)
    adapted = one._replace(adapter=lora())
    assert loss_bytes(adapted, widths(adapted), 8192, on_cpu=False) == tile + 8192 * row
    # four times the tokens: the tile stays, whole logits would not
    assert loss_bytes(adapted, widths(adapted), 32768, on_cpu=False) == tile + 32768 * row
    folded = 4096 * 32768 * 4 * 7.25  # on a CPU
    assert loss_bytes(adapted, widths(adapted), 8192, on_cpu=True) == tile + 8192 * row + folded


def test_a_task_scores_its_own_rows():
    base = setup(framework="trl", adapter=lora(), micro_batch=4, sequence_tokens=2048)
    of = {
        task: allocated(base._replace(task=task))
        for task in ("sft", "dpo", "kto", "reward", "classification")
    }
    assert of["kto"] == of["sft"]  # its second answer is scored without a gradient
    assert of["dpo"] > of["sft"] > of["classification"]
    assert of["reward"] == pytest.approx(
        allocated(base._replace(task="classification", micro_batch=8, labels=1))
    )


def test_grpo_holds_a_frozen_copy_only_if_it_is_asked_to_stay_near():
    near = setup(framework="trl", task="grpo", generated_tokens=256)
    far = near._replace(reference=False)
    assert model_state(near).references == 2.0 * parameter_counts(near.arch).total
    assert model_state(far).references == 0
    assert model_state(near._replace(adapter=lora())).references == 0


def test_ppo_trains_a_critic_beside_its_frozen_models():
    policy = setup(task="sft", framework="openrlhf", parallelism=Parallelism("zero2", 8))
    ppo = model_state(policy._replace(task="ppo"))
    weights = 2.0 * parameter_counts(policy.arch).total
    alone = model_state(policy)
    # Reference, reward model and critic whole on each GPU, and the critic's own gradients and states, sharded.
    assert ppo.references == pytest.approx(3 * weights + alone.gradients + alone.optimizer + alone.step)


@pytest.mark.parametrize("kind", ["fsdp", "zero3"])
def test_a_sharded_reference_is_shared(kind):
    one = setup(task="dpo", framework="hf", parallelism=Parallelism(kind, 8))
    assert model_state(one).references == pytest.approx(2.0 * parameter_counts(one.arch).total / 8)


def test_each_stage_of_zero_shards_more():
    stages = [
        setup(framework="deepspeed", micro_batch=1, sequence_tokens=512, parallelism=Parallelism(kind, 8))
        for kind in ("zero1", "zero2", "zero3")
    ]
    sizes = [estimate_memory(stage, cluster(gpus=8)).components_bytes for stage in stages]
    assert model_state(stages[0]).gradients == pytest.approx(8 * model_state(stages[1]).gradients)
    assert sizes[0]["optimizer"] == sizes[1]["optimizer"] == sizes[2]["optimizer"]
    assert sizes[0]["weights"] == pytest.approx(8 * sizes[2]["weights"])


def test_fsdp2_holds_the_head_alone_at_the_loss():
    """And gradients that wait for a step's last micro-batch whole, which FSDP's first version holds beside shards."""
    large = setup(framework="trl", parallelism=Parallelism("fsdp", 8), grad_accum=1)
    counts = parameter_counts(large.arch)
    comm = model_state(large).comm
    assert comm.loss == 2.0 * large.arch.vocab * large.arch.hidden < comm.backward == comm.end
    waiting = model_state(large._replace(grad_accum=4)).comm
    assert waiting.loss == comm.loss + 2.0 * counts.total and waiting.waiting
    assert waiting.end == comm.end < waiting.backward
    older = model_state(large._replace(framework="hf", grad_accum=4)).comm
    assert older.loss == older.backward == older.end and not older.waiting


def test_the_residual_stream_is_in_the_type_that_sharded_weights_are_gathered_in():
    """Autocast adds to what an embedding in fp32 looked up; one that FSDP gathers or DeepSpeed casts is in bf16."""
    full = setup(adapter=None, precision="amp_bf16")
    kinds = ("single", "ddp", "fsdp", "zero2", "zero3")
    residual = [widths(full._replace(parallelism=Parallelism(kind, 8))).residual for kind in kinds]
    assert residual == [4.0, 4.0, 2.0, 2.0, 2.0]


def test_fsdp2_of_a_loop_that_says_so_gives_blocks_back_before_the_loss():
    loop = setup(
        adapter=None,
        framework="other",
        gradient_checkpointing=False,
        micro_batch=4,
        parallelism=Parallelism("fsdp", 8),
    )
    newer = loop._replace(newer_fsdp=True)
    assert (loop.shards_parameters, newer.shards_parameters) == (False, True)
    saved = allocated(loop) - allocated(newer)
    counts = parameter_counts(loop.arch)
    block, root = counts.linear / loop.arch.layers, counts.total - counts.linear
    held = loop.arch.vocab * loop.arch.hidden
    assert saved == pytest.approx(2.0 * (3 * block + 2 * root - held))


def test_megatron_fsdp_holds_gradients_that_are_not_reduced_in_fp32():
    """A block, embedding and head: 2 bytes a parameter more than in the type that is computed in."""
    shards = setup(adapter=None, framework="megatron", parallelism=Parallelism("fsdp", 8))
    counts = parameter_counts(shards.arch)
    held = model_state(shards).comm.backward
    block, root = counts.linear / shards.arch.layers, counts.total - counts.linear
    assert held == pytest.approx(2.0 * (2 * block + root) + 4.0 * (block + root))


def test_fsdp_without_a_type_of_its_own_gathers_fp32():
    shards = setup(adapter=None, precision="amp_bf16", framework="other", parallelism=Parallelism("fsdp", 8))
    low, high = (model_state(shards._replace(gathers_fp32=fp32)).comm.backward for fp32 in (False, True))
    assert high == pytest.approx(2 * low)
