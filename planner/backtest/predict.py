"""Predictions for published runs, from what each run states about itself and never from what it measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from planner.backtest.cells import UnsupportedRunError, number
from planner.backtest.rows import Run, read_run
from planner.backtest.unstated import also_allowed, left_open
from planner.memory import MemoryEstimate, estimate_memory
from planner.quantiles import Quantiles
from planner.throughput import StepEstimate, estimate_step

GIB = float(2**30)
COLUMNS = (
    "id",
    "verdict",
    "predicted_allocated_gib",
    "predicted_reserved_gib",
    "predicted_nvml_gib",
    "memory_upper_gib",
    "predicted_step_time_s",
    "predicted_tokens_per_s_total",
    "tokens_per_s_p10",
    "tokens_per_s_p90",
    "predicted_wall_clock_h",
    "wall_clock_h_p10",
    "wall_clock_h_p90",
    "predicted_gpu_hours",
    "predicted_cost_usd",
    "unsupported_reason",
)
# Outcomes, and remarks that may tell of them: a prediction that could see them would not be one.
OUTCOME_COLUMNS = frozenset(
    [
        "measured_peak_mem_gb_per_gpu",
        "measured_step_time_s",
        "measured_tokens_per_s_total",
        "measured_wall_clock_h",
        "measured_gpu_hours",
        "measured_cost_usd",
        "mem_gib_norm",
        "oom",
        "oom_basis",
        "outcome_kind",
        "notes",
        "quality",
    ]
)
# Up to this much longer with evaluations and checkpoints (one in ten runs is beyond).
_EVALUATED = 1.6
# What comes once: kernels are loaded, a compiler may run; a Gaudi compiles the graphs of every shape (optimum-habana's
# own durations are 1 to 9 minutes longer than their steps).
_FIRST_STEP_S, _GRAPHS_S = Quantiles(0, 0, 60), Quantiles(30, 150, 600)

_LONGEST_REASON = 200  # characters
Prediction = dict[str, str]


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """What is predicted for one run; time is None where the GPU is only known by its memory."""

    run: Run
    memory: MemoryEstimate
    step: StepEstimate | None


def estimate_run(row: Mapping[str, str]) -> RunEstimate:
    """Predict one row of the run table.

    Args:
        row: Columns as in benchmarks/data/README.md; outcome columns are dropped before anything is read.

    Raises:
        UnsupportedRunError: If the row does not state enough, or states what the model cannot express.
    """
    stated = {key: value for key, value in row.items() if key not in OUTCOME_COLUMNS}
    run = read_run(stated)
    memory = _memory(stated, run)
    step = estimate_step(run.setup, run.cluster, run.doubts) if run.speed_known else None
    return RunEstimate(run, memory, step)


def _memory(row: Mapping[str, str], run: Run) -> MemoryEstimate:
    """Of the run as it was read; bound and verdict allow for the other ways to read the row."""
    memory = estimate_memory(run.setup, run.cluster)
    unsaid = [estimate_memory(setup, run.cluster) for setup in left_open(row, run.setup)]
    loose = [estimate_memory(setup, run.cluster) for setup in also_allowed(row, run.setup)]
    upper = max(other.upper_bytes for other in (memory, *unsaid, *loose))
    certain = memory.verdict != "fits" or all(other.verdict == "fits" for other in unsaid)
    return memory._replace(upper_bytes=upper, verdict=memory.verdict if certain else "borderline")


def predict(row: Mapping[str, str]) -> Prediction:
    """One row of the answer; a run that cannot be expressed keeps its row with the reason."""
    answer = dict.fromkeys(COLUMNS, "")
    answer["id"] = row.get("id", "")
    try:
        estimate = estimate_run(row)
    except UnsupportedRunError as error:
        return answer | {"unsupported_reason": _shortened(str(error))}
    answer |= _memory_columns(estimate.memory)
    if estimate.step is not None:
        answer |= _time_columns(row, estimate.run, estimate.step)
    return answer


def _shortened(reason: str) -> str:
    """A cell is quoted in a reason, and may hold a page."""
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}..."


def predictions(rows: Iterable[Mapping[str, str]]) -> Iterator[Prediction]:
    """Predict row by row, in order."""
    for row in rows:
        yield predict(row)


def _memory_columns(memory: MemoryEstimate) -> Prediction:
    return {
        "verdict": memory.verdict,
        "predicted_allocated_gib": _text(memory.allocated_bytes / GIB),
        "predicted_reserved_gib": _text(memory.reserved_bytes / GIB),
        "predicted_nvml_gib": _text(memory.nvml_bytes / GIB),
        "memory_upper_gib": _text(memory.upper_bytes / GIB),
    }


def _time_columns(row: Mapping[str, str], run: Run, step: StepEstimate) -> Prediction:
    columns = {
        "predicted_step_time_s": _text(step.step_time_s.p50),
        "predicted_tokens_per_s_total": _text(step.tokens_per_s_total.p50),
        "tokens_per_s_p10": _text(step.tokens_per_s_total.p10),
        "tokens_per_s_p90": _text(step.tokens_per_s_total.p90),
    }
    hours = wall_clock_h(run, step)
    if hours is not None:
        columns |= {
            "predicted_wall_clock_h": _text(hours.p50),
            "wall_clock_h_p10": _text(hours.p10),
            "wall_clock_h_p90": _text(hours.p90),
            "predicted_gpu_hours": _text(hours.p50 * run.setup.parallelism.gpus_total),
            "predicted_cost_usd": _cost_usd(row, run, hours),
        }
    return columns


def _cost_usd(row: Mapping[str, str], run: Run, hours: Quantiles) -> str:
    """Hours at the price that the row states for a GPU or for all machines; blank where it states none."""
    of_gpu, of_all = number(row, "price_usd_per_gpu_hour"), number(row, "price_usd_per_hour")
    if of_all is None and of_gpu is not None:
        of_all = of_gpu * run.setup.parallelism.gpus_total
    return "" if of_all is None else _text(hours.p50 * of_all)


def wall_clock_h(run: Run, step: StepEstimate) -> Quantiles | None:
    """Hours from the first step to the last, None where the row states neither steps nor the data's tokens.

    A published duration often holds evaluations and checkpoints as well, of which rows say nothing: that may only
    make it longer, and so widens the interval upwards (peft's comparison of its methods evaluates for a third of it).
    """
    steps = run.steps
    if steps is None and run.total_tokens is not None:
        per_step = step.tokens_per_s_total.p50 * step.step_time_s.p50
        steps = run.total_tokens / per_step
    if steps is None:
        return None
    hours = step.step_time_s.scaled(steps / 3600)
    beside = math.hypot(math.log(step.spread), math.log(_EVALUATED))
    start = _GRAPHS_S if run.cluster.gpu.name.startswith("Gaudi") else _FIRST_STEP_S
    return Quantiles(
        hours.p10 + start.p10 / 3600,
        hours.p50 + start.p50 / 3600,
        hours.p50 * math.exp(beside) + start.p90 / 3600,
    )


def _text(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""
