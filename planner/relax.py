"""Where nothing fits: the single changes of the spec that would make it fit, and more machines to be in time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from planner.candidates import Verdict
from planner.estimate import Estimate, build_estimate
from planner.filters import OfferFilter
from planner.pricing import Priced
from planner.quantiles import Quantiles
from planner.question import Question
from planner.ranking import EVEN_CHANCE, SURE_ENOUGH
from planner.risk import probability_by
from providers.offers import UNTRUSTED_FLAGS, PriceSnapshot

_ALL_MARKETS = frozenset({"spot", "on_demand"})
#: More machines than this are not proposed.
_MOST_MACHINES = 64

_Change = tuple[dict[str, Any], Question]


class NearestFit(NamedTuple):
    """One change (dotted spec key to value) and what it gives."""

    changes: dict[str, Any]
    verdict: Verdict
    cost_usd: Quantiles | None

    def text(self) -> str:
        """The changes as one would write them in the spec."""
        return ", ".join(f"{key}: {_yaml(value)}" for key, value in self.changes.items())


def nearest_fits(question: Question, snapshot: PriceSnapshot, *, most: int = 5) -> tuple[NearestFit, ...]:
    """Changes that make the job fit, the smallest interference first.

    Args:
        question: A question that no offer answered.
        snapshot: The same offers.
        most: How many to return.
    """
    found: list[NearestFit] = []
    changes: dict[str, Any]
    for changes, changed in _changes(question):
        if "where" in changes and any(key.startswith("where") for fit in found for key in fit.changes):
            continue
        best = build_estimate(changed, snapshot, limit=1).recommended
        if best is not None:
            found.append(NearestFit(changes, best.verdict, best.cost_usd))
        if len(found) == most:
            break
    return tuple(found)


def enough_machines(question: Question, snapshot: PriceSnapshot) -> Priced | None:
    """The smallest number of machines, beyond those asked about, that is done by the deadline, at its cheapest.

    Of numbers in powers of two the first that is sure enough, else the first with an even chance; None if more machines
    do not help.

    Args:
        question: With a deadline.
        snapshot: The offers.
    """
    goal = question.goal._replace(objective="cheapest_by_deadline")
    likely: Priced | None = None
    for nodes in _more_nodes(question):
        estimate = build_estimate(question._replace(goal=goal, nodes=(nodes,)), snapshot, limit=1)
        best = estimate.priced[0] if estimate.priced else None
        if best is None or goal.deadline_h is None or not UNTRUSTED_FLAGS.isdisjoint(best.offer.flags):
            continue
        chance = probability_by(best.finish_h, goal.deadline_h)
        if chance >= SURE_ENOUGH:
            return best
        if likely is None and chance >= EVEN_CHANCE:
            likely = best
    return likely


def _more_nodes(question: Question) -> Iterator[int]:
    """Powers of two beyond the numbers asked about, which as many rows as they have GPUs can be shared among."""
    nodes = 1 << question.nodes[-1].bit_length()
    while nodes <= min(_MOST_MACHINES, question.job.global_batch):
        yield nodes
        nodes *= 2


def _changes(question: Question) -> Iterator[_Change]:
    """Single changes first, then all of memory's gentle ones together, then that with a quantised base."""
    yield from _batch_changes(question)
    yield from _sequence_changes(question)
    yield from _weight_changes(question)
    yield from _machine_changes(question)
    gentle = _together({}, question, _batch_changes)
    yield gentle
    yield _together(*gentle, _weight_changes)


def _together(
    changes: dict[str, Any], question: Question, kind: Callable[[Question], Iterable[_Change]]
) -> _Change:
    """Apply a kind of change until none of it is left."""
    while (step := next(iter(kind(question)), None)) is not None:
        changes, question = changes | step[0], step[1]
    return changes, question


def _batch_changes(question: Question) -> Iterator[_Change]:
    freedom = question.freedom
    if freedom.micro_batch not in (None, 1):
        yield {"train.micro_batch": 1}, question._replace(freedom=freedom._replace(micro_batch=1))
    if freedom.gradient_checkpointing is False:
        yield (
            {"train.gradient_checkpointing": True},
            question._replace(freedom=freedom._replace(gradient_checkpointing=True)),
        )


def _sequence_changes(question: Question) -> Iterator[_Change]:
    tokens = question.job.sequence_tokens // 2
    while tokens >= 128:
        job = question.job._replace(sequence_tokens=tokens, lengths=question.job.lengths.cut(tokens))
        yield (
            {"train.sequence_length": tokens},
            question._replace(job=job, base=question.base._replace(sequence_tokens=tokens)),
        )
        tokens //= 2


def _weight_changes(question: Question) -> Iterator[_Change]:
    base = question.base
    if base.adapter is not None and base.quantization != "4bit":
        yield (
            {"method.kind": "qlora"},
            question._replace(base=base._replace(quantization="4bit")),
        )


def _machine_changes(question: Question) -> Iterator[_Change]:
    more = tuple(sorted({*question.nodes, *(2 * nodes for nodes in question.nodes)}))
    yield {"where.nodes": f"1..{more[-1]}"}, question._replace(nodes=more)
    for key, wider in _wider(question.filter):
        if wider != question.filter:
            yield {f"where.{key}": None}, question._replace(filter=wider)
    if question.filter.markets != _ALL_MARKETS:
        yield (
            {"where.market": sorted(_ALL_MARKETS)},
            question._replace(filter=question.filter._replace(markets=_ALL_MARKETS)),
        )
    wide = OfferFilter(markets=_ALL_MARKETS, data_regions=question.filter.data_regions)
    if question.filter != wide:
        yield {"where": None}, question._replace(filter=wide)


def _wider(allowed: OfferFilter) -> Iterator[tuple[str, OfferFilter]]:
    """The filter without each of its conditions, by the spec's key."""
    yield "gpus", allowed._replace(gpus=None, gpu_count=None)
    yield "gpu_memory", allowed._replace(gpu_memory_gib=None)
    yield "max_usd_per_hour", allowed._replace(max_usd_per_hour=None)
    yield "clouds", allowed._replace(clouds=None)
    yield "regions", allowed._replace(regions=None)


def explain_nothing(estimate: Estimate) -> str:
    """One sentence on why there is no candidate: the commonest reason."""
    if not estimate.rejected:
        return "there is no offer at all in the price snapshot"
    row = next((row for row in estimate.rejected if row.reason_code != "filtered"), estimate.rejected[0])
    return f"none of {sum(r.count for r in estimate.rejected)} offers can run this job: {row.reason} ({row.count})"


def _yaml(value: Any) -> str:
    if value is None:
        return "any"
    return str(value).lower() if isinstance(value, bool) else str(value)
