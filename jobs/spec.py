"""`JobSpec`: the document that tells the worker what to do; names as in `spec.yaml`, never a secret."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from jobs import codec
from jobs.manifest import FileEntry
from jobs.spec_rules import broken_rules
from providers.errors import UsageError

SCHEMA = "tuneplan/job"
SCHEMA_VERSION = 1
_MAX_DOCUMENT_BYTES = 1 << 22

MethodKind = Literal[
    "full",
    "lora",
    "dora",
    "rslora",
    "ia3",
    "loha",
    "lokr",
    "vera",
    "oft",
    "boft",
    "ln_tuning",
    "prompt_tuning",
    "prefix_tuning",
]
Task = Literal["sft", "classification", "dpo", "reward", "kto", "grpo"]
DataFormat = Literal[
    "auto", "prompt_completion", "messages", "text", "label", "preference", "unpaired", "prompt"
]
Optimizer = Literal[
    "adamw",
    "adamw_fused",
    "adamw_8bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "adafactor",
    "lion",
    "sgd",
]
Metric = Literal["auto", "loss", "perplexity", "exact_match", "accuracy", "f1", "reward_margin", "reward"]
TrackerKind = Literal["mlflow", "wandb", "tensorboard"]
PreferenceLoss = Literal["auto", "sigmoid", "hinge", "ipo", "kto", "apo_zero_unpaired"]


@dataclass(frozen=True, slots=True)
class ModelJob:
    """The base model: `path` is a local directory and wins over the hub `id`."""

    id: str
    path: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False

    @property
    def source(self) -> str:
        """What to load: the directory if there is one, else the hub id."""
        return self.path or self.id


@dataclass(frozen=True, slots=True)
class MethodJob:
    """How the weights are changed.

    Attributes:
        rank: Of oft and boft the size of a block.
        alpha: Scale of the adapter, None for 2 x rank.
        targets: As in PEFT, or one keyword.
        virtual_tokens: Learned tokens before each row, for prompt_tuning and prefix_tuning.
    """

    kind: MethodKind = "lora"
    rank: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] = ("all-linear",)
    virtual_tokens: int = 20


@dataclass(frozen=True, slots=True)
class DataJob:
    """Files, or directories of files, as the worker sees them; relative ones are below the job's directory.

    Attributes:
        label_names: Class names by index, None to take them from the training data.
    """

    train: str
    eval: str | None = None
    format: DataFormat = "auto"
    labels: int = 2
    label_names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class InputsJob:
    """Files of another machine that data and model name: the worker fetches and verifies them first.

    Attributes:
        uri: Store that holds each of them as `blobs/<sha256>`.
        files: Where each belongs, below the job's directory.
    """

    uri: str | None = None
    files: tuple[FileEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainJob:
    """Hyper-parameters; exactly one of `epochs` and `steps` is set.

    Attributes:
        sequence_length: Longest row in tokens; longer ones are cut.
        micro_batch: Rows one process holds at once.
        grad_accum: Micro-batches between optimizer steps.
        processes: That the two above were chosen for; on another number they are chosen anew, so that the rows
            of a step stay the same.
        sharding: fsdp spreads weights, gradients and optimizer over the processes, and checkpoints are saved in
            shards; with none each process holds all of them.
        offload: parameters keeps weights, gradients and optimizer in the host's memory, which is where the optimizer
            steps, and gathers one layer after the other on the GPU.
        warmup: Share of the steps.
        fused_loss: Of documents made before TRL's head did without whole logits in any case; changes nothing.
    """

    epochs: float | None = None
    steps: int | None = None
    sequence_length: int = 2048
    packing: bool = False
    micro_batch: int = 1
    grad_accum: int = 1
    learning_rate: float = 2e-4
    scheduler: Literal["linear", "cosine", "constant"] = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    optimizer: Optimizer = "adamw_fused"
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    gradient_checkpointing: bool = True
    attention: Literal["auto", "flash", "sdpa", "eager"] = "auto"
    fused_loss: bool = False
    processes: int = 1
    sharding: Literal["none", "fsdp"] = "none"
    offload: Literal["none", "parameters"] = "none"
    seed: int = 0

    def is_spread(self, processes: int) -> bool:
        """Whether FSDP2 has the model in so many processes: one alone holds it whole, unless that is on the host."""
        return self.sharding == "fsdp" and (processes > 1 or self.offload != "none")


@dataclass(frozen=True, slots=True)
class PreferenceJob:
    """What dpo and kto learn by.

    Attributes:
        beta: How dear it is to leave the base model.
        loss: auto is sigmoid for dpo and kto for kto.
        desirable_weight: Weight of the good answers, for kto.
        undesirable_weight: Weight of the bad ones.
    """

    beta: float = 0.1
    loss: PreferenceLoss = "auto"
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0


@dataclass(frozen=True, slots=True)
class RolloutJob:
    """What grpo samples and judges.

    Attributes:
        generations: Answers sampled for each prompt, compared with each other.
        completion_tokens: Longest answer.
        temperature: Of the sampling.
        beta: Weight of the distance to the base model; 0 holds no reference.
        rewards: Names of `jobs.rewards`, `package.module:function` or `/path/file.py:function`; they are added up.
    """

    generations: int = 8
    completion_tokens: int = 256
    temperature: float = 1.0
    beta: float = 0.0
    rewards: tuple[str, ...] = ("exact_match",)


@dataclass(frozen=True, slots=True)
class GuardJob:
    """A general hold-out on which the tuned model must not be worse than the base.

    Attributes:
        data: A file of the same format as the training data.
        metric: auto is the job's own.
        at_most_worse: How much worse it may be, in the metric's own unit.
        samples: At most this many rows, the first ones.
    """

    data: str
    metric: Metric = "auto"
    at_most_worse: float = 0.0
    samples: int | None = None


@dataclass(frozen=True, slots=True)
class EvaluateJob:
    """The metric of base and tuned on at most `samples` held-out rows; also while training, if asked for.

    Attributes:
        goal: Value of the metric at which training ends, or does not start; None trains to the last step.
        patience: Evaluations in a row without a better value after which training ends; None is any number.
        min_change: What a value must be better by to be better.
        choose: Which weights are handed over: of the last step, or of the best evaluation.
        guard: What must not get worse.
    """

    metric: Metric = "auto"
    samples: int | None = None
    every_steps: int | None = None
    every_s: float | None = None
    goal: float | None = None
    patience: int | None = None
    min_change: float = 0.0
    choose: Literal["last", "best"] = "last"
    guard: GuardJob | None = None


@dataclass(frozen=True, slots=True)
class CheckpointsJob:
    """Where training state is committed (the run's own prefix) and how often; `keep` older ones are kept.

    Attributes:
        hazard_per_h: The planner's prior of losing the machine, None if nobody takes it away. With it the worker
            heeds the cloud's notices, and chooses the interval itself where neither `every` is set.
        upload_limit_bytes_per_s: What uploads to a bucket may take of the line, None for all of it.
    """

    uri: str
    every_steps: int | None = None
    every_s: float | None = None
    keep: int = 2
    hazard_per_h: float | None = None
    upload_limit_bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class OutputJob:
    """Directory that receives a copy of the finished model; None leaves it in the checkpoint store."""

    uri: str | None = None


@dataclass(frozen=True, slots=True)
class LimitsJob:
    """Where the worker stops by itself, after a committed checkpoint; None is no limit.

    Attributes:
        max_duration_s: Of this attempt, from the start of the process.
        cap_usd: Of the whole run, priced with `usd_per_hour`.
        usd_per_hour: Price of the machine, None if unknown.
        spent_usd: What earlier launches of the run cost.
        launch: Number of this launch; what its own earlier machines cost is in the progress they left.
        launched_at: When it was decided on; with its number, what a stop must name to be heeded (`jobs.stop_request`).
        reserve_s: Kept free before either limit, for the end of the process and of the machine.
        prices_usd_per_hour: Price by "cloud/region", where the machine may be one of several.
    """

    max_duration_s: float | None = None
    cap_usd: float | None = None
    usd_per_hour: float | None = None
    spent_usd: float = 0.0
    launch: int = 1
    launched_at: str | None = None
    reserve_s: float = 0.0
    prices_usd_per_hour: dict[str, float] = field(default_factory=dict)

    def priced_at(self, place: str | None) -> LimitsJob:
        """With the price of the machine that was got; of an unknown place the dearest that may be it.

        Args:
            place: "cloud/region" of this machine, None if it cannot tell.
        """
        if not self.prices_usd_per_hour or self.usd_per_hour is None:
            return self
        dearest = max(self.usd_per_hour, *self.prices_usd_per_hour.values())
        return replace(self, usd_per_hour=self.prices_usd_per_hour.get(place or "", dearest))


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One training job, complete."""

    run_id: str
    name: str
    model: ModelJob
    data: DataJob
    checkpoints: CheckpointsJob
    method: MethodJob = MethodJob()
    quantization: Literal["none", "8bit", "4bit"] = "none"
    task: Task = "sft"
    train: TrainJob = field(default_factory=lambda: TrainJob(epochs=1.0))
    preference: PreferenceJob = PreferenceJob()
    rollout: RolloutJob = RolloutJob()
    evaluate: EvaluateJob = EvaluateJob()
    output: OutputJob = OutputJob()
    inputs: InputsJob = InputsJob()
    track: TrackerKind | None = None
    limits: LimitsJob = LimitsJob()
    schema: Literal["tuneplan/job"] = "tuneplan/job"
    schema_version: Literal[1] = 1

    def __post_init__(self) -> None:
        """Refuse what no worker could run."""
        for problem, wrong in broken_rules(self):
            if wrong:
                raise UsageError(f"job document: {problem}", code="bad_job")

    def to_json(self) -> str:
        """The document, as in `job.json`."""
        return codec.encode(self)

    @classmethod
    def from_json(cls, text: str) -> JobSpec:
        """Parse a document that we wrote.

        Raises:
            UsageError: It is no JSON, of another schema, or does not fit (unknown keys included).
        """
        try:
            raw = json.loads(text)
            _check_schema(raw)
            return codec.decode(cls, raw, strict=True)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"job document: {error}", code="bad_job") from error

    @classmethod
    def load(cls, path: Path) -> JobSpec:
        """Read and parse a file.

        Raises:
            UsageError: Unreadable, too large, or not a job document.
        """
        try:
            if path.stat().st_size > _MAX_DOCUMENT_BYTES:
                raise UsageError(f"{path} is too large for a job document", code="bad_job")
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the job document {path}: {error}", code="bad_job") from error


def _check_schema(raw: object) -> None:
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        raise codec.Mismatch(f"schema: not {SCHEMA}")
    if raw.get("schema_version") != SCHEMA_VERSION:
        found = raw.get("schema_version")
        raise codec.Mismatch(f"schema_version: {found!r}, this worker reads {SCHEMA_VERSION}")
