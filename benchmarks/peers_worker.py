"""Runs inside the peers' own environment: jobs as JSON on stdin, GiB (and tokens per second) by peer on stdout.

Each peer gets the model's exact shape and parameter count and what it can express of the method; None where it cannot.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from typing import Any

Job = dict[str, Any]


def ftuneai(job: Job) -> dict[str, float] | None:
    from ftuneai.core import models
    from ftuneai.core.memory import MemoryEstimator
    from ftuneai.core.time import TimeEstimator
    from ftuneai.loader import get_gpu

    shape = job["shape"]
    spec = models.ModelSpec(
        name="job",
        parameters=job["parameters"],
        hidden_size=shape["hidden_size"],
        num_layers=shape["num_hidden_layers"],
        num_attention_heads=shape["num_attention_heads"],
        num_kv_heads=shape["num_key_value_heads"],
        intermediate_size=shape["intermediate_size"],
        vocab_size=shape["vocab_size"],
        max_seq_length=job["sequence"],
    )
    sharding = {"fsdp": "fsdp", "zero2": "zero_2", "zero3": "zero_3"}.get(job["sharding"], "none")
    config = models.TrainingConfig(
        model="job",
        method=models.FineTuneMethod(job["method"]),
        quantization=models.Quantization(job["quantization"]),
        batch_size=job["micro_batch"],
        seq_length=job["sequence"],
        gradient_checkpointing=job["checkpointing"],
        lora_rank=job["rank"],
        lora_target=models.LoRATarget(job["targets"]),
        flash_attention=job["fused_attention"],
        sharding=models.ShardingStrategy(sharding),
        num_gpus=job["gpus"],
    )
    answer = {"gib": MemoryEstimator(spec, config).estimate().total_gb}  # "GB" of 2^30 bytes
    with contextlib.suppress(Exception):  # a GPU that it does not know
        samples = 1000 * job["micro_batch"] * job["gpus"]
        time = TimeEstimator(spec, config).estimate(
            gpu=get_gpu(job["gpu"]), dataset_size=samples, epochs=1, num_gpus=job["gpus"]
        )
        answer["tokens_per_s"] = samples * job["sequence"] / (time.total_hours * 3600)
    return answer


def canifinetune(job: Job) -> dict[str, float] | None:
    from canifinetune.estimator.memory import EstimateRequest, estimate

    if job["sharding"] not in ("single", "ddp") or job["quantization"] == "8bit":
        return None
    optimizer = job["optimizer"] if job["optimizer"] in ("adamw_8bit", "paged_adamw_8bit") else "adamw_torch"
    request = EstimateRequest(
        model_id="job",
        method=job["method"],
        seq_len=job["sequence"],
        micro_batch_size=job["micro_batch"],
        base_dtype=job["precision"],
        lora_rank=job["rank"],
        lora_target_scope="all_linear" if job["targets"] == "all_linear" else "attention",
        optimizer=optimizer,
        gradient_checkpointing=job["checkpointing"],
        attention_implementation="flash_attention_2" if job["fused_attention"] else "sdpa",
        gpu_vram_gb=job["gpu_gib"],
        override=job["shape"] | {"total_params": job["parameters"], "family": job["family"]},
        use_network=False,
    )
    memory = estimate(request).memory
    return {"gib": memory.total_estimated_gb - memory.safety_margin_gb}


def hf_vram_calc(job: Job) -> dict[str, float] | None:
    with contextlib.redirect_stdout(io.StringIO()):
        from hf_vram_calc.calculator import VRAMCalculator
        from hf_vram_calc.config import ConfigManager
        from hf_vram_calc.parallel import ParallelizationCalculator

        calculator = VRAMCalculator(ConfigManager())
    dtype = {"4bit": "int4", "8bit": "int8"}.get(job["quantization"], job["precision"])
    weights = calculator.calculate_model_memory(job["parameters"], dtype)
    if job["method"] == "full":
        total = calculator.calculate_training_memory(weights)
    else:
        total = calculator.calculate_lora_memory(weights, job["parameters"], lora_rank=job["rank"])
    # It knows no sharding of states; its tensor parallelism is what divides by GPUs.
    shards = job["gpus"] if job["sharding"] in ("fsdp", "zero3") else 1
    return {"gib": ParallelizationCalculator.calculate_tensor_parallel(total, shards)}


def accelerate(job: Job) -> dict[str, float] | None:
    from accelerate.commands.estimate import estimate_training_usage

    if job["method"] != "full":
        return None
    usage = estimate_training_usage(4 * job["parameters"], job["mixed"])
    return {"gib": max(usage.values()) / 2**30 / (job["gpus"] if job["sharding"] in ("fsdp", "zero3") else 1)}


PEERS = {
    "ftuneai": ftuneai,
    "canifinetune": canifinetune,
    "hf-vram-calc": hf_vram_calc,
    "accelerate": accelerate,
}


def main() -> None:
    answers = []
    errors: dict[str, str] = {}
    for job in json.load(sys.stdin):
        one = {}
        for name, peer in PEERS.items():
            try:
                one[name] = peer(job)
            except Exception as error:
                one[name] = None
                errors.setdefault(name, f"{type(error).__name__}: {error}"[:300])
        answers.append(one)
    json.dump({"answers": answers, "errors": errors}, sys.stdout)


if __name__ == "__main__":
    main()
