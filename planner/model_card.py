"""The model card of a finished model: what it was made of, how good it is, and what it cost. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.progress import GuardResult, MetricResult
from jobs.spec import JobSpec
from planner.architecture import CLASSIFIERS
from planner.money import usd_text_of_micro

#: Classes that peft has one of its own for, which finds the base by itself.
_PEFT_CLASSES = frozenset({"AutoModelForCausalLM", "AutoModelForSequenceClassification"})
_UNKNOWN = "unknown"
_TAGS = {"dpo": "dpo", "kto": "kto", "reward": "reward-model", "grpo": "grpo", "sft": "sft"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a card is made of; None is unknown and shown so.

    Attributes:
        job: As it was trained.
        gguf: Whether it is one GGUF file.
        auto_class: Of transformers, which loads the model.
        merged: Whether the adapter is worked into the base, or there never was one.
        step: Whose weights they are.
        metrics: Of base and tuned.
        guard: What came of the general hold-out.
        data_sha256: Of the data by use: train, eval.
        license: Of the base model.
        cost_micro_usd: Of the whole run.
        code_sha256: Of the worker's code.
        version: Of this program.
    """

    job: JobSpec
    auto_class: str
    merged: bool
    gguf: bool
    step: int
    metrics: Sequence[MetricResult]
    guard: GuardResult | None
    data_sha256: dict[str, str]
    license: str | None
    cost_micro_usd: int | None
    code_sha256: str | None
    version: str


def model_card(facts: Facts) -> str:
    """README.md with the front matter that the Hugging Face Hub reads."""
    job = facts.job
    sections = [
        _front_matter(facts),
        f"# {job.name}",
        _flag(facts),
        _origin(facts),
        _quality(facts),
        _use(facts),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(facts: Facts) -> str:
    job, merged = facts.job, facts.merged
    license_lines = [f"license: {json.dumps(facts.license)}"] if facts.license else [
        "license: other", f"license_name: {_UNKNOWN}"
    ]  # fmt: skip
    pipeline = "text-classification" if job.task in ("classification", "reward") else "text-generation"
    tags = ["tuneplan", *([_TAGS[job.task]] if job.task in _TAGS else []), job.method.kind]
    lines = [
        f"base_model: {json.dumps(job.model.id)}",
        f"base_model_relation: {'finetune' if merged else 'adapter'}",
        f"library_name: {'gguf' if facts.gguf else 'transformers' if merged else 'peft'}",
        *license_lines,
        f"pipeline_tag: {pipeline}",
        f"tags: {json.dumps(tags)}",
    ]
    return "\n".join(("---", *lines, "---"))


def _flag(facts: Facts) -> str:
    guard = facts.guard
    if guard is None or guard.passed:
        return ""
    change = f"{guard.metric} from {guard.base:.4g} to {guard.tuned:.4g}"
    allowed = f"at most {guard.at_most_worse:g} worse was allowed"
    return f"> **Regressed.** On a general hold-out it went {change}; {allowed}."


def _origin(facts: Facts) -> str:
    job, train = facts.job, facts.job.train
    length = f"{train.epochs:g} epochs" if train.epochs is not None else f"{train.steps} steps"
    rows = train.micro_batch * train.grad_accum * train.processes
    cost = (
        _UNKNOWN if facts.cost_micro_usd is None else f"{usd_text_of_micro(facts.cost_micro_usd)} US dollars"
    )
    base = f"{job.model.id} at revision {job.model.revision or 'not pinned'}"
    method: str = job.method.kind
    if method not in ("full", "ia3", "ln_tuning", "prompt_tuning", "prefix_tuning"):
        method += f", rank {job.method.rank}"
    if job.quantization != "none":
        method += f", trained on a {job.quantization} base" + (
            ", merged into the whole one" if facts.merged else ""
        )
    rate = f"learning rate {train.learning_rate:g}, {train.precision}, seed {train.seed}"
    listed = [
        ("base model", base),
        ("licence of the base", facts.license or _UNKNOWN),
        ("task", job.task),
        ("method", method),
        ("training", f"{length}, {rows} rows a step, {rate}; weights of step {facts.step}"),
        *((f"sha256 of the {use} data", digest) for use, digest in sorted(facts.data_sha256.items())),
        ("cost", cost),
        ("run", job.run_id),
        ("sha256 of the training code", facts.code_sha256 or _UNKNOWN),
        ("made with", f"tuneplan {facts.version}"),
    ]
    return "\n".join(["| what | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in listed)])


def _quality(facts: Facts) -> str:
    if not facts.metrics:
        return "Nothing was measured: the run had no held-out data."
    lines = ["## Measured", "", "| metric | rows | base | tuned | better is |", "|---|---|---|---|---|"]
    for one in facts.metrics:
        name = one.name + (" (general hold-out)" if one.split == "guard" else "")
        base, tuned = (_UNKNOWN if value is None else f"{value:.4g}" for value in (one.base, one.tuned))
        better = "higher" if one.higher_is_better else "lower"
        lines.append(f"| {name} | {one.n} | {base} | {tuned} | {better} |")
    return "\n".join(lines)


def _use(facts: Facts) -> str:
    job = facts.job
    if facts.gguf:
        return f"## Use\n\n```sh\nllama-cli --model {job.name}.gguf --prompt TEXT\n```"
    load = f'model = {facts.auto_class}.from_pretrained("PATH_OR_REPOSITORY")'
    lines = [f"from transformers import {facts.auto_class}", "", load]
    if not facts.merged and facts.auto_class in _PEFT_CLASSES:
        peft_class = facts.auto_class.replace("Auto", "AutoPeft", 1)
        lines = [f"from peft import {peft_class}", "", load.replace(facts.auto_class, peft_class)]
    elif not facts.merged:
        base = f'base = {facts.auto_class}.from_pretrained("{job.model.id}")'
        adapted = 'model = PeftModel.from_pretrained(base, "PATH_OR_REPOSITORY")'
        lines = ["from peft import PeftModel", lines[0], "", base, adapted]
    code = "\n".join(lines)
    return f"## Use\n\n```python\n{code}\n```"


def auto_class(task: str) -> str:
    """The class for models of text, where the worker did not say which."""
    return "AutoModelForSequenceClassification" if task in CLASSIFIERS else "AutoModelForCausalLM"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
