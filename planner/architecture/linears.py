"""The linear modules of a model: names (as PEFT targets them), shapes and how often each occurs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from planner.architecture.model import ModelArchitecture

Role = Literal["attention", "mlp", "shared", "expert", "router"]


class Layout(NamedTuple):
    """Module names of one block; equal names of q, k, v (or gate, up) mean one fused module."""

    q: str
    k: str
    v: str
    o: str
    gate: str
    up: str
    down: str


def _fused(qkv: str, out: str, up: str, down: str, gate: str = "") -> Layout:
    return Layout(qkv, qkv, qkv, out, gate, up, down)


LAYOUTS = {
    "llama": Layout("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "phi3": _fused("qkv_proj", "o_proj", "gate_up_proj", "down_proj", "gate_up_proj"),
    "glm": Layout("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "gate_up_proj", "down_proj"),
    "gpt2": _fused("c_attn", "c_proj", "c_fc", "c_proj"),
    "neox": _fused("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    "opt": Layout("q_proj", "k_proj", "v_proj", "out_proj", "", "fc1", "fc2"),
    "gpt_neo": Layout("q_proj", "k_proj", "v_proj", "out_proj", "", "c_fc", "c_proj"),
    "gptj": Layout("q_proj", "k_proj", "v_proj", "out_proj", "", "fc_in", "fc_out"),
    "phi": Layout("q_proj", "k_proj", "v_proj", "dense", "", "fc1", "fc2"),
    "starcoder2": Layout("q_proj", "k_proj", "v_proj", "o_proj", "", "c_fc", "c_proj"),
    "mpt": _fused("Wqkv", "out_proj", "up_proj", "down_proj"),
    "qwen": _fused("c_attn", "c_proj", "w1", "c_proj", "w2"),
    "bert": Layout("query", "key", "value", "dense", "", "dense", "dense"),
    "deberta": Layout("query_proj", "key_proj", "value_proj", "dense", "", "dense", "dense"),
    "deberta_v1": _fused("in_proj", "dense", "dense", "dense"),
    "mpnet": Layout("q", "k", "v", "o", "", "dense", "dense"),
    "distilbert": Layout("q_lin", "k_lin", "v_lin", "out_lin", "", "lin1", "lin2"),
    "modernbert": _fused("Wqkv", "Wo", "Wi", "Wo", "Wi"),
    "t5": Layout("q", "k", "v", "o", "wi_0", "wi_1", "wo"),
    "t5_v1": Layout("q", "k", "v", "o", "", "wi", "wo"),
}


@dataclass(frozen=True, slots=True)
class LinearShape:
    """One kind of linear module.

    Attributes:
        name: Last part of its name.
        role: attention, mlp, shared (expert), expert or router.
        inputs: Input features.
        outputs: Output features.
        count: How many in the whole model (experts counted each).
        bias: Whether it has one.
        share: Share of its parameters that one token uses: 1, or experts per token / experts.
    """

    name: str
    role: Role
    inputs: int
    outputs: int
    count: int
    bias: bool = False
    share: float = 1.0

    @property
    def parameters(self) -> int:
        """Weights and biases over all its instances."""
        return self.count * (self.inputs * self.outputs + (self.outputs if self.bias else 0))


@lru_cache(maxsize=256)
def linear_shapes(arch: ModelArchitecture) -> tuple[LinearShape, ...]:
    """Every linear module of the blocks, without embedding and head."""
    names = LAYOUTS[arch.layout]
    blocks = arch.layers + arch.decoder_layers
    attention = (*_latent_attention(arch, names),) if arch.kv_lora_rank else (*_attention(arch, names),)
    # A decoder block of an encoder-decoder attends twice.
    crossed = blocks + arch.decoder_layers - arch.linear_layers - arch.wide_layers
    parts = [LinearShape(n, "attention", i, o, crossed, b) for n, i, o, b in attention]
    if arch.wide_layers:
        parts += [
            LinearShape(n, "attention", i, o, arch.wide_layers) for n, i, o in _wide_attention(arch, names)
        ]
    if arch.linear_layers:
        parts += _linear_attention(arch)
    dense = blocks if not arch.is_moe else arch.dense_layers
    if dense:
        parts += _mlp(arch, names, arch.intermediate, dense, "mlp")
    if arch.is_moe:
        parts += _experts(arch, names)
    return tuple(parts)


def _attention(arch: ModelArchitecture, names: Layout) -> list[tuple[str, int, int, bool]]:
    h, q, kv, bias = arch.hidden, arch.q_size, arch.kv_size, arch.qkv_bias
    out = (names.o, q, h, arch.out_bias)
    if names.q == names.k:
        return [(names.q, h, q + 2 * kv, bias), out]
    q *= 2 if arch.gated_attention else 1
    return [(names.q, h, q, bias), (names.k, h, kv, bias), (names.v, h, kv, bias), out]


def _wide_attention(arch: ModelArchitecture, names: Layout) -> list[tuple[str, int, int]]:
    h, q, kv = arch.hidden, arch.heads * arch.wide_head_dim, arch.wide_kv_heads * arch.wide_head_dim
    values = [] if arch.wide_keys_are_values else [(names.v, h, kv)]
    return [(names.q, h, q), (names.k, h, kv), *values, (names.o, q, h)]


def _linear_attention(arch: ModelArchitecture) -> list[LinearShape]:
    """Projections of a gated delta rule; transformers splits the first by name, one module or four."""
    h, values = arch.hidden, arch.linear_value_width
    return [
        LinearShape("in_proj_qkvz", "attention", h, arch.linear_width + values, arch.linear_layers),
        LinearShape("in_proj_ba", "attention", h, 2 * arch.linear_value_heads, arch.linear_layers),
        LinearShape("out_proj", "attention", values, h, arch.linear_layers),
    ]


def _latent_attention(arch: ModelArchitecture, names: Layout) -> list[tuple[str, int, int, bool]]:
    h, q, rank = arch.hidden, arch.q_size, arch.q_lora_rank
    queries = [("q_proj", h, q, False)]
    if rank:
        queries = [("q_a_proj", h, rank, False), ("q_b_proj", rank, q, False)]
    expanded = arch.heads * (arch.qk_nope_head_dim + arch.v_head_dim)
    return [
        *queries,
        ("kv_a_proj_with_mqa", h, arch.kv_lora_rank + arch.qk_rope_head_dim, False),
        ("kv_b_proj", arch.kv_lora_rank, expanded, False),
        (names.o, arch.attention_width, h, False),
    ]


def _mlp(arch: ModelArchitecture, names: Layout, width: int, count: int, role: Role) -> list[LinearShape]:
    h, bias = arch.hidden, arch.mlp_bias
    down = LinearShape(names.down, role, width, h, count, bias)
    if arch.mlp_matrices == 2:
        return [LinearShape(names.up, role, h, width, count, bias), down]
    if names.gate == names.up:
        return [LinearShape(names.up, role, h, 2 * width, count, bias), down]
    pair = [LinearShape(name, role, h, width, count, bias) for name in (names.gate, names.up)]
    return [*pair, down]


def _experts(arch: ModelArchitecture, names: Layout) -> list[LinearShape]:
    h, layers, width = arch.hidden, arch.moe_layers, arch.moe_intermediate
    share = arch.experts_per_token / arch.experts
    many, bias = layers * arch.experts, arch.expert_bias
    parts = [
        LinearShape("router", "router", h, arch.experts, layers, arch.router_bias),
        LinearShape("experts.gate_up_proj", "expert", h, 2 * width, many, bias, share),
        LinearShape("experts.down_proj", "expert", width, h, many, bias, share),
    ]
    if arch.shared_intermediate:
        parts += _mlp(arch, names, arch.shared_intermediate, layers, "shared")
    if arch.shared_gate:
        parts.append(LinearShape("shared_expert_gate", "router", h, 1, layers))
    return parts
