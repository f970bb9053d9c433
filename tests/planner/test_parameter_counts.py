"""Counts from the shipped facts equal those of the models that transformers and PEFT build."""

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from planner.architecture import (
    Adapter,
    adapter_parameters,
    known_models,
    load_architecture,
    parameter_counts,
)

FACTS = json.loads(resources.files("planner").joinpath("data", "models.json").read_text())["models"]
# One or more of every family; decoders and encoders also with a classification head.
MODELS = [
    "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.1-70B", "mistralai/Mistral-7B-v0.1",
    "mistralai/Mixtral-8x7B-Instruct-v0.1", "Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-7B", "Qwen/Qwen3-8B",
    "Qwen/Qwen3-30B-A3B", "Qwen/Qwen1.5-MoE-A2.7B", "google/gemma-7b", "google/gemma-2-9b", "google/gemma-3-1b-pt",
    "microsoft/Phi-3-mini-4k-instruct", "microsoft/phi-2", "tiiuae/falcon-7b", "tiiuae/falcon-40b",
    "EleutherAI/pythia-6.9b", "facebook/opt-6.7b", "bigscience/bloom-7b1", "gpt2", "EleutherAI/gpt-j-6b",
    "EleutherAI/gpt-neo-1.3B", "bigcode/gpt_bigcode-santacoder", "mosaicml/mpt-7b-hf", "roberta-base",
    "roberta-large", "bert-base-uncased", "distilbert-base-uncased", "microsoft/deberta-v3-base",
    "answerdotai/ModernBERT-base", "openai/gpt-oss-20b", "allenai/OLMo-2-0425-1B", "allenai/Olmo-3-7B-Instruct-SFT",
    "ByteDance-Seed/Seed-OSS-36B-Instruct", "HuggingFaceTB/SmolLM3-3B", "bigcode/starcoder2-7b",
    "stabilityai/stablelm-2-1_6b", "ibm-granite/granite-8b-code-base", "deepseek-ai/DeepSeek-V2-Lite",
    "THUDM/glm-4-9b", "facebook/bart-base", "facebook/mbart-large-50", "facebook/esm2_t6_8M_UR50D",
    "microsoft/deberta-base", "google/electra-small-discriminator", "sentence-transformers/all-mpnet-base-v2",
    "facebook/xlm-roberta-xl", "microsoft/mdeberta-v3-base", "cointegrated/rubert-tiny2", "vinai/bertweet-base",
]  # fmt: skip
NO_CLASSIFIER = {
    "ibm/PowerLM-3b", "ibm-granite/granite-3.0-3b-a800m-instruct", "swiss-ai/Apertus-8B-Instruct-2509",
    "CohereForAI/c4ai-command-r-v01", "allenai/OLMoE-1B-7B-0924", "meta-llama/Llama-4-Scout-17B-16E",
    "microsoft/Phi-3.5-MoE-instruct", "nvidia/Minitron-4B-Base", "CohereForAI/c4ai-command-r7b-12-2024",
    "zai-org/GLM-4-32B-0414", "ibm-granite/granite-4.0-micro", "moonshotai/Moonlight-16B-A3B", "tiiuae/falcon-rw-1b",
    "stabilityai/stablelm-2-12b", "camembert-base", "CohereForAI/c4ai-command-r-plus", "Qwen/Qwen3.5-9B",
    "Qwen/Qwen3-Next-80B-A3B-Instruct", "Qwen/Qwen3.5-35B-A3B", "zai-org/GLM-4.5", "zai-org/GLM-4.7-Flash",
    "MiniMaxAI/MiniMax-M2", "baidu/ERNIE-4.5-21B-A3B-PT", "openbmb/MiniCPM3-4B", "meta-llama/Llama-4-Maverick-17B-128E",
    "google/gemma-4-31B", "google/gemma-4-26B-A4B",
    "google/pegasus-xsum", "Helsinki-NLP/opus-mt-en-de", "facebook/nllb-200-distilled-600M",
    "sshleifer/distilbart-cnn-12-6", "Salesforce/codet5-base",
    "LGAI-EXAONE/EXAONE-4.0-32B", "arcee-ai/AFM-4.5B", "baidu/ERNIE-4.5-0.3B-PT", "tencent/Hunyuan-7B-Instruct",
}  # fmt: skip
ONLY_LM = sorted(NO_CLASSIFIER | {"deepseek-ai/DeepSeek-V3", "t5-base", "facebook/opt-350m"})
CASES = [(name, task) for name in MODELS for task in ("sft", "classification")] + [
    (n, "sft") for n in ONLY_LM
]
ADAPTERS = [
    ("meta-llama/Llama-3.2-1B", ("q_proj", "v_proj"), 8),
    ("meta-llama/Llama-3.2-1B", ("all-linear",), 16),
    ("Qwen/Qwen2.5-0.5B", ("q_proj", "k_proj", "v_proj", "o_proj"), 4),
    ("google/gemma-3-1b-pt", ("all-linear",), 8),
    ("microsoft/Phi-3-mini-4k-instruct", ("qkv_proj", "o_proj"), 8),
    ("EleutherAI/pythia-160m", ("query_key_value",), 8),
    ("EleutherAI/pythia-160m", ("dense",), 8),
    ("facebook/opt-125m", ("all-linear",), 8),
    ("gpt2", ("c_attn",), 8),
    ("gpt2", ("c_proj",), 8),
    ("mistralai/Mixtral-8x7B-Instruct-v0.1", ("q_proj", "v_proj"), 8),
]
CONV1D = {"gpt2"}


@pytest.fixture(scope="session")
def built():
    """What transformers and PEFT count, from one process so that torch is imported once."""
    adapters = []
    for name, targets, rank in ADAPTERS:
        facts = {**FACTS[name], "lora": {"fan_in_fan_out": True}} if name in CONV1D else FACTS[name]
        adapters.append((facts, targets[0] if targets == ("all-linear",) else list(targets), rank))
    asked = {"models": [(FACTS[name], task) for name, task in CASES], "adapters": adapters}
    script = Path(__file__).with_name("meta_counts.py")
    done = subprocess.run(
        [sys.executable, str(script)], input=json.dumps(asked), capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout[done.stdout.index('{"models"') :])


@pytest.mark.parametrize("index", range(len(CASES)), ids=[f"{name}-{task}" for name, task in CASES])
def test_counts_equal_transformers(built, index):
    name, task = CASES[index]
    towers = FACTS[name].get("extra_parameters", 0)  # of which transformers is told nothing here
    assert parameter_counts(load_architecture(name), task).total == built["models"][index] + towers


@pytest.mark.parametrize("index", range(len(ADAPTERS)), ids=[f"{n}-{'+'.join(t)}" for n, t, _ in ADAPTERS])
def test_adapters_equal_peft(built, index):
    name, targets, rank = ADAPTERS[index]
    assert (
        adapter_parameters(load_architecture(name), Adapter("lora", rank, targets))
        == built["adapters"][index]
    )


def test_every_family_is_covered():
    families = {load_architecture(name).model_type for name in known_models()}
    compared = {load_architecture(name).model_type for name in [*MODELS, *ONLY_LM]}
    # Families whose code is not in transformers have nothing to be compared with; mt5 is t5 with other defaults.
    own_code = {"qwen", "mimo", "stablelm_alpha", "minicpm"}
    assert families - compared <= own_code | {"mt5", "xlm-roberta"}


def test_published_totals():
    published = {
        "meta-llama/Llama-3.1-405B": 405.853, "Qwen/Qwen3-235B-A22B": 235.094, "google/flan-t5-xxl": 11.135,
        "bigscience/mt0-xxl": 12.921, "openai/gpt-oss-120b": 116.829, "Qwen/Qwen-72B": 72.288, "01-ai/Yi-34B": 34.389,
    }  # fmt: skip
    for name, billions in published.items():
        assert parameter_counts(load_architecture(name)).total / 1e9 == pytest.approx(billions, rel=5e-4), (
            name
        )


def test_published_totals_of_encoders_without_their_heads():
    """As keras-hub's presets state them, which have BERT's and ELECTRA's pooler too, and none of ESM's contacts."""
    published = {
        "distilbert-base-multilingual-cased": 134_734_080, "microsoft/mdeberta-v3-base": 278_218_752,
        "prajjwal1/bert-small": 28_763_648, "prajjwal1/bert-medium": 41_373_184,
        "intfloat/multilingual-e5-small": 117_653_760, "BAAI/bge-small-zh-v1.5": 23_953_920,
        "hfl/chinese-roberta-wwm-ext-large": 325_522_432, "google/electra-small-discriminator": 13_548_800,
        "google/electra-base-generator": 33_576_960, "google/electra-large-generator": 51_065_344,
        "facebook/esm2_t6_8M_UR50D": 7_408_960, "facebook/esm2_t12_35M_UR50D": 33_269_280,
        "facebook/esm2_t30_150M_UR50D": 147_728_000, "facebook/esm2_t33_650M_UR50D": 649_400_320,
    }  # fmt: skip
    for name, parameters in published.items():
        arch = load_architecture(name)
        counts = parameter_counts(arch)
        pooler = arch.hidden * (arch.hidden + 1) if arch.model_type in ("bert", "electra") else 0
        contacts = arch.layers * arch.heads + 1 if arch.model_type == "esm" else 0
        assert counts.total - counts.head + pooler - contacts == parameters, name


def test_published_sizes():
    """In millions, as their cards, papers and names have them."""
    published = {
        "facebook/bart-base": 139.4, "facebook/bart-large": 406.3, "sshleifer/distilbart-cnn-12-6": 306,
        "facebook/mbart-large-50": 610, "google/pegasus-xsum": 568, "Helsinki-NLP/opus-mt-en-de": 74,
        "facebook/nllb-200-distilled-600M": 600, "facebook/nllb-200-1.3B": 1_300, "facebook/nllb-200-3.3B": 3_300,
        "Salesforce/codet5-base": 220, "Salesforce/codet5p-770m": 770, "google/byt5-base": 582,
        "microsoft/deberta-base": 140, "microsoft/deberta-large": 400, "facebook/xlm-roberta-xl": 3_500,
        "facebook/esm2_t36_3B_UR50D": 2_840, "google-bert/bert-base-multilingual-uncased": 168,
        "almanach/camembert-large": 335, "allenai/scibert_scivocab_uncased": 110, "deepset/gbert-large": 335,
        "neuralmind/bert-large-portuguese-cased": 335, "vinai/bertweet-base": 135, "vinai/phobert-large": 370,
        "jhu-clsp/mmBERT-small": 140, "EleutherAI/pythia-14m": 14, "EleutherAI/pythia-31m": 31, "distilgpt2": 82,
        "BSC-LT/salamandra-2b": 2_253, "keeeeenw/MicroLlama": 305, "01-ai/Yi-Coder-1.5B": 1_480,
        "ibm-granite/granite-3b-code-base": 3_480, "nvidia/Llama-3.1-Minitron-4B-Width-Base": 4_515,
        "teknium/OpenHermes-2.5-Mistral-7B": 7_242, "codellama/CodeLlama-7b-Python-hf": 6_738,
    }  # fmt: skip
    for name, millions in published.items():
        total = parameter_counts(load_architecture(name)).total / 1e6
        assert total == pytest.approx(millions, rel=0.06), name


def test_active_parameters_of_experts():
    mixtral = parameter_counts(load_architecture("mistralai/Mixtral-8x7B-v0.1"))
    assert mixtral.active / 1e9 == pytest.approx(12.879, rel=1e-3)
    assert mixtral.total / 1e9 == pytest.approx(46.703, rel=1e-4)
