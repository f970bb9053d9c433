"""Counts parameters of models that transformers builds on the meta device; run as a script, prints JSON.

Its input is the registry's own facts, so that what is shipped is what is compared.
"""

import json
import sys
import warnings

warnings.simplefilter("ignore")

_GPT2_NAMES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
}
_RENAMED = {
    "gpt2": _GPT2_NAMES,
    "gptj": _GPT2_NAMES,
    "gpt_bigcode": _GPT2_NAMES,
    "bloom": {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
    "gpt_neo": {"num_hidden_layers": "num_layers", "num_attention_heads": "num_heads"},
    "opt": {"intermediate_size": "ffn_dim"},
    "distilbert": {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
    },
    "mpt": {"hidden_size": "d_model", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"},
    "falcon": {"num_key_value_heads": "num_kv_heads"},
    "granitemoe": {"moe_intermediate_size": "intermediate_size"},
}
# What a real config.json also holds, and what the counts do not depend on.
_FURTHER = {
    "deberta-v2": {"pos_att_type": ["p2c", "c2p"], "share_att_key": True},
    "phi3": {"pad_token_id": 0},
    "modernbert": {"pad_token_id": 0},
    "deepseek_v2": {"q_lora_rank": None},
    "esm": {"mask_token_id": 32},
}


def config_of(facts):
    from transformers import AutoConfig

    fields = {
        k: v for k, v in facts.items() if k not in ("source", "extra_parameters", "learned_position_rows")
    }
    family = fields.pop("model_type")
    if family == "granitemoe":
        fields.pop("intermediate_size", None)
    names = _RENAMED.get(family, {})
    fields = {**_FURTHER.get(family, {}), **{names.get(k, k): v for k, v in fields.items()}}
    if family == "gpt_neo":
        fields["attention_types"] = [[["global", "local"], fields["num_layers"] // 2]]
    if family == "bart":
        fields["num_labels"] = 2  # its own default is the three of an entailment task
    if family == "opt":
        fields.setdefault("word_embed_proj_dim", fields["hidden_size"])
        fields.setdefault("ffn_dim", 4 * fields["hidden_size"])
    return AutoConfig.for_model(family, **fields)


def count(facts, task):
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
    )

    encoder = {
        "bert",
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
        "distilbert",
        "deberta",
        "deberta-v2",
        "modernbert",
    }
    encoder |= {"electra", "esm", "mpnet"}
    family = facts["model_type"]
    classes = AutoModelForCausalLM
    if task == "classification":
        classes = AutoModelForSequenceClassification
    elif family in ("t5", "mt5", "bart", "mbart", "pegasus", "marian", "m2m_100"):
        classes = AutoModelForSeq2SeqLM
    elif family in encoder:
        classes = AutoModelForMaskedLM
    with torch.device("meta"):
        model = classes.from_config(config_of(facts))
    return sum(parameter.numel() for parameter in model.parameters())


def adapter_count(facts, targets, rank):
    import torch
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(facts))
        config = LoraConfig(r=rank, target_modules=targets, task_type="CAUSAL_LM", **facts.get("lora", {}))
        model = inject_adapter_in_model(config, model)
    return sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)


def main():
    import transformers

    transformers.logging.set_verbosity_error()
    asked = json.load(sys.stdin)
    counts = [count(facts, task) for facts, task in asked["models"]]
    adapters = [adapter_count(*case) for case in asked["adapters"]]
    json.dump({"models": counts, "adapters": adapters}, sys.stdout)


if __name__ == "__main__":
    main()
