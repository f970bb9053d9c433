"""Training set-ups for tests of the physics."""

from hypothesis import strategies as st

from planner.architecture import Adapter, load_architecture
from planner.hardware import gpu_facts
from planner.setup import Cluster, Parallelism, TrainingSetup

MODELS = (
    "llama-3.1-8b",
    "mistral-7b-v0.1",
    "qwen2.5-0.5b",
    "gpt2",
    "roberta-base",
    "Qwen/Qwen3-30B-A3B",
    "phi-2",
)
QKVO = ("q", "k", "v", "o")


def lora(rank=16, targets=QKVO, **more):
    return Adapter("lora", rank, targets, **more)


def setup(model="llama-3.1-8b", **fields):
    return TrainingSetup(load_architecture(model), **fields)


def cluster(gpu="A100-80GB", gpus=1, nodes=1, **fields):
    facts = gpu_facts(gpu)
    assert facts is not None
    return Cluster(facts, gpus, nodes, **fields)


def spread(base, kind, gpus):
    return base._replace(parallelism=Parallelism(kind, gpus))


setups = st.builds(
    lambda model, **fields: setup(model, **fields),
    model=st.sampled_from(MODELS),
    task=st.sampled_from(["sft", "classification", "dpo"]),
    adapter=st.one_of(st.none(), st.builds(lora, rank=st.sampled_from([4, 16, 64]))),
    quantization=st.sampled_from(["none", "4bit", "8bit"]),
    precision=st.sampled_from(["bf16", "fp32", "amp_bf16"]),
    optimizer=st.sampled_from(["adamw", "adamw_fused", "adamw_8bit", "sgd", "adafactor"]),
    sequence_tokens=st.sampled_from([128, 512, 2048, 8192]),
    micro_batch=st.sampled_from([1, 2, 8, 32]),
    grad_accum=st.sampled_from([1, 4]),
    gradient_checkpointing=st.booleans(),
    attention=st.sampled_from(["flash", "sdpa", "eager"]),
    framework=st.sampled_from(
        ["trl", "hf", "litgpt", "megatron", "megatron-deepspeed", "paddle", "unsloth", "llm-foundry"]
    ),
    parallelism=st.sampled_from(
        [
            Parallelism(),
            Parallelism("ddp", 4),
            Parallelism("fsdp", 8),
            Parallelism("zero1", 4),
            Parallelism("zero2", 4),
            Parallelism("zero3", 8),
        ]
    ),
)
