"""Where nothing fits: the single changes of the spec that would make it fit, and more machines to be in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from jobs.spec_rules import OFFLOAD_METHODS, OFFLOAD_PRECISIONS, OFFLOAD_TASKS, SHARDED_OPTIMIZERS, least_rows
from planner.candidates import HOST_RAM_SHORT, Verdict
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
#: And where nothing fits, no more doublings of them, nor batches, are tried than these.
_MOST_DOUBLINGS, _MOST_BATCHES = 3, 2

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
    tried: list[dict[str, Any]] = []
    for changes, changed in _changes(question, snapshot):
        if changes in tried or any(_told_by(fit.changes, changes) for fit in found):
            continue
        tried.append(changes)
        best = build_estimate(changed, snapshot, limit=1).recommended
        if best is not None and (HOST_RAM_SHORT not in best.offer.flags or "train.offload" not in changes):
            found.append(NearestFit(changes, best.verdict, best.cost_usd))
        if len(found) == most:
            break
    return tuple(found)


def _told_by(fit: dict[str, Any], changes: dict[str, Any]) -> bool:
    """Whether changes are no news beside some that fit: they go further, or free the machines altogether."""
    if "where" in changes:
        return any(key.startswith("where") for key in fit)
    same_key = fit.keys() == changes.keys() and changes.keys() in ({"where.nodes"}, {"train.sequence_length"})
    return same_key or all(key in changes and changes[key] == value for key, value in fit.items())


def offered_counts(question: Question, snapshot: PriceSnapshot) -> dict[str, tuple[int, ...]]:
    """How many of each GPU that is wanted machines have, where none has as many as is wanted; of any GPU as "".

    Args:
        question: What is wanted.
        snapshot: The offers.
    """
    allowed = question.filter
    if allowed.gpus is None and allowed.gpu_count is None:
        return {}
    names = None if allowed.gpus is None else {gpu.name for gpu in allowed.gpus}
    of_any_count = allowed._replace(gpus=None, gpu_count=None)
    found: dict[str, set[int]] = {}
    for offer in snapshot.offers:
        if (names is None or offer.gpu in names) and of_any_count.refuses(offer) is None:
            if allowed.refuses(offer) is None:
                return {}
            found.setdefault("" if names is None else offer.gpu, set()).add(offer.gpus_per_node)
    return {name: tuple(sorted(counts)) for name, counts in sorted(found.items())}


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


def _changes(question: Question, snapshot: PriceSnapshot) -> Iterator[_Change]:
    """Single changes, then all of memory's gentle ones together, those with a quantised base, and at last the host."""
    yield from _batch_changes(question)
    yield from _sharing_changes(question, snapshot)
    yield from _sequence_changes(question)
    yield from _weight_changes(question)
    yield from _machine_changes(question)
    gentle = _together({}, question, _batch_changes)
    together = (gentle, _together(*gentle, _weight_changes))
    yield from (change for change in together if change[0])
    yield from _host_changes(question)


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
    if freedom.gradient_checkpointing is False and question.arch.recomputes:
        yield (
            {"train.gradient_checkpointing": True},
            question._replace(freedom=freedom._replace(gradient_checkpointing=True)),
        )


def _sharing_changes(question: Question, snapshot: PriceSnapshot) -> Iterator[_Change]:
    """Where no allowed machines can share out the rows of a step: the nearest batches that they can, and fewer machines
    that can share this one.
    """
    rows = question.freedom.micro_batch or least_rows(question.base.task, question.base.preference_loss)
    batch, machines = question.job.global_batch, question.nodes[0]
    sizes = {offer.gpus_per_node for offer in snapshot.offers if question.refuses(offer) is None}
    units = [rows * gpus * nodes for gpus in sizes for nodes in question.nodes]
    if any(batch % unit == 0 for unit in units):
        return
    if question.base.task != "grpo":  # whose batch is made of groups of answers
        multiples = {unit * times for unit in units for times in (batch // unit, batch // unit + 1) if times}
        for nearest in sorted(multiples, key=lambda other: (abs(other - batch), other))[:_MOST_BATCHES]:
            yield {"train.global_batch": nearest}, question._replace(job=question.job.rebatched(nearest))
    fewer = (nodes for nodes in range(machines - 1, 0, -1) if batch % (rows * nodes) == 0)
    for nodes in islice(fewer, 1):
        yield {"where.nodes": nodes}, question._replace(nodes=(nodes,))


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


def _host_changes(question: Question) -> Iterator[_Change]:
    """Weights and optimizer on the host, where that can be launched: last, as steps become much slower."""
    base = question.base
    method = "full" if base.adapter is None else base.adapter.kind
    given = (
        (base.optimizer, SHARDED_OPTIMIZERS), (base.task, OFFLOAD_TASKS), (method, OFFLOAD_METHODS),
        (base.precision, OFFLOAD_PRECISIONS), (base.quantization, ("none",)), (base.offload, ("none",)),
    )  # fmt: skip
    if all(value in allowed for value, allowed in given):
        moved = base._replace(offload="parameters", reduces_each_micro_batch=True)
        yield {"train.offload": "parameters"}, question._replace(base=moved)


def _machine_changes(question: Question) -> Iterator[_Change]:
    for most in islice(_more_nodes(question), _MOST_DOUBLINGS):
        nodes = f"{question.nodes[0]}..{most}"
        yield {"where.nodes": nodes}, question._replace(nodes=(*question.nodes, most))
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
    counts = _by_code(estimate)
    code = _commonest(counts)
    rows = [row for row in estimate.rejected if row.reason_code == code]
    reason = rows[0].reason if len(rows) == 1 else f"{rows[0].reason}, and the like"
    return f"none of {counts.total():,} offers can run this job: {reason} ({counts[code]:,})"


def lacks_fresh_prices(estimate: Estimate) -> bool:
    """Whether there is no candidate mostly because prices are too old to be used."""
    return not estimate.candidates and _commonest(_by_code(estimate)) == "stale_price"


def _by_code(estimate: Estimate) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in estimate.rejected:
        counts[row.reason_code] += row.count
    return counts


def _commonest(counts: Counter[str]) -> str:
    """Of the reasons besides the spec's own conditions, if there is another; empty without any."""
    wanted = {code: count for code, count in counts.items() if code != "filtered"} or counts
    return max(wanted, key=lambda code: wanted[code], default="")


def _yaml(value: Any) -> str:
    if value is None:
        return "any"
    return str(value).lower() if isinstance(value, bool) else str(value)
