"""How a stack computes a block, as far as that decides what is kept for the backward pass. Pure."""

from __future__ import annotations

from typing import NamedTuple


class BlockForm(NamedTuple):
    """Widths of values and habits of a stack.

    Attributes:
        width: Bytes of an activation.
        residual: Bytes of a value of the residual stream.
        fused_norm: Norms keep only their input.
        fused_mlp: A gated MLP's product is recomputed, and its activation is one operation.
        quantised_input: Bytes kept of each value that enters quantised products, once for those that share it.
        quantised_copy: Bytes kept of it by each of these products.
        adapter_input: Bytes of each value of its input that an adapted module keeps for itself, cast to the type that
            its adapter computes in; 0 where that is the input's own.
        spread_keys: Keys and values are repeated for each head of a group.
        fused_qkv: Queries, keys and values come from one product.
        fp32_routing: Outputs of all experts are weighted in fp32.
        keeps_product: What a fused gated MLP multiplied stays all the same, where its last linear module is trained.
        in_place: Such an MLP's backward pass writes over what it kept.
        math_attention: Attention keeps what torch's math kernel does.
        fp32_powers: Powers are taken in fp32, as under a GPU's autocast.
        normed_fp32: Trained norms keep what they normed in fp32.
        adapts_qkv: Adapters of queries, keys and values are one module.
        one_activation: The MLP's activation is one operation in every family.
        all_trained: Weights beside the adapters get gradients too.
    """

    width: float
    residual: float
    fused_norm: bool = False
    fused_mlp: bool = False
    quantised_input: float = 0.0
    quantised_copy: float = 0.0
    adapter_input: float = 0.0
    spread_keys: bool = False
    fused_qkv: bool = False
    fp32_routing: bool = False
    keeps_product: bool = False
    in_place: bool = False
    math_attention: bool = False
    fp32_powers: bool = False
    normed_fp32: bool = False
    adapts_qkv: bool = False
    one_activation: bool = False
    all_trained: bool = False
