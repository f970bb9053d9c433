"""What a person writes: `spec.yaml` as frozen pydantic models.

Only shapes and cross-field rules live here; reading YAML with positions is `planner.specfile`, how people write
sizes, durations, money and ranges is `planner.units`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from planner import units

AdapterKind = Literal["full", "lora", "qlora", "dora", "qdora", "rslora"]
TaskKind = Literal["sft", "classification", "dpo", "reward", "kto", "grpo"]
Quantization = Literal["none", "8bit", "4bit", "fp8"]
MarketChoice = Literal["spot", "on_demand", "reserved"]
Objective = Literal["cheapest", "fastest", "fastest_within_budget", "best_value", "cheapest_by_deadline"]

Seconds = Annotated[float, BeforeValidator(units.parse_duration_s)]
Usd = Annotated[float, BeforeValidator(units.parse_usd)]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class ModelSection(Section):
    """The base model."""

    id: str = Field(description="Hugging Face id, or a local directory with config.json")
    revision: str | None = Field(None, description="Commit, tag or branch")
    trust_remote_code: bool = Field(False, description="Allow the repository's own Python code to run")


class MethodSection(Section):
    """How the weights are changed."""

    kind: AdapterKind = Field("lora", description="full, or an adapter kind; qlora = lora on a 4-bit base")
    rank: int = Field(16, ge=1, le=4096, description="Adapter rank r")
    alpha: float | None = Field(None, gt=0, description="Adapter scale; default 2 x rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="Adapter dropout")
    targets: tuple[str, ...] | Literal["all-linear", "attention"] = Field(
        "all-linear", description="Module names, or all-linear, or attention (q, k, v, o)"
    )


class DataSection(Section):
    """The examples to learn from; paths are relative to the spec's file."""

    train: str | None = Field(None, description="File (jsonl, csv, parquet, txt), hub dataset, s3:// or https:// URI")
    eval: str | None = Field(None, description="Held-out examples, same format")
    format: Literal["auto", "prompt_completion", "messages", "text", "label", "preference", "prompt"] = "auto"
    samples: int | None = Field(None, ge=1, le=10**12, description="Number of training examples, if the file is not here")
    tokens_per_sample: float | None = Field(None, gt=0, le=10**9, description="Mean tokens of one example")
    eval_samples: int | None = Field(None, ge=0, le=10**12)
    labels: int = Field(2, ge=2, le=10**6, description="Number of classes, for task classification")


class TrainSection(Section):
    """Hyper-parameters of training."""

    epochs: float | None = Field(None, gt=0, le=10**6, description="Passes over the data; default 1")
    steps: int | None = Field(None, ge=1, le=10**12, description="Optimizer steps, instead of epochs")
    sequence_length: int = Field(2048, ge=1, le=10**8, description="Longest example in tokens; longer ones are cut")
    packing: bool = Field(False, description="Fill each row with several examples")
    global_batch: int = Field(16, ge=1, le=10**9, description="Examples between optimizer steps, over all GPUs")
    micro_batch: int | Literal["auto"] = Field("auto", description="Examples a GPU holds at once")
    learning_rate: float = Field(2e-4, gt=0, le=100)
    scheduler: Literal["linear", "cosine", "constant"] = "cosine"
    warmup: float = Field(0.03, ge=0, lt=1, description="Share of the steps")
    weight_decay: float = Field(0.0, ge=0, le=10)
    max_grad_norm: float = Field(1.0, ge=0)
    optimizer: Literal[
        "adamw", "adamw_fused", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit", "adafactor", "lion", "sgd"
    ] = "adamw_fused"
    precision: Literal["bf16", "fp16", "fp32", "fp8"] = "bf16"
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    attention: Literal["auto", "flash", "sdpa", "eager"] = "auto"
    fused_loss: bool = Field(False, description="Loss computed in chunks (Liger, chunked cross-entropy)")
    seed: int = Field(0, ge=0, le=2**32 - 1)


class EvaluateSection(Section):
    """The same metric is measured on the base model and on the tuned one."""

    metric: Literal["auto", "loss", "perplexity", "exact_match", "accuracy", "f1", "reward_margin"] = "auto"
    every: str | None = Field(None, description="Also during training: `200 steps` or `30m`")
    samples: int | None = Field(None, ge=1, description="At most this many held-out examples")


class MetricGoal(Section):
    """The quality to reach."""

    name: str
    at_least: float


class GoalSection(Section):
    """When, for how much, and what to prefer."""

    deadline: str | None = Field(None, description="RFC 3339 time with zone, or a date (its end, UTC)")
    within: Seconds | None = Field(None, description="Duration from now, as in 24h")
    budget: Usd | None = Field(None, description="Total for the job, as in 50usd")
    objective: Objective = "cheapest"
    metric: MetricGoal | None = None


class WhereSection(Section):
    """Which machines may be rented."""

    clouds: tuple[str, ...] | None = None
    regions: tuple[str, ...] | None = None
    gpus: tuple[str, ...] | None = Field(None, description="As in [A100-80GB, H100:1..8]")
    gpu_memory: str | None = Field(None, description="Range of one GPU's memory, as in 24GB..80GB")
    market: tuple[MarketChoice, ...] = ("spot", "on_demand")
    nodes: int | str = Field("1..2", description="Number of machines or a range, as in 1..4")
    max_usd_per_hour: Usd | None = None


class EnvironmentSection(Section):
    """What the worker's machine needs."""

    image: str | None = None
    python: str | None = None
    packages: tuple[str, ...] = ()
    setup: str | None = None
    env: dict[str, str] = Field(default_factory=dict)
    secrets: tuple[str, ...] = Field((), description="Names of environment variables; values never enter the spec")


class CheckpointsSection(Section):
    """Where and how often training state is committed."""

    uri: str | None = Field(None, description="file:// or s3:// prefix; default: below the state directory")
    every: str = Field("auto", description="auto, `100 steps` or `15m`")
    keep: int = Field(2, ge=1, le=1000)


class OutputSection(Section):
    """Where the finished model goes."""

    uri: str | None = Field(None, description="Directory or URI; default: stays beside the checkpoints")


class FineTuneSpec(Section):
    """A whole fine-tuning job, as written in `spec.yaml`."""

    spec_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Lower case, digits and dashes")
    project: str = "default"
    owner: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    model: ModelSection
    method: MethodSection = MethodSection()
    quantization: Quantization | None = Field(None, description="Of the frozen base; default none, 4bit for qlora")
    task: TaskKind = "sft"
    data: DataSection = DataSection()
    train: TrainSection = TrainSection()
    evaluate: EvaluateSection = EvaluateSection()
    goal: GoalSection = GoalSection()
    where: WhereSection = WhereSection()
    environment: EnvironmentSection = EnvironmentSection()
    checkpoints: CheckpointsSection = CheckpointsSection()
    output: OutputSection = OutputSection()
    track: Literal["none", "mlflow", "wandb", "tensorboard"] = "none"
    notify: tuple[str, ...] = ()

    def canonical(self) -> dict[str, Any]:
        """The spec as plain JSON types with every default filled in; its hash names the spec."""
        return self.model_dump(mode="json")
