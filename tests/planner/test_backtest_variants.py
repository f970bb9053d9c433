"""Plausible rows that no table here holds: stacks, machines, models and spellings of sources not yet seen.

Nothing crashes, nearly all are answered, and the answers are sane; what cannot be expressed says why.
"""

import itertools
import math
import random

import pytest

from planner.backtest import COLUMNS, UnsupportedRunError, estimate_run, predict
from planner.backtest.models import architecture_of
from planner.backtest.rows import read_run
from planner.stacks import stack_of

MODELS = {
    "Qwen/Qwen2.5-7B-Instruct": 7.6, "unsloth/Qwen3-14B-unsloth-bnb-4bit": 14.8, "Qwen/Qwen3-8B-Base": 8.2,
    "google/gemma-2-9b-it": 9.2, "unsloth/gemma-3-4b-it": 4.3, "google/gemma-3-27b-pt": 27.0,
    "microsoft/Phi-3-mini-128k-instruct": 3.8, "microsoft/phi-4": 14.7, "mistralai/Mistral-7B-Instruct-v0.3": 7.2,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": 14.8, "deepseek-ai/DeepSeek-V2-Lite": 15.7,
    "openai/gpt-oss-20b": 20.9, "meta-llama/Llama-3.1-405B": 405.0, "NousResearch/Hermes-3-Llama-3.1-8B": 8.0,
    "meta-llama/Llama-3.2-1B-Instruct": 1.2, "meta-llama/Llama-4-Scout-17B-16E": 108.0, "Llama-2-7B": 6.7,
    "Qwen/Qwen3-30B-A3B": 30.5, "tiiuae/falcon-40b": 41.0, "EleutherAI/gpt-j-6b": 6.1, "facebook/opt-13b": 12.9,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1.1, "bert-large-uncased": 0.34, "roberta-large": 0.36,
    "google/flan-t5-xl": 2.85, "stabilityai/stablelm-base-alpha-3b": 3.6, "Qwen/Qwen-72B": 72.3,
    "unsloth/Meta-Llama-3.1-8B-bnb-4bit": 8.0, "01-ai/Yi-1.5-9B": 8.8,
}  # fmt: skip
STACKS = (
    "unsloth 2025.3", "LLaMA-Factory", "torchtune", "NeMo 2.0", "Megatron-LM", "MosaicML composer", "DeepSpeed",
    "litgpt 0.5", "axolotl 0.12", "torchtitan", "OpenRLHF", "trl GRPOTrainer", "optimum-habana", "ms-swift", "",
    "PyTorch FSDP2", "HF Trainer + liger", "NVIDIA DeepLearningExamples",
)  # fmt: skip
GPUS = {
    "H200": 141, "NVIDIA B200": 180, "B300": 288, "MI325X": 256, "AMD Instinct MI355X": 288, "RTX A6000": 48,
    "TITAN RTX": 24, "Titan Xp": 12, "RTX 2080 Ti": 11, "RTX 5090": 32, "GeForce RTX 4070 Ti SUPER": 16,
    "Gaudi2": 96, "Intel Gaudi 3": 128, "H100 SXM5 80GB": 80, "A100-SXM4-40GB": 40, "T4 (Colab)": 16,
    "8x H100": 80, "GB200 NVL72": 186, "Quadro RTX 8000": 48, "L40S": 48, "24GB-class GPU": 24, "V100-32GB": 32,
    "GH200": 96, "RTX PRO 6000 Blackwell": 96, "MI250-GCD": 64, "DGX Spark": 128,
}  # fmt: skip
METHODS = (
    "full",
    "lora",
    "qlora",
    "QLoRA (NF4)",
    "dora",
    "rslora",
    "ia3",
    "adapter_v2",
    "lora+",
    "q-lora",
    "",
)
PARALLEL = (
    "", "DDP", "FSDP", "FSDP2 full_shard", "ZeRO-1", "ZeRO-2", "DeepSpeed ZeRO stage 3", "zero_3", "TP4 PP2",
    "TP=2,PP=2,CP=2", "TP8 CP2 EP8", "HSDP", "ZeRO-3 offload", "8-way data parallel",
)  # fmt: skip
PRECISIONS = ("bf16", "fp16", "bf16-mixed", "bf16-true", "fp8", "nvfp4", "fp32", "tf32", "16-true", "amp", "")
OPTIMIZERS = ("adamw_torch", "adamw_8bit", "paged_adamw_32bit", "lion_8bit", "muon", "adafactor", "", "sgd")
ROWS = 1500


def rows(count=ROWS, seed=11):
    chance = random.Random(seed)
    for index in range(count):
        gpu, memory = chance.choice(list(GPUS.items()))
        model, size = chance.choice(list(MODELS.items()))
        yield {
            "id": f"v-{index}", "model": model, "params_b": chance.choice(["", str(size)]),
            "gpu": gpu, "gpu_mem_gb": chance.choice(["", str(memory)]),
            "num_gpus": chance.choice(["1", "2", "4", "8", "16", "64"]), "num_nodes": chance.choice(["", "1"]),
            "method": chance.choice(METHODS), "lora_rank": chance.choice(["", "8", "64"]),
            "quant_bits": chance.choice(["", "", "4", "8"]), "lora_targets": chance.choice(["", "all-linear", "q,v"]),
            "trainable_params_m": chance.choice(["", "20.97", "167.8"]),
            "precision": chance.choice(PRECISIONS), "optimizer": chance.choice(OPTIMIZERS),
            "parallelism": chance.choice(PARALLEL), "framework": chance.choice(STACKS),
            "seq_len": chance.choice(["512", "2048", "8k", "32,768", "4096"]),
            "micro_batch": chance.choice(["1", "2", "8", "32"]), "grad_accum": chance.choice(["", "4"]),
            "global_batch": chance.choice(["", "64"]), "grad_checkpointing": chance.choice(["", "true", "false"]),
            "flash_attn": chance.choice(["", "true", "fa2", "sdpa", "eager", "false"]),
            "packing": chance.choice(["", "true", "false"]), "liger_fused": chance.choice(["", "liger", "cce"]),
            "task": chance.choice(["sft", "sft", "dpo", "grpo", "ppo", "reward", "kto", "qa", "rlhf", ""]),
            "offload": chance.choice(["", "", "cpu", "optimizer", "none"]), "steps": chance.choice(["", "500"]),
            "epochs": chance.choice(["", "3"]), "dataset_tokens": chance.choice(["", "10000000"]),
            "date": chance.choice(["", "2021-06", "2023-08", "2024-12", "2026-02"]),
        }  # fmt: skip


@pytest.fixture(scope="module")
def answers():
    return [(row, predict(row)) for row in rows()]


def test_nearly_all_are_answered(answers):
    """But for those that chance spread over more GPUs than it gave them."""
    refused = [answer["unsupported_reason"] for _, answer in answers if answer["unsupported_reason"]]
    assert len(answers) == ROWS
    possible = [reason for reason in refused if "needs more than" not in reason]
    assert len(possible) <= 0.05 * len(answers), possible[:10]


def test_every_answer_is_sane(answers):
    for row, answer in answers:
        assert tuple(answer) == COLUMNS
        if answer["unsupported_reason"]:
            continue
        sizes = [
            float(answer[name])
            for name in (
                "predicted_allocated_gib",
                "predicted_reserved_gib",
                "predicted_nvml_gib",
                "memory_upper_gib",
            )
        ]
        assert 0 < sizes[0] <= sizes[1] <= sizes[2] <= sizes[3] < math.inf, row
        assert answer["verdict"] in ("fits", "borderline", "oom")
        if answer["predicted_tokens_per_s_total"]:
            rates = [
                float(answer[name])
                for name in ("tokens_per_s_p10", "predicted_tokens_per_s_total", "tokens_per_s_p90")
            ]
            assert 0 < rates[0] < rates[1] < rates[2], row
            assert rates[2] / rates[0] < 40, row


def test_nothing_is_faster_than_its_chips(answers):
    for row, answer in answers:
        if not answer["unsupported_reason"] and answer["predicted_tokens_per_s_total"]:
            step = estimate_run(row).step
            limit = 2.5 if "fp4" in row["precision"] or "fp8" in row["precision"] else 1.0
            assert step.mfu < limit, (row, step.mfu)


def test_a_larger_micro_batch_needs_more_memory(answers):
    for row, answer in itertools.islice(answers, 200):
        if not answer["unsupported_reason"]:
            small, large = (
                float(predict(row | {"micro_batch": size, "grad_accum": "4"})["predicted_allocated_gib"])
                for size in ("2", "4")
            )
            assert large >= 0.999 * small, row


BASE = {
    "id": "x", "model": "meta-llama/Llama-2-70b-hf", "gpu": "H100-80GB", "num_gpus": "8", "method": "lora",
    "precision": "bf16", "seq_len": "8192", "micro_batch": "1", "framework": "NeMo", "grad_checkpointing": "false",
}  # fmt: skip


def setup(**changes):
    return read_run(BASE | changes).setup


def test_context_parallel_ranks_share_a_sequence():
    whole, shared = setup(parallelism="TP4 PP1 CP1"), setup(parallelism="TP4 PP1 CP2")
    assert (whole.parallelism.data, shared.parallelism.data) == (2, 1)
    assert shared.parallelism.gpus_total == 8
    memory = [estimate_run(BASE | {"parallelism": p}).memory.components_bytes["activations"]
              for p in ("TP4 PP1 CP1", "TP4 PP1 CP2")]  # fmt: skip
    assert memory[1] == pytest.approx(memory[0] / 2, rel=0.01)


def test_expert_parallel_ranks_share_the_experts():
    row = BASE | {"model": "mistralai/Mixtral-8x7B-v0.1", "method": "full", "framework": "Megatron-LM"}
    alone, shared = (estimate_run(row | {"parallelism": p}).memory for p in ("TP1 PP1 EP1", "TP1 PP1 EP8"))
    assert shared.components_bytes["weights"] < 0.2 * alone.components_bytes["weights"]
    assert setup(parallelism="TP1 PP1 EP8").parallelism.expert == 1  # a dense model has no experts


def test_lengths_as_people_write_them():
    assert setup(seq_len="32k").sequence_tokens == 32768
    assert setup(seq_len="32,768").sequence_tokens == 32768


def test_the_rank_that_trainable_parameters_imply():
    stated = setup(model="llama-2-7b", lora_targets="q_proj,v_proj", trainable_params_m="4.19")
    assert stated.adapter.rank == 8


@pytest.mark.parametrize(
    ("framework", "targets"),
    [("unsloth", ("all-linear",)), ("LLaMA-Factory", ("all-linear",)), ("HF PEFT", ("q", "v")), ("litgpt", ("q", "v"))],
)  # fmt: skip
def test_modules_that_a_stack_adapts_where_a_row_does_not_say(framework, targets):
    assert setup(framework=framework, lora_targets="").adapter.targets == targets
    assert setup(framework=framework, lora_targets="k_proj").adapter.targets == ("k_proj",)


@pytest.mark.parametrize(
    ("framework", "date", "kept"),
    [
        ("trl", "2024-05", True),
        ("trl", "2024-09", False),
        ("litgpt", "2024-10", True),
        ("unsloth", "2024-05", False),
    ],
)
def test_inputs_of_four_bit_products_were_kept_until_the_library_stopped(framework, date, kept):
    assert setup(method="qlora", framework=framework, date=date).keeps_quantised_inputs is kept
    assert not setup(method="lora", framework=framework, date=date).keeps_quantised_inputs


def test_a_global_batch_and_its_accumulation_imply_the_micro_batch():
    row = {
        "micro_batch": "",
        "global_batch": "64",
        "grad_accum": "2",
        "parallelism": "DDP",
        "framework": "trl",
    }
    assert setup(**row).micro_batch == 4
    with pytest.raises(UnsupportedRunError, match="micro_batch is not stated"):
        setup(micro_batch="", global_batch="64")


def test_nvidias_containers_multiply_fp32_in_tf32():
    kept = {"precision": "fp32", "gpu": "A100-40GB", "date": "2025-07"}
    kinds = [
        setup(**kept, framework=f"HF Trainer{where}").precision for where in (" (NGC PyTorch 24.07)", "")
    ]
    assert kinds == ["tf32", "fp32"]


def test_fp32_was_tf32_for_a_while():
    kept = {"precision": "fp32", "framework": "HF Trainer", "gpu": "A100-40GB"}
    assert [setup(**kept, date=d).precision for d in ("2020-06", "2021-06", "2023-01")] == [
        "fp32",
        "tf32",
        "fp32",
    ]
    assert setup(**kept | {"gpu": "V100-16GB"}, date="2021-06").precision == "fp32"


@pytest.mark.parametrize(
    ("date", "size"), [("2024-06", 14.0), ("2025-06", None), ("2026-08", 0.5), ("", None)]
)
def test_losses_of_trl(date, size):
    assert setup(framework="trl SFTTrainer", date=date).loss_bytes == size


def test_accelerated_is_not_a_fused_loss():
    assert not setup(liger_fused="accelerated-peft-bnb").fused_loss
    assert setup(liger_fused="axolotl cce").fused_loss


def test_what_is_not_stated_widens_the_interval_and_the_upper_bound():
    said = BASE | {"framework": "trl", "packing": "true", "grad_checkpointing": "true", "num_gpus": "1"}
    open_ = said | {"grad_checkpointing": "", "packing": "", "precision": ""}
    told, guessed = estimate_run(said), estimate_run(open_)
    assert guessed.step.spread > 1.05 * told.step.spread
    assert guessed.memory.upper_bytes > told.memory.upper_bytes
    assert "recomputation is not stated" in guessed.step.spread_reason


QLORA_ON_A_T4 = {
    "model": "huggyllama/llama-13b",
    "method": "qlora",
    "quant_bits": "4",
    "precision": "NF4 fp16",
    "gpu": "T4",
    "gpu_mem_gb": "16",
    "num_gpus": "1",
    "seq_len": "1024",
    "micro_batch": "1",
    "grad_checkpointing": "true",
    "framework": "trl SFTTrainer bitsandbytes",
    "date": "2023-05",
}


@pytest.mark.parametrize(
    ("told", "verdict"),
    [({}, "borderline"),
     ({"lora_rank": "64"}, "borderline"),
     ({"lora_targets": "all-linear"}, "borderline"),
     ({"lora_rank": "16", "lora_targets": "q_proj,v_proj"}, "fits"),
     ({"trainable_params_m": "26.2"}, "fits")],
)  # fmt: skip
def test_adapters_of_unknown_size_may_be_as_large_as_qloras(told, verdict):
    size = {"lora_rank": "", "lora_targets": "", "trainable_params_m": ""}
    row = BASE | QLORA_ON_A_T4 | size
    open_, known = (estimate_run(row | some).memory for some in (told, told | {"trainable_params_m": "26.2"}))
    assert open_.verdict == verdict
    assert (open_.upper_bytes > 1.1 * known.upper_bytes) == (verdict == "borderline")


def test_a_run_that_may_keep_its_activations_surely_fits_only_if_they_do():
    row = BASE | QLORA_ON_A_T4 | {"lora_rank": "16", "lora_targets": "q_proj,v_proj"}
    assert estimate_run(row | {"grad_checkpointing": ""}).memory.verdict == "borderline"


def test_a_duration_may_hold_evaluations_that_no_row_tells_of():
    """peft's comparison of its methods, LoRA: 5,000 steps in 585 s, 942 s with evaluations."""
    answer = predict(BASE | {"steps": "1000"})
    p10, p50, p90 = (
        float(answer[f"{name}"])
        for name in ("wall_clock_h_p10", "predicted_wall_clock_h", "wall_clock_h_p90")
    )
    step_s = float(answer["predicted_step_time_s"])
    assert p50 == pytest.approx(1000 * step_s / 3600, rel=1e-4)
    assert p90 / p50 > 1.6 > p50 / p10


def test_a_gaudi_compiles_its_graphs_before_it_trains():
    few = BASE | {"gpu": "Gaudi2", "gpu_mem_gb": "96", "steps": "20"}
    answer = predict(few)
    steps_h = 20 * float(answer["predicted_step_time_s"]) / 3600
    assert float(answer["predicted_wall_clock_h"]) - steps_h == pytest.approx(150 / 3600, rel=0.01)
    assert float(answer["wall_clock_h_p90"]) - steps_h > 600 / 3600


def test_cost_needs_a_price_in_the_row():
    row = BASE | {"steps": "1000"}
    hours = float(predict(row)["predicted_wall_clock_h"])
    assert predict(row)["predicted_cost_usd"] == ""
    assert float(predict(row | {"price_usd_per_gpu_hour": "2.5"})["predicted_cost_usd"]) == pytest.approx(
        hours * 8 * 2.5, rel=1e-4
    )
    assert float(predict(row | {"price_usd_per_hour": "30"})["predicted_cost_usd"]) == pytest.approx(
        hours * 30, rel=1e-4
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_gpus": ""}, "num_gpus is not stated"), ({"gpu": "TPU v4"}, "GPU 'TPU v4' is not known"),
        ({"method": "q-galore"}, "galore"), ({"model": "someone/New-1B"}, "not known"),
        ({"model": "x/Llama-3.1-8B-pruned", "params_b": "4.5"}, "not known"),
    ],
)  # fmt: skip
def test_no_guess_where_nothing_is_known(change, reason):
    assert reason in predict(BASE | change)["unsupported_reason"]


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("unsloth/tinyllama-bnb-4bit", "TinyLlama/TinyLlama-1.1B"),
        ("TheBloke/Llama-2-13B-GGUF", "meta-llama/Llama-2-13b-hf"),
        ("cognitivecomputations/dolphin-2.9-llama3-8b", "meta-llama/Meta-Llama-3-8B"),
        ("NousResearch/Hermes-2-Pro-Mistral-7B", "mistralai/Mistral-7B-v0.1"),
        ("Llama3 405B", "meta-llama/Llama-3.1-405B"),
        ("Llama-2 70B (LoRA)", "meta-llama/Llama-2-70b-hf"),
        ("GPT-3 175B", "nvidia/GPT3-175B"),
        ("Phi 1.5", "microsoft/phi-1_5"),
        ("Mixtral 8x7B", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", "Qwen/Qwen2.5-14B"),
        ("Qwen 3 8B", "Qwen/Qwen3-8B"),
        ("llama31_405b", "meta-llama/Llama-3.1-405B"),
        ("NousResearch/Nous-Hermes-2-Yi-34B", "01-ai/Yi-34B"),
        ("allenai/Llama-3.1-Tulu-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("Llama 4 Scout", "meta-llama/Llama-4-Scout-17B-16E"),
        ("Qwen/Qwen3-Reranker-4B", "Qwen/Qwen3-4B"),
    ],
)
def test_names_of_models(name, same):
    found, meant = setup(model=name).arch, setup(model=same).arch
    assert (found.hidden, found.layers, found.vocab) == (meant.hidden, meant.layers, meant.vocab)


@pytest.mark.parametrize(
    "name",
    [
        "Mamba-2.8B",
        "ai21labs/Jamba-v0.1",
        "stabilityai/stable-diffusion-xl",
        "a model",
        "tiiuae/Falcon-H1-7B-Base",
        "nvidia/Llama-3_3-Nemotron-Super-49B-v1",
        "Nemotron-3-Nano-30B-A3B",
        "openai/whisper-large-v3",
    ],
)
def test_models_that_it_cannot_express_are_refused(name):
    with pytest.raises(UnsupportedRunError, match="is not known"):
        setup(model=name)


@pytest.mark.parametrize(
    "name",
    ["2x RTX 3090", "RTX 3090 x2", "RTX 3090x2", "Kaggle 2xRTX 3090", "GeForce RTX 3090", "Ampere RTX 3090"],
)
def test_names_of_gpus(name):
    assert read_run(BASE | {"gpu": name}).cluster.gpu.name == "RTX3090"


@pytest.mark.parametrize("name", ["TPU v4-8", "Apple M2 Ultra", "AWS Trainium2"])
def test_chips_that_it_cannot_express_are_refused(name):
    with pytest.raises(UnsupportedRunError, match="is not known"):
        read_run(BASE | {"gpu": name})


@pytest.mark.parametrize(
    "method",
    ["full", "Full-parameter", "full_finetune", "8-bit full", "continued pretraining", "cpt", "fine-tune"],
)
def test_spellings_of_full_training(method):
    assert setup(method=method).adapter is None


@pytest.mark.parametrize("method", ["LoRA 8-bit", "lora_int8"])
def test_spellings_of_eight_bits(method):
    assert setup(method=method).quantization == "8bit"


@pytest.mark.parametrize("change", [
    {"method": "lora (4bit)"}, {"method": "GPTQ-LoRA"}, {"method": "bnb 4bit lora"}, {"method": "QLoRA"},
    {"precision": "NF4 bf16"}, {"quant_bits": "4"}, {"model": "unsloth/Meta-Llama-3.1-8B-bnb-4bit"},
])  # fmt: skip
def test_spellings_of_four_bits(change):
    assert setup(**change).quantization == "4bit"


@pytest.mark.parametrize(
    ("text", "precision"),
    [("bfloat16", "bf16"), ("bf16-mixed", "amp_bf16"), ("torch.float16", "fp16"), ("apex O2", "fp16"),
     ("apex O1", "amp_fp16"), ("mixed", "amp_bf16"), ("float32", "fp32"), ("FP8 (E4M3)", "fp8")],
)  # fmt: skip
def test_spellings_of_precisions(text, precision):
    assert setup(precision=text).precision == precision


@pytest.mark.parametrize(
    ("framework", "text", "precision"),
    [("HF Trainer", "fp16", "amp_fp16"), ("litgpt", "16-true", "fp16"),
     ("NVIDIA DeepLearningExamples", "fp16", "fp16")],
)  # fmt: skip
def test_who_trains_all_weights_in_fp16_under_autocast(framework, text, precision):
    told = setup(method="full", precision=text, framework=framework, parallelism="DDP")
    assert told.precision == precision


def test_bf16_may_mean_weights_in_fp32():
    loose = {
        "method": "full",
        "precision": "bf16",
        "framework": "HF Trainer",
        "num_gpus": "1",
        "model": "gpt2-xl",
        "seq_len": "64",
    }
    open_, told = (estimate_run(BASE | loose | {"precision": text}).memory for text in ("bf16", "bf16-true"))
    assert open_.allocated_bytes == told.allocated_bytes
    assert open_.upper_bytes > 1.2 * told.upper_bytes


@pytest.mark.parametrize(
    ("text", "parts"),
    [("tensor parallel 8", (8, 1, 1)), ("TP=2, 2-way PP, CP2", (2, 2, 2)), ("Ulysses SP=4", (1, 1, 4)),
     ("model parallel", (1, 8, 1)), ("device_map=auto", (1, 8, 1))],
)  # fmt: skip
def test_spellings_of_parallel_ranks(text, parts):
    parallel = setup(parallelism=text, method="full").parallelism
    assert (parallel.tensor, parallel.pipeline, parallel.context) == parts


@pytest.mark.parametrize(
    ("change", "offload"),
    [({"offload": "param+optimizer"}, "parameters"), ({"parallelism": "ZeRO-Infinity NVMe"}, "parameters"),
     ({"parallelism": "ZeRO-Offload"}, "optimizer"), ({"optimizer": "DeepSpeedCPUAdam"}, "optimizer"),
     ({"grad_checkpointing": "unsloth"}, "none"), ({"offload": "off"}, "none"),
     ({"parallelism": "FSDP (parameter and optimizer sharding)"}, "none")],
)  # fmt: skip
def test_spellings_of_offload(change, offload):
    assert setup(**change).offload == offload


def test_a_stack_of_which_nothing_is_known_widens_the_interval():
    spreads = [estimate_run(BASE | {"framework": name}).step for name in ("HF Trainer", "ColossalAI")]
    assert spreads[1].spread > 1.05 * spreads[0].spread
    assert "nothing is known of colossalai" in spreads[1].spread_reason


@pytest.mark.parametrize("name", ["q_galore_adamw8bit", "SOAP", "shampoo", "mezo"])
def test_optimizers_that_it_cannot_express_are_refused(name):
    with pytest.raises(UnsupportedRunError, match=r"optimizer .* is not expressed"):
        setup(optimizer=name)


def test_linear_attention_costs_no_scores():
    """Three of four blocks of Qwen3.5 keep no keys of earlier tokens: eager attention adds a fourth of the scores, and
    of keys and values that are repeated for 16 heads of 256.
    """
    row = BASE | {"model": "Qwen/Qwen3.5-9B", "num_gpus": "1", "framework": "HF Trainer", "date": "2026-05"}
    step = estimate_run(row).step
    assert "linear attention" in step.spread_reason
    scores = [
        estimate_run(row | {"flash_attn": how}).memory.components_bytes["activations"]
        for how in ("eager", "sdpa")
    ]
    repeated = 2.0 * 8192 * (2 * 4096 - 2 * 1024)
    assert scores[0] - scores[1] == pytest.approx(8 * (16 * 8192**2 * 6.0 + repeated), rel=0.001)


@pytest.mark.parametrize("method", ["linear probe", "distillation", "llamapro", "zeroth order"])
def test_methods_that_it_cannot_express_are_refused(method):
    with pytest.raises(UnsupportedRunError, match="is not expressed"):
        setup(method=method)


def test_stages_of_zero():
    kinds = [
        setup(parallelism=text, method="full").parallelism.kind
        for text in ("ZeRO-1", "zero_stage_2", "z3", "ZeRO offload", "ZeRO (stage not stated)")
    ]
    # ZeRO-Offload is built on the second stage, which is accelerate's default too
    assert kinds == ["zero1", "zero2", "zero3", "zero2", "zero2"]


def test_trl_recomputes_unasked_since_august_2025():
    row = {"framework": "trl", "model": "Qwen/Qwen2.5-0.5B", "grad_checkpointing": ""}
    assert [setup(**row, date=day).gradient_checkpointing for day in ("2025-06", "2025-10")] == [False, True]
    assert not setup(**row | {"grad_checkpointing": "false"}, date="2025-10").gradient_checkpointing


def test_scripts_recompute_under_adapters_only_where_the_base_is_quantised():
    """TrainingArguments leaves it off, peft's prepare_model_for_kbit_training switches it on, some trainers always."""
    row = {"model": "meta-llama/Llama-2-7b-hf", "method": "lora", "num_gpus": "1", "grad_checkpointing": "",
           "date": "2023-08"}  # fmt: skip
    scripts = setup(**row, framework="HF PEFT")
    assert not scripts.gradient_checkpointing
    assert setup(**row | {"method": "qlora"}, framework="HF PEFT").gradient_checkpointing
    assert setup(**row | {"method": "full"}, framework="HF Trainer").gradient_checkpointing
    for name in ("LLaMA-Factory", "ms-swift", "axolotl", "a-trainer (HF models)"):
        assert setup(**row, framework=name).gradient_checkpointing, name


def test_lora_of_a_7b_in_a_plain_script():
    """Vertex's image of August 2023, two rows of 512 tokens on an A100: 28 GiB; on a V100 not even one row fits."""
    row = {"model": "openlm-research/open_llama_7b", "method": "lora", "lora_rank": "4", "precision": "fp16",
           "num_gpus": "1", "gpu": "A100-40GB", "gpu_mem_gb": "40", "seq_len": "512", "micro_batch": "2",
           "framework": "HF PEFT", "packing": "false", "grad_checkpointing": "", "date": "2023-08"}  # fmt: skip
    fits = predict(BASE | row)
    assert 21 < float(fits["predicted_reserved_gib"]) < 30
    one = predict(BASE | row | {"gpu": "V100-16GB", "gpu_mem_gb": "16", "micro_batch": "1"})
    assert (fits["verdict"], one["verdict"]) == ("fits", "oom")


def test_the_optimizer_that_transformers_takes_unasked():
    row = {"framework": "HF Trainer", "optimizer": ""}
    assert [setup(**row, date=day).optimizer for day in ("2025-03", "2025-11", "")] == [
        "adamw",
        "adamw_fused",
        "adamw",
    ]


@pytest.mark.parametrize(
    ("model", "day", "attention"),
    [("bert-base-uncased", "2024-03", "eager"), ("bert-base-uncased", "2024-06", "sdpa"),
     ("meta-llama/Llama-2-7b-hf", "2024-03", "sdpa"), ("microsoft/deberta-v3-base", "2026-03", "eager")],
)  # fmt: skip
def test_when_transformers_got_fused_attention(model, day, attention):
    row = {"model": model, "framework": "HF Trainer", "flash_attn": "", "date": day}
    assert setup(**row).attention == attention
    assert setup(**row | {"flash_attn": "flash_attention_2"}).attention == "flash"


@pytest.mark.parametrize(
    ("text", "spread"),
    [("ZeRO-3 SP8", ("zero3", 4, 1, 8)), ("FSDP32 CP2", ("fsdp", 16, 1, 2)), ("FSDP+TP8", ("fsdp", 4, 8, 1)),
     ("Ulysses-8 + ZeRO-3", ("zero3", 4, 1, 8)), ("TP4 PP1", ("mixed", 8, 4, 1)), ("TP8+SP", ("mixed", 4, 8, 1)),
     ("ZeRO-1 TP2", ("zero1", 16, 2, 1))],
)  # fmt: skip
def test_a_model_split_in_two_ways_is_sharded_too(text, spread):
    told = setup(num_gpus="32", parallelism=text).parallelism
    assert (told.kind, told.data, told.tensor, told.context) == spread


def test_shards_lie_on_the_ranks_that_share_a_sequence_too():
    long = {"method": "full", "num_gpus": "32", "seq_len": "131072", "grad_checkpointing": "true"}
    whole, shared = (
        estimate_run(BASE | long | {"framework": "xtuner", "parallelism": text}).memory
        for text in ("ZeRO-3", "ZeRO-3 SP8")
    )
    assert shared.components_bytes["weights"] == pytest.approx(whole.components_bytes["weights"])
    assert shared.components_bytes["activations"] == pytest.approx(
        whole.components_bytes["activations"] / 8, rel=0.01
    )


@pytest.mark.parametrize("loss", ["orpo", "SimPO", "cpo"])
def test_preference_losses_without_a_frozen_copy(loss):
    alone, pair = setup(task=loss, method="full"), setup(task="dpo", method="full")
    assert (alone.task, alone.reference, pair.reference) == ("dpo", False, True)
    told = estimate_run(BASE | {"task": loss, "method": "full"})
    assert told.memory.components_bytes["reference_models"] == 0.0
    assert (
        told.step.step_time_s.p50
        < estimate_run(BASE | {"task": "dpo", "method": "full"}).step.step_time_s.p50
    )


def test_modules_trained_whole_beside_an_adapter():
    """A copy, its gradient, two states and the step's temporary, two bytes each, for embedding and head."""
    one = {
        "model": "Qwen/Qwen-7B",
        "num_gpus": "1",
        "framework": "HF Trainer",
        "seq_len": "256",
        "lora_rank": "64",
    }
    plain, more = (
        estimate_run(BASE | one | {"lora_targets": text, "grad_checkpointing": "true"})
        for text in ("c_attn", "c_attn + modules_to_save wte, lm_head")
    )
    assert more.run.setup.adapter.whole == ("embedding", "head")
    assert more.run.setup.adapter.targets == plain.run.setup.adapter.targets
    grown = more.memory.allocated_bytes - plain.memory.allocated_bytes
    assert grown == pytest.approx(2 * 151936 * 4096 * 5 * 2, rel=0.1)


def test_torchtunes_chunks_hold_logits_in_bf16_and_log_probabilities_in_fp32():
    """As all its recipes do since 0.3 (September 2024); of one chunk the logits in fp32 too."""
    chunked = setup(framework="torchtune", liger_fused="chunked cross entropy", date="2024-08")
    assert chunked.loss_bytes is setup(framework="torchtune").loss_bytes is None
    assert stack_of("torchtune").loss_bytes == 2 + 4 + 4 / 8
    assert setup(framework="torchtune", date="2024-08").loss_bytes == 16.0


@pytest.mark.parametrize(
    ("framework", "date", "prepared"),
    [("HF Trainer", "2023-10", True), ("xtuner", "2026-01", True), ("axolotl", "2024-01", False),
     ("LLaMA-Factory", "2024-01", False), ("TRL", "2025-12", False), ("TRL", "2025-01", True),
     ("homemade trainer", "2024-01", False), ("ms-swift (HF Trainer)", "2024-01", False)],
)  # fmt: skip
def test_who_prepares_a_quantised_base_as_peft_does(framework, date, prepared):
    one = {"method": "qlora", "num_gpus": "1", "framework": framework, "date": date}
    assert setup(**one).upcast_frozen is prepared
    assert not setup(**one | {"precision": "GPTQ int4"}).upcast_frozen


@pytest.mark.parametrize(
    ("gpu", "name", "count"),
    [("8xH100 SXM", "H100", 8), ("8*A100-80GB", "A100-80GB", 8), ("A100(80G)*4", "A100-80GB", 4),
     ("RTX 4090 x2", "RTX4090", 2)],
)  # fmt: skip
def test_gpus_are_counted_where_they_are_named(gpu, name, count):
    cluster = read_run(BASE | {"gpu": gpu, "num_gpus": "", "model": "gpt2-xl"}).cluster
    assert (cluster.gpu.name, cluster.gpus_per_node * cluster.nodes) == (name, count)
    stated = read_run(BASE | {"gpu": gpu, "num_gpus": "1", "model": "gpt2-xl"}).cluster
    assert stated.gpus_per_node == 1


def test_counts_with_letters_and_what_is_no_count():
    run = read_run(BASE | {"dataset_tokens": "1.2B", "steps": "1k"})
    assert (run.total_tokens, run.steps) == (1.2e9, 1000.0)
    for text in ("-5", "2.048"):
        assert "seq_len" in predict(BASE | {"seq_len": text})["unsupported_reason"]


def test_the_rank_that_a_method_names():
    assert setup(method="LoRA r=256").adapter.rank == 256


@pytest.mark.parametrize(
    "some", [{"parallelism": "TP8 PP4"}, {"parallelism": "PP4 EP8", "model": "mistralai/Mixtral-8x7B-v0.1"}]
)
def test_a_run_spread_over_more_gpus_than_it_has_is_not_guessed(some):
    assert "more than 8 GPUs" in predict(BASE | {"method": "full"} | some)["unsupported_reason"]


@pytest.mark.parametrize(
    ("offload", "expected"),
    [("activations(cpu)", ("none", True)), ("activations", ("none", True)), ("cpu+activation", ("parameters", True)),
     ("params+optimizer cpu, activations", ("parameters", True)), ("optimizer cpu", ("optimizer", False)),
     ("none", ("none", False))],
)  # fmt: skip
def test_what_is_offloaded(offload, expected):
    read = setup(offload=offload)
    assert (read.offload, read.offloads_activations) == expected


def test_what_unsloth_offloads_is_said_once():
    """Before, the habit stood in `offload` and what a row says of checkpoints in a field of its own."""
    read = setup(grad_checkpointing="unsloth", parallelism="ZeRO-3", offload="optimizer+params cpu")
    assert (read.offload, read.offloads_activations) == ("parameters", True)


def test_axolotl_quantises_fused_experts_too():
    moe = {
        "model": "zai-org/GLM-4.5-Air",
        "method": "qlora",
        "quant_bits": "4",
        "date": "2026-03",
        "num_gpus": "1",
    }
    ours, fused = (setup(**moe | {"framework": name}) for name in ("axolotl", "HF Trainer"))
    assert (ours.experts_quantised, fused.experts_quantised) == (True, False)


@pytest.mark.parametrize("framework", ["a loop of our own", "NVIDIA DeepLearningExamples", "HF Trainer"])
def test_nobody_trains_all_weights_in_plain_fp16(framework):
    """Small steps are lost in fp16: masters and states are in fp32."""
    one = {"method": "full", "precision": "fp16", "framework": framework, "num_gpus": "1", "model": "gpt2-xl"}
    told = estimate_run(BASE | one).memory.components_bytes
    assert told["weights"] + told["optimizer"] > 13.9 * 1.55e9


def test_megatrons_bert_has_the_shape_of_the_large_one():
    found = architecture_of({"model": "nvidia/megatron-bert-cased-345m"})
    assert (found.id, found.hidden, found.layers) == ("bert-large-cased", 1024, 24)
