"""Finds how to spread a job over one kind of machine: parallelism, checkpointing and micro-batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from jobs.spec_rules import least_rows
from planner.attention_kernel import dispatched, lacks_flash
from planner.hardware import GpuFacts
from planner.job import Job
from planner.memory import MemoryEstimate, Tensors, estimate_memory, peak_tensors
from planner.setup import Cluster, Parallelism, ParallelKind, TrainingSetup
from planner.throughput import StepEstimate, estimate_step

#: Rows in flight beyond this many tokens no longer make a GPU faster, they only fill its memory.
_ENOUGH_TOKENS = 32_768


class Freedom(NamedTuple):
    """What the search may choose itself.

    Attributes:
        micro_batch: Fixed rows a GPU, None to choose.
        gradient_checkpointing: Fixed, None to choose.
    """

    micro_batch: int | None = None
    gradient_checkpointing: bool | None = None


class Fit(NamedTuple):
    """The chosen way, with its prediction."""

    setup: TrainingSetup
    memory: MemoryEstimate
    step: StepEstimate


class Refusal(NamedTuple):
    """Why no way was found: `reason_code` as in the estimate's JSON, and the memory of the nearest try."""

    reason_code: str
    reason: str
    memory: MemoryEstimate | None = None


class Held(NamedTuple):
    """One way to run a job, and what it holds on any GPU on which it runs alike."""

    setup: TrainingSetup
    tensors: Tensors


_Tried = tuple[TrainingSetup, MemoryEstimate]


class SetUps:
    """Ways to run one job, each made once: the same ones are tried on every GPU."""

    def __init__(self, job: Job, base: TrainingSetup) -> None:
        """Nothing is made yet.

        Args:
            job: What must be computed.
            base: Set-up with everything but parallelism, micro-batch, accumulation and checkpointing.
        """
        self._job, self.base = job, base
        self.least_rows = least_rows(base.task, base.preference_loss)
        self._held: dict[tuple[str, bool, ParallelKind, int, bool, int], Held] = {}
        self._full: dict[tuple[ParallelKind, int, bool, int, str, bool], TrainingSetup] = {}
        self._padded: dict[int, float] = {}

    def held(
        self, gpu: GpuFacts, kind: ParallelKind, gpus: int, checkpointing: bool, micro_batch: int
    ) -> Held:
        """For the memory, which does not go by the rows' mean length, with the attention that runs on a GPU."""
        key = (gpu.vendor, lacks_flash(gpu), kind, gpus, checkpointing, micro_batch)
        if key not in self._held:
            plain = self.base._replace(
                parallelism=Parallelism(kind, data=gpus),
                gradient_checkpointing=checkpointing,
                micro_batch=micro_batch,
                grad_accum=self._job.global_batch // gpus // micro_batch,
                cpu_autocast=gpu.vendor == "cpu",
            )
            masked = self._padded_row_tokens(micro_batch) > self._job.row_tokens
            setup = dispatched(plain, gpu, masked=masked)
            self._held[key] = Held(setup, peak_tensors(setup, on_cpu=gpu.vendor == "cpu"))
        return self._held[key]

    def _padded_row_tokens(self, micro_batch: int) -> float:
        if micro_batch not in self._padded:
            self._padded[micro_batch] = self._job.padded_row_tokens(micro_batch)
        return self._padded[micro_batch]

    def full(self, held: TrainingSetup) -> TrainingSetup:
        """For the step time: rows as they are."""
        parallel, micro = held.parallelism, held.micro_batch
        key = (
            parallel.kind,
            parallel.gpus_total,
            held.gradient_checkpointing,
            micro,
            held.attention,
            held.cpu_autocast,
        )
        if key not in self._full:
            padded = self._padded_row_tokens(micro)
            self._full[key] = held._replace(
                row_tokens=padded,
                attended_tokens=self._job.attended_tokens,
                real_tokens_share=min(self._job.row_tokens / padded, 1.0),
            )
        return self._full[key]


def best_fit(job: Job, setups: SetUps, cluster: Cluster, freedom: Freedom) -> Fit | Refusal:
    """The fastest way that surely fits, else the least doubtful one, else why there is none.

    Data parallel copies are tried before sharding: where a copy fits, sharding only adds traffic.

    Args:
        job: What must be computed.
        setups: Ways to run it.
        cluster: The machines.
        freedom: What may be chosen.
    """
    refusal = Refusal("filtered", "")
    ways: list[_Tried] = []
    for kind in _kinds(cluster, setups.base):
        found = _of_kind(job, setups, cluster, freedom, kind)
        if isinstance(found, Refusal):
            refusal = _nearer(refusal, found)
        else:
            ways += found
        if any(doubt(memory) == 0 for _, memory in ways):
            break
    if not ways:
        return refusal
    least = min(doubt(memory) for _, memory in ways)
    fits = (_timed(setups.full(held), memory, cluster) for held, memory in ways if doubt(memory) == least)
    return min(fits, key=lambda fit: fit.step.step_time_s.p50)


def _timed(setup: TrainingSetup, memory: MemoryEstimate, cluster: Cluster) -> Fit:
    return Fit(setup, memory, estimate_step(setup, cluster))


def _kinds(cluster: Cluster, base: TrainingSetup) -> tuple[ParallelKind, ...]:
    """Ways to spread a model; FSDP alone moves it to the host and back, be it for a single GPU."""
    if base.offload != "none":
        return ("fsdp",)
    if cluster.gpus_per_node * cluster.nodes == 1:
        return ("single",)
    return ("ddp", "fsdp")


def _of_kind(
    job: Job, setups: SetUps, cluster: Cluster, freedom: Freedom, kind: ParallelKind
) -> list[_Tried] | Refusal:
    """The largest micro-batches, one without and one with recomputation if there is a choice, of what fits."""
    gpus = cluster.gpus_per_node * cluster.nodes
    rows = _micro_batches(job, gpus, freedom.micro_batch, setups.least_rows)
    if not rows:
        return Refusal("indivisible", _indivisible(job, gpus, freedom.micro_batch, setups.least_rows))
    ways: list[_Tried] = []
    tried: MemoryEstimate | None = None
    for checkpointing in _checkpointing(freedom):

        def tried_with(micro: int, checkpointing: bool = checkpointing) -> _Tried:
            held = setups.held(cluster.gpu, kind, gpus, checkpointing, micro)
            return held.setup, estimate_memory(held.setup, cluster, held.tensors)

        found = _largest(tried_with, rows, job.global_batch // gpus)
        if isinstance(found, MemoryEstimate):
            tried = found
        else:
            ways.append(found)
    return ways or Refusal("oom", f"{gpus} x {cluster.gpu.name}: too little memory", tried)


def _checkpointing(freedom: Freedom) -> tuple[bool, ...]:
    if freedom.gradient_checkpointing is None:
        return (False, True)
    return (freedom.gradient_checkpointing,)


def _micro_batches(job: Job, gpus: int, fixed: int | None, least: int) -> tuple[int, ...]:
    """Rows a GPU may hold at once, ascending: they must divide each GPU's share of the global batch."""
    if job.global_batch % gpus:
        return ()
    share = job.global_batch // gpus
    if fixed is not None:
        return (fixed,) if share % fixed == 0 else ()
    enough = max(_ENOUGH_TOKENS // job.sequence_tokens, least)
    return tuple(rows for rows in _divisors(share) if least <= rows <= enough)


@functools.cache
def _divisors(number: int) -> tuple[int, ...]:
    small = [n for n in range(1, int(number**0.5) + 1) if number % n == 0]
    return tuple(sorted({*small, *(number // n for n in small)}))


def _indivisible(job: Job, gpus: int, fixed: int | None, least: int) -> str:
    per_gpu = f" in micro-batches of {fixed}" if fixed else ""
    if not per_gpu and least > 1:
        per_gpu = f" in micro-batches of {least} or more"
    return f"a global batch of {job.global_batch} does not divide over {gpus} GPU{'s' if gpus > 1 else ''}{per_gpu}"


def _largest(
    tried_with: Callable[[int], _Tried], rows: tuple[int, ...], share: int
) -> _Tried | MemoryEstimate:
    """The largest micro-batch that surely fits; the smallest if that is not sure; its memory if it is too much.

    Without accumulation no gradients wait between micro-batches, so the whole share at once may take less than a part
    of it, and is tried first.
    """
    tries = [tried_with(micro) for micro in rows[-1:] if micro == share]
    if tries and doubt(tries[0][1]) == 0:
        return tries[0]
    tries.append(tried_with(rows[0]))
    best = min(tries, key=lambda tried: doubt(tried[1]) if tried[1].verdict != "oom" else 3)
    if best[1].verdict == "oom":
        return best[1]
    low, high = (1, len(rows)) if doubt(tries[-1][1]) == 0 else (0, 0)
    while low < high:
        middle = (low + high) // 2
        tried = tried_with(rows[middle])
        if doubt(tried[1]) == 0:
            best, low = tried, middle + 1
        else:
            high = middle
    return best


def doubt(memory: MemoryEstimate) -> int:
    """0: even the upper bound fits; 1: it fits, but the upper bound does not; 2: borderline or worse."""
    if memory.verdict != "fits":
        return 2
    return 0 if memory.upper_bytes <= memory.limit_bytes else 1


def _nearer(old: Refusal, new: Refusal) -> Refusal:
    """The refusal that says more: out of memory before indivisible, sharded before copied."""
    return new if new.reason_code == "oom" or not old.reason else old
