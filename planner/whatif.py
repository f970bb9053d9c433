"""What one change of the spec, or another GPU, would do to the best candidate's cost, time and memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from planner.candidates import Candidate
from planner.errors import SpecError
from planner.estimate import Estimate, build_estimate
from planner.hardware import gpu_facts
from planner.intake import Overrides, gather
from planner.model_facts import ModelFacts
from planner.quantiles import Quantiles
from planner.question import Question
from planner.spec import FineTuneSpec
from planner.spec_rules import broken_rules
from planner.support import unsupported
from planner.throughput import emulates_bf16
from providers.errors import UsageError
from providers.offers import PriceSnapshot

#: A smaller change than this is not worth an edit.
_NOTICED = 0.01

#: Machines that a spec for one may use instead; the next is told only if its best is another.
_MORE_NODES = (2, 4, 8)

_LEARNING = "changes what is learned"


class WhatIf(NamedTuple):
    """One change and the best candidate under it.

    Attributes:
        changes: Dotted spec key to value; None is "not set".
        candidate: Best under the changed spec.
        cost_usd: Difference of the p50 to the best candidate of now; negative is cheaper.
        wall_clock_h: Likewise.
        memory_gib: Likewise, of one GPU (reserved).
        caveat: What else the change does, empty if nothing.
    """

    changes: dict[str, Any]
    candidate: Candidate
    cost_usd: float
    wall_clock_h: float
    memory_gib: float
    caveat: str = ""


def other_gpus(estimate: Estimate, *, most: int = 5) -> tuple[WhatIf, ...]:
    """The best candidate of each other GPU, in the order of their ranks."""
    best = estimate.candidates[0] if estimate.candidates else None
    if best is None:
        return ()
    found: dict[str, Candidate] = {}
    for candidate in estimate.candidates:
        found.setdefault(candidate.offer.gpu, candidate)
    others = [candidate for gpu, candidate in found.items() if gpu != best.offer.gpu]
    return tuple(
        _compared({"where.gpus": f"{row.offer.gpu}:{row.offer.gpus_per_node}"}, row, best)
        for row in others[:most]
    )


def what_if(
    spec: FineTuneSpec,
    base_dir: Path,
    snapshot: PriceSnapshot,
    estimate: Estimate,
    *,
    overrides: Overrides | None = None,
) -> tuple[WhatIf, ...]:
    """Single changes that move cost, time or memory noticeably, the largest saving of money first.

    Args:
        spec: As it is.
        base_dir: Directory that its paths are relative to.
        snapshot: The offers.
        estimate: Of the spec as it is, with at least one candidate.
        overrides: From the command line; what they fix is not changed.
    """
    found: list[WhatIf] = []
    best = estimate.candidates[0]
    for changes, caveat in _changes(spec, estimate):
        changed = changed_spec(spec, changes)
        question = None if changed is None else _question(changed, base_dir, estimate.question, overrides)
        if question is None:
            continue
        candidate = build_estimate(question, snapshot, limit=1).recommended
        if candidate is not None:
            row = _compared(changes, candidate, best, caveat)
            is_told = any(
                row.candidate == other.candidate for other in found if changes.keys() == other.changes.keys()
            )
            found += [row] if _noticeable(row, best) and not (is_told or _only_worse(row, best)) else []
    return tuple(sorted(found, key=lambda row: row.cost_usd))


def changed_spec(spec: FineTuneSpec, changes: dict[str, Any]) -> FineTuneSpec | None:
    """The spec with dotted keys replaced, None if that would contradict itself or is not built yet."""
    document = spec.canonical()
    for path, value in changes.items():
        section, _, key = path.rpartition(".")
        (document[section] if section else document)[key] = value
    changed = FineTuneSpec.model_validate(document)
    return None if broken_rules(changed) or unsupported(changed) else changed


def _question(
    spec: FineTuneSpec, base_dir: Path, asked: Question, overrides: Overrides | None
) -> Question | None:
    try:
        same = ModelFacts(asked.arch, asked.publication)
        question = gather(spec, base_dir, asked.goal.now, overrides, lambda *_: same)
    except (UsageError, SpecError):  # the change needs a fact that nobody gave
        return None
    return question._replace(
        calibration=asked.calibration, price_limit=asked.price_limit, spot_signals=asked.spot_signals
    )


def _compared(changes: dict[str, Any], candidate: Candidate, best: Candidate, caveat: str = "") -> WhatIf:
    return WhatIf(
        changes=changes,
        candidate=candidate,
        cost_usd=candidate.cost_usd.p50 - best.cost_usd.p50,
        wall_clock_h=candidate.wall_clock_h.p50 - best.wall_clock_h.p50,
        memory_gib=candidate.memory.reserved_gib - best.memory.reserved_gib,
        caveat=caveat,
    )


def _only_worse(row: WhatIf, best: Candidate) -> bool:
    """Dearer, slower and larger, and no likelier to be in time: nobody wants it."""
    then, now = row.candidate.p_finish_by_deadline or 0.0, best.p_finish_by_deadline or 0.0
    is_likelier = then > now + _NOTICED
    return min(row.cost_usd, row.wall_clock_h, row.memory_gib) >= 0 and not is_likelier


def _noticeable(row: WhatIf, best: Candidate) -> bool:
    def moved(change: float, of: Quantiles) -> bool:
        return abs(change) > _NOTICED * max(of.p50, 1e-9)

    return (
        moved(row.cost_usd, best.cost_usd)
        or moved(row.wall_clock_h, best.wall_clock_h)
        or abs(row.memory_gib) > _NOTICED * best.memory.reserved_gib
    )


def _changes(spec: FineTuneSpec, estimate: Estimate) -> Iterator[tuple[dict[str, Any], str]]:
    """Single changes with what else they do."""
    yield from _training_changes(spec)
    if any(emulates_bf16(spec.train.precision, gpu_facts(row.offer.gpu)) for row in estimate.candidates):
        yield (
            {"train.precision": "fp16"},
            "less range: the loss is scaled, and steps that overflow are left out",
        )
    yield from _method_changes(spec)
    yield from _machine_changes(spec)


def _training_changes(spec: FineTuneSpec) -> Iterator[tuple[dict[str, Any], str]]:
    train = spec.train
    if not train.packing:
        yield {"train.packing": True}, f"{_LEARNING}: fewer, fuller steps"
    if train.gradient_checkpointing != "auto":
        yield {"train.gradient_checkpointing": "auto"}, ""
    if train.micro_batch != "auto":
        yield {"train.micro_batch": "auto"}, ""
    if train.precision == "fp32":
        yield {"train.precision": "bf16"}, "less exact arithmetic"
    if train.sequence_length >= 256:
        yield {"train.sequence_length": train.sequence_length // 2}, f"{_LEARNING}: longer examples are cut"


def _method_changes(spec: FineTuneSpec) -> Iterator[tuple[dict[str, Any], str]]:
    kind = spec.method.kind
    if kind == "full":
        yield {"method.kind": "lora"}, f"{_LEARNING}: adapters instead of every weight"
        yield {"train.optimizer": "adamw_8bit"}, "less exact optimizer states"
    if kind in ("lora", "dora") and spec.task != "classification":
        yield {"method.kind": f"q{kind}", "quantization": None}, f"{_LEARNING}: the base is rounded to 4 bits"


def _machine_changes(spec: FineTuneSpec) -> Iterator[tuple[dict[str, Any], str]]:
    where = spec.where
    if set(where.market) != {"spot", "on_demand"}:
        yield {"where.market": ["spot", "on_demand"]}, "spot machines are interrupted"
    for key in ("gpus", "gpu_memory", "clouds", "regions", "max_usd_per_hour"):
        if getattr(where, key) is not None:
            yield {f"where.{key}": None}, ""
    if where.nodes_range()[1] == 1:
        for most in _MORE_NODES:
            yield {"where.nodes": f"1..{most}"}, ""
