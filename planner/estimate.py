"""The answer: every offer priced for this job, ranked, with what was refused and why. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from planner.calibration import Basis
from planner.candidates import HOST_RAM_SHORT, Candidate, CandidateMemory, CandidateRisk, RiskSignal
from planner.egress import AS_OF as EGRESS_AS_OF
from planner.egress import SOURCE as EGRESS_SOURCE
from planner.hazards import PRIOR_SOURCE, prior
from planner.job import Assumption
from planner.learned import groups_of
from planner.memory import MemoryEstimate
from planner.notes import network_assumption, notes_on
from planner.overheads import ASSUMED_SOURCE
from planner.place_hazards import expected_losses, lean_of
from planner.pricing import STORAGE_SOURCE, STORAGE_USD_PER_GB_MONTH, Priced, Solver
from planner.quantiles import Quantiles
from planner.question import Question
from planner.ranking import pareto, ranked
from planner.risk import probability_by
from planner.search import Refusal
from planner.spot_signals import NO_LEAN
from planner.spot_sizes import sizes
from providers.offers import Coverage, Credit, Offer, PriceSnapshot

_GIB = 2.0**30


@dataclass(frozen=True, slots=True)
class Rejection:
    """Offers that were dropped for one reason."""

    reason_code: str
    reason: str
    count: int
    example_offer: Offer


class Estimate(NamedTuple):
    """The whole answer; `candidates` is ranked and cut to the limit, `candidates_total` counts all.

    `priced` holds what is behind each candidate, in the same order; `as_of_at` is the oldest and the newest date of
    any price.
    """

    question: Question
    snapshot_id: str
    live: bool
    as_of_at: tuple[str | None, str | None]
    coverage: tuple[Coverage, ...]
    candidates: tuple[Candidate, ...]
    priced: tuple[Priced, ...]
    candidates_total: int
    rejected: tuple[Rejection, ...]
    assumptions: tuple[Assumption, ...]
    warnings: tuple[tuple[str, str], ...]

    @property
    def recommended(self) -> Candidate | None:
        """The best-ranked candidate."""
        return self.candidates[0] if self.candidates else None


def build_estimate(question: Question, snapshot: PriceSnapshot, *, limit: int | None = 100) -> Estimate:
    """Price the job on every allowed offer and rank the result.

    Args:
        question: The job and what is wanted.
        snapshot: Offers.
        limit: Candidates to keep besides the Pareto frontier, None for all.
    """
    refusals = _Refusals()
    priced = list(_price_all(question, snapshot.offers, snapshot.credits, refusals))
    frontier = pareto(priced)
    dates = {offer.as_of_at for offer in snapshot.offers if offer.as_of_at}
    kept = tuple(
        (rank, item)
        for rank, item in enumerate(ranked(priced, question.goal), 1)
        if limit is None or rank <= limit or id(item) in frontier
    )
    candidates = tuple(_candidate(question, item, rank, id(item) in frontier) for rank, item in kept)
    return Estimate(
        question=question,
        snapshot_id=snapshot.snapshot_id,
        live=snapshot.live,
        as_of_at=(min(dates, default=None), max(dates, default=None)),
        coverage=snapshot.coverage,
        candidates=candidates,
        priced=tuple(item for _, item in kept),
        candidates_total=len(priced),
        rejected=refusals.sorted(),
        assumptions=(
            *question.job.assumptions,
            *_calibration(kept),
            *network_assumption([item for _, item in kept]),
            *_assumptions(question, candidates),
            *_credits(snapshot.credits),
        ),
        warnings=(
            *question.model_warnings(),
            *question.job.warnings,
            *notes_on([item for _, item in kept], question.goal.deadline_h),
            *_warnings(question, candidates, snapshot),
        ),
    )


class _Refusals:
    """Counts dropped offers by reason, keeping one example of each."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[int, Offer]] = {}

    def add(self, code: str, reason: str, offer: Offer) -> None:
        count, example = self._found.get((code, reason), (0, offer))
        self._found[code, reason] = (count + 1, example)

    def sorted(self) -> tuple[Rejection, ...]:
        rows = (
            Rejection(code, reason, count, offer) for (code, reason), (count, offer) in self._found.items()
        )
        return tuple(sorted(rows, key=lambda row: (-row.count, row.reason)))


def _price_all(
    question: Question, offers: Iterable[Offer], credits: Sequence[Credit], refusals: _Refusals
) -> Iterator[Priced]:
    solver = Solver(question, credits)
    for offer in offers:
        refused = question.refuses(offer)
        if refused is not None:
            refusals.add(*refused, offer)
            continue
        last, fits = None, False
        for nodes in question.nodes:
            answer = solver.price(offer, nodes)
            if isinstance(answer, Refusal):
                last = answer
            else:
                fits = True
                yield answer
        if last is not None and not fits:
            refusals.add(last.reason_code, last.reason, offer)


def _candidate(question: Question, item: Priced, rank: int, on_frontier: bool) -> Candidate:
    fit, line = item.solved.fit, item.solved.line
    gpus = item.nodes * item.offer.gpus_per_node
    deadline_h = question.goal.deadline_h
    return Candidate(
        candidate_id=_candidate_id(item),
        rank=rank,
        pareto=on_frontier,
        offer=_flagged(item),
        nodes=item.nodes,
        parallelism=fit.setup.parallelism,
        micro_batch=fit.setup.micro_batch,
        grad_accum=fit.setup.grad_accum,
        gradient_checkpointing=fit.setup.gradient_checkpointing,
        verdict=fit.memory.verdict,
        memory=candidate_memory(fit.memory),
        host_ram_gib=sum(item.solved.host_parts_bytes.values()) / _GIB,
        disk_gib=item.solved.disk_bytes / _GIB,
        step_time_s=fit.step.step_time_s,
        tokens_per_s_total=_tokens_per_s(question, fit.step.step_time_s),
        wall_clock_h=line.wall_clock_h,
        gpu_hours=line.wall_clock_h.scaled(gpus),
        cost_usd=item.cost_usd,
        cost_tree_usd=_cost_tree(item),
        finish_at=_finish_at(question, line.finish_h),
        p_finish_by_deadline=None if deadline_h is None else probability_by(line.finish_h, deadline_h),
        basis=_basis(question, item),
        risk=_risk(question, item),
        after_credits_usd=item.after_credits_usd,
    )


def _basis(question: Question, item: Priced) -> Basis:
    """The formulas' word, of the machine's own place: a shape that was solved once stands for those of every cloud."""
    solved = item.solved
    return Basis(groups_of(question, item.offer, item.nodes, solved.fit.setup), solved.priors)


def _risk(question: Question, item: Priced) -> CandidateRisk:
    lost, offer = item.solved.line.interruptions, item.offer
    on_spot = offer.market == "spot"
    lean = lean_of(question, offer, item.nodes) if on_spot else NO_LEAN
    factor, why = expected_losses(question, offer, item.nodes) if on_spot else (1.0, "")
    return CandidateRisk(
        expected_cost_usd=item.expected_usd,
        interruptions=lost.expected,
        checkpoint_interval_s=lost.checkpoint_interval_s,
        rework_h=lost.rework_h,
        restart_h=lost.restart_h,
        wait_h=lost.wait_h,
        size_factor=sizes().factor(item.nodes, offer.gpus_per_node) if on_spot else 1.0,
        signals_factor=lean.factor,
        signals=tuple(
            RiskSignal(
                part.said.kind,
                part.said.value,
                part.said.unit,
                part.said.source,
                part.said.as_of_at,
                part.factor,
            )
            for part in lean.parts
        ),
        losses_factor=factor,
        losses_why=why,
    )


def candidate_memory(memory: MemoryEstimate) -> CandidateMemory:
    """The same in GiB."""
    return CandidateMemory(
        allocated_gib=memory.allocated_bytes / _GIB,
        reserved_gib=memory.reserved_bytes / _GIB,
        nvml_gib=memory.nvml_bytes / _GIB,
        upper_gib=memory.upper_bytes / _GIB,
        limit_gib=memory.limit_bytes / _GIB,
        components_gib={name: value / _GIB for name, value in memory.components_bytes.items()},
    )


def _flagged(item: Priced) -> Offer:
    """The offer, marked where its host memory is too small for loading the model."""
    if item.host_ram_short:
        return item.offer._replace(flags=(*item.offer.flags, HOST_RAM_SHORT))
    return item.offer


def _candidate_id(item: Priced) -> str:
    """Short and stable: the same offer, number of machines and way of running give the same id."""
    offer, setup = item.offer, item.solved.fit.setup
    text = "|".join(
        str(part)
        for part in (
            *(offer.cloud, offer.region, offer.zone, offer.instance_type, offer.gpu, offer.gpus_per_node),
            *(
                offer.market,
                item.nodes,
                setup.parallelism.kind,
                setup.micro_batch,
                setup.gradient_checkpointing,
            ),
        )
    )
    return "c-" + hashlib.sha256(text.encode()).hexdigest()[:10]


def _tokens_per_s(question: Question, step_time_s: Quantiles) -> Quantiles:
    tokens = question.job.tokens_per_full_step
    return Quantiles(tokens / step_time_s.p90, tokens / step_time_s.p50, tokens / step_time_s.p10)


def _cost_tree(item: Priced) -> dict[str, float | None]:
    """Lines whose known values add up to the p50 of the cost."""
    line = item.solved.line
    per_hour_usd = (item.offer.price_usd_per_hour or 0.0) * item.nodes
    fixed = item.solved.fixed_usd
    return {
        "compute": line.compute_h * per_hour_usd,
        "rework": line.rework_h * per_hour_usd,
        "reprovision": line.reprovision_h * per_hour_usd,
        "storage": fixed["storage"],
        "requests": fixed["requests"],
        "egress": item.egress_usd,
        "controller": fixed["controller"],
        "idle": line.idle_h * per_hour_usd,
    }


def _finish_at(question: Question, finish_h: Quantiles) -> tuple[str, str, str]:
    def at(hours: float) -> str:
        moment = question.goal.now + timedelta(hours=min(hours, 24 * 36500))
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    return at(finish_h.p10), at(finish_h.p50), at(finish_h.p90)


def _assumptions(question: Question, candidates: tuple[Candidate, ...]) -> Iterator[Assumption]:
    yield Assumption("machine start, set-up, model download", "typical", "s", ASSUMED_SOURCE)
    yield Assumption(
        "capacity",
        "at once",
        "",
        "the first start is assumed to find a machine; waits follow preemptions only",
    )
    if question.bucket is not None:
        place = "/".join(part for part in question.bucket if part)
        yield Assumption(
            "egress from and to the checkpoints' bucket", place, "", f"{EGRESS_SOURCE}, {EGRESS_AS_OF}"
        )
    yield Assumption("checkpoint storage", STORAGE_USD_PER_GB_MONTH, "USD per GB-month", STORAGE_SOURCE)
    if any(candidate.offer.market == "spot" for candidate in candidates):
        usual = prior().times(sizes().factor(1, 1))
        for age_h in (0.1, 4.0):
            rate = round(usual.losses_per_h(age_h), 3)
            yield Assumption(
                f"spot interruptions, one machine of one GPU, {age_h:g} h after its spell began",
                rate,
                "per hour",
                PRIOR_SOURCE,
            )


def _calibration(kept: Sequence[tuple[int, Priced]]) -> Iterator[Assumption]:
    """What finished runs changed about the best candidate, with how many of them."""
    learned = kept[0][1].solved.learned if kept else None
    if learned is not None and learned.runs:
        count = len(learned.runs)
        source = f"calibrated by {count} of your runs, shrunk by how alike they are: `plan calibrate`"
        yield Assumption("best candidate against the formulas", learned.text(), "", source)


def _credits(credits: Sequence[Credit]) -> Iterator[Assumption]:
    for credit in credits:
        until = "" if credit.expires_at is None else f", until {credit.expires_at[:10]}"
        source = f"yours: prices.overrides{until}; pays machines, if it lasts until the job is done"
        yield Assumption(f"credits with {credit.cloud}", credit.usd, "USD", source)


def _expired(credits: Sequence[Credit], now: datetime) -> list[str]:
    return [
        f"${row.usd:,.2f} with {row.cloud} ended on {row.expires_at[:10]}"
        for row in credits
        if row.expires_at is not None and datetime.fromisoformat(row.expires_at) < now
    ]


def _why_unknown(question: Question, clouds: Sequence[str]) -> str:
    if question.bucket is None:
        return ": where the checkpoints go is not known yet (checkpoints.uri, as in s3://bucket/runs?region=us-east-1)"
    if question.bucket.region is None and question.bucket.cloud == "aws":
        return ": the region of the checkpoints' bucket is not known (?region= in checkpoints.uri)"
    return f" of {', '.join(clouds)}: no list price is known for the way to or from {question.bucket.cloud}"


def _warnings(
    question: Question, candidates: tuple[Candidate, ...], snapshot: PriceSnapshot
) -> Iterator[tuple[str, str]]:
    if candidates and (said := question.price_limit.doubt(candidates[0].offer, question.goal.now)):
        yield "old_price", f"the best candidate's price is {said}: look at a fresh one before you rely on it"
    unpriced = sorted({c.offer.cloud for c in candidates if c.cost_tree_usd["egress"] is None})
    if unpriced:
        yield "egress_unknown", f"egress is not in the total{_why_unknown(question, unpriced)}"
    expired = _expired(snapshot.credits, question.goal.now)
    if expired:
        yield "credits_expired", f"credits in prices.overrides that count no more: {'; '.join(expired)}"
    partial = [cover.cloud for cover in snapshot.coverage if not cover.complete]
    if partial:
        yield (
            "partial_prices",
            f"the price snapshot is partial for {', '.join(partial)}: a cheaper offer may exist there",
        )
