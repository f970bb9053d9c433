"""Rules of a job document beyond the types of its keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from jobs.manifest import is_plain_path

if TYPE_CHECKING:
    from jobs.spec import InputsJob, JobSpec

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_INPUTS = "inputs"

#: Optimizers that need bitsandbytes.
BITSANDBYTES = frozenset({"adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit", "lion"})
#: Methods that learn what stands before a row.
PROMPT_LEARNING = ("prompt_tuning", "prefix_tuning")
#: What a model spread over processes (`train.sharding: fsdp`) can be trained with: accelerate spreads no buffers, in
#: which vera keeps its shared projections.
SHARDED_METHODS = (
    *("full", "lora", "dora", "rslora", "ia3", "loha", "lokr", "oft", "boft", "ln_tuning"),
    *PROMPT_LEARNING,
)
SHARDED_OPTIMIZERS = ("adamw", "adamw_fused", "sgd")
#: With parameters on the host (`train.offload`) besides: losses in fp16 are scaled on the GPU, answers would have all
#: weights copied for each token, and other adapters may look for their own where they are stored.
OFFLOAD_METHODS = ("full", "lora", "dora", "rslora")
OFFLOAD_PRECISIONS = ("bf16", "fp32")
OFFLOAD_TASKS = ("sft", "classification", "dpo", "reward", "kto")
#: Families whose experts transformers 5 keeps fused; where linear maps of these names are targets, peft takes the
#: experts and computes all of a block's anew with each pass. `all-linear` leaves them, and routers, as they are.
FUSED_EXPERTS = frozenset(
    {
        *("mixtral", "minimax", "minimax_m2", "qwen2_moe", "qwen3_moe", "qwen3_next", "olmoe", "flex_olmo"),
        *("deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "dots1"),
        *("ernie4_5_moe", "hunyuan_v1_moe", "cohere2_moe", "afmoe", "longcat_flash", "solar_open"),
        "exaone_moe",
    }
)
EXPERT_NAMES = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
#: Tokens of prompts that pass the model at once before answers are sampled.
_PROMPT_TOKENS_AT_ONCE = 8192


def least_rows(task: str, loss: str = "auto") -> int:
    """Rows that a micro-batch needs: kto's loss compares each with its neighbour's answer.

    >>> least_rows("kto"), least_rows("kto", "apo_zero_unpaired")
    (2, 1)
    """
    return 2 if task == "kto" and loss in ("auto", "kto") else 1


def prompt_piece(rows: int, longest: int, method: str, *, in_shards: bool) -> int | None:
    """Tokens of each prompt that pass the model at once, before answers are sampled; None: all.

    All prompts of a step at once may need more memory than the training. They do pass at once in shards, whose
    processes have prompts of other lengths while every piece is computed by all of them, and where something learned
    stands before a prompt: peft puts it before each piece.

    Args:
        rows: Answers that one process samples at once.
        longest: Tokens of the longest prompt, or more.
        method: Kind of the method.
        in_shards: The model is spread over processes.
    """
    if in_shards or method in PROMPT_LEARNING or rows * longest <= _PROMPT_TOKENS_AT_ONCE:
        return None
    return max(_PROMPT_TOKENS_AT_ONCE // rows, 1)


def broken_rules(job: JobSpec) -> list[tuple[str, bool]]:
    """Each rule of a document, and whether it is broken."""
    train, method, every, limits = job.train, job.method, job.checkpoints, job.limits
    positive = {
        "train.sequence_length": train.sequence_length,
        "train.micro_batch": train.micro_batch,
        "train.grad_accum": train.grad_accum,
        "train.processes": train.processes,
        "train.learning_rate": train.learning_rate,
        "train.steps": train.steps,
        "train.epochs": train.epochs,
        "method.rank": method.rank,
        "method.alpha": method.alpha,
        "method.virtual_tokens": method.virtual_tokens,
        "data.labels": job.data.labels,
        "preference.beta": job.preference.beta,
        "rollout.completion_tokens": job.rollout.completion_tokens,
        "rollout.temperature": job.rollout.temperature,
        "evaluate.samples": job.evaluate.samples,
        "evaluate.every_steps": job.evaluate.every_steps,
        "evaluate.every_s": job.evaluate.every_s,
        "evaluate.patience": job.evaluate.patience,
        "checkpoints.every_steps": every.every_steps,
        "checkpoints.every_s": every.every_s,
        "checkpoints.keep": every.keep,
        "checkpoints.hazard_per_h": every.hazard_per_h,
    }
    return [
        *((f"{name}: must be more than 0", v is not None and v <= 0) for name, v in positive.items()),
        (f"run_id: {job.run_id!r} is not a plain name", _RUN_ID.fullmatch(job.run_id) is None),
        ("train: exactly one of epochs and steps", (train.epochs is None) == (train.steps is None)),
        ("train.warmup: must be in [0, 1)", not 0 <= train.warmup < 1),
        ("evaluate.guard: needs data.eval", job.evaluate.guard is not None and job.data.eval is None),
        ("evaluate.min_change: must not be negative", job.evaluate.min_change < 0),
        ("method.dropout: must be in [0, 1)", not 0 <= method.dropout < 1),
        ("limits.cap_usd: needs limits.usd_per_hour", limits.cap_usd is not None and not limits.usd_per_hour),
        *_input_rules(job.inputs),
        ("quantization: a full fine-tuning needs none", method.kind == "full" and job.quantization != "none"),
        *_task_rules(job),
        *_sharding_rules(job),
    ]


def _input_rules(inputs: InputsJob) -> list[tuple[str, bool]]:
    """The document may have been changed on its way, and its paths are written to."""
    outside = next((entry.path for entry in inputs.files if not _is_below(entry.path)), None)
    wrong = any(_SHA256.fullmatch(entry.sha256) is None or entry.bytes < 0 for entry in inputs.files)
    return [
        ("inputs.uri: missing", inputs.uri is None and bool(inputs.files)),
        (f"inputs.files: {outside!r} is no file below {_INPUTS}", outside is not None),
        ("inputs.files: an impossible size or hash", wrong),
    ]


def _is_below(path: str) -> bool:
    return path.startswith(f"{_INPUTS}/") and is_plain_path(path)


def _task_rules(job: JobSpec) -> list[tuple[str, bool]]:
    least = least_rows(job.task, job.preference.loss)
    generations = job.rollout.generations
    return [
        (
            "train.micro_batch: kto compares the rows of a micro-batch, so it needs 2",
            job.train.micro_batch < least,
        ),
        (f"preference.loss: {job.preference.loss} is no loss of task {job.task}", not _loss_fits(job)),
        ("rollout.generations: at least 2 answers are compared", job.task == "grpo" and generations < 2),
        ("rollout.rewards: at least one", job.task == "grpo" and not job.rollout.rewards),
    ]


def _sharding_rules(job: JobSpec) -> list[tuple[str, bool]]:
    sharded, offloaded = job.train.sharding == "fsdp", job.train.offload != "none"
    return [
        ("train.offload: needs train.sharding fsdp", offloaded and not sharded),
        *(
            (f"train.offload: goes with {name} {', '.join(allowed)}", offloaded and value not in allowed)
            for name, value, allowed in (
                ("task", job.task, OFFLOAD_TASKS),
                ("method.kind", job.method.kind, OFFLOAD_METHODS),
                ("train.precision", job.train.precision, OFFLOAD_PRECISIONS),
            )
        ),
        *_spread_rules(job, sharded=sharded),
    ]


def _spread_rules(job: JobSpec, *, sharded: bool) -> list[tuple[str, bool]]:
    return [
        (f"train.sharding: fsdp goes with {name} {', '.join(allowed)}", sharded and value not in allowed)
        for name, value, allowed in (
            ("quantization", job.quantization, ("none",)),
            ("method.kind", job.method.kind, SHARDED_METHODS),
            ("train.optimizer", job.train.optimizer, SHARDED_OPTIMIZERS),
        )
    ]


def _loss_fits(job: JobSpec) -> bool:
    allowed = {"dpo": ("sigmoid", "hinge", "ipo"), "kto": ("kto", "apo_zero_unpaired")}
    return job.task not in allowed or job.preference.loss in ("auto", *allowed[job.task])
