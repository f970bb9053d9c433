"""What decides a model's parameter count, memory and speed, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ModelKind = Literal["decoder", "encoder", "encoder-decoder"]
NormKind = Literal["rms", "layer", "layer_no_bias"]
QkNorm = Literal["none", "head", "full", "kv_head"]


@dataclass(frozen=True, slots=True)
class ModelArchitecture:
    """Facts of one model, as its config.json states them.

    Attributes:
        id: Hugging Face id, or the path it was read from.
        revision: Commit, tag or branch, None if not pinned.
        kind: decoder, encoder or encoder-decoder.
        model_type: transformers' name of the family, of the text tower where there are several towers.
        published_type: transformers' name of the whole, if it reads more than text; else nothing.
        layout: Naming of the linear modules, a key of `planner.architecture.linears.LAYOUTS`.
        hidden: Width of the residual stream.
        layers: Blocks (encoder blocks, for encoder-decoder).
        decoder_layers: Decoder blocks of an encoder-decoder, else 0.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Width of one head.
        intermediate: Width of the dense MLP.
        mlp_matrices: 3 if gated, else 2.
        vocab: Rows of the embedding.
        tied_embeddings: The output head shares the embedding's weights.
        qkv_bias: Bias on query, key and value.
        out_bias: Bias on the attention's output projection.
        mlp_bias: Bias in the MLP.
        head_bias: Bias on the output head.
        norm: rms, layer (weight and bias) or layer_no_bias.
        norms_per_layer: Norms of the hidden width in a block.
        final_norm: A norm after the last block.
        qk_norm: Norm of queries and keys: head (one of width head_dim each), full (of the whole projection).
        embedding_norm: A norm after the embedding.
        embedding_width: Width of the embedding, where it differs from hidden (with two projections), else 0.
        position_rows: Learned positions.
        context_tokens: Longest row that it was made for, 0 if unknown.
        token_types: Rows of a token-type embedding.
        relative_positions: Parameters of a relative-position table in all.
        dropout: Share dropped in training by the family's default; masks are kept for the backward pass.
        experts: Experts of a MoE layer, 0 if dense.
        experts_per_token: Experts that one token visits.
        moe_intermediate: Width of one expert.
        shared_intermediate: Width of all shared experts together, 0 if none.
        shared_gate: A one-output gate on the shared expert.
        dense_layers: Blocks with a dense MLP in a MoE model.
        router_bias: Bias of the router.
        expert_bias: Biases inside the experts.
        q_lora_rank: Query rank of multi-head latent attention, 0 if queries are projected directly.
        kv_lora_rank: Key-value rank of multi-head latent attention, 0 if there is none.
        qk_nope_head_dim: Width of a query head without rotary part, for latent attention.
        qk_rope_head_dim: Width of its rotary part.
        v_head_dim: Width of a value head, for latent attention.
        fused_attention: transformers runs fused attention for the model; without it scores are written out.
        recomputes: transformers can recompute its blocks in the backward pass.
        gated_attention: Queries come with an output gate of the same width (Qwen3-Next and later).
        linear_layers: Blocks with a gated delta rule (linear attention) instead of attention.
        linear_key_width: Width of all keys of such a block together.
        linear_value_width: Width of all its values together.
        linear_value_heads: Its value heads.
        linear_kernel: Tokens that the convolution before it sees.
        logit_softcap: Logits and written-out scores pass a tanh, whose output is kept.
        wide_layers: Blocks that see all tokens with heads of their own width (Gemma 4); what they keep for the backward
            pass is counted as that of the others.
        wide_head_dim: Width of such a head.
        wide_kv_heads: Key heads of such a block.
        wide_keys_are_values: Such a block has no projection for values.
        sliding_window: Keys a token sees at most in windowed blocks, 0 if all.
        extra_per_layer: Further parameters of a block (attention sinks, activation scales).
        extra_parameters: Further parameters of the model (vision tower, extra prediction layer).
        idle_parameters: Those of them that a training on text leaves as they are.
        source: Where the facts come from.
    """

    id: str
    kind: ModelKind
    model_type: str
    layout: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    published_type: str = ""
    revision: str | None = None
    decoder_layers: int = 0
    mlp_matrices: int = 3
    tied_embeddings: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    norm: NormKind = "rms"
    norms_per_layer: int = 2
    final_norm: bool = True
    qk_norm: QkNorm = "none"
    embedding_norm: bool = False
    embedding_width: int = 0
    position_rows: int = 0
    context_tokens: int = 0
    token_types: int = 0
    relative_positions: int = 0
    dropout: float = 0.0
    experts: int = 0
    experts_per_token: int = 0
    moe_intermediate: int = 0
    shared_intermediate: int = 0
    shared_gate: bool = False
    dense_layers: int = 0
    router_bias: bool = False
    expert_bias: bool = False
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    fused_attention: bool = True
    recomputes: bool = True
    gated_attention: bool = False
    linear_layers: int = 0
    linear_key_width: int = 0
    linear_value_width: int = 0
    linear_value_heads: int = 0
    linear_kernel: int = 0
    logit_softcap: bool = False
    wide_layers: int = 0
    wide_head_dim: int = 0
    wide_kv_heads: int = 0
    wide_keys_are_values: bool = False
    sliding_window: int = 0
    extra_per_layer: int = 0
    extra_parameters: int = 0
    idle_parameters: int = 0
    source: str = ""

    def __hash__(self) -> int:
        """Of what tells models apart; all fields would cost microseconds a look-up."""
        return hash((self.id, self.revision, self.hidden, self.layers, self.vocab, self.kv_heads))

    @property
    def q_size(self) -> int:
        """Width of all query heads together."""
        width = self.qk_nope_head_dim + self.qk_rope_head_dim if self.kv_lora_rank else self.head_dim
        return self.heads * width

    @property
    def kv_size(self) -> int:
        """Width of all key heads together (latent attention expands them to every head)."""
        return self.q_size if self.kv_lora_rank else self.kv_heads * self.head_dim

    @property
    def v_size(self) -> int:
        """Width of all value heads together."""
        return self.heads * self.v_head_dim if self.kv_lora_rank else self.kv_heads * self.head_dim

    @property
    def attention_width(self) -> int:
        """Width of the attention's output before its projection."""
        return self.heads * (self.v_head_dim if self.kv_lora_rank else self.head_dim)

    @property
    def attention_layers(self) -> int:
        """Blocks (of the encoder, where there are two stacks) that attend to all keys, or to a window of them."""
        return self.layers - self.linear_layers

    @property
    def projected_width(self) -> float:
        """Width of queries, keys and values together, in an average block."""
        attends = self.attention_layers * (self.q_size + self.kv_size + self.v_size)
        return (attends + self.linear_layers * (self.linear_width + self.linear_value_width)) / self.layers

    @property
    def linear_width(self) -> int:
        """Width of queries, keys and values of a linear-attention block together."""
        return 2 * self.linear_key_width + self.linear_value_width

    @property
    def is_moe(self) -> bool:
        """Whether some blocks route tokens to experts."""
        return self.experts > 0

    @property
    def moe_layers(self) -> int:
        """Blocks with experts."""
        return self.layers - self.dense_layers if self.is_moe else 0
