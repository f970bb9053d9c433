"""Bytes of activations that one block keeps for the backward pass, per token, from the operations it runs.

Each term is an operation's saved tensors as PyTorch's autograd keeps them. Checked against a
storage-level trace of the transformers code (tests/planner/test_trace.py).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from planner.architecture import Adapter, ModelArchitecture, adapter_targets, linear_shapes
from planner.architecture.linears import LAYOUTS, LinearShape
from planner.memory.block_form import BlockForm
from planner.memory.mlp import mlp_bytes


class BlockActivations(NamedTuple):
    """Bytes per token of one block (an average block, where blocks differ).

    Attributes:
        saved: Kept from the forward to the backward pass.
        backward: Further temporaries when the backward pass is in the MLP, the first part of a block that it meets.
        mlp: The part of `saved` that is inside the MLP.
        after_attention: The part of `saved` that is gone when the backward pass comes to the attention.
        whole: The part of `saved` that tensor parallelism leaves whole on each rank: norms, what enters the products,
            dropout (10 of 34 bytes a value of the residual stream; Korthikanti et al. 2022, equations 1 and 2).
    """

    saved: float
    backward: float
    mlp: float
    after_attention: float
    whole: float


class ScoreActivations(NamedTuple):
    """Bytes per token and key of a block whose attention materialises its scores, else 0.

    Attributes:
        saved: Kept from the forward to the backward pass.
        backward: Further temporaries when the backward pass is in the attention.
    """

    saved: float
    backward: float


def tiled_backward(arch: ModelArchitecture, width: float) -> float:
    """Bytes per token that the backward pass makes in an attention with a fused kernel, less what its MLP's norm kept.

    It comes after an MLP in tiles (`TiledMLP` in deepspeed/runtime/sequence_parallel/ulysses_sp.py, 2025), of which no
    more than its input's gradient is as long as the sequence. Torch's reentrant checkpoint holds the recomputed
    block's output and its gradient until the end; with them are the residual stream's gradient, those of the
    attention's output, queries, keys and values, that of the queries added up in fp32, and where heads share keys and
    values a gradient for each head (`dq_accum`, `dk_expanded` and `dv_expanded` in flash-attention 2's
    csrc/flash_attn/flash_api.cpp, `mha_bwd`).
    """
    shared = arch.kv_size < arch.q_size
    passing = 2 * arch.hidden + 2 * arch.q_size + arch.kv_size + arch.v_size
    passing += 2 * arch.q_size if shared else 0
    return width * (passing - 2 * arch.hidden) + 4.0 * arch.q_size


def ring_backward(arch: ModelArchitecture, width: float, ranks: int) -> float:
    """Bytes per token that the backward pass makes in an attention whose sequence lies on several ranks.

    As in torch's `_templated_ring_attention_backward` (torch/distributed/tensor/experimental/_attention.py, 2025) with
    what torch and accelerate rotate by where they are not told otherwise: keys and values of all ranks are gathered,
    from a copy that joins a rank's own; gradients of queries, keys and values are added up in fp32, the latter two
    joined and passed on, which makes three of them. With them are the gradient of the attention's output, what the
    kernel makes for one rank's keys, and that of the queries in fp32 (`dq_accum`).

    Args:
        arch: The model.
        width: Bytes of an activation.
        ranks: Over which the sequence is spread.
    """
    keys = arch.kv_size + arch.v_size
    gathered = width * keys * (1 + ranks)
    added_up = 4.0 * (arch.q_size + 3 * keys)
    of_kernel = width * (arch.q_size + keys) + 4.0 * arch.q_size
    return gathered + added_up + of_kernel + width * arch.attention_width


@lru_cache(maxsize=4096)
def block_activations(arch: ModelArchitecture, adapter: Adapter | None, form: BlockForm) -> BlockActivations:
    """Sum over the operations of a block.

    Args:
        arch: The model.
        adapter: None for full fine-tuning.
        form: How a block is computed.
    """
    full, width = adapter is None or form.all_trained, form.width
    # A decoder block of an encoder-decoder attends twice, the second time with a norm of its own.
    twice = arch.decoder_layers / (arch.layers + arch.decoder_layers)
    count = arch.norms_per_layer + twice
    norms = _norms(arch, form, full, count)
    whole = norms + _dropout(arch, twice)
    saved = whole + _attention(arch, width, full) * (1 + twice)
    saved += width * _kept_by_stack(arch, form.spread_keys, form.fused_qkv)
    saved += _kept_by_math(arch, width) if form.math_attention else 0.0
    of_adapters, of_mlps = _adapters(arch, adapter, form) if adapter else (0.0, 0.0)
    mlp, mlp_backward = mlp_bytes(arch, adapter, form)
    saved += mlp + of_adapters + _quantised_inputs(arch, form.quantised_input, form.quantised_copy)
    gone = mlp + of_mlps + norms * max(0.0, count - 1) / count
    return BlockActivations(saved, mlp_backward + form.residual * arch.hidden, mlp, gone, whole)


def _quantised_inputs(arch: ModelArchitecture, shared: float, copied: float) -> float:
    """What quantised products keep of their inputs, once for those that share one and by each."""
    kept = shared * (2 * arch.hidden + arch.attention_width + arch.intermediate)
    if not copied:
        return kept
    modules = adapter_targets(arch, Adapter("lora", 1, ("all-linear",)))
    inputs = sum(shape.count * shape.inputs for shape in modules)
    return kept + copied * inputs / (arch.layers + arch.decoder_layers)


def _norms(arch: ModelArchitecture, form: BlockForm, full: bool, count: float) -> float:
    """RMS norms of transformers keep an fp32 copy of their input, and the normed value for the weight.

    Autocast leaves what norms return in fp32, as their weights are, and casts it for each product by itself.

    Args:
        arch: The model.
        form: How they are computed.
        full: All weights are trained.
        count: Norms of a block.
    """
    h, residual = arch.hidden, form.residual
    normed = 4.0 if form.normed_fp32 else residual
    copied = arch.norm == "rms" and not form.fused_norm
    held = 4.0 * h + (normed * h if full else 0.0) if copied else residual * h
    if not full:
        return count * held
    # inputs of the trainable linear modules
    copies = _inputs_of_norms(arch, form.fused_qkv) if residual > form.width else count
    return count * held + form.width * h * copies


def _inputs_of_norms(arch: ModelArchitecture, fused_qkv: bool) -> float:
    """Products that take what a block's norms return, of which one may make queries, keys and values."""
    first = split_by_columns(arch)
    if not fused_qkv or arch.linear_layers or arch.kv_lora_rank:
        return first
    of_attention = [s for s in linear_shapes(arch) if s.role == "attention" and s.name not in _OUTPUTS]
    return first + 1 - sum(s.count for s in of_attention) / (arch.layers + arch.decoder_layers)


_ROTATED_FUSED = frozenset({"phi3", "neox", "qwen"})


def _attention(arch: ModelArchitecture, width: float, full: bool) -> float:
    if not arch.linear_layers:
        return _softmax_attention(arch, width, full)
    parts = arch.attention_layers * _softmax_attention(arch, width, full)
    return (parts + arch.linear_layers * _linear_attention(arch, width)) / arch.layers


def repeated_keys(arch: ModelArchitecture) -> float:
    """Values that an average block keeps more of a token where keys and values are repeated for each head of a group.

    An attention over compressed keys has one for each head as it is.
    """
    if arch.kv_lora_rank or arch.kv_size >= arch.q_size:
        return 0.0
    share = arch.attention_layers / arch.layers if arch.linear_layers else 1.0
    return share * (2 * arch.q_size - arch.kv_size - arch.v_size)


def _kept_by_stack(arch: ModelArchitecture, spread_keys: bool, fused_qkv: bool) -> float:
    """Values of an average block that a stack's own attention keeps beside what transformers' would.

    litgpt, torchtitan and torchtune repeat keys and values of a group before the kernel. In litgpt all three are split
    from one product, which values that are not repeated keep whole, as a view; repeated ones are a copy.
    """
    if arch.kv_size < arch.q_size or arch.kv_lora_rank:
        viewed = arch.q_size + arch.kv_size if arch.layout in _ROTATED_FUSED else 0.0
        return repeated_keys(arch) - viewed if spread_keys else 0.0
    if arch.linear_layers:
        return 0.0
    again = fused_qkv and arch.layout not in _ROTATED_FUSED
    return float(arch.q_size + arch.kv_size) if again else 0.0


def _kept_by_math(arch: ModelArchitecture, width: float) -> float:
    """Bytes of an average block beyond those of a fused kernel, scores not among them.

    Scaled queries, scaled keys and values are each kept in fp32 for all heads (`_scaled_dot_product_attention_math` in
    torch's aten/src/ATen/native/transformers/attention.cpp), and what they were made of is not.
    """
    given = width * (arch.q_size + arch.kv_size + arch.v_size)
    return (3 * 4.0 * arch.q_size - given) * arch.attention_layers / arch.layers


_CHUNK = 64  # tokens that a gated delta rule solves at once


def _linear_attention(arch: ModelArchitecture, width: float) -> float:
    """A gated delta rule as its Triton kernels keep it: the convolution's input and output, queries and keys spread
    over the value heads, gate, output (in fp32 for its norm) and one chunk's triangular matrix for each head.
    """
    keys = 2 * max(arch.linear_key_width, arch.linear_value_width)
    values = arch.linear_value_width
    held = width * (2 * arch.linear_width + keys + 2 * values + arch.linear_value_heads * _CHUNK)
    return held + 4.0 * (values + 2 * arch.linear_value_heads)


def _softmax_attention(arch: ModelArchitecture, width: float, full: bool) -> float:
    qkv = arch.q_size + arch.kv_size + arch.v_size
    saved = width * (qkv + arch.attention_width) + 4.0 * arch.heads
    if arch.layout in _ROTATED_FUSED:  # values are a view that keeps the whole product, beside rotated copies
        saved += width * (arch.q_size + arch.kv_size)
    if arch.qk_norm != "none":
        saved += (4.0 + (width if full else 0.0)) * (arch.q_size + arch.kv_size)
    if arch.gated_attention:  # the gate, its sigmoid, and the product that the projection takes
        saved += 3 * width * arch.q_size
    if arch.kv_lora_rank:
        saved += width * (arch.q_lora_rank + arch.kv_lora_rank) * 2
    return saved


def _adapters(arch: ModelArchitecture, adapter: Adapter, form: BlockForm) -> tuple[float, float]:
    """What adapters of a block keep, and those of its MLP alone; those of queries, keys and values may be one."""
    width, held = form.width, form.adapter_input
    targets, filled = adapter_targets(arch, adapter), 0.0
    if form.adapts_qkv:
        of_qkv = [shape for shape in targets if shape.role == "attention" and shape.name not in _OUTPUTS]
        targets = tuple(shape for shape in targets if shape not in of_qkv[1:])
        filled = _filled_in(arch, adapter, of_qkv) * width
    blocks = arch.layers + arch.decoder_layers
    in_mlp = tuple(shape for shape in targets if shape.role != "attention")
    return (
        filled + _kept_by_adapters(arch, adapter, targets, width, held) / blocks,
        _kept_by_adapters(arch, adapter, in_mlp, width, held) / blocks,
    )


def _filled_in(arch: ModelArchitecture, adapter: Adapter, of_qkv: list[LinearShape]) -> float:
    """Values that one adapter of queries, keys and values keeps where not all three are adapted: its output is put
    between zeros (`index_copy_` in `zero_pad` of litgpt/lora.py), which keeps it.
    """
    if len(of_qkv) == 1 and set(adapter.targets) <= {"q", "k", "v"}:  # one module of the base's too
        sizes = {"q": arch.q_size, "k": arch.kv_size, "v": arch.v_size}
        return float(sum(sizes[name] for name in adapter.targets)) if len(set(adapter.targets)) < 3 else 0.0
    if len(of_qkv) != 2:
        return 0.0
    return sum(shape.outputs for shape in of_qkv)


def _kept_by_adapters(
    arch: ModelArchitecture, adapter: Adapter, targets: tuple[LinearShape, ...], width: float, held: float
) -> float:
    """PEFT keeps each targeted module's input, cast to the adapter's type, and the rank-r value."""
    blocks = arch.layers + arch.decoder_layers
    total = sum(shape.count * (held * shape.inputs + 4.0 * adapter.rank) for shape in targets)
    if adapter.dropout:
        own = 1.0 + (0.0 if held else width)
        total += sum(shape.count * own * shape.inputs for shape in targets)
    elif not held:
        # Modules that share an input share what is kept, and attention keeps its own output already.
        shared = {(shape.inputs, shape.role, shape.name in _OUTPUTS) for shape in targets}
        shared -= {(arch.attention_width, "attention", True)}
        total += blocks * width * sum(inputs for inputs, _, _ in shared)
    if "dora" in adapter.kind:
        # the base's output, which the norm scales, and the adapter's
        total += sum(shape.count * (width + (held or width)) * shape.outputs for shape in targets)
    return total


def split_by_columns(arch: ModelArchitecture) -> float:
    """Products of an average block that tensor-parallel ranks share out by their outputs: all but the last of attention
    and of the MLP.
    """
    names = LAYOUTS[arch.layout]

    def is_last(shape: LinearShape) -> bool:
        if shape.role == "mlp" and names.up == names.down:
            return shape.inputs != arch.hidden
        return shape.name in _OUTPUTS

    first = (s for s in linear_shapes(arch) if s.role in ("attention", "mlp") and not is_last(s))
    return sum(s.count for s in first) / (arch.layers + arch.decoder_layers)


_OUTPUTS = frozenset({"o_proj", "out_proj", "dense", "c_proj", "Wo", "o", "wo", "down_proj", "fc2", "lin2"})


def _dropout(arch: ModelArchitecture, twice: float) -> float:
    """Masks of one byte for what each part adds to the residual stream; T5 also drops out inside the MLP."""
    if not arch.dropout:
        return 0.0
    inside = arch.intermediate if arch.layout.startswith("t5") else 0.0
    return (2.0 + twice) * arch.hidden + inside


# Families whose softmax stays in the type of its scores; the others' is in fp32.
_NATIVE_SOFTMAX = frozenset(
    {
        *("bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "distilbert", "electra", "gpt2"),
        *("deberta", "deberta-v2", "mpnet", "esm", "bart", "mbart", "pegasus", "marian", "m2m_100"),
    }
)


def score_activations(arch: ModelArchitecture, attention: str, width: float, mixed: bool) -> ScoreActivations:
    """What eager attention keeps: the softmax, and how it enters the next product (cast, or dropped out, with a mask).

    The backward pass holds the softmax, its gradient and that of the scores, or both gradients around the dropout.
    Torch's math kernel keeps the softmax alone, in fp32 whatever it is given.

    Args:
        arch: The model.
        attention: flash, sdpa, eager or math.
        width: Bytes of an activation.
        mixed: Autocast over weights in fp32, which computes each softmax in fp32.
    """
    if attention == "math":
        return ScoreActivations(4.0 * arch.heads * arch.attention_layers / arch.layers, 8.0 * arch.heads)
    if attention != "eager":
        return ScoreActivations(0.0, 0.0)
    softmax = width if arch.model_type in _NATIVE_SOFTMAX and not mixed else 4.0
    cast = width if softmax != width else 0.0
    kept = 1.0 + width if arch.dropout else cast
    passing = max(width, softmax - 1.0) if arch.dropout else softmax + width - cast
    if arch.dropout and mixed and arch.model_type in _NATIVE_SOFTMAX and width < 4.0:
        passing = (
            2 * 4.0 - width
        )  # gradients around the dropout are in fp32, and the copy for the product is gone
    capped = width if arch.logit_softcap else 0.0
    share = arch.attention_layers / arch.layers
    return ScoreActivations(arch.heads * share * (softmax + kept + capped), arch.heads * passing)
