"""What training stacks do differently, as far as memory and speed depend on it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from planner.architecture import ModelArchitecture


class Stack(NamedTuple):
    """One training framework's habits.

    Attributes:
        name: Key.
        loss_bytes: Bytes per vocabulary entry and token that the loss holds at its peak.
        fused_kernels: Memory-bound work runs in fused kernels without a compiler.
        fused_norm: Norms keep no fp32 copy of their input.
        fused_mlp: The gated MLP recomputes its product instead of keeping it.
        keeps_product: It keeps it nevertheless, as the input of the last linear module, for the gradient of its weights
            (in Megatron's megatron/core/fusions/fused_bias_swiglu.py `SwiGLUFunction` saves what it takes, and the
            module after it does too).
        fp32_master: Sharded training keeps trainable parameters in fp32 (accelerate, FSDP mixed precision).
        foreach_step: The optimizer's step makes a temporary as large as the parameters.
        adapter_dropout: Adapters are dropped out by default.
        kept_logits: Bytes per vocabulary entry and token of logits that the loop has under a name until the next ones
            are there: through the backward pass, the optimizer's step and the next forward pass.
        casts_logits: What a model returns is cast to fp32 whole (`convert_output` of Lightning Fabric's precisions,
            lightning/fabric/plugins/precision), so that the loss is computed in it.
        separate_head: A head that shares the embedding's weights is a copy of its own.
        normed_fp32: Norms that are trained keep what they normed in fp32, for the gradient of their weights.
        one_activation: Activations are one operation of torch's where transformers writes them out in elementary ones.
        rotary_tables: Adapted attention has a table of all positions in fp32 for each block, and not one for all
            (`lora_*_self_attention` of torchtune's models; from Llama 3.1 on its blocks share one).
        mixes_frozen: Flat parameters of the older FSDP hold a block's frozen weights beside its adapters, and so
            gradients of both: within a flat parameter that has one, all weights are views that need a gradient, and
            their products keep their inputs (torch's `FlatParamHandle` under `use_orig_params`; litgpt's
            `auto_wrap_policy={Block}` from July 2023 to March 2025).
        quantises_head: The output head is quantised as all linear modules are (Lightning's `BitsandbytesPrecision`
            takes the place of `torch.nn.Linear` while the model is made).
        embedding_gradient: Over a quantised base the embedding gets a gradient that no optimizer steps on and nobody
            frees: litgpt puts bitsandbytes' `StableEmbedding`, which is not frozen, in its place once the optimizer is
            made (`main` of finetune/lora.py since October 2024).
        adapts_qkv: Adapters of queries, keys and values are one module, which drops out and keeps its input once.
        autocast: Adapters in fp32 compute in the base's type.
        fsdp2: FSDP shards each parameter by itself.
        accelerate: It trains over accelerate, which reduces gradients with a step's last micro-batch.
        loads_whole: A quantised base lies whole on each GPU before it is sharded: axolotl's `fsdp2_prepare_model` holds
            its `state_dict` meanwhile, and cannot move what bitsandbytes packed to the meta device.
        masters_beside: However it is sharded, weights are in the type that is computed in, and the optimizer steps on
            copies of weights and gradients in fp32 (InternEvo's `FSDPadaptOptimizer` and `HybridZeroOptimizer`).
        fused_step: Its optimizer takes a tensor in one kernel, which casts gradients as it reads them.
        reads_early: What an optimizer computes without a gradient is there all through a step. A graph of TensorFlow 1
            starts what it can, and in `AdamWeightDecayOptimizer` (google-research/bert, optimization.py, 2018) that is
            decayed moments and weights: three copies in fp32.
        wraps_embeddings: Sharded embedding and head are units of their own, gathered when they are used.
        wraps_untied: The same, only where the two share no weights.
        shards_one: One GPU trains through FSDP2 as well: weights in fp32, gathered in the type that is computed in.
        frozen_fp32: A frozen base is in fp32 too, as trained weights are.
        fp32_routing: Outputs of all experts are weighted in fp32 (torchtitan's `MoE` and what was made after it).
        samples_elsewhere: Answers of a policy come from engines on GPUs of their own.
        tiled_head: Logits are never held whole, and computed again in the backward pass.
        spread_keys: Keys and values of a group are repeated for each of its heads.
        fused_qkv: Queries, keys and values come from one product in every family.
        fused_products: Written in CUDA as a whole: bias, residual, activation and norm are done beside products or in
            one kernel, gradients are added up by the products that make them, and the loss writes its gradient over
            the logits.
        sequence_parallel: Between tensor-parallel products the ranks share out the sequence: norms, dropout and what is
            kept of blocks that are recomputed (Megatron's `--sequence-parallel`; Korthikanti et al. 2022, "Reducing
            Activation Recomputation in Large Transformer Models"). Otherwise each rank has them whole.
        waits_for_sums: Compute waits for what tensor-parallel ranks add up. Megatron-LM sends it beside the gradients
            of weights since August 2021 (`async_tensor_model_parallel_allreduce`).
        copies_inputs: Each product that tensor-parallel ranks share out by columns keeps a copy of its input for itself
            (`_c_identity` of Paddle's `mp_ops`).
        keeps_outputs: Pipeline stages keep what they have sent on until its gradient comes.
        fp32_reduce: Sharded gradients are summed in fp32, whatever is computed in.
        keeps_gathered: Without recomputation, weights that ZeRO-3 gathers stay until their backward pass. torch's own
            `linear` keeps a view of them; the one that does not comes with `zero.Init`, which transformers enters and
            `deepspeed.initialize` alone did not until DeepSpeed's pull request 8189 (July 2026).
        fills_pipeline: Its pipelines have one stage on each GPU (DeepSpeed's PipelineEngine, Megatron-LM where it is
            not told to interleave), which the first micro-batch has to pass before all compute.
        host_slowdown: Host time of a block against transformers' modules. Transformer Engine's check in Python:
            published steps of Qwen3-4B on an H200 with 1, 2, 4 and 8 rows a micro-batch are bound by 1.9 ms for each
            block's forward pass. CUDA graphs, which take that away, are not counted on.
        slowdown: Step time against the physics. What a loop that nobody here knows loses: on twelve published sources
            with loops of their own a step took 0.5 to 1.9 times what is said of transformers, 1.2 at the median, and
            with two thirds of that the others are met better whichever of them is left out (ACCURACY.md).
    """

    name: str
    loss_bytes: float = 12.0
    fused_kernels: bool = False
    fused_norm: bool = False
    fused_mlp: bool = False
    keeps_product: bool = False
    fp32_master: bool = True
    foreach_step: bool = True
    adapter_dropout: bool = False
    kept_logits: float = 0.0
    casts_logits: bool = False
    separate_head: bool = False
    normed_fp32: bool = False
    one_activation: bool = False
    rotary_tables: bool = False
    mixes_frozen: bool = False
    quantises_head: bool = False
    embedding_gradient: bool = False
    adapts_qkv: bool = False
    tiled_head: bool = False
    autocast: bool = False
    fsdp2: bool = False
    accelerate: bool = False
    loads_whole: bool = False
    masters_beside: bool = False
    fused_step: bool = False
    reads_early: bool = False
    wraps_embeddings: bool = False
    wraps_untied: bool = False
    shards_one: bool = False
    frozen_fp32: bool = False
    fp32_routing: bool = False
    samples_elsewhere: bool = False
    spread_keys: bool = False
    fused_qkv: bool = False
    fused_products: bool = False
    sequence_parallel: bool = False
    waits_for_sums: bool = False
    copies_inputs: bool = False
    keeps_outputs: bool = False
    fp32_reduce: bool = False
    keeps_gathered: bool = False
    fills_pipeline: bool = False
    host_slowdown: float = 1.0
    slowdown: float = 1.0


_MEGATRON = Stack(
    "megatron",
    loss_bytes=8.0,
    fused_kernels=True,
    fused_norm=True,
    fused_mlp=True,
    keeps_product=True,
    foreach_step=False,
    sequence_parallel=True,
    host_slowdown=2.0,
)
_MEGATRON_LOCAL = _MEGATRON._replace(name="megatron-local", host_slowdown=1.0, fills_pipeline=True)
# litgpt 0.5 (2024 to 2026): `GPT` and `RMSNorm` of litgpt/model.py, `LoRAQKVLinear` of litgpt/lora.py, `fit` of
# litgpt/finetune/full.py and lora.py, traced as they are (benchmarks/results/stack_traces.md)
_LITGPT = Stack(
    "litgpt",
    fp32_master=False,
    adapter_dropout=True,
    kept_logits=4.0,
    casts_logits=True,
    separate_head=True,
    normed_fp32=True,
    one_activation=True,
    mixes_frozen=True,
    quantises_head=True,
    embedding_gradient=True,
    adapts_qkv=True,
    spread_keys=True,
    fused_qkv=True,
)
_STACKS = (
    Stack(
        "trl", loss_bytes=0.5, tiled_head=True, autocast=True, fsdp2=True, accelerate=True
    ),  # what we launch
    Stack("hf", autocast=True, accelerate=True),
    # transformers' trainer with an FSDP2 of its own, which leaves the weights in the type that they were loaded in
    Stack("axolotl", autocast=True, fsdp2=True, fp32_master=False, accelerate=True, loads_whole=True),
    Stack(
        "other", slowdown=1.12
    ),  # named, and nothing is known of it here: modules of transformers, a loop of its own
    Stack("deepspeed", foreach_step=False, keeps_gathered=True, fills_pipeline=True),
    Stack("unsloth", loss_bytes=0.5, fused_kernels=True, fused_norm=True, fused_mlp=True, foreach_step=False),
    Stack("llm-foundry", fused_kernels=True, fused_norm=True),
    _LITGPT,
    _LITGPT._replace(name="litgpt-2023", embedding_gradient=False),
    # litgpt's model in a loop without Fabric, all in bf16: thunder/benchmarks/benchmark_litgpt.py of lightning-thunder,
    # as of January 2026, whose cross-entropy holds log-probabilities and two gradients beside the logits
    _LITGPT._replace(
        name="thunder",
        loss_bytes=8.0,
        kept_logits=2.0,
        casts_logits=False,
        foreach_step=False,
        mixes_frozen=False,
    ),
    Stack(
        "torchtune",
        # `CEWithChunkedOutputLoss`, in all recipes from 0.3 to 0.6: logits in bf16, and log-probabilities in fp32 of
        # all eight chunks, which their backward passes take; of one chunk the logits in fp32 as well
        loss_bytes=2.0 + 4.0 + 4.0 / 8,
        rotary_tables=True,
        normed_fp32=True,
        fp32_master=False,
        foreach_step=False,
        fsdp2=True,
        wraps_embeddings=True,
        spread_keys=True,
    ),
    Stack(
        "torchtitan",
        loss_bytes=10.0,
        fused_norm=True,
        foreach_step=False,
        fsdp2=True,
        wraps_embeddings=True,
        spread_keys=True,
        sequence_parallel=True,
        fp32_routing=True,
        fp32_reduce=True,
    ),
    _MEGATRON,
    # Before Transformer Engine: modules of torch's with kernels of their own, 16 a block, and more Python around each
    # (a function of autograd's for every product, states of random numbers); as slow as transformers' 45, assumed.
    _MEGATRON_LOCAL,
    # Megatron's modules of 2021 under DeepSpeed's pipeline and optimizers
    _MEGATRON_LOCAL._replace(
        name="megatron-deepspeed", sequence_parallel=False, waits_for_sums=True, keeps_outputs=True
    ),
    # PaddleNLP's trainer (`fp16_opt_level: O2`): Paddle's AdamW keeps masters, and casts gradients in its kernel
    Stack(
        "paddle",
        fused_norm=True,
        masters_beside=True,
        fused_step=True,
        foreach_step=False,
        waits_for_sums=True,
        copies_inputs=True,
    ),
    Stack("internevo", masters_beside=True),
    Stack("tensorflow", foreach_step=False, reads_early=True),
    Stack("openrlhf", foreach_step=False),
    # prime-rl as of January 2026: `optimization_dtype` and `reduce_dtype` float32, `setup_fsdp` on any number of GPUs,
    # adapters in the base's type, logits cast to fp32 and kept beside log-probabilities and two gradients (`sft/train`)
    Stack(
        "prime-rl",
        loss_bytes=16.0,
        foreach_step=False,
        autocast=True,
        fsdp2=True,
        wraps_untied=True,
        shards_one=True,
        frozen_fp32=True,
        fp32_routing=True,
        samples_elsewhere=True,
        fp32_reduce=True,
    ),
    # llm.c and what was made after it, as their kernels are written (`fused_classifier.cu`, `matmul.cuh`)
    Stack(
        "cuda",
        loss_bytes=2.0,
        fused_kernels=True,
        fused_norm=True,
        foreach_step=False,
        fused_products=True,
    ),
)
#: Stacks whose blocks are Megatron's.
MEGATRON = frozenset({"megatron", "megatron-local", "megatron-deepspeed"})
STACKS = {stack.name: stack for stack in _STACKS}


def stack_of(name: str) -> Stack:
    """The stack by name, plain transformers where it is not known."""
    return STACKS.get(name, STACKS["hf"])


_RUN_TRANSFORMERS_MODULES = frozenset({"trl", "hf", "deepspeed", "openrlhf"})
#: Families whose module in transformers multiplies every token with every expert, and by zero those not chosen
#: (`Llama4TextMoe`: the tokens are repeated for each expert).
_EVERY_EXPERT = frozenset({"llama4_text"})


def runs_transformers_modules(name: str) -> bool:
    """Whether a stack's blocks are transformers' own, as they are written there."""
    return name in _RUN_TRANSFORMERS_MODULES


def computed_by(name: str, arch: ModelArchitecture) -> ModelArchitecture:
    """The model as a stack computes it, which may be more than its routing asks for."""
    if runs_transformers_modules(name) and arch.model_type in _EVERY_EXPERT:
        return replace(arch, experts_per_token=arch.experts)
    if stack_of(name).separate_head and arch.tied_embeddings:
        return replace(arch, tied_embeddings=False)
    return arch
