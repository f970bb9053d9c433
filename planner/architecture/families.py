"""How each transformers family differs from a plain Llama block; keys are `model_type`, values are fields.

Checked against models built by transformers, to the last parameter (tests/planner/test_parameter_counts.py).
"""

from __future__ import annotations

from typing import Any

_BIASED: dict[str, Any] = {
    "qkv_bias": True,
    "out_bias": True,
    "mlp_bias": True,
    "mlp_matrices": 2,
    "norm": "layer",
}
_ENCODER: dict[str, Any] = {
    **_BIASED, "kind": "encoder", "tied_embeddings": True, "final_norm": False, "embedding_norm": True,
    "dropout": 0.1,
}  # fmt: skip
_T5: dict[str, Any] = {"kind": "encoder-decoder", "layout": "t5", "tied_embeddings": True, "dropout": 0.1}
_BART: dict[str, Any] = {
    **_BIASED, "kind": "encoder-decoder", "layout": "opt", "tied_embeddings": True, "dropout": 0.1,
}  # fmt: skip

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "ministral": {},
    "mixtral": {},
    "smollm3": {"tied_embeddings": True},
    "minicpm": {},
    "granite": {},
    "granitemoe": {},
    "phimoe": {"norm": "layer"},
    "helium": {},
    "ernie4_5": {"tied_embeddings": True},
    "qwen": {"layout": "qwen", "qkv_bias": True},
    "qwen2": {"qkv_bias": True},
    "qwen2_moe": {"qkv_bias": True, "shared_gate": True},
    "mimo": {"qkv_bias": True},
    "qwen3": {"qk_norm": "head"},
    "qwen3_moe": {"qk_norm": "head"},
    "qwen3_next": {"qk_norm": "head", "shared_gate": True, "gated_attention": True},
    "qwen3_5_text": {"qk_norm": "head", "gated_attention": True},
    "qwen3_5_moe_text": {"qk_norm": "head", "shared_gate": True, "gated_attention": True},
    "hunyuan_v1_dense": {"qk_norm": "head"},
    "gemma": {"tied_embeddings": True},
    "gemma2": {"tied_embeddings": True, "norms_per_layer": 4, "logit_softcap": True},
    "gemma3_text": {"tied_embeddings": True, "norms_per_layer": 4, "qk_norm": "head"},
    "gemma4_text": {"tied_embeddings": True, "norms_per_layer": 4, "qk_norm": "head"},
    "phi3": {"layout": "phi3"},
    "phi": {**_BIASED, "layout": "phi", "norms_per_layer": 1, "head_bias": True},
    "olmo2": {"qk_norm": "full"},
    "olmo3": {"qk_norm": "full"},
    "olmoe": {"qk_norm": "full"},
    "exaone4": {"qk_norm": "head"},
    "seed_oss": {"qkv_bias": True, "dropout": 0.1},
    "apertus": {"mlp_matrices": 2, "qk_norm": "head", "extra_per_layer": 2},
    "arcee": {"mlp_matrices": 2},
    "nemotron": {"mlp_matrices": 2, "norm": "layer"},
    "stablelm": {"norm": "layer"},
    "stablelm_alpha": {**_BIASED, "layout": "neox"},
    "cohere": {"norm": "layer_no_bias", "norms_per_layer": 1, "tied_embeddings": True},
    "cohere2": {"norm": "layer_no_bias", "norms_per_layer": 1, "tied_embeddings": True},
    "glm": {"layout": "glm", "qkv_bias": True},
    "glm4": {"layout": "glm", "qkv_bias": True, "norms_per_layer": 4},
    "glm4_moe": {},
    "glm4_moe_lite": {},
    "minimax_m2": {"qk_norm": "full"},
    "ernie4_5_moe": {"tied_embeddings": True},
    "minicpm3": {"tied_embeddings": True},
    "deepseek_v2": {},
    "deepseek_v3": {},
    "gpt_oss": {
        "qkv_bias": True, "out_bias": True, "router_bias": True, "expert_bias": True, "fused_attention": False,
    },
    "llama4_text": {},
    "starcoder2": {**_BIASED, "layout": "starcoder2", "tied_embeddings": True},
    "gpt2": {**_BIASED, "layout": "gpt2", "tied_embeddings": True, "dropout": 0.1},
    "gpt_bigcode": {**_BIASED, "layout": "gpt2", "tied_embeddings": True, "dropout": 0.1},
    "gpt_neo": {**_BIASED, "qkv_bias": False, "layout": "gpt_neo", "tied_embeddings": True, "fused_attention": False},
    "gptj": {
        **_BIASED, "qkv_bias": False, "out_bias": False, "layout": "gptj", "norms_per_layer": 1, "head_bias": True,
        "fused_attention": False,
    },
    "gpt_neox": {**_BIASED, "layout": "neox"},
    "opt": {**_BIASED, "layout": "opt", "tied_embeddings": True, "dropout": 0.1},
    "bloom": {
        **_BIASED, "layout": "neox", "tied_embeddings": True, "embedding_norm": True, "fused_attention": False,
    },
    "falcon": {"layout": "neox", "mlp_matrices": 2, "norm": "layer", "tied_embeddings": True},
    "mpt": {
        "layout": "mpt", "mlp_matrices": 2, "norm": "layer_no_bias", "tied_embeddings": True, "fused_attention": False,
    },
    "bert": {**_ENCODER, "layout": "bert"},
    "roberta": {**_ENCODER, "layout": "bert"},
    "xlm-roberta": {**_ENCODER, "layout": "bert"},
    "camembert": {**_ENCODER, "layout": "bert"},
    "electra": {**_ENCODER, "layout": "bert"},
    "distilbert": {**_ENCODER, "layout": "distilbert"},
    "mpnet": {**_ENCODER, "layout": "mpnet", "fused_attention": False, "recomputes": False},
    "xlm-roberta-xl": {**_ENCODER, "layout": "bert", "final_norm": True, "embedding_norm": False},
    "esm": {**_ENCODER, "layout": "bert", "final_norm": True, "embedding_norm": False, "dropout": 0.0},
    "deberta": {**_ENCODER, "layout": "deberta_v1", "qkv_bias": False, "fused_attention": False},
    "deberta-v2": {**_ENCODER, "layout": "deberta", "fused_attention": False},
    "modernbert": {
        "kind": "encoder", "layout": "modernbert", "norm": "layer_no_bias", "tied_embeddings": True,
        "embedding_norm": True,
    },
    "t5": _T5,
    "mt5": {**_T5, "tied_embeddings": False},
    "umt5": {**_T5, "tied_embeddings": False},
    "bart": {**_BART, "final_norm": False, "embedding_norm": True},
    "mbart": {**_BART, "embedding_norm": True},
    "pegasus": _BART,
    "marian": {**_BART, "final_norm": False},
    "m2m_100": _BART,
}  # fmt: skip

# Names that differ between families; the first one present counts.
NAMES: dict[str, tuple[str, ...]] = {
    "hidden": ("hidden_size", "n_embd", "d_model", "dim"),
    "layers": ("encoder_layers", "num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("encoder_attention_heads", "num_attention_heads", "n_head", "n_heads", "num_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads"),
    "intermediate": (
        "encoder_ffn_dim",
        "intermediate_size",
        "ffn_dim",
        "n_inner",
        "d_ff",
        "ffn_hidden_size",
        "hidden_dim",
    ),
    "vocab": ("vocab_size",),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
    "experts_per_token": ("num_experts_per_tok", "num_experts_per_token", "moe_k", "top_k_experts"),
}

#: Text towers that are blocks of another family, by their own name or that of the whole.
TEXT_TOWERS = {
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
    "glm4v_moe_text": "glm4_moe",
    "ministral3": "mistral",
}
#: What the published configuration of a text tower leaves to its family's defaults in transformers.
TEXT_DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262_208,
    },
}
