"""Finding a model and reading its config."""

import json

import pytest

from planner.architecture import Adapter, adapter_targets, known_models, load_architecture, parameter_counts
from planner.architecture.hf_config import read_config
from planner.architecture.registry import _MODELS, model_config
from planner.positions import most_tokens
from providers.errors import UsageError

LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip


@pytest.mark.parametrize("name", known_models())
def test_every_model_of_the_registry_loads(name):
    arch = load_architecture(name)
    counts = parameter_counts(arch)
    assert arch.id == name
    assert arch.source
    assert 0 < counts.active <= counts.total
    assert counts.total == counts.linear + counts.embedding + counts.head + counts.other


def test_names_in_any_case_and_without_organisation():
    assert load_architecture("LLAMA-3.1-8b").id == "meta-llama/Llama-3.1-8B"
    assert load_architecture("meta-llama/Llama-3.1-8B-Instruct").id == "meta-llama/Llama-3.1-8B"
    assert load_architecture("roberta-base", revision="abc").revision == "abc"


def test_unknown_model_gets_a_suggestion():
    with pytest.raises(UsageError) as caught:
        load_architecture("meta-llama/Lama-3.1-8B")
    assert "did you mean meta-llama/Llama-3.1-8B" in str(caught.value.hint)
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError) as caught:
        load_architecture("meta-llama/Llama-3.1-8B-Instrcut")
    assert "did you mean meta-llama/Llama-3.1-8B-Instruct?" in str(caught.value.hint)


def test_local_directory_and_file(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(LLAMA))
    for name in ("model", "./model", "model/config.json"):
        arch = load_architecture(name, tmp_path)
        assert parameter_counts(arch).total == 8030261248
        assert arch.source.endswith("config.json")


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", "[" * 100_000, "\x00", '{"hidden_size": 8}'])
def test_broken_configs_are_one_clear_error(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError):
        load_architecture(str(tmp_path))


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match="there is no"):
        load_architecture("./nothing", tmp_path)


def test_lacking_fields_are_named():
    with pytest.raises(UsageError, match="vocab_size"):
        read_config({"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}, "mine", "test")


def test_text_tower_of_a_vision_model():
    arch = read_config({"model_type": "mllama", "text_config": LLAMA, "vision_config": {}}, "mine", "test")
    assert parameter_counts(arch).total == 8030261248


def test_an_unknown_family_is_said_to_be_guessed():
    arch = read_config({**LLAMA, "model_type": "brand_new"}, "mine", "test")
    assert "brand_new" in arch.source
    assert "Llama" in arch.source


def test_short_target_names_mean_the_familys_own():
    neox = load_architecture("EleutherAI/pythia-160m")
    assert {s.name for s in adapter_targets(neox, Adapter("lora", 8, ("q", "v")))} == {"query_key_value"}
    assert adapter_targets(neox, Adapter("lora", 8, ("index",))) == ()


def test_adapters_never_sit_on_routers_or_fused_experts():
    moe = load_architecture("Qwen/Qwen3-30B-A3B")
    assert {s.role for s in adapter_targets(moe, Adapter("lora", 8, ("all-linear",)))} == {"attention"}


@pytest.mark.parametrize(
    ("mirror", "known"),
    [
        ("unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit", "meta-llama/Llama-3.1-8B"),
        ("unsloth/Qwen3-8B-unsloth-bnb-4bit", "Qwen/Qwen3-8B"),
        ("NousResearch/Llama-3.2-1B", "meta-llama/Llama-3.2-1B"),
        ("meta-llama/Meta-Llama-3.1-70B", "meta-llama/Llama-3.1-70B"),
    ],
)
def test_what_others_publish_again_is_known(mirror: str, known: str) -> None:
    assert load_architecture(mirror).id == known


@pytest.mark.parametrize(
    ("name", "known", "vocab", "context"),
    [
        ("microsoft/Phi-3-mini-128k-instruct", "microsoft/Phi-3-mini-128k-instruct", 32064, 131072),
        ("Qwen/Qwen2.5-Math-7B-Instruct", "Qwen/Qwen2.5-Math-7B", 152064, 4096),
        ("Qwen/Qwen3-4B-Thinking-2507", "Qwen/Qwen3-4B-Instruct-2507", 151936, 262144),
        ("codellama/CodeLlama-7b-Python-hf", "codellama/CodeLlama-7b-Python-hf", 32000, 16384),
        ("codellama/CodeLlama-7b-Instruct-hf", "codellama/CodeLlama-7b-hf", 32016, 16384),
        ("allenai/scibert_scivocab_uncased", "allenai/scibert_scivocab_uncased", 31090, 512),
        ("dbmdz/bert-base-german-cased", "deepset/gbert-base", 31102, 512),
    ],
)
def test_a_model_like_another_has_its_own_vocabulary_and_length(name, known, vocab, context):
    arch = load_architecture(name)
    assert (arch.id, arch.vocab, arch.context_tokens) == (known, vocab, context)


def test_every_entry_and_alias_leads_to_facts_of_its_own():
    registry = json.loads(_MODELS.read_text(encoding="utf-8"))
    assert not set(registry["aliases"]) & set(registry["models"])
    assert set(registry["aliases"].values()) <= set(registry["models"])
    for name, facts in registry["models"].items():
        assert facts["source"], name
        assert "like" not in registry["models"].get(facts.get("like", ""), {}), name
        assert "like" not in model_config(name)


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("biobert", "bert-base-cased"), ("PubMedBERT", "bert-base-uncased"), ("ProsusAI/finbert", "bert-base-uncased"),
        ("bert-base-multilingual-uncased", "google-bert/bert-base-multilingual-uncased"),
        ("deepset/gbert-base", "deepset/gbert-base"), ("DeepPavlov/rubert-base-cased", "bert-base-multilingual-cased"),
        ("thenlper/gte-small", "microsoft/MiniLM-L12-H384-uncased"), ("bart-large-cnn", "facebook/bart-large-cnn"),
        ("facebook/nllb-200-distilled-1.3B", "facebook/nllb-200-1.3B"), ("esm2-650m", "facebook/esm2_t33_650M_UR50D"),
        ("Qwen/Qwen2-7B-Instruct", "Qwen/Qwen2-7B"), ("Qwen/Qwen3-8B-Base", "Qwen/Qwen3-8B"),
        ("deepseek-ai/deepseek-coder-6.7b-instruct", "deepseek-ai/deepseek-coder-6.7b-base"),
        ("openhermes", "teknium/OpenHermes-2.5-Mistral-7B"), ("01-ai/Yi-34B-Chat", "01-ai/Yi-34B"),
        ("EleutherAI/pythia-1.4b-deduped", "EleutherAI/pythia-1.4b"),
        ("HuggingFaceTB/SmolLM-135M-Instruct", "HuggingFaceTB/SmolLM2-135M"),
    ],
)  # fmt: skip
def test_names_that_people_write(written, known):
    assert load_architecture(written).id == known


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("bart-largee", "facebook/bart-large"), ("Qwen3-8B-Bse", "Qwen/Qwen3-8B"),
        ("facebook/nllb-200-distiled-600M", "facebook/nllb-200-distilled-600M"),
        ("microsoft/deberta-v3-bas", "microsoft/deberta-v3-base"), ("mistral-7b-v0.4", "mistralai/Mistral-7B-v0"),
    ],
)  # fmt: skip
def test_near_misses_lead_to_what_was_meant(wrong, meant):
    with pytest.raises(UsageError) as caught:
        load_architecture(wrong)
    assert f"did you mean {meant}" in str(caught.value.hint)


def test_positions_of_two_stacks_are_those_of_one():
    assert most_tokens(load_architecture("facebook/bart-base")) == 1024
    assert most_tokens(load_architecture("google/pegasus-xsum")) == 512
    assert most_tokens(load_architecture("vinai/bertweet-base")) == 128
    assert most_tokens(load_architecture("facebook/nllb-200-3.3B")) is None


@pytest.mark.parametrize("own", ["NousResearch/Hermes-9", "somebody/Llama-3.2-1B", "unsloth/", "unsloth"])
def test_a_name_alone_is_not_taken_for_a_model(own: str) -> None:
    with pytest.raises(UsageError, match="not known"):
        load_architecture(own)


def test_families_whose_scores_are_written_out():
    fused = {
        name: load_architecture(name).fused_attention
        for name in ("gpt2", "bert-base-uncased", "roberta-base")
    }
    unfused = {
        name: load_architecture(name).fused_attention
        for name in ("microsoft/deberta-v3-base", "bigscience/bloom-7b1", "EleutherAI/gpt-j-6b")
    }
    assert all(fused.values())
    assert not any(unfused.values())
