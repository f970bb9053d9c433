"""The physics' input: one training set-up on one cluster, free of YAML syntax, prices and clouds."""

from __future__ import annotations

from typing import Literal, NamedTuple

from planner.architecture import Adapter, ModelArchitecture
from planner.hardware import GpuFacts
from planner.stacks import stack_of

__all__ = ["Adapter", "Cluster", "ParallelKind", "Parallelism", "TrainingSetup"]

ParallelKind = Literal["single", "ddp", "fsdp", "zero1", "zero2", "zero3", "tp", "pp", "mixed"]


class Parallelism(NamedTuple):
    """How one model copy is spread and how many copies there are.

    Attributes:
        kind: Sharding strategy; pp: layers on one GPU after the other, without a schedule (`device_map`).
        data: Data-parallel ranks (shards, for fsdp and zero).
        tensor: Tensor-parallel ranks.
        pipeline: Pipeline stages.
        context: Ranks that share one sequence.
        expert: Ranks (of the data-parallel ones) that share one copy of all experts.
    """

    kind: ParallelKind = "single"
    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    expert: int = 1

    @property
    def stages_at_once(self) -> int:
        """Stages that compute at a time: where layers are only laid out (`device_map`) one waits for the other."""
        return 1 if self.kind == "pp" else self.pipeline

    @property
    def gpus_total(self) -> int:
        """GPUs in all."""
        return self.data * self.tensor * self.pipeline * self.context


class Cluster(NamedTuple):
    """Identical machines with their links.

    Attributes:
        gpu: Facts of the GPU.
        gpus_per_node: GPUs used in each machine.
        nodes: Machines.
        gpu_mem_gib: What the offer says of one GPU's memory, None to take the GPU's own.
        inter_node_gbit_per_s: Network between machines, None if unknown.
        inter_node_log_sd: How far that rate may be off: standard deviation of its logarithm.
    """

    gpu: GpuFacts
    gpus_per_node: int = 1
    nodes: int = 1
    gpu_mem_gib: float | None = None
    inter_node_gbit_per_s: float | None = None
    inter_node_log_sd: float = 0.0


class TrainingSetup(NamedTuple):
    """Everything that decides memory and speed of one training, besides the cluster.

    Attributes:
        arch: The base model.
        task: sft, pretrain, classification, dpo, reward, kto, grpo, ppo.
        adapter: None for full fine-tuning.
        quantization: Of the frozen base: none, 8bit, 4bit, fp8.
        precision: bf16, fp16, fp32, tf32, amp_bf16, amp_fp16 (fp32 master weights), fp8 or fp4.
        optimizer: adamw, adamw_fused, adamw_8bit, paged_adamw_32bit, paged_adamw_8bit, adafactor, lion, sgd, or
            another of `planner.memory.optimizers`.
        optimizer_rank: Of those that keep their states in a low rank, 0 for the usual one.
        trained_share: Share of the weights that a full fine-tuning trains at a time (frozen layers, Spectrum, LISA,
            BAdam).
        reached_share: Share of the blocks, the last ones, that a gradient reaches where none is recomputed; under
            them all is frozen.
        steps_in_backward: The optimizer steps on each gradient as it comes, and frees it.
        reduces_each_micro_batch: Sharded gradients are reduced after each micro-batch of a step, which accelerate did
            under FSDP2 until 1.11 (its pull request 3762).
        older_torch: Before 2.0 gradients are zeroed and not freed between steps, the optimizer takes one parameter at
            a time, and CUDA loads all kernels at once.
        sequence_tokens: Tokens in one row (padded or packed length).
        micro_batch: Rows a GPU holds at once.
        grad_accum: Micro-batches between optimizer steps.
        gradient_checkpointing: Activations recomputed in the backward pass.
        recomputed_blocks: Share of the blocks of which they are.
        keeps_products: Of these, attention's and every second product's outputs are kept all the same (torchtitan's
            selection by operation).
        recomputes_attention: Attention's scores and values are, where blocks are not (Megatron's "selective").
        kept_caches: Micro-batches whose keys and values of all blocks lie there at the loss, where blocks are
            recomputed and the model's cache was left on: this one's, and the one's before whose outputs have a name.
        attention: flash, sdpa (memory-efficient), eager (materialises s x s) or math (what torch runs for sdpa where it
            has no kernel: s x s in fp32; `planner.attention_kernel`).
        repeats_keys: Keys and values of a group are repeated for each of its heads before the kernel.
        cpu_autocast: Autocast is a CPU's, which leaves layer norms and powers in the type that they are given; a GPU's
            takes them in fp32 (the lists of torch's aten/src/ATen/autocast_mode.h).
        fused_loss: Logits never held whole.
        labels: Classes, for classification.
        framework: A key of `planner.stacks.STACKS`; trl is what we launch.
        offload: What of weights and states lies on the host: none, optimizer (and gradients), parameters (all).
        offloads_masters: With the optimizer the weights in fp32 lie there too, and gradients as they come; GPUs hold
            their share in the type that is computed in (prime-rl's `full_offload`, its pull request 3234 of August
            2026).
        offloads_activations: Inputs of recomputed blocks lie on the host until their backward pass, or all that a block
            keeps, where nothing is computed again.
        offloaded_share: Share of the latter.
        pins_host_memory: What is offloaded is in pinned memory where the settings decide it (DeepSpeed's `pin_memory`).
        one_thread_a_rank: Of several ranks on a machine each works on the CPU with one thread, as torchrun and
            `accelerate launch` leave it. DeepSpeed's launcher and our own (`jobs.ranks`) let all have all cores.
        parallelism: Sharding.
        gathers_fp32: FSDP has no type of its own to compute in (`param_dtype`): what it gathers is in fp32, and
            autocast casts it for each product.
        newer_fsdp: FSDP shards each parameter by itself (FSDP2) where the framework alone would not tell.
        virtual_stages: Parts of the model that each pipeline stage holds and takes in turn (Megatron's interleaved
            schedule), 0 where nobody says.
        sequence_parallel: Whether tensor-parallel ranks share out the sequence between products, None for the
            framework's own way.
        replicas: Groups of data-parallel ranks each of which shards a whole copy of its own (HSDP, ZeRO within a
            machine).
        upcast_frozen: Norms, embeddings and head of a quantised base are held in fp32, and with them all
            activations (peft's prepare_model_for_kbit_training).
        frozen_fp32: A frozen base that is not quantised is held in fp32, and cast for each product (`amp_*`) or as it
            is gathered (FSDP).
        keeps_quantised_inputs: Quantised products keep more for the backward pass than they need: inputs of 4-bit ones
            (bitsandbytes up to 0.43.1; its pull request 1270), integer copies of 8-bit ones' (up to 0.44).
        experts_quantised: Quantisation covers experts too (separate modules in transformers 4, fused in 5).
        loss_bytes: Bytes per vocabulary entry and token at the loss's peak, None for the framework's own.
        varied_lengths: Micro-batches differ in length, and the allocator's segments do not grow: blocks of one are left
            unused by the next.
        drops_longer_rows: Rows beyond the limit are left out and not cut to it, so that the longest micro-batches are
            each of a length of their own.
        row_tokens: Mean length of a row as it is computed, padding included; None for sequence_tokens.
            Unpacked rows are shorter than the longest one, which alone decides memory.
        attended_tokens: Mean length, over tokens, of the samples of a packed row, where a token sees its own alone;
            None where it sees the whole row.
        real_tokens_share: Share of the computed tokens that are not padding.
        padded: Rows are padded, whether or not it is known how far, of which transformers tells attention by a mask.
        compiled: The model's memory-bound work is fused: torch.compile, Liger or kernels like it.
        recomputes_elementwise: Norms keep their input alone, and a gated MLP what its first products made and the last
            one takes, as Liger's modules and torch's compiler have it.
        recomputes_product: With that, what the MLP multiplied is computed again too, though its last linear module is
            trained by it.
        tiled_mlp: A recomputed block's MLP goes over the sequence in tiles and is computed once more in its backward
            pass (DeepSpeed's `TiledMLP`), so that nothing inside it is as long as the sequence.
        preference_loss: Of dpo and kto, as in the spec.
        reference: grpo measures how far it is from a frozen copy of the start, and so does dpo (not its kin without
            one: orpo, simpo, cpo); kto always does.
        generated_tokens: Tokens that a prompt's answer grows by, for grpo and ppo.
    """

    arch: ModelArchitecture
    task: str = "sft"
    adapter: Adapter | None = None
    quantization: str = "none"
    precision: str = "bf16"
    optimizer: str = "adamw"
    optimizer_rank: int = 0
    trained_share: float = 1.0
    reached_share: float = 1.0
    steps_in_backward: bool = False
    reduces_each_micro_batch: bool = False
    older_torch: bool = False
    sequence_tokens: int = 2048
    micro_batch: int = 1
    grad_accum: int = 1
    gradient_checkpointing: bool = True
    recomputed_blocks: float = 1.0
    keeps_products: bool = False
    recomputes_attention: bool = False
    kept_caches: int = 0
    attention: str = "sdpa"
    repeats_keys: bool = False
    cpu_autocast: bool = False
    fused_loss: bool = False
    labels: int = 2
    framework: str = "trl"
    offload: str = "none"
    offloads_masters: bool = False
    offloads_activations: bool = False
    offloaded_share: float = 1.0
    pins_host_memory: bool = True
    one_thread_a_rank: bool = False
    parallelism: Parallelism = Parallelism()
    gathers_fp32: bool = False
    newer_fsdp: bool = False
    virtual_stages: int = 0
    sequence_parallel: bool | None = None
    replicas: int = 1
    upcast_frozen: bool = False
    frozen_fp32: bool = False
    keeps_quantised_inputs: bool = False
    experts_quantised: bool = False
    loss_bytes: float | None = None
    varied_lengths: bool = False
    drops_longer_rows: bool = False
    row_tokens: float | None = None
    attended_tokens: float | None = None
    real_tokens_share: float = 1.0
    padded: bool = False
    compiled: bool = False
    recomputes_elementwise: bool = False
    recomputes_product: bool = False
    tiled_mlp: bool = False
    preference_loss: str = "auto"
    reference: bool = True
    generated_tokens: int = 256

    @property
    def shards(self) -> int:
        """Ranks over which one copy is sharded, where it is."""
        return max(1, self.parallelism.data * self.parallelism.context // self.replicas)

    @property
    def shards_parameters(self) -> bool:
        """Whether FSDP shards each parameter by itself and not what a unit has, flattened."""
        return self.newer_fsdp or stack_of(self.framework).fsdp2

    @property
    def shares_sequence(self) -> bool:
        """Whether each tensor-parallel rank has a part of the tokens between products."""
        own = stack_of(self.framework).sequence_parallel
        return self.parallelism.tensor > 1 and (
            own if self.sequence_parallel is None else self.sequence_parallel
        )

    @property
    def shape(self) -> tuple[object, ...]:
        """Everything but micro-batch and lengths; of the accumulation only whether there is any."""
        parallel = self.parallelism
        return (
            self.arch, self.task, self.adapter, self.quantization, self.precision, self.optimizer,
            self.optimizer_rank, self.trained_share, self.reached_share,
            self.grad_accum > 1, self.gradient_checkpointing, self.recomputed_blocks, self.keeps_products,
            self.recomputes_attention,
            self.kept_caches,
            self.steps_in_backward, self.reduces_each_micro_batch, self.older_torch,
            self.attention, self.repeats_keys, self.cpu_autocast, self.fused_loss, self.labels,
            self.framework, self.offload, self.offloads_masters, self.offloads_activations, self.pins_host_memory,
            parallel.kind, parallel.data, parallel.tensor, parallel.pipeline,
            parallel.context, parallel.expert, self.gathers_fp32, self.newer_fsdp,
            self.virtual_stages, self.sequence_parallel,
            self.replicas, self.upcast_frozen, self.frozen_fp32,
            self.keeps_quantised_inputs,
            self.experts_quantised, self.loss_bytes, self.compiled, self.recomputes_elementwise,
            self.recomputes_product, self.tiled_mlp,
            self.preference_loss, self.reference,
        )  # fmt: skip
