"""What a person writes: `spec.yaml` as frozen pydantic models.

Only shapes live here, made of the types of `planner.spec_types`. Rules between fields are in `planner.spec_rules`,
what is not built yet is in `planner.support`, reading YAML with positions in `planner.specfile`, how sizes,
durations, money and ranges are written in `planner.units`. What that module understands is kept as text; a typed
accessor parses it.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from jobs.spec import Optimizer
from planner import units
from planner.spec_types import (
    MAX_NODES,
    AdapterKind,
    EveryText,
    GpuText,
    MemoryRangeText,
    MomentText,
    Name,
    Names,
    NodesText,
    PythonVersion,
    RunName,
    Seconds,
    Section,
    Sha256,
    SomeTexts,
    Text,
    Texts,
    Usd,
    WrittenText,
    keyed,
    listed,
    optional_keyed,
    or_empty,
    packed_in_4bit,
    version,
)

TaskKind = Literal["sft", "classification", "dpo", "reward", "kto", "grpo"]
Quantization = Literal["none", "8bit", "4bit", "fp8"]
MarketChoice = Literal["spot", "on_demand", "reserved"]
Objective = Literal["cheapest", "fastest", "fastest_within_budget", "best_value", "cheapest_by_deadline"]
Metric = Literal["loss", "perplexity", "exact_match", "accuracy", "f1", "reward_margin", "reward"]


class ModelSection(Section):
    """The base model; a single text is its id."""

    id: Text = Field(description="Hugging Face id, or a local directory with config.json")
    revision: WrittenText | None = Field(default=None, description="Commit, tag or branch")
    trust_remote_code: bool = Field(
        default=False, description="Allow the repository's own Python code to run"
    )


class MethodSection(Section):
    """How the weights are changed; a single text is its kind."""

    kind: AdapterKind = Field(
        default="lora", description="full, or an adapter kind; qlora = lora on a 4-bit base"
    )
    rank: int = Field(
        default=16, ge=1, le=4096, description="Adapter rank r; of oft and boft the size of a block"
    )
    alpha: float | None = Field(default=None, gt=0, le=10**6, description="Adapter scale; default 2 x rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Adapter dropout")
    targets: tuple[Text, ...] | Literal["all-linear", "attention"] = Field(
        default="all-linear", description="Module names, or all-linear, or attention (q, k, v, o)"
    )

    virtual_tokens: int = Field(
        default=20,
        ge=1,
        le=10**4,
        description="Learned tokens before each row, for prompt_tuning, prefix_tuning and p_tuning",
    )

    def effective_alpha(self) -> float:
        """The adapter scale with its default filled in."""
        return self.alpha if self.alpha is not None else 2.0 * self.rank


class DataSection(Section):
    """The examples to learn from; paths are relative to the spec's file. A single text is `train`."""

    train: Text | None = Field(
        default=None,
        description="File (jsonl, csv, parquet, txt), directory of files, hub data set, s3://, gs:// or https:// URI",
    )
    eval: Text | None = Field(default=None, description="Held-out examples, same format")
    format: Literal[
        "auto", "prompt_completion", "messages", "text", "label", "preference", "unpaired", "prompt"
    ] = Field(default="auto", description="What an example looks like; auto looks at its keys")
    samples: int | None = Field(
        default=None, ge=1, le=10**12, description="Training examples, if the file is not here"
    )
    tokens_per_sample: float | None = Field(
        default=None, gt=0, le=10**9, description="Mean tokens of one example"
    )
    max_tokens_per_sample: float | None = Field(
        default=None, gt=0, le=10**9, description="Tokens of the longest example, if the file is not here"
    )
    eval_samples: int | None = Field(
        default=None, ge=0, le=10**12, description="Held-out examples, if the file is not here"
    )
    revision: WrittenText | None = Field(
        default=None,
        description="Of a hub data set: commit, tag or branch; of s3:// a version id of data.train",
    )
    split: Text = Field(default="train", description="Of a hub data set, for data.train")
    eval_split: Text = Field(default="validation", description="Of a hub data set, for data.eval")
    sha256: Sha256 | None = Field(default=None, description="Of data.train; other content is refused")
    eval_sha256: Sha256 | None = Field(default=None, description="Of data.eval; other content is refused")
    regions: SomeTexts | None = Field(
        default=None, description="Regions that the data may be brought to; machines elsewhere are left out"
    )
    labels: int = Field(default=2, ge=2, le=10**6, description="Number of classes, for task classification")


class TrainSection(Section):
    """Hyper-parameters of training."""

    epochs: float | None = Field(default=None, gt=0, le=10**6, description="Passes over the data; default 1")
    steps: int | None = Field(default=None, ge=1, le=10**12, description="Optimizer steps, instead of epochs")
    sequence_length: int = Field(
        default=2048, ge=1, le=10**8, description="Longest example in tokens; longer ones are cut"
    )
    packing: bool = Field(default=False, description="Fill each row with several examples")
    global_batch: int = Field(
        default=16, ge=1, le=10**9, description="Examples between optimizer steps, over all GPUs"
    )
    micro_batch: Annotated[int, Field(ge=1, le=10**6)] | Literal["auto"] = Field(
        default="auto", description="Examples a GPU holds at once"
    )
    learning_rate: float = Field(default=2e-4, gt=0, le=100)
    scheduler: Literal["linear", "cosine", "constant"] = "cosine"
    warmup: float = Field(default=0.03, ge=0, lt=1, description="Share of the steps")
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    max_grad_norm: float = Field(default=1.0, ge=0, le=10**6, description="0 does not clip")
    optimizer: Optimizer = "adamw_fused"
    precision: Literal["bf16", "fp16", "fp32", "fp8"] = "bf16"
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    offload: Literal["none", "parameters"] = Field(
        default="none",
        description="What lies in the host's memory: parameters is weights, gradients and optimizer, which steps there",
    )
    attention: Literal["auto", "flash", "sdpa", "eager"] = "auto"
    fused_loss: bool = Field(
        default=False, description="Without effect: what is launched never holds a batch's logits whole"
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1)


class PreferenceSection(Section):
    """What dpo and kto learn by."""

    beta: float = Field(default=0.1, gt=0, le=10**3, description="How dear it is to leave the base model")
    loss: Literal["auto", "sigmoid", "hinge", "ipo", "kto", "apo_zero_unpaired"] = Field(
        default="auto", description="auto is sigmoid for dpo and kto for kto"
    )
    desirable_weight: float = Field(default=1.0, gt=0, le=10**6, description="Of good answers, for kto")
    undesirable_weight: float = Field(default=1.0, gt=0, le=10**6, description="Of bad answers, for kto")


class RolloutSection(Section):
    """What grpo samples and judges; then `train.global_batch` counts answers."""

    generations: int = Field(default=8, ge=2, le=10**4, description="Answers sampled for each prompt")
    completion_tokens: int = Field(default=256, ge=1, le=10**7, description="Longest answer")
    temperature: float = Field(default=1.0, gt=0, le=100, description="Of the sampling")
    beta: float = Field(
        default=0.0,
        ge=0,
        le=10**3,
        description="Weight of the distance to the base model; 0 holds no reference",
    )
    rewards: SomeTexts = Field(
        default=("exact_match",),
        description="exact_match, contains_answer, last_number (against each example's `answer`), "
        "file.py:function or package.module:function; they are added up",
    )


class GuardSection(Section):
    """What the tuned model must not forget; a single text is `data`."""

    data: Text = Field(description="General examples, same places and format as data.train")
    revision: WrittenText | None = Field(default=None, description="As of data.train")
    split: Text = Field(default="test", description="Of a hub data set")
    sha256: Sha256 | None = Field(default=None, description="Of data; other content is refused")
    metric: Literal["auto"] | Metric = Field(default="auto", description="auto is the job's own")
    at_most_worse: float = Field(
        default=0.0, ge=0, le=10**6, description="Worse than the base by at most this, in the metric's unit"
    )
    samples: int | None = Field(default=None, ge=1, le=10**12, description="At most this many examples")


class EvaluateSection(Section):
    """The same metric is measured on the base model and on the tuned one."""

    metric: Literal["auto"] | Metric = "auto"
    every: EveryText | None = Field(default=None, description="Also during training: `200 steps` or `30m`")
    samples: int | None = Field(
        default=None, ge=1, le=10**12, description="At most this many held-out examples"
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        le=10**6,
        description="Training ends after so many evaluations without a better one",
    )
    min_change: float = Field(
        default=0.0, ge=0, le=10**6, description="What the metric must be better by to count as better"
    )
    choose: Literal["last", "best"] = Field(
        default="last", description="Which weights are handed over: of the last step or the best evaluation"
    )
    guard: Annotated[GuardSection | None, optional_keyed("data", GuardSection)] = Field(
        default=None, description="General hold-out; a model that is worse on it is kept, but the run fails"
    )

    def every_parsed(self) -> units.Every | None:
        """How often during training, None if only before and after it."""
        return None if self.every is None else units.parse_every(self.every)


class MetricGoal(Section):
    """The quality to reach."""

    name: Metric
    at_least: float = Field(
        description="Training ends where an evaluation (evaluate.every) reaches it, and does not start if the base does"
    )


class GoalSection(Section):
    """When, for how much, and what to prefer."""

    deadline: MomentText | None = Field(
        default=None, description="RFC 3339 time with zone, or a date (its end, UTC)"
    )
    within: Seconds | None = Field(default=None, description="Duration from now, as in 24h")
    budget: Usd | None = Field(default=None, description="US dollars for the whole job, as in 50usd")
    objective: Objective = "cheapest"
    metric: MetricGoal | None = None

    def deadline_at(self) -> datetime | None:
        """`deadline` in UTC, None if there is none (`within` counts from a moment the caller knows)."""
        return None if self.deadline is None else units.parse_deadline(self.deadline)


class WhereSection(Section):
    """Which machines may be rented."""

    clouds: SomeTexts | None = None
    regions: SomeTexts | None = None
    gpus: (
        Annotated[
            tuple[GpuText, ...],
            BeforeValidator(listed, json_schema_input_type=str | tuple[str, ...]),
            Field(min_length=1),
        ]
        | None
    ) = Field(default=None, description="As in [A100-80GB, H100:1..8]; the numbers are GPUs in one machine")
    gpu_memory: MemoryRangeText | None = Field(
        default=None, description="Range of one GPU's memory, as in 24GB..80GB"
    )
    market: Annotated[
        tuple[MarketChoice, ...],
        BeforeValidator(listed, json_schema_input_type=MarketChoice | tuple[MarketChoice, ...]),
        Field(min_length=1),
    ] = ("spot", "on_demand")
    nodes: NodesText = Field(default="1", description="Number of machines or a range, as in 1..4")
    max_usd_per_hour: Usd | None = Field(
        default=None, description="Most that all machines of the job cost together, in US dollars an hour"
    )

    def gpu_filters(self) -> tuple[units.GpuFilter, ...] | None:
        """The GPUs allowed, None for any."""
        return None if self.gpus is None else tuple(units.parse_gpu_filter(text) for text in self.gpus)

    def gpu_memory_range_gib(self) -> tuple[float, float] | None:
        """Least and most memory of one GPU (an open end is infinite), None for any."""
        return None if self.gpu_memory is None else units.parse_memory_range_gib(self.gpu_memory)

    def nodes_range(self) -> tuple[int, int]:
        """Fewest and most machines."""
        least, most = units.parse_count_range(self.nodes)
        return least, MAX_NODES if most is None else most


class EnvironmentSection(Section):
    """What the worker's machine needs."""

    image: Text | None = Field(default=None, description="Container image")
    python: PythonVersion | None = Field(
        default=None, description="As in 3.11; or the path of an interpreter that has all requirements"
    )
    packages: Texts = Field(default=(), description="Further pip requirements")
    setup: Text | None = Field(default=None, description="Shell lines run once before training")
    env: dict[Name, WrittenText] = Field(default_factory=dict, description="Plain environment variables")
    secrets: Names = Field(
        default=(), description="Names of environment variables; values never enter the spec"
    )

    @property
    def names_interpreter(self) -> bool:
        """Whether `python` is the path of one that has everything, not a version."""
        return self.python is not None and not self.python[0].isdigit()


class CheckpointsSection(Section):
    """Where and how often training state is committed; a single text is `uri`."""

    uri: Text | None = Field(
        default=None, description="file://, s3://, gs:// or az:// prefix; default: below the state directory"
    )
    every: EveryText = Field(default="auto", description="auto, `100 steps` or `15m`")
    keep: int = Field(default=2, ge=1, le=1000, description="Newest checkpoints that stay")
    upload_limit_mib_per_s: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="What uploads to a bucket may take of the line"
    )

    def every_parsed(self) -> units.Every:
        """How often."""
        return units.parse_every(self.every)


class OutputSection(Section):
    """Where the finished model goes; a single text is `uri`."""

    uri: Text | None = Field(
        default=None, description="Directory or URI; default: stays beside the checkpoints"
    )


class FineTuneSpec(Section):
    """A whole fine-tuning job, as written in `spec.yaml`."""

    spec_version: Annotated[Literal[1], BeforeValidator(version)] = 1
    name: RunName = Field(description="Lower-case letters, digits and dashes")
    project: Text = "default"
    owner: Text | None = None
    labels: dict[Text, WrittenText] = Field(
        default_factory=dict, description="Tags on everything that is rented"
    )
    model: Annotated[ModelSection, keyed("id", ModelSection)]
    method: Annotated[MethodSection, keyed("kind", MethodSection)] = Field(default_factory=MethodSection)
    quantization: Quantization | None = Field(
        default=None, description="Of the frozen base; default none, 4bit for qlora"
    )
    task: TaskKind = "sft"
    data: Annotated[DataSection, keyed("train", DataSection)] = Field(default_factory=DataSection)
    train: Annotated[TrainSection, or_empty(TrainSection)] = Field(default_factory=TrainSection)
    preference: Annotated[PreferenceSection, or_empty(PreferenceSection)] = Field(
        default_factory=PreferenceSection
    )
    rollout: Annotated[RolloutSection, or_empty(RolloutSection)] = Field(default_factory=RolloutSection)
    evaluate: Annotated[EvaluateSection, or_empty(EvaluateSection)] = Field(default_factory=EvaluateSection)
    goal: Annotated[GoalSection, or_empty(GoalSection)] = Field(default_factory=GoalSection)
    where: Annotated[WhereSection, or_empty(WhereSection)] = Field(default_factory=WhereSection)
    environment: Annotated[EnvironmentSection, or_empty(EnvironmentSection)] = Field(
        default_factory=EnvironmentSection
    )
    checkpoints: Annotated[CheckpointsSection, keyed("uri", CheckpointsSection)] = Field(
        default_factory=CheckpointsSection
    )
    output: Annotated[OutputSection, keyed("uri", OutputSection)] = Field(default_factory=OutputSection)
    track: Literal["none", "mlflow", "wandb", "tensorboard"] = "none"
    notify: Names = Field(
        default=(),
        description="Names of environment variables with addresses of apprise, who are told how the run goes",
    )

    def canonical(self) -> dict[str, Any]:
        """The spec as plain JSON types with every default filled in; reading it back gives an equal spec."""
        return self.model_dump(mode="json")

    def hash(self) -> str:
        """`sha256:...` of the canonical JSON (sorted keys, no spaces); it names the spec."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def effective_quantization(self) -> Quantization:
        """Quantization of the frozen base with its default filled in."""
        if self.quantization is not None:
            return self.quantization
        return "4bit" if self.method.kind in ("qlora", "qdora") or packed_in_4bit(self.model.id) else "none"
