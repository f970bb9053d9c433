"""From a spec and its files to the question that the estimate answers: the edge of the pure core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from jobs.spec_rules import EXPERT_NAMES, FUSED_EXPERTS, PROMPT_LEARNING
from planner.architecture import ModelArchitecture, adapter_parameters, parameter_counts
from planner.chat_template import template_warnings
from planner.data_check import SAMPLED_CHARS, data_warnings
from planner.dataset import DataFacts, measure_dataset
from planner.egress import Place
from planner.errors import Finding, SpecError
from planner.filters import OfferFilter, offer_filter
from planner.job import Job, size_job
from planner.model_facts import ModelSource, local_facts
from planner.model_files import stored_bytes
from planner.model_support import as_launched, missing_kernels, text_only, unsupported_model
from planner.positions import beyond_context, unplaced, within_positions
from planner.question import Goal, Question
from planner.search import Freedom
from planner.setup import Adapter, TrainingSetup
from planner.spec import FineTuneSpec
from planner.spec_types import packed_in_4bit
from planner.specfile import data_ref, resolve_path
from planner.tokenizer_files import FILE_NAME, is_installed
from planner.units import GpuFilter, parse_gpu_filter
from planner.workload import flops_per_token
from providers.errors import UsageError
from providers.s3_location import is_bucket, s3_location, stated_region

_UNKNOWN = DataFacts(None, None, "unknown")
_EXPERTS = EXPERT_NAMES | {"up", "down"}
#: Whose object stores are at hosts that end so.
_STORE_HOSTS = {
    "r2.cloudflarestorage.com": "cloudflare",
    "storage.googleapis.com": "gcp",
    "amazonaws.com": "aws",
}


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line fixes over the spec; None leaves the spec's choice.

    Attributes:
        gpu: Only this GPU, canonical name.
        count: Only machines with this many GPUs; how many machines is for `nodes` or the spec to say.
        nodes: Number of machines.
        micro_batch: Rows a GPU.
        market: spot or on_demand only.

    A GPU named here replaces `where.gpus` and `where.gpu_memory`.
    """

    gpu: str | None = None
    count: int | None = None
    nodes: int | None = None
    micro_batch: int | None = None
    market: str | None = None


def gather(
    spec: FineTuneSpec,
    base_dir: Path,
    now: datetime,
    overrides: Overrides | None = None,
    models: ModelSource = local_facts,
) -> Question:
    """Read the model's facts and the data's size and put them together with what is wanted.

    Args:
        spec: The whole spec.
        base_dir: Directory that the spec's paths are relative to.
        now: UTC.
        overrides: From the command line.
        models: Who knows the model.

    Raises:
        UsageError: Unknown model, unreadable data.
        SpecError: The amount of data is unknown, or rows may be longer than the model has positions.
    """
    fixed = overrides or Overrides()
    facts = models(spec.model.id, base_dir, spec.model.revision)
    arch, computed = facts.arch, as_launched(facts.arch)
    spec = within_positions(spec, arch)
    if misplaced := list(unplaced(spec, arch)):
        raise SpecError(misplaced)
    train, held_out = (_facts(spec, key, base_dir, arch) for key in ("train", "eval"))
    job = size_job(spec, train, held_out)
    told = (
        *_packed(spec),
        *_unrouted(arch, computed),
        *text_only(arch),
        *_not_adapted(spec, arch),
        *_not_launched(spec, arch),
        *data_warnings(spec, base_dir),
        *template_warnings(spec, base_dir, most_chars=SAMPLED_CHARS),
        *beyond_context(arch, job.sequence_tokens),
    )
    job = job._replace(warnings=(*job.warnings, *told))
    base = _base_setup(spec, computed, job)
    counts = parameter_counts(arch, spec.task, spec.data.labels)
    return Question(
        arch=arch,
        counts=counts,
        trainable=_trainable(base),
        flops_total=job.tokens_total
        * flops_per_token(base._replace(row_tokens=job.row_tokens, attended_tokens=job.attended_tokens)),
        job=job,
        stored_bytes=stored_bytes(spec, base_dir, facts, base),
        base=base,
        freedom=_freedom(spec, arch, fixed),
        nodes=_nodes(spec, fixed),
        filter=_filter(spec, fixed),
        goal=_goal(spec, now),
        bucket=_bucket(spec.checkpoints.uri),
        keep_checkpoints=spec.checkpoints.keep,
        chooses_best=spec.evaluate.choose == "best",
        publication=facts.publication,
        remote_code_trusted=spec.model.trust_remote_code,
    )


def _trainable(base: TrainingSetup) -> int:
    if base.adapter is None:
        return parameter_counts(base.arch, base.task, base.labels).trainable
    return adapter_parameters(base.arch, base.adapter)


def _packed(spec: FineTuneSpec) -> Iterator[tuple[str, str]]:
    """A note where the model's files make a 4-bit base of what the method does not."""
    if packed_in_4bit(spec.model.id) and spec.method.kind not in ("qlora", "qdora"):
        yield (
            "packed_4bit",
            f"the files of {spec.model.id} are packed in 4 bits: {spec.method.kind} runs on a 4-bit base, like qlora",
        )


def _unrouted(arch: ModelArchitecture, computed: ModelArchitecture) -> Iterator[tuple[str, str]]:
    """A warning where every expert is computed for every token."""
    if arch.experts_per_token == computed.experts_per_token:
        return
    chosen, computed_active = (parameter_counts(one).active for one in (arch, computed))
    yield (
        "all_experts",
        f"transformers computes all {arch.experts} experts of {arch.id} for each token and routes to "
        f"{arch.experts_per_token}: {computed_active / chosen:.1f} times the parameters that it needs",
    )


def _not_launched(spec: FineTuneSpec, arch: ModelArchitecture) -> Iterator[tuple[str, str]]:
    """A warning for each thing that `plan launch` will refuse on account of the model."""
    for finding in (*unsupported_model(spec, arch), *missing_kernels(spec, arch)):
        yield finding.code, finding.message


def _facts(spec: FineTuneSpec, key: str, base_dir: Path, arch: ModelArchitecture) -> DataFacts:
    """Facts of a local file that `data.train` or `data.eval` names; anything else is unknown here."""
    reference = getattr(spec.data, key)
    if reference is None:
        return _UNKNOWN
    ref = data_ref(base_dir, reference)
    if ref.kind != "path":
        return _UNKNOWN
    tokenizer = resolve_path(base_dir, arch.id) / FILE_NAME
    at_hand = tokenizer.is_file() and is_installed()
    try:
        return measure_dataset(Path(ref.value), arch.vocab, tokenizer if at_hand else None)
    except UsageError as error:
        error.path = f"data.{key}"
        raise


def _bucket(uri: str | None) -> Place | None:
    """Where a store is, as far as its URI tells."""
    if uri is None or not is_bucket(uri):
        return None
    if not uri.startswith("s3://"):
        return Place({"gs": "gcp", "az": "azure"}[uri.partition("://")[0]], stated_region(uri))
    location = s3_location(uri)
    host = urlsplit(location.endpoint or "https://s3.amazonaws.com").hostname or ""
    cloud = next((name for suffix, name in _STORE_HOSTS.items() if host.endswith(suffix)), None)
    return None if cloud is None else Place(cloud, location.region)


def _base_setup(spec: FineTuneSpec, arch: ModelArchitecture, job: Job) -> TrainingSetup:
    train = spec.train
    return TrainingSetup(
        arch=arch,
        task=spec.task,
        adapter=adapter_of(spec, arch),
        quantization=spec.effective_quantization(),
        precision=_precision(spec),
        optimizer=train.optimizer,
        sequence_tokens=job.sequence_tokens,
        attention=_attention(arch, train.attention),
        labels=spec.data.labels,
        offload=train.offload,
        # what waited for the last micro-batch would do so on the GPU, whole (`jobs.sharded`)
        reduces_each_micro_batch=train.offload != "none",
        preference_loss=spec.preference.loss,
        reference=spec.task != "grpo" or spec.rollout.beta > 0,
        generated_tokens=spec.rollout.completion_tokens,
    )


def _attention(arch: ModelArchitecture, asked: str) -> str:
    """What transformers takes unasked: fused attention, where it has it for the family."""
    if asked != "auto":
        return asked
    return "sdpa" if arch.fused_attention else "eager"


def _precision(spec: FineTuneSpec) -> str:
    """As the worker trains: fp16 needs fp32 master weights where the weights themselves are trained."""
    if spec.train.precision == "fp16" and spec.method.kind == "full":
        return "amp_fp16"
    return spec.train.precision


#: Kinds that drop out what enters an adapter; `module_dropout` of others leaves whole ones out.
_DROP_INPUTS = ("lora", "qlora", "dora", "qdora", "rslora", "vera")


def adapter_of(spec: FineTuneSpec, arch: ModelArchitecture) -> Adapter | None:
    """The spec's method as it is put on this model, None for a full fine-tuning.

    Raises:
        SpecError: Its targets are experts.
    """
    kind = spec.method.kind
    if kind == "full":
        return None
    names = {"qlora": "lora", "qdora": "dora"}
    return Adapter(
        kind=names.get(kind, kind),
        rank=spec.method.rank,
        targets=_targets(spec, arch),
        dropout=spec.method.dropout > 0 and kind in _DROP_INPUTS,
        virtual_tokens=spec.method.virtual_tokens,
    )


def _targets(spec: FineTuneSpec, arch: ModelArchitecture) -> tuple[str, ...]:
    """Where adapters go on this model.

    Raises:
        SpecError: On experts, which peft would compute anew with each pass.
    """
    targets = spec.method.targets
    if arch.model_type not in FUSED_EXPERTS or targets == "attention":
        return (targets,) if isinstance(targets, str) else targets
    if targets == "all-linear":
        return ("attention",)
    experts = sorted(name for name in targets if name.rpartition(".")[2] in _EXPERTS)
    if experts:
        raise SpecError(
            [
                Finding(
                    f"adapters on experts are not supported, which {', '.join(experts)} would be in {arch.id}",
                    path="method.targets",
                    code="expert_targets",
                    hint="name modules of the attention, or use attention or all-linear, which leave experts alone",
                )
            ]
        )
    return targets


def _not_adapted(spec: FineTuneSpec, arch: ModelArchitecture) -> Iterator[tuple[str, str]]:
    """A warning where `all-linear` leaves most of a model out."""
    adapted = spec.method.kind not in ("full", "ln_tuning", *PROMPT_LEARNING)
    if adapted and arch.model_type in FUSED_EXPERTS and spec.method.targets == "all-linear":
        yield (
            "experts_left",
            f"all-linear adapts the attention of {arch.id}; its experts and routers stay as they are",
        )


def _freedom(spec: FineTuneSpec, arch: ModelArchitecture, fixed: Overrides) -> Freedom:
    micro = fixed.micro_batch if fixed.micro_batch is not None else spec.train.micro_batch
    checkpointing = spec.train.gradient_checkpointing
    if checkpointing == "auto" and not arch.recomputes:
        checkpointing = False
    return Freedom(
        micro_batch=None if micro == "auto" else micro,
        gradient_checkpointing=None if checkpointing == "auto" else checkpointing,
    )


def _nodes(spec: FineTuneSpec, fixed: Overrides) -> tuple[int, ...]:
    """Numbers of machines to try: both ends of the range and the powers of two between."""
    if fixed.nodes is not None:
        return (fixed.nodes,)
    least, most = spec.where.nodes_range()
    powers = (2**power for power in range(most.bit_length()))
    return tuple(sorted({least, most, *(nodes for nodes in powers if least < nodes < most)}))


def _filter(spec: FineTuneSpec, fixed: Overrides) -> OfferFilter:
    regions = spec.data.regions
    allowed = offer_filter(spec.where)._replace(data_regions=None if regions is None else frozenset(regions))
    if fixed.market is not None:
        allowed = allowed._replace(markets=frozenset({fixed.market}))
    if fixed.gpu is not None:
        wanted = _gpu(fixed.gpu)
        count = fixed.count or wanted.least
        most = fixed.count or wanted.most
        allowed = allowed._replace(gpus=(GpuFilter(wanted.name, count, most),), gpu_memory_gib=None)
    elif fixed.count is not None:
        allowed = allowed._replace(gpu_count=fixed.count)
    return allowed


def _gpu(text: str) -> GpuFilter:
    try:
        return parse_gpu_filter(text)
    except ValueError as error:
        raise UsageError(
            str(error), path="--gpu", hint="`plan offers` lists the GPUs that can be rented"
        ) from None


def _goal(spec: FineTuneSpec, now: datetime) -> Goal:
    deadline = spec.goal.deadline_at()
    if spec.goal.within is not None:
        deadline = now + timedelta(seconds=spec.goal.within)
    return Goal(spec.goal.objective, now, deadline, spec.goal.budget)
