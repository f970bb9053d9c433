"""What finished runs teach about the next one: corrections of the formulas, shrunk by how alike the jobs are. Pure.

The formula's error on a job, as the logarithm of actual / predicted, is the sum of independent parts: one that all
jobs of a software stack share, one of the GPU, one of GPU x method x size, one of the very job. Each part has a
share of the prior variance. Given the errors of finished runs, the error of the next is their best linear
prediction (a Gaussian process whose kernel is the sum of shared groups), and what stays open is its interval.

So one run of another job of the same class moves an estimate by 0.4 of its own error, several that agree by more,
a run of the same job by nearly all of it, a run of another GPU hardly at all, and a run on a CPU says nothing of any
GPU. Full trust in another job makes estimates worse: measured on published runs, a probe carried over with full trust
raised the median error from 12.6 % to 15.7 %, while a probe of the same job halved it.

Errors have a fatter tail than a Gaussian's: a run that took fifty times as long shared its machine or swapped. That is
true of its own job, which may do so again, but says no more of other jobs than tenfold would.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from planner.hazards import OwnSpell
from planner.quantiles import Z90, Quantiles

#: Jobs beyond this many do not move an estimate any more, and solving for them would be felt.
_MOST_JOBS = 32
#: A ratio beyond this says that something else happened, not that the formula is off.
_LARGEST_LOG = math.log(200.0)
#: And beyond this, that it happened to this very job: other jobs learn no more of it.
_LARGEST_SHARED_LOG = math.log(10.0)
#: Jobs that have more than this in common are the same one; the sums of `SHARES` are floats.
_SAME_JOB = 0.99
#: Runs that the assumed scatter between two runs of one job counts for, against the scatter that is seen.
_NOISE_RUNS = 3.0

#: Share of the prior variance that two jobs have in common because they share a group, by quantity.
SHARES: dict[str, tuple[tuple[str, float], ...]] = {
    "step_time": (("stack", 0.10), ("gpu", 0.15), ("class", 0.15), ("job", 0.60)),
    "memory": (("stack", 0.10), ("gpu", 0.05), ("class", 0.25), ("job", 0.60)),
    "start": (("place", 0.60), ("model", 0.20), ("job", 0.20)),
    "prepare": (("place", 0.40), ("job", 0.60)),
    "evaluate": (("gpu", 0.15), ("class", 0.25), ("job", 0.60)),
    "finish": (("place", 0.40), ("job", 0.60)),
}
#: Scatter (sigma of the logarithm) between two runs of the same job, by quantity; own machines are not alone.
_NOISE = {
    "step_time": 0.05,
    "memory": 0.02,
    "start": 0.35,
    "prepare": 0.25,
    "evaluate": 0.15,
    "finish": 0.35,
}
_LOCAL_NOISE = 0.20


class Basis(NamedTuple):
    """What a prediction was made of; kept with a run, so that its actuals can correct the formulas.

    Attributes:
        groups: What the job shares with others: stack (on GPUs, or on CPUs), gpu, class (GPU, method, size), place,
            model, job.
        priors: Quantity of `SHARES` -> the formula's p50 before any learning; seconds, or GiB for memory.
    """

    groups: Mapping[str, str]
    priors: Mapping[str, float]


class Observation(NamedTuple):
    """One finished run.

    Attributes:
        run_id: Of the run.
        groups: As of its `Basis`.
        log_ratios: Quantity -> log(actual / formula).
    """

    run_id: str
    groups: Mapping[str, str]
    log_ratios: Mapping[str, float]


class Correction(NamedTuple):
    """What was learned of one quantity for one job.

    Attributes:
        factor: The formula's value is multiplied by this.
        shrink: Width of the interval against the formula's, on the logarithmic scale; 1 is unchanged.
        runs: Ids of the runs behind it, empty if none is alike.
    """

    factor: float = 1.0
    shrink: float = 1.0
    runs: tuple[str, ...] = ()

    def apply(self, value: Quantiles) -> Quantiles:
        """The corrected quantity, its interval narrowed on both sides.

        >>> Correction(2.0, 0.5, ("a",)).apply(Quantiles(1.0, 4.0, 16.0))
        Quantiles(p10=4.0, p50=8.0, p90=16.0)
        """
        if not self.runs or value.p10 <= 0:
            return value
        p50 = value.p50 * self.factor
        low, high = (value.p10 / value.p50) ** self.shrink, (value.p90 / value.p50) ** self.shrink
        return Quantiles(p50 * min(low, 1.0), p50, p50 * max(high, 1.0))


UNCORRECTED = Correction()


def log_sd(value: Quantiles) -> float:
    """Standard deviation of the logarithm that belongs to an interval.

    >>> round(log_sd(Quantiles(0.5, 1.0, 2.0)), 3)
    0.541
    """
    return math.log(value.p90 / value.p10) / (2 * Z90) if value.p10 > 0 else 0.0


class _Job(NamedTuple):
    """All finished runs of one job: they are repeats, not news of different jobs."""

    groups: Mapping[str, str]
    runs: tuple[str, ...]
    mean: float
    variance: float


@dataclass(slots=True, eq=False)
class Calibration:
    """Corrections from a table of finished runs, newest first.

    Attributes:
        observations: What each run says of the formulas.
        spells: How long own attempts kept their spot machines.
    """

    observations: tuple[Observation, ...] = ()
    spells: tuple[OwnSpell, ...] = ()
    _jobs: dict[str, tuple[_Job, ...]] = field(default_factory=dict)
    _groups: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    _known: dict[tuple[object, ...], Correction] = field(default_factory=dict)

    def correction(self, quantity: str, groups: Mapping[str, str], prior_sd: float) -> Correction:
        """What is known of a job's error in one quantity.

        Args:
            quantity: A key of `SHARES`.
            groups: As of the job's `Basis`.
            prior_sd: Standard deviation of the logarithm of the formula's error.
        """
        jobs = self._jobs_of(quantity)
        known = self._groups[quantity]
        shared = tuple(
            pair for name, _ in SHARES[quantity] if (pair := (name, groups.get(name, ""))) in known
        )
        if not shared or prior_sd <= 0:
            return UNCORRECTED
        key = (quantity, round(prior_sd, 6), shared)
        if key not in self._known:
            alike = [(job, likeness(quantity, job.groups, groups)) for job in jobs]
            alike.sort(key=lambda pair: -pair[1])  # stable: of equally like jobs the newest come first
            self._known[key] = _solve(
                quantity, [pair for pair in alike[:_MOST_JOBS] if pair[1] > 0], prior_sd
            )
        return self._known[key]

    def _jobs_of(self, quantity: str) -> tuple[_Job, ...]:
        if quantity not in self._jobs:
            self._jobs[quantity] = tuple(_by_job(quantity, self.observations))
            self._groups[quantity] = {pair for job in self._jobs[quantity] for pair in job.groups.items()}
        return self._jobs[quantity]


NOT_CALIBRATED = Calibration()


def likeness(quantity: str, one: Mapping[str, str], other: Mapping[str, str]) -> float:
    """Share of the prior variance that two jobs have in common, 0..1.

    >>> likeness("step_time", {"gpu": "A10|trl", "job": "1"}, {"gpu": "A10|trl", "job": "2"})
    0.15
    """
    return sum(
        share
        for group, share in SHARES[quantity]
        if group in one and group in other and one[group] == other[group]
    )


def _by_job(quantity: str, observations: Iterable[Observation]) -> Iterable[_Job]:
    found: dict[str, list[Observation]] = {}
    for seen in observations:
        if quantity in seen.log_ratios:
            found.setdefault(seen.groups["job"], []).append(seen)
    for repeats in found.values():
        values = [max(min(one.log_ratios[quantity], _LARGEST_LOG), -_LARGEST_LOG) for one in repeats]
        local = repeats[0].groups.get("place", "").startswith("local")
        assumed = max(_NOISE[quantity], _LOCAL_NOISE) if local and quantity != "memory" else _NOISE[quantity]
        mean = sum(values) / len(values)
        squares = _NOISE_RUNS * assumed**2 + sum((value - mean) ** 2 for value in values)
        scatter = squares / (_NOISE_RUNS + len(values) - 1)
        yield _Job(repeats[0].groups, tuple(one.run_id for one in repeats), mean, scatter / len(values))


def _solve(quantity: str, alike: Sequence[tuple[_Job, float]], prior_sd: float) -> Correction:
    """Best linear prediction: mean k' (K + N)^-1 r, open variance 1 - k' (K + N)^-1 k, in units of the prior's."""
    jobs = [job for job, _ in alike]
    shared = [share for _, share in alike]
    means = [_said(job.mean, share) for job, share in alike]
    variance_here = _variance_here(means, prior_sd)
    matrix = [[likeness(quantity, a.groups, b.groups) for b in jobs] for a in jobs]
    for index, job in enumerate(jobs):
        matrix[index][index] += job.variance / variance_here
    weights = _solved(matrix, shared)
    mean = sum(weight * said for weight, said in zip(weights, means, strict=True))
    open_share = 1 - sum(weight * share for weight, share in zip(weights, shared, strict=True))
    nearest, closest = max(alike, key=lambda pair: pair[1])
    scatter = nearest.variance * len(nearest.runs) * closest  # the next run scatters as the last ones did
    variance = min(max(open_share, 0.0) * variance_here + scatter, prior_sd**2)
    runs = tuple(run for job in jobs for run in job.runs)
    return Correction(math.exp(mean), math.sqrt(variance) / prior_sd, runs)


def _said(mean: float, share: float) -> float:
    """What a job's error says of one that is so alike: all of it of the same job, of others up to a limit."""
    if share > _SAME_JOB:
        return mean
    return max(min(mean, _LARGEST_SHARED_LOG), -_LARGEST_SHARED_LOG)


def _variance_here(means: Sequence[float], prior_sd: float) -> float:
    """Variance of the formula's error among these jobs: the prior's, or more if they show that it is too sure.

    A formula that is wrong by a factor of thirty on this machine deserves no trust against a few per cent of scatter.
    """
    seen = prior_sd**2 + sum(mean**2 for mean in means)
    return max(prior_sd**2, seen / (1 + len(means)))


def _solved(matrix: list[list[float]], right: Sequence[float]) -> list[float]:
    """Solve a small symmetric positive definite system by Cholesky decomposition."""
    size = len(right)
    lower = [[0.0] * size for _ in range(size)]
    for i in range(size):
        for j in range(i + 1):
            rest = matrix[i][j] - sum(lower[i][k] * lower[j][k] for k in range(j))
            lower[i][j] = math.sqrt(max(rest, 1e-12)) if i == j else rest / lower[j][j]
    forward: list[float] = []
    for i in range(size):
        done = sum(lower[i][k] * forward[k] for k in range(i))
        forward.append((right[i] - done) / lower[i][i])
    result = [0.0] * size
    for i in reversed(range(size)):
        done = sum(lower[k][i] * result[k] for k in range(i + 1, size))
        result[i] = (forward[i] - done) / lower[i][i]
    return result
