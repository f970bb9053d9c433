"""From finished runs of the ledger to the table that calibrates later estimates."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from jobs.progress import StepTimes
from planner.calibration import Basis, Calibration, Observation
from planner.candidate_document import bases_from_document
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
    overheads only where one attempt did everything. A run that got another GPU or place than it was planned for is
    compared with what the formulas said of the machine that it got, as far as that is on record, and says nothing of
    the other one.
    """
    if run.progress_json is None or not run.final:
        return None
    found = _told(json.loads(run.terms.candidate_json), json.loads(run.current.offer_json))
    if found is None:
        return None
    basis, told = found
    ratios = {
        name: math.log(value / prior)
        for name, value in _actual(run, json.loads(run.progress_json)).items()
        if name in told and value is not None and value > 0 and (prior := basis.priors.get(name, 0.0)) > 0
    }
    return Observation(run.run_id, _by_device(basis.groups), ratios) if ratios else None


def had_its_machine(run: Run) -> bool:
    """Whether all its attempts had the GPUs and the place that it was planned for."""
    planned = json.loads(run.terms.candidate_json)
    bases = bases_from_document(planned)
    machine = next(iter(bases), _machine(planned["offer"]))
    started = (json.loads(one.offer_json) for one in run.attempts if one.started_at is not None)
    return all(_machine(got) == machine and _same_size(planned["offer"], got) for got in started)


def _told(planned: Mapping[str, Any], got: Mapping[str, Any]) -> tuple[Basis, frozenset[str]] | None:
    """What a run that got a machine is to be compared with, and the quantities that it tells of; None if of none."""
    bases = bases_from_document(planned)
    (cloud, gpu), whole = _machine(got), _same_size(planned["offer"], got)
    if (cloud, gpu) in bases and whole:
        return bases[cloud, gpu], _OF_GPUS | _OF_PLACE
    same_gpus = next((basis for (_, known), basis in bases.items() if known == gpu and whole), None)
    if same_gpus is not None:
        return same_gpus, _OF_GPUS
    same_place = next((basis for (known, _), basis in bases.items() if known == cloud), None)
    if same_place is None:
        return None
    other_job = {**same_place.groups, "job": f"{same_place.groups['job']} on {gpu}"}
    return same_place._replace(groups=other_job), _OF_PLACE


def _machine(offer: Mapping[str, Any]) -> tuple[str, str]:
    return offer["cloud"], offer["gpu"]


def _same_size(planned: Mapping[str, Any], got: Mapping[str, Any]) -> bool:
    """Whether two machines have as many GPUs; a CPU is as many cores as it has."""
    if planned["gpu"] == got["gpu"] == "CPU":
        return bool(planned.get("vcpus") == got.get("vcpus"))
    return bool(planned["gpus_per_node"] == got["gpus_per_node"])


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
