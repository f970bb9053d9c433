"""Rules between fields of a spec: what is well written but contradicts itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from jobs.spec_rules import BITSANDBYTES, least_rows
from planner.errors import Finding
from planner.spec import FineTuneSpec
from planner.spec_types import packed_in_4bit
from providers.errors import UsageError
from providers.s3_location import is_bucket, stated_region

Rule = Callable[[FineTuneSpec], Iterator[Finding]]

_SECRET_NAME = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS|API_?KEY|ACCESS_KEY|PRIVATE_KEY)$", re.I
)

_DATA_SCHEMES = ("file", "hf", "s3", "gs", "https")
_SCHEMES = frozenset({*_DATA_SCHEMES, "az", "http"})

_METRICS = {
    "sft": ("loss", "perplexity", "exact_match"),
    "classification": ("loss", "accuracy", "f1"),
    "dpo": ("loss", "reward_margin", "accuracy"),
    "reward": ("loss", "reward_margin", "accuracy"),
    "kto": ("loss", "reward_margin"),
    "grpo": ("reward", "exact_match"),
}
#: Heads that score words, as transformers' families name them; TRL's trainers multiply by their weight themselves.
_HEADS = frozenset({"lm_head", "embed_out"})
_LOSSES = {"dpo": ("sigmoid", "hinge", "ipo"), "kto": ("kto", "apo_zero_unpaired")}
_FORMATS = {
    "sft": ("prompt_completion", "messages", "text"),
    "classification": ("label",),
    "dpo": ("preference",),
    "reward": ("preference",),
    "kto": ("unpaired", "preference"),
    "grpo": ("prompt", "prompt_completion"),
}


def broken_rules(spec: FineTuneSpec) -> list[Finding]:
    """Every contradiction in a spec, with dotted paths and without places."""
    return [finding for rule in _RULES for finding in rule(spec)]


def _conflict(path: str, message: str, hint: str | None = None) -> Finding:
    return Finding(message, path=path, code="conflict", hint=hint)


def _length(spec: FineTuneSpec) -> Iterator[Finding]:
    if spec.train.epochs is not None and spec.train.steps is not None:
        yield _conflict("train.steps", "train.epochs is given too", "keep one of the two")


def _deadline(spec: FineTuneSpec) -> Iterator[Finding]:
    if spec.goal.deadline is not None and spec.goal.within is not None:
        yield _conflict("goal.within", "goal.deadline is given too", "keep one of the two")


def _objective(spec: FineTuneSpec) -> Iterator[Finding]:
    goal = spec.goal
    if goal.objective == "cheapest_by_deadline" and goal.deadline is None and goal.within is None:
        yield _conflict("goal.objective", "needs a deadline", "give goal.deadline or goal.within")
    if goal.objective == "fastest_within_budget" and goal.budget is None:
        yield _conflict("goal.objective", "needs a budget", "give goal.budget")


def _quantization(spec: FineTuneSpec) -> Iterator[Finding]:
    kind, quantization = spec.method.kind, spec.quantization
    if quantization is None:
        return
    if kind in ("qlora", "qdora") and quantization != "4bit":
        hint = f"use method.kind {kind[1:]} with quantization {quantization}, or leave quantization out"
        yield _conflict("quantization", f"{kind} means a 4-bit base, not {quantization}", hint)
    if kind == "full" and quantization != "none":
        message = f"a {quantization} base is frozen, but method full trains every weight"
        yield _conflict("quantization", message, "use method lora, or leave quantization out")


def _packed(spec: FineTuneSpec) -> Iterator[Finding]:
    if not packed_in_4bit(spec.model.id):
        return
    if spec.method.kind == "full":
        message = f"{spec.model.id} is packed in 4 bits, but method full trains every weight"
        yield _conflict("model.id", message, "use method lora, or the model whose files are not packed")
    elif spec.quantization not in (None, "4bit"):
        message = f"{spec.model.id} is packed in 4 bits, not {spec.quantization}"
        yield _conflict("quantization", message, "leave it out, or use the model whose files are not packed")


def _targets(spec: FineTuneSpec) -> Iterator[Finding]:
    targets = spec.method.targets
    heads = () if isinstance(targets, str) else [name for name in targets if name.split(".")[-1] in _HEADS]
    if heads and spec.task not in ("classification", "reward"):
        message = f"the output head ({heads[0]}) cannot have an adapter in task {spec.task}"
        yield _conflict("method.targets", message, "leave it out; all-linear is every other linear module")


def _metric(spec: FineTuneSpec) -> Iterator[Finding]:
    allowed = _METRICS[spec.task]
    hint = f"metrics of task {spec.task} are {', '.join(allowed)}"
    if spec.evaluate.metric != "auto" and spec.evaluate.metric not in allowed:
        yield _conflict("evaluate.metric", f"{spec.evaluate.metric} is no metric of task {spec.task}", hint)
    goal = spec.goal.metric
    if goal is None:
        return
    if spec.data.eval is None and spec.data.train is not None:
        yield _conflict("goal.metric", "there is no held-out data to measure it on", "give data.eval")
    if goal.name not in allowed:
        yield _conflict("goal.metric.name", f"{goal.name} is no metric of task {spec.task}", hint)
    elif goal.name in ("loss", "perplexity"):
        better = ", ".join(name for name in allowed if name not in ("loss", "perplexity"))
        message = f"{goal.name} is better when it is lower, so no value of it is enough"
        yield _conflict("goal.metric.name", message, f"name one of {better}")
    elif spec.evaluate.metric not in ("auto", goal.name):
        message = f"evaluate.metric is {spec.evaluate.metric}, so {goal.name} is never measured"
        yield _conflict("goal.metric.name", message, "name the same metric in both")


def _evaluations(spec: FineTuneSpec) -> Iterator[Finding]:
    evaluate, allowed = spec.evaluate, _METRICS[spec.task]
    for key in ("patience", "choose"):
        wanted = getattr(evaluate, key) not in (None, "last")
        if wanted and evaluate.every is None:
            yield _conflict(
                f"evaluate.{key}",
                "nothing is evaluated during training",
                "give evaluate.every, as in 100 steps",
            )
    needs_rows = evaluate.guard is not None or evaluate.patience is not None or evaluate.choose == "best"
    if needs_rows and spec.data.eval is None and spec.data.train is not None:
        yield _conflict("evaluate", "there is no held-out data to measure on", "give data.eval")
    guard = evaluate.guard
    if guard is not None and guard.metric not in ("auto", *allowed):
        hint = f"metrics of task {spec.task} are {', '.join(allowed)}"
        yield _conflict("evaluate.guard.metric", f"{guard.metric} is no metric of task {spec.task}", hint)


def _format(spec: FineTuneSpec) -> Iterator[Finding]:
    allowed = _FORMATS[spec.task]
    if spec.data.format != "auto" and spec.data.format not in allowed:
        message = f"{spec.data.format} is no format of task {spec.task}"
        yield _conflict("data.format", message, f"formats of task {spec.task} are {', '.join(allowed)}")


def _batches(spec: FineTuneSpec) -> Iterator[Finding]:
    micro = spec.train.micro_batch
    if micro != "auto" and micro > spec.train.global_batch:
        message = f"more examples than train.global_batch ({spec.train.global_batch}) has"
        yield _conflict("train.micro_batch", message, "raise train.global_batch or lower this")
    if spec.train.packing and spec.task != "sft":
        yield _conflict(
            "train.packing", f"task {spec.task} judges each example alone, so none can share a row"
        )


def _offload(spec: FineTuneSpec) -> Iterator[Finding]:
    if spec.train.offload == "none":
        return
    hint = "leave train.offload out"
    if spec.task == "grpo":
        message = "answers are sampled with all weights copied to the GPU again for each token"
        yield _conflict("train.offload", message, hint)
    if spec.effective_quantization() != "none":
        message = f"a {spec.effective_quantization()} base stays on the GPU"
        yield _conflict("train.offload", message, f"{hint}, or use lora without quantization")
    if spec.train.optimizer in BITSANDBYTES:
        message = f"{spec.train.optimizer} steps on a GPU, but its states are on the host"
        yield _conflict("train.optimizer", message, f"use adamw_fused, adamw or sgd, or {hint}")


def _preferences(spec: FineTuneSpec) -> Iterator[Finding]:
    allowed = _LOSSES.get(spec.task, ())
    loss = spec.preference.loss
    if loss not in ("auto", *allowed):
        hint = f"losses of task {spec.task} are {', '.join(allowed)}" if allowed else "leave it out"
        yield _conflict("preference.loss", f"{loss} is no loss of task {spec.task}", hint)
    micro = spec.train.micro_batch
    if micro != "auto" and micro < least_rows(spec.task, loss):
        message = "kto compares the examples of a micro-batch with each other, so one alone is not enough"
        yield _conflict("train.micro_batch", message, "write 2 or more, or use loss apo_zero_unpaired")


def _groups(spec: FineTuneSpec) -> Iterator[Finding]:
    size = spec.rollout.generations
    if spec.task == "grpo" and spec.train.global_batch % size:
        message = f"{spec.train.global_batch} answers do not make whole groups of {size}"
        hint = "make it a multiple of rollout.generations, which are the answers to one prompt"
        yield _conflict("train.global_batch", message, hint)


def _secrets(spec: FineTuneSpec) -> Iterator[Finding]:
    hint = "list the name under environment.secrets and set it where you run `plan`"
    for name in spec.environment.env:
        if name in spec.environment.secrets:
            yield _conflict(
                f"environment.env.{name}", "stands under environment.secrets too", "keep it there only"
            )
        elif _SECRET_NAME.search(name):
            yield Finding(
                "looks like a secret, and a spec is no place for one",
                f"environment.env.{name}",
                code="secret_in_spec",
                hint=hint,
            )


def _object_stores(spec: FineTuneSpec) -> Iterator[Finding]:
    """Refused before anything is written or shown: an option that there is none of may be a secret."""
    for key in ("checkpoints", "output"):
        uri = getattr(spec, key).uri
        if uri is None or not is_bucket(uri):
            continue
        try:
            stated_region(uri)
        except UsageError as error:
            yield Finding(error.message, f"{key}.uri", code="bad_uri", hint=error.hint)


def _schemes(spec: FineTuneSpec) -> Iterator[Finding]:
    """Addresses that nobody understands: without a rule they would be taken for paths."""
    guard = spec.evaluate.guard
    data = {"model.id": spec.model.id, "data.train": spec.data.train, "data.eval": spec.data.eval}
    data["evaluate.guard.data"] = None if guard is None else guard.data
    stores = {"checkpoints.uri": spec.checkpoints.uri, "output.uri": spec.output.uri}
    for path, text in (data | stores).items():
        scheme, colon, rest = (text or "").partition(":")
        if colon and scheme in _SCHEMES and not rest.startswith("//"):
            hint = f"write it as {scheme}://..."
            yield Finding(f"{scheme}: without // is no address", path, code="bad_uri", hint=hint)
        elif rest.startswith("//") and path in data and scheme not in _DATA_SCHEMES:
            hint = f"there are paths, hub ids, {', '.join(f'{one}://' for one in _DATA_SCHEMES)}"
            yield Finding(f"{scheme}:// is not understood", path, code="bad_uri", hint=hint)


_RULES: tuple[Rule, ...] = (
    _length, _deadline, _objective, _quantization, _packed, _targets, _metric, _evaluations, _format, _batches,
    _offload, _preferences, _groups, _secrets, _object_stores, _schemes,
)  # fmt: skip
