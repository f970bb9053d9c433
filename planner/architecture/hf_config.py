"""A Hugging Face config.json as a `ModelArchitecture`, without transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.architecture.families import FAMILIES, NAMES, TEXT_DEFAULTS, TEXT_TOWERS
from planner.architecture.model import ModelArchitecture
from providers.errors import UsageError

Config = Mapping[str, Any]
_REQUIRED = ("hidden", "layers", "heads", "vocab")


def read_config(config: Config, model_id: str, source: str) -> ModelArchitecture:
    """Translate a config's fields; those of a text tower where there are several towers.

    Args:
        config: The parsed config.json.
        model_id: Name to show.
        source: Where it was read.

    Raises:
        UsageError: If fields that decide the parameter count are missing.
    """
    published, config = _text_tower(config)
    family = str(config.get("model_type", ""))
    facts: dict[str, Any] = {"kind": "decoder", "layout": "llama", **FAMILIES.get(family, {})}
    if family not in FAMILIES:
        source = f"{source}; family {family or 'unnamed'!r} is not known, read as a Llama block"
    facts |= _shapes(config, model_id)
    facts |= _switches(config, facts)
    if facts.get("experts"):
        facts |= _experts(config, facts)
    if config.get("kv_lora_rank"):
        facts |= {n: int(config.get(n) or 0) for n in _LATENT}
    if config.get("linear_num_value_heads"):
        facts |= _linear_attention(config, facts)
    facts |= _family_rules(family, config, facts)
    facts["extra_parameters"] = int(config.get("extra_parameters", 0)) + facts.get("extra_parameters", 0)
    return ModelArchitecture(id=model_id, model_type=family, published_type=published, source=source, **facts)


_LATENT = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")


def _linear_attention(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    """Gated delta rules between the blocks that attend, as `layer_types` or an interval says."""
    kinds = config.get("layer_types")
    layers = facts["layers"]
    if isinstance(kinds, list):
        linear = sum(kind == "linear_attention" for kind in kinds)
    else:
        linear = layers - layers // int(config.get("full_attention_interval") or 4)
    heads, keys = int(config["linear_num_value_heads"]), int(config.get("linear_num_key_heads") or 16)
    return {
        "linear_layers": linear,
        "linear_key_width": keys * int(config.get("linear_key_head_dim") or 128),
        "linear_value_width": heads * int(config.get("linear_value_head_dim") or 128),
        "linear_value_heads": heads,
        "linear_kernel": int(config.get("linear_conv_kernel_dim") or 4),
    }


def _text_tower(config: Config) -> tuple[str, Config]:
    """Family of the whole where it reads more than text, else nothing; the fields of what reads and writes text.

    Some lie in a configuration of their own, those of Qwen2-VL beside the others.
    """
    outer = str(config.get("model_type", ""))
    inner = config.get("text_config") or config.get("llm_config")
    if isinstance(inner, Mapping):
        shared = {k: v for k, v in config.items() if k == "tie_word_embeddings"}
        family = str(inner.get("model_type") or outer)
        own = {**TEXT_DEFAULTS.get(family, {}), **shared, **inner}
        return outer, {**own, "model_type": TEXT_TOWERS.get(family, family)}
    if outer in TEXT_TOWERS:
        return outer if "vision_config" in config else "", {**config, "model_type": TEXT_TOWERS[outer]}
    return str(config.get("published_type", "")), config


def _number(config: Config, field: str) -> int | None:
    for name in NAMES[field]:
        value = config.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return int(value)
    return None


def _shapes(config: Config, model_id: str) -> dict[str, Any]:
    values = {field: _number(config, field) for field in NAMES}
    missing = [NAMES[field][0] for field in _REQUIRED if values[field] is None]
    if missing:
        raise UsageError(
            f"the configuration of {model_id} lacks {', '.join(missing)}",
            hint="Give the complete config.json of Hugging Face, or the id of a model.",
            code="incomplete_model_config",
            path="model.id",
        )
    hidden, heads = values["hidden"] or 0, values["heads"] or 1
    head_dim = config.get("head_dim") or config.get("d_kv") or hidden // heads
    return {
        "hidden": hidden, "layers": values["layers"], "heads": heads, "kv_heads": values["kv_heads"] or heads,
        "head_dim": int(head_dim), "intermediate": values["intermediate"] or 4 * hidden,
        "vocab": values["vocab"], "context_tokens": _first(config, "max_position_embeddings", "n_positions"),
        "experts": values["experts"] or 0, "experts_per_token": values["experts_per_token"] or 0,
    }  # fmt: skip


def _switches(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    """Booleans that a config may set against its family's default."""
    out: dict[str, Any] = {}
    if isinstance(config.get("tie_word_embeddings"), bool):
        out["tied_embeddings"] = config["tie_word_embeddings"]
    if isinstance(config.get("mlp_bias"), bool):
        out["mlp_bias"] = config["mlp_bias"]
    if isinstance(config.get("attention_bias"), bool) and facts["layout"] == "llama":
        out |= {"qkv_bias": config["attention_bias"], "out_bias": config["attention_bias"]}
    if isinstance(config.get("use_qkv_bias"), bool):
        out["qkv_bias"] = config["use_qkv_bias"]
    window = config.get("sliding_window")
    if isinstance(window, int) and window > 0 and config.get("use_sliding_window", True):
        out["sliding_window"] = window
    return out


def _experts(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    width = config.get("moe_intermediate_size") or facts["intermediate"]
    shared = config.get("shared_expert_intermediate_size") or config.get("shared_intermediate_size") or 0
    return {
        "moe_intermediate": int(width),
        "shared_intermediate": int(
            shared or width * (_first(config, "n_shared_experts", "moe_num_shared_experts"))
        ),
        "dense_layers": _first(config, "first_k_dense_replace", "moe_layer_start_index"),
    }


def _first(config: Config, *names: str) -> int:
    """The first of these fields that is there, 0 if none is."""
    return next((int(config[name]) for name in names if config.get(name)), 0)


def _family_rules(family: str, config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    """What a table of constants cannot say."""
    rule = _RULES.get(family)
    return rule(config, facts) if rule else {}


def _seed_oss(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "qkv_bias": bool(config.get("attention_bias", True)),
        "out_bias": bool(config.get("attention_out_bias")),
    }


def _biased_qkv(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    return {"qkv_bias": bool(config.get("attention_bias", True)), "out_bias": False}


def _gpt_oss(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    return {"qkv_bias": True, "out_bias": True, "extra_per_layer": facts["heads"]}


def _llama4(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    """Every step-th block routes; dense blocks and experts have widths of their own."""
    step, width = int(config.get("interleave_moe_layer_step") or 1), facts["intermediate"]
    return {
        "moe_intermediate": width, "shared_intermediate": width,
        "dense_layers": facts["layers"] - facts["layers"] // step,
        "intermediate": int(config.get("intermediate_size_mlp") or width),
    }  # fmt: skip


def _glm4_moe(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    biased = bool(config.get("attention_bias"))
    return {"qk_norm": "head" if config.get("use_qk_norm") else "none", "qkv_bias": biased, "out_bias": False}


def _ernie4_5_moe(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    # a correction of each expert's score is a parameter here, where others keep a buffer
    return {"extra_parameters": facts["experts"] * (facts["layers"] - facts["dense_layers"])}


def _gemma4(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    """Every sixth block, or those listed, sees all tokens; routed experts stand beside a dense MLP in every block."""
    kinds, layers = config.get("layer_types"), facts["layers"]
    shared_keys = bool(config.get("attention_k_eq_v"))
    told = config.get("per_layer_config")  # as transformers saves what it read as global_head_dim
    own: Config = next(iter(told.values()), {}) if isinstance(told, Mapping) else {}
    own_heads = config.get("num_global_key_value_heads") if shared_keys else None
    found = {
        "wide_layers": kinds.count("full_attention") if isinstance(kinds, list) else -(-layers // 6),
        "wide_head_dim": int(own.get("head_dim") or config.get("global_head_dim") or 512),
        "wide_kv_heads": int(own.get("num_key_value_heads") or own_heads or facts["kv_heads"]),
        "wide_keys_are_values": shared_keys,
    }
    if not config.get("enable_moe_block"):
        return {**found, "experts": 0}
    return {
        **found,
        "norms_per_layer": 7,
        "shared_intermediate": facts["intermediate"],
        "extra_per_layer": facts["hidden"]
        + facts["experts"],  # scales of the router's input and of its experts
    }


def _learned_positions(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    rows = config.get("n_positions") or config.get("max_position_embeddings") or 1024
    return {"position_rows": int(rows)}


def _bigcode(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    kv_heads = 1 if config.get("multi_query", True) else facts["heads"]
    return {**_learned_positions(config, facts), "kv_heads": kv_heads}


def _opt(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    width = int(config.get("word_embed_proj_dim") or facts["hidden"])
    return {
        "position_rows": int(config.get("max_position_embeddings") or 2048) + 2,
        "embedding_width": width if width != facts["hidden"] else 0,
        "final_norm": bool(config.get("do_layer_norm_before", True)),
    }


def _falcon(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    new = bool(config.get("new_decoder_architecture"))
    parallel = bool(config.get("parallel_attn", True))
    one_key = bool(config.get("multi_query", True)) and not new
    biased = bool(config.get("bias"))
    return {
        "kv_heads": 1 if one_key else facts["kv_heads"],
        "fused_attention": not one_key,  # torch's fused kernels want a key for each query, which it does not make
        "norms_per_layer": 1 if parallel and not new else 2,
        **dict.fromkeys(("qkv_bias", "out_bias", "mlp_bias"), biased),
    }


def _cohere(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    return {"qk_norm": "full"} if config.get("use_qk_norm") else {}


def _mpt(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    width = round(facts["hidden"] * (config.get("expansion_ratio") or 4))
    return {"intermediate": width, "position_rows": int(config.get("learned_position_rows") or 0)}


def _encoder(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    rows = int(config.get("max_position_embeddings") or 512)
    types = config.get("type_vocab_size")
    return {"position_rows": rows, "token_types": 2 if types is None else int(types)}


def _distilbert(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    return {"position_rows": int(config.get("max_position_embeddings") or 512), "token_types": 0}


def _deberta(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    rows = _encoder(config, facts)["position_rows"] if config.get("position_biased_input", True) else 0
    table = 0
    if config.get("relative_attention"):
        buckets = config.get("position_buckets") or config.get("max_relative_positions") or 512
        table = 2 * int(buckets) * facts["hidden"]
        if "layer_norm" in str(config.get("norm_rel_ebd", "none")):
            table += 2 * facts["hidden"]
    types = int(config.get("type_vocab_size") or 0)
    return {"position_rows": rows, "token_types": types, "relative_positions": table}


def _deberta_v1(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    """Biases of queries and values alone, and a projection of the relative positions, which sees no tokens, for each
    way that they meet queries and keys.
    """
    h, ways = facts["hidden"], config.get("pos_att_type") or ()
    return {
        **_deberta(config, facts),
        "extra_per_layer": 2 * h + h * h * ("c2p" in ways) + (h * h + h) * ("p2c" in ways),
    }


def _electra(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    """All three embeddings and their norm have a width of their own, then there is one projection, with a bias."""
    found, h = _encoder(config, facts), facts["hidden"]
    width = int(config.get("embedding_size") or h)
    if width == h:
        return found
    rows = found["position_rows"] + found["token_types"]
    extra = (rows + 2) * (width - h) - width * h + h
    return {**found, "embedding_width": width, "extra_parameters": extra}


def _mpnet(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    buckets = int(config.get("relative_attention_num_buckets") or 32)
    rows = int(config.get("max_position_embeddings") or 512)
    return {"position_rows": rows, "relative_positions": buckets * facts["heads"]}


def _esm(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    """Learned positions or rotary ones; every model has a regression of contacts on its attention maps."""
    learned = config.get("position_embedding_type", "absolute") == "absolute"
    return {
        "position_rows": int(config.get("max_position_embeddings") or 1026) if learned else 0,
        "embedding_norm": bool(config.get("emb_layer_norm_before")),
        "extra_parameters": facts["layers"] * facts["heads"] + 1,
    }


def _modernbert(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    # The first block has no attention norm.
    return {"extra_parameters": -facts["hidden"]}


def _t5(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    gated = "gated" in str(
        config.get("feed_forward_proj", "relu" if config["model_type"] == "t5" else "gated-gelu")
    )
    buckets = int(config.get("relative_attention_num_buckets") or 32)
    return {
        "decoder_layers": int(config.get("num_decoder_layers") or facts["layers"]),
        "mlp_matrices": 3 if gated else 2,
        "layout": "t5" if gated else "t5_v1",
        "relative_positions": 2 * buckets * facts["heads"],
    }


def _decoder_blocks(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    return {"decoder_layers": int(config.get("decoder_layers") or facts["layers"])}


def _bart(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    """Learned positions of each stack, two rows more than tokens."""
    rows = 2 * (int(config.get("max_position_embeddings") or 1024) + 2)
    return {**_decoder_blocks(config, facts), "position_rows": rows}


def _pegasus(config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    """Sinusoids of each stack, which are parameters that no training changes."""
    rows = 2 * int(config.get("max_position_embeddings") or 1024)
    return {
        **_decoder_blocks(config, facts),
        "position_rows": rows,
        "idle_parameters": rows * facts["hidden"],
    }


_RULES = {
    "seed_oss": _seed_oss, "glm": _biased_qkv, "glm4": _biased_qkv, "gpt_oss": _gpt_oss,
    "llama4_text": _llama4, "gemma4_text": _gemma4, "glm4_moe": _glm4_moe, "ernie4_5_moe": _ernie4_5_moe,
    "gpt2": _learned_positions, "gpt_neo": _learned_positions, "gpt_bigcode": _bigcode, "opt": _opt,
    "falcon": _falcon, "cohere": _cohere, "mpt": _mpt, "bert": _encoder, "roberta": _encoder, "xlm-roberta": _encoder,
    "camembert": _encoder, "electra": _electra, "distilbert": _distilbert, "deberta-v2": _deberta,
    "deberta": _deberta_v1, "mpnet": _mpnet, "xlm-roberta-xl": _encoder, "esm": _esm, "modernbert": _modernbert,
    "t5": _t5, "mt5": _t5, "umt5": _t5, "bart": _bart, "mbart": _bart, "pegasus": _pegasus, "marian": _pegasus,
    "m2m_100": _decoder_blocks,
}  # fmt: skip
