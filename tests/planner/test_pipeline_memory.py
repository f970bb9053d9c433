"""Tensor and pipeline parallelism against Megatron's own formulas and published peaks of its runs."""

from dataclasses import replace

import pytest

from planner.architecture import load_architecture, parameter_counts
from planner.backtest.rows import read_run
from planner.memory import estimate_memory, model_state
from planner.memory.activations import block_activations, score_activations
from planner.memory.block_form import BlockForm
from planner.memory.stages import Blocks, blocks_in_flight, share_of_stage, stage_blocks
from planner.setup import Parallelism
from tests.planner.setups import cluster, setup

GIB = 2**30
WORDS = 250_880  # of BLOOM and the trials before it


def gpt(hidden, layers, heads, words=WORDS):
    return replace(
        load_architecture("gpt2"), hidden=hidden, layers=layers, heads=heads, kv_heads=heads,
        head_dim=hidden // heads, intermediate=4 * hidden, vocab=words,
    )  # fmt: skip


def staged(tensor, pipeline, data=1, arch=None, **more):
    spread = Parallelism("zero1", data, tensor, pipeline)
    fields = {"precision": "fp16", "grad_accum": 64, "framework": "megatron-deepspeed", "attention": "eager"}
    some = setup("gpt2", older_torch=True, parallelism=spread, **(fields | more))
    return some._replace(arch=arch or gpt(14336, 72, 64))


def test_a_block_of_megatron_keeps_what_its_authors_count():
    """Korthikanti et al. 2022, equations 1 and 2: sbh(34 + 5as/h) bytes, of which 10 stay whole without sequence
    parallelism.
    """
    hidden, heads = 12288, 96
    arch = gpt(hidden, 96, heads)
    block = block_activations(arch, None, BlockForm(2.0, 2.0, True, True))
    assert block.whole == pytest.approx(10 * hidden)
    assert block.saved == pytest.approx(34 * hidden, rel=0.01)  # and the statistics of a fused kernel
    assert score_activations(arch, "eager", 2.0, mixed=False).saved == 5 * heads


@pytest.mark.parametrize("framework", ["megatron", "megatron-deepspeed"])
def test_inputs_of_blocks_are_whole_on_each_tensor_rank_without_sequence_parallelism(framework):
    one = staged(1, 1, framework=framework, micro_batch=64, grad_accum=1)
    eight = staged(8, 1, framework=framework, micro_batch=64, grad_accum=1)
    kept = [
        estimate_memory(some, cluster("B300", 8)).components_bytes["activations"] for some in (one, eight)
    ]
    assert kept[1] == pytest.approx(kept[0] / 8) if framework == "megatron" else kept[1] > 0.75 * kept[0]


@pytest.mark.parametrize(("tensor", "pipeline"), [(8, 12), (4, 4), (2, 2)])
def test_the_fullest_stage_is_megatrons_most_loaded_shard(tensor, pipeline):
    """`theoretical_memory_usage.py`: a stage's blocks and one embedding, at 18 bytes a parameter without the
    distributed optimizer.
    """
    arch = gpt(14336, 72, 64)
    counts = parameter_counts(arch)
    shard = ((counts.total - counts.embedding) / pipeline + counts.embedding) / tensor
    some = staged(tensor, pipeline, arch=arch)._replace(framework="megatron", precision="bf16")
    state = model_state(some._replace(parallelism=Parallelism("tp", 1, tensor, pipeline)))
    assert state.weights + state.gradients + state.optimizer == pytest.approx(18 * shard)


@pytest.mark.parametrize(
    ("layers", "stages", "blocks"),
    [
        (72, 12, Blocks(6, 6)),
        (70, 12, Blocks(5, 6)),  # BLOOM
        (126, 16, Blocks(7, 8)),  # Llama 3 405B
        (80, 12, Blocks(7, 7)),
    ],
)
def test_embedding_and_head_count_as_blocks_where_that_fills_the_stages(layers, stages, blocks):
    assert stage_blocks(staged(4, stages, arch=gpt(14336, layers, 64))) == blocks


def test_layers_that_are_only_laid_out_are_no_stages():
    laid = staged(1, 4)._replace(parallelism=Parallelism("pp", 1, 1, 4))
    assert share_of_stage(laid) == 0.25
    assert blocks_in_flight(laid) == 18


def test_a_stage_has_no_more_in_flight_than_there_is():
    assert [blocks_in_flight(staged(8, 12, grad_accum=many)) for many in (1, 4, 64)] == [6, 24, 72]


def test_deepspeed_under_megatron_adds_bf16_up_beside_the_gradients():
    """22 bytes a parameter with fp16 at the step; in bf16 20, of which the sums stay from one micro-batch to the
    next.
    """
    arch = gpt(14336, 72, 64)
    mine = parameter_counts(arch).total / 8
    widths = {}
    for precision in ("fp16", "bf16"):
        state = model_state(staged(8, 1, arch=arch, precision=precision))
        each = (state.weights, state.gradients, state.optimizer, state.step)
        widths[precision] = [round(size / mine, 3) for size in each]
    assert widths == {"fp16": [2.0, 2.0, 12.0, 6.0], "bf16": [2.0, 6.0, 12.0, 0.0]}


@pytest.mark.parametrize(
    ("shape", "layout", "micro_batch", "precision", "gib"),
    [
        ((14400, 8, 32), (8, 1, 1), 1, "fp16", 67),
        ((14400, 80, 96), (8, 10, 1), 1, "fp16", 73),
        ((14400, 80, 96), (8, 10, 2), 1, "fp16", 51),
        ((14400, 80, 96), (8, 10, 4), 1, "fp16", 35),
        ((14400, 80, 96), (8, 10, 4), 8, "fp16", 76),
        ((14336, 72, 64), (8, 12, 4), 4, "fp16", 49),
        ((14336, 72, 64), (8, 2, 24), 1, "fp16", 65),
        ((14336, 72, 64), (2, 24, 8), 1, "fp16", 44),
        ((12288, 106, 96), (4, 12, 8), 2, "fp16", 44),
        ((12288, 106, 96), (4, 12, 8), 2, "bf16", 65),
        ((12288, 106, 96), (4, 12, 8), 4, "bf16", 79),
        ((14336, 70, 112), (4, 12, 8), 2, "bf16", 59),  # BLOOM's layout
    ],
)
def test_trials_before_bloom_as_measured(shape, layout, micro_batch, precision, gib):
    """Chronicles of BigScience (train/tr11-176B-ml/chronicles-prequel.md): nvidia-smi on the first and last nodes."""
    tensor, pipeline, data = layout
    some = staged(tensor, pipeline, data, arch=gpt(*shape), precision=precision, micro_batch=micro_batch)
    memory = estimate_memory(some, cluster("A100-80GB", 8, pipeline * data * tensor // 8))
    assert memory.nvml_bytes / GIB == pytest.approx(gib, rel=0.1)
    assert memory.upper_bytes / GIB > gib


def test_each_further_group_of_ranks_has_buffers_of_its_own():
    """NVIDIA/nccl issue 964: 688 MB for a group of four A100, 544 for one of two."""
    where = cluster("A100-80GB", 8)
    contexts = [
        estimate_memory(setup(parallelism=spread), where).components_bytes["context"] / GIB
        for spread in (Parallelism("fsdp", 8), Parallelism("fsdp", 4, 2), Parallelism("mixed", 1, 2, 4))
    ]
    assert contexts[1] - contexts[0] == pytest.approx(0.53)
    assert contexts[2] - contexts[0] == pytest.approx(0.67 + 0.53 + 0.53)  # stages, tensors, tied embeddings


@pytest.mark.parametrize(
    ("framework", "date", "flash", "seen"),
    [
        ("Megatron-DeepSpeed", "2022-02", "", ("megatron-deepspeed", "eager")),
        ("Megatron-LM", "2022-02", "", ("megatron-local", "eager")),
        ("Megatron-LM", "2024-02", "", ("megatron-local", "flash")),
        ("Megatron-LM", "2024-05", "", ("megatron", "flash")),
        ("Megatron-LM (TE)", "2023-05", "", ("megatron", "flash")),
        ("NeMo Megatron", "2023-05", "", ("megatron", "flash")),
        ("NeMo Megatron", "2022-02", "true", ("megatron-local", "flash")),
    ],
)
def test_megatron_wrote_scores_out_before_flash_attention(framework, date, flash, seen):
    row = {
        "model": "meta-llama/Llama-2-7b-hf", "method": "full", "gpu": "A100-80GB", "num_gpus": "8", "seq_len": "2048",
        "micro_batch": "1", "parallelism": "ZeRO-1 TP2 PP2", "framework": framework, "date": date, "flash_attn": flash,
    }  # fmt: skip
    some = read_run(row).setup
    assert (some.framework, some.attention) == seen
