"""A candidate: an offer, how many machines, how the job is spread over them, and what is predicted for it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from planner.calibration import Basis
from planner.quantiles import Quantiles
from planner.setup import Parallelism
from providers.offers import Offer

Verdict = Literal["fits", "borderline", "oom"]
#: Flag of an offer whose machine states less memory of its own than the job needs.
HOST_RAM_SHORT = "host_ram_short"


class CandidateMemory(NamedTuple):
    """Predicted peak of one GPU, GiB; see `planner.memory` for what the terms mean."""

    allocated_gib: float
    reserved_gib: float
    nvml_gib: float
    upper_gib: float
    limit_gib: float
    components_gib: dict[str, float]


class RiskSignal(NamedTuple):
    """What a cloud said of its spot machines, and what it does to the assumed rate of losses.

    Attributes:
        kind, value, unit, source, as_of_at: As it was given; figures of other kinds or units are never compared.
        factor: On the rate of losses, by itself.
    """

    kind: str
    value: float | str
    unit: str
    source: str
    as_of_at: str
    factor: float


class CandidateRisk(NamedTuple):
    """What may be lost on the way; all but the interval is zero where nothing is taken away.

    Attributes:
        expected_cost_usd: Mean of the bill, which ranks the candidates; above the p50 on spot.
        interruptions: Expected number.
        checkpoint_interval_s: Time between checkpoints.
        rework_h: Billed hours computed twice.
        restart_h: Billed hours of starting again.
        wait_h: Hours without a machine, not billed.
        size_factor: What the size of the machines and of their group makes of the rate of losses at an age.
        signals_factor: What all signals together make of it before own runs; 1 where nothing is known.
        signals: Those of the cloud that were counted.
        losses_factor: How many times as often as the prior says machines are lost, by size, signals and own runs.
        losses_why: What makes it, in words.
    """

    expected_cost_usd: float
    interruptions: float
    checkpoint_interval_s: float
    rework_h: Quantiles
    restart_h: Quantiles
    wait_h: Quantiles
    size_factor: float = 1.0
    signals_factor: float = 1.0
    signals: tuple[RiskSignal, ...] = ()
    losses_factor: float = 1.0
    losses_why: str = ""


class Candidate(NamedTuple):
    """One way to run the job.

    Attributes:
        candidate_id: Short, stable for the same spec and offer.
        rank: 1 is best under the objective.
        pareto: It surely fits, and no other that does is both cheaper and earlier.
        wall_clock_h: Billed hours from machine start to release.
        cost_tree_usd: p50 of each line; None is unknown (and named in the warnings).
        basis: What the formulas alone said, so that the run can correct them.
        risk: What may be lost; None in plans written before it was told.
        after_credits_usd: The cost after your credits; None where you have none with this cloud.
    """

    candidate_id: str
    rank: int
    pareto: bool
    offer: Offer
    nodes: int
    parallelism: Parallelism
    micro_batch: int
    grad_accum: int
    gradient_checkpointing: bool
    verdict: Verdict
    memory: CandidateMemory
    host_ram_gib: float
    disk_gib: float
    step_time_s: Quantiles
    tokens_per_s_total: Quantiles
    wall_clock_h: Quantiles
    gpu_hours: Quantiles
    cost_usd: Quantiles
    cost_tree_usd: dict[str, float | None]
    finish_at: tuple[str, str, str] | None = None
    p_finish_by_deadline: float | None = None
    basis: Basis | None = None
    risk: CandidateRisk | None = None
    after_credits_usd: Quantiles | None = None

    @property
    def fit_in_a_word(self) -> str:
        """The verdict as people are told it: tight is what fits, but by its upper bound or RAM may not."""
        memory = self.memory
        unsure = memory.upper_gib > memory.limit_gib or HOST_RAM_SHORT in self.offer.flags
        return "tight" if self.verdict == "fits" and unsure else self.verdict

    @property
    def may_not_fit(self) -> bool:
        """Whether memory, the GPU's or the machine's own, may end the run."""
        return self.verdict != "fits" or HOST_RAM_SHORT in self.offer.flags

    @property
    def gpus_total(self) -> int:
        """GPUs over all machines."""
        return self.nodes * self.offer.gpus_per_node

    @property
    def processes(self) -> int:
        """That train together: one for each GPU, or as many as a CPU is split between."""
        return self.parallelism.gpus_total
