"""From finished runs of the ledger to the table that calibrates later estimates."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from jobs.progress import StepTimes
from planner.calibration import Calibration, Observation
from planner.candidate_document import basis_from_document
from planner.runs import Run, seconds_between
from planner.spot_record import own_spells_of

#: Label of runs that only measure.
PROBE_LABEL = "plan-probe"
#: Fewer steps than this say little: the first ones warm up.
_LEAST_STEPS = 8
#: Of a run that was stopped or failed: it did not become what was planned, so that its few steps may not be typical.
_LEAST_UNFINISHED_STEPS = 30
#: Runs looked at, newest first.
_MOST_RUNS = 200
#: What the formulas predict of the GPUs, and what of the place they stand in.
_OF_GPUS = frozenset({"step_time", "memory", "evaluate"})
_OF_PLACE = frozenset({"start", "prepare", "finish"})


def calibration_of(runs: Iterable[Run]) -> Calibration:
    """The table of all runs that say something, newest first.

    Args:
        runs: Of the ledger, newest first, in any state.
    """
    known = list(islice(runs, _MOST_RUNS))
    return Calibration(tuple(_observations(known)), own_spells_of(known))


def is_probe(run: Run) -> bool:
    """Whether it only measured: its wall-clock time and cost are no example of a whole run."""
    return PROBE_LABEL in run.terms.labels


def observe_run(run: Run) -> Observation | None:
    """What a run says about the formulas, None if it says nothing.

    Step time and memory count from any end, as long as it trained for some steps, more where it did not succeed;
    overheads only where one attempt did everything. A run that got another GPU or place than it was planned for says
    nothing of that: predicted and measured are not of the same machine.
    """
    planned = json.loads(run.terms.candidate_json)
    basis = basis_from_document(planned)
    if basis is None or run.progress_json is None or not run.final:
        return None
    actual = _actual(run, json.loads(run.progress_json))
    not_told = _not_as_planned(planned["offer"], json.loads(run.current.offer_json))
    ratios = {
        name: math.log(value / prior)
        for name, value in actual.items()
        if name not in not_told
        and value is not None
        and value > 0
        and (prior := basis.priors.get(name, 0.0)) > 0
    }
    return Observation(run.run_id, _by_device(basis.groups), ratios) if ratios else None


def had_its_machine(run: Run) -> bool:
    """Whether all its attempts had the GPUs and the place that it was planned for."""
    planned = json.loads(run.terms.candidate_json)["offer"]
    started = (json.loads(one.offer_json) for one in run.attempts if one.started_at is not None)
    return not any(_not_as_planned(planned, got) for got in started)


def _not_as_planned(planned: Mapping[str, Any], got: Mapping[str, Any]) -> frozenset[str]:
    """Quantities that a run on this offer does not tell about the offer that it was planned for."""

    def gpus(offer: Mapping[str, Any]) -> tuple[object, ...]:
        cores = offer.get("vcpus") if offer["gpu"] == "CPU" else None  # a CPU is as many cores as it has
        return offer["gpu"], offer["gpus_per_node"], cores

    of_gpus = _OF_GPUS if gpus(planned) != gpus(got) else frozenset()
    return of_gpus | (_OF_PLACE if planned["cloud"] != got["cloud"] else frozenset())


def _by_device(groups: Mapping[str, str]) -> Mapping[str, str]:
    """Runs on a CPU that older versions recorded shared their stack with those on GPUs."""
    stack, gpu = groups.get("stack", ""), groups.get("gpu", "")
    if not gpu.startswith("CPU|") or stack.endswith("|CPU"):
        return groups
    return {**groups, "stack": f"{stack}|CPU"}


def _observations(runs: Iterable[Run]) -> Iterator[Observation]:
    for run in runs:
        with contextlib.suppress(ValueError, KeyError, TypeError):  # another version wrote it
            seen = observe_run(run)
            if seen is not None:
                yield seen


def _actual(run: Run, progress: Mapping[str, Any]) -> dict[str, float | None]:
    """Seconds and GiB by quantity of `planner.calibration.SHARES`.

    Reads the few keys it needs of the worker's document: estimates do this for every run on record.
    """
    trained = progress.get("step", 0) - (progress.get("resumed_from_step") or 0)
    least = _LEAST_STEPS if run.state == "succeeded" else _LEAST_UNFINISHED_STEPS
    times = progress.get("step_time_s") if trained >= least else None
    peak = progress.get("peak_memory_gib") or {}
    values: dict[str, float | None] = {
        "step_time": None if times is None else mean_step_s(StepTimes(**times)),
        "memory": peak.get("reserved") if trained else None,
    }
    if run.state == "succeeded" and len(run.attempts) == 1:
        values |= _overheads(run, progress.get("stage_seconds") or {})
    return values


def mean_step_s(times: StepTimes) -> float:
    """Mean seconds of a step from its quantiles, by Swanson's rule; slow first steps do not spoil it.

    >>> round(mean_step_s(StepTimes(1.0, 1.0, 2.0)), 3)
    1.3
    """
    return 0.3 * times.p10 + 0.4 * times.p50 + 0.3 * times.p90


def _overheads(run: Run, stages: Mapping[str, float]) -> dict[str, float | None]:
    def of(*names: str) -> float:
        return sum(stages.get(name, 0.0) for name in names)

    attempt = run.current
    if attempt.started_at is None or attempt.ended_at is None or not stages:
        return {}
    wall_s = seconds_between(attempt.started_at, attempt.ended_at)
    prepare_s, finish_s, evaluate_s = of("data", "tokenise"), of("save", "upload"), of("evaluate")
    rest_s = wall_s - prepare_s - finish_s - evaluate_s - of("train")
    return {
        # what no stage names is the machine's start and the worker's own
        "start": max(rest_s, of("environment", "setup", "download", "load")),
        "prepare": prepare_s,
        "evaluate": evaluate_s,
        "finish": finish_s,
    }
