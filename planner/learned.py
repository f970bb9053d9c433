"""Applies what finished runs taught to one fit: step time, memory and overheads of one job on one machine. Pure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import NamedTuple

from planner.calibration import UNCORRECTED, Calibration, Correction, log_sd
from planner.memory import MemoryEstimate
from planner.memory.verdict import verdict_of
from planner.overheads import Overheads
from planner.quantiles import Quantiles
from planner.question import Question
from planner.search import Fit
from planner.setup import TrainingSetup
from providers.offers import Offer

_GIB = 2.0**30
#: Standard normal quantile of 0.95: an upper bound is passed by one run in twenty.
_Z95 = 1.6449
_LEAST_UPPER = 1.02
#: A correction below this is not worth a word.
_NOTICED = 0.01


class Learned(NamedTuple):
    """Corrections for one job on one kind of machine.

    Attributes:
        groups: What the job shares with others; empty where there are no runs to learn from.
        corrections: By quantity; what is not there is uncorrected.
    """

    groups: Mapping[str, str]
    corrections: Mapping[str, Correction]

    @property
    def runs(self) -> tuple[str, ...]:
        """Ids of all runs behind it, each once."""
        return tuple(dict.fromkeys(run for one in self.corrections.values() for run in one.runs))

    def text(self) -> str:
        """As in "step time x1.23, start x0.80": what was corrected, in the order of `SHARES`."""
        return self._named(0.0)

    def noticed(self) -> str:
        """The same of what moved by a per cent or more, empty if nothing did."""
        return self._named(_NOTICED)

    def _named(self, least: float) -> str:
        return ", ".join(
            f"{name.replace('_', ' ')} x{one.factor:.2f}"
            for name, one in self.corrections.items()
            if one.runs and abs(one.factor - 1) >= least
        )


def groups_of(question: Question, offer: Offer, nodes: int, setup: TrainingSetup) -> dict[str, str]:
    """What a job shares with others; learning rate, seed and number of steps are left out on purpose."""
    adapter = setup.adapter
    method = f"{'full' if adapter is None else adapter.kind}-{setup.quantization}-{setup.task}"
    octave = round(math.log2(max(question.counts.total, 1)))
    gpu = f"{offer.gpu}|{setup.framework}"
    place = f"{offer.market if offer.market == 'local' else 'cloud'}|{offer.cloud}"
    stack = setup.framework
    if offer.gpu == "CPU":
        gpu += f"|{offer.vcpus}"  # a CPU is as many cores as it has
        stack += "|CPU"
    if setup.offload != "none":  # the host decides much of such a step
        gpu, stack = f"{gpu}|offload", f"{stack}|offload"
    rows = (round(question.job.row_tokens, 1), question.job.packed, question.job.sequence_tokens)
    physics = (
        *(_shape(question), method, rows, None if adapter is None else (adapter.rank, adapter.targets)),
        *(setup.precision, setup.optimizer, setup.attention, setup.fused_loss, setup.micro_batch),
        *(setup.grad_accum, setup.gradient_checkpointing, str(setup.parallelism), gpu, nodes),
    )
    return {
        "stack": stack,
        "gpu": gpu,
        "class": f"{gpu}|{method}|2^{octave}",
        "place": place,
        "model": f"{place}|{_shape(question)}",
        "job": hashlib.sha256(repr(physics).encode()).hexdigest()[:16],
    }


def _shape(question: Question) -> str:
    """The model by its shape: the same weights may lie under many names and paths."""
    arch = question.arch
    return f"{question.counts.total}-{arch.layers}-{arch.hidden}-{arch.vocab}"


def learn(
    calibration: Calibration, groups: Mapping[str, str], step_time_s: Quantiles, memory: MemoryEstimate
) -> Learned:
    """Corrections of step time and memory, which decide the rest."""
    if not calibration.observations:
        return Learned(groups, {})
    memory_sd = math.log(max(memory.upper_bytes / memory.nvml_bytes, 1.0)) / _Z95
    return Learned(
        groups,
        {
            "step_time": calibration.correction("step_time", groups, log_sd(step_time_s)),
            "memory": calibration.correction("memory", groups, memory_sd),
        },
    )


def corrected_fit(fit: Fit, learned: Learned) -> Fit:
    """The fit with its step time, throughput and memory corrected; its verdict may become `oom`."""
    step = learned.corrections.get("step_time", UNCORRECTED)
    memory = learned.corrections.get("memory", UNCORRECTED)
    if step.runs:
        seconds, rate = step.apply(fit.step.step_time_s), fit.step.tokens_per_s_total
        per_step = rate.p50 * fit.step.step_time_s.p50
        rates = Quantiles(per_step / seconds.p90, per_step / seconds.p50, per_step / seconds.p10)
        mfu = fit.step.mfu / step.factor
        timed = fit.step._replace(
            step_time_s=seconds,
            tokens_per_s_total=rates,
            mfu=mfu,
            spread=seconds.p90 / seconds.p50,
            quicker=seconds.p50 / seconds.p10,
        )
        fit = fit._replace(step=timed)
    return fit._replace(memory=_corrected_memory(fit.memory, memory)) if memory.runs else fit


def _corrected_memory(memory: MemoryEstimate, correction: Correction) -> MemoryEstimate:
    factor = correction.factor
    context = memory.nvml_bytes - memory.reserved_bytes
    ratio = max((memory.upper_bytes / memory.nvml_bytes) ** correction.shrink, _LEAST_UPPER)
    return memory._replace(
        allocated_bytes=memory.allocated_bytes * factor,
        reserved_bytes=memory.reserved_bytes * factor,
        nvml_bytes=memory.nvml_bytes * factor,
        upper_bytes=memory.nvml_bytes * factor * ratio,
        components_bytes={name: value * factor for name, value in memory.components_bytes.items()},
        verdict=verdict_of(
            memory.allocated_bytes * factor, context, memory.limit_bytes, memory.log_sd * correction.shrink
        ),
    )


def corrected_overheads(
    calibration: Calibration, learned: Learned, around: Overheads
) -> tuple[Overheads, Learned]:
    """Overheads as finished runs had them, and everything that was learned."""
    if not calibration.observations:
        return around, learned
    parts = {
        "start": around.start_s,
        "prepare": around.prepare_s,
        "evaluate": around.evaluate_s,
        "finish": around.finish_s,
    }
    found = {
        name: calibration.correction(name, learned.groups, log_sd(value)) for name, value in parts.items()
    }
    corrected = around._replace(
        start_parts_s={name: found["start"].apply(part) for name, part in around.start_parts_s.items()},
        prepare_s=found["prepare"].apply(around.prepare_s),
        evaluate_s=found["evaluate"].apply(around.evaluate_s),
        finish_s=found["finish"].apply(around.finish_s),
        save_s=around.save_s * found["finish"].factor,
    )
    return corrected, Learned(learned.groups, {**learned.corrections, **found})


def priors_of(fit: Fit, around: Overheads, checkpoint_h: float) -> dict[str, float]:
    """What the formulas alone say, to be kept with the run: `Basis.priors`.

    Args:
        fit: Before any correction.
        around: Before any correction.
        checkpoint_h: Hours of checkpoint stops over the whole run, before any correction.
    """
    return {
        "step_time": fit.step.step_time_s.p50,
        "memory": fit.memory.reserved_bytes / _GIB,
        "start": around.start_s.p50,
        "prepare": around.prepare_s.p50,
        "evaluate": around.evaluate_s.p50,
        "finish": around.finish_s.p50 + checkpoint_h * 3600,
    }
