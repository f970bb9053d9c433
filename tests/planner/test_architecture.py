"""Finding a model and reading its config."""

import json

import pytest

from planner.architecture import Adapter, adapter_targets, known_models, load_architecture, parameter_counts
from planner.architecture.hf_config import read_config
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
