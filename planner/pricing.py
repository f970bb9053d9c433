"""What the job costs on one offer: the shared physics of a machine shape, once, then money per offer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from planner.artifacts import checkpoint_bytes, disk_bytes, machine_share, result_bytes
from planner.egress import Place, Traffic, egress_usd
from planner.hardware import GpuFacts, cpu_facts, gpu_facts
from planner.host_memory import Data, host_memory_parts
from planner.learned import Learned, corrected_fit, corrected_overheads, groups_of, learn, priors_of
from planner.network import Network, network_of
from planner.overheads import Overheads, overheads
from planner.place_hazards import place_hazards
from planner.quantiles import Quantiles
from planner.question import Question
from planner.search import Fit, Refusal, SetUps, best_fit
from planner.setup import Cluster
from planner.timeline import Timeline, timeline
from providers.offers import Credit, Offer

#: Object storage, list price of the largest provider's standard class in its cheapest region (S3 standard,
#: us-east-1): USD per GB (1e9 bytes) and month of 730 h, and per thousand writes.
STORAGE_USD_PER_GB_MONTH = 0.023
WRITES_USD_PER_THOUSAND = 0.005
STORAGE_SOURCE = "S3 standard list price, us-east-1"
#: Text of a token, for data whose size is stated in tokens.
_BYTES_PER_TOKEN = 4.0
#: Files of a checkpoint, its manifest and its head.
_OBJECTS_PER_CHECKPOINT = 12
#: An evaluation is a forward pass: a third of a training step's work, on the base and on the tuned model.
_EVALUATION_SHARE = 2 / 3

_GIB = 2.0**30
#: A century: beyond it no date can be written.
_LONGEST_H = 24 * 36500.0

FREE_LINES: dict[str, float | None] = {"storage": 0.0, "requests": 0.0, "controller": 0.0}


class Solved(NamedTuple):
    """A fit with its hours in one market: what all offers of one shape share.

    Attributes:
        fit: How the job is spread and what it takes.
        around: Overheads.
        line: Hours.
        fixed_usd: Cost lines that do not depend on the machine's price; None is unknown.
        checkpoint_bytes: Size of one checkpoint.
        disk_bytes: Disk that one machine needs.
        host_parts_bytes: Memory that one machine needs beside its GPUs', by what it is for.
        traffic: Bytes between bucket and machines.
        priors: What the formulas alone said, as in `Basis.priors`.
        learned: What finished runs changed in fit and overheads.
        fixed_total_usd: Sum of the known fixed lines.
    """

    fit: Fit
    around: Overheads
    line: Timeline
    fixed_usd: dict[str, float | None]
    checkpoint_bytes: float
    disk_bytes: float
    host_parts_bytes: dict[str, float]
    traffic: Traffic
    priors: dict[str, float]
    learned: Learned
    fixed_total_usd: float


class Priced(NamedTuple):
    """One offer with its bill: what ranking needs.

    Attributes:
        offer: The offer.
        nodes: Machines.
        solved: How it runs there.
        expected_usd: Mean of the bill; lost machines make it more than the p50.
        paid_usd: The same after your credits, which pay machines and nothing else: never less than the rest.
        credit_usd: What your credits with this cloud hold; 0 where none lasts until the job is done.
        egress_usd: Bytes between its bucket and the machines, which the bill holds too if known; None is unknown.
    """

    offer: Offer
    nodes: int
    solved: Solved
    expected_usd: float
    paid_usd: float
    credit_usd: float = 0.0
    egress_usd: float | None = None

    @property
    def cost_usd(self) -> Quantiles:
        """The bill; of a hundred thousand offers few are asked for theirs."""
        per_hour_usd = (self.offer.price_usd_per_hour or 0.0) * self.nodes
        fixed_usd = self.solved.fixed_total_usd + (self.egress_usd or 0.0)
        return self.solved.line.wall_clock_h.billed(per_hour_usd, fixed_usd)

    @property
    def finish_h(self) -> Quantiles:
        """Hours from now to the result, if capacity is had at once."""
        return self.solved.line.finish_h

    @property
    def host_ram_short(self) -> bool:
        """Whether the machine states less memory of its own than data, loading, offloading and saving take."""
        stated_gib = self.offer.ram_gib
        return stated_gib is not None and stated_gib * _GIB < sum(self.solved.host_parts_bytes.values())

    @property
    def may_not_fit(self) -> bool:
        """Whether memory, the GPU's or the machine's own, may end the run: what surely fits goes before it."""
        return self.solved.fit.memory.verdict != "fits" or self.host_ram_short

    @property
    def after_credits_usd(self) -> Quantiles | None:
        """The bill after your credits; None without any."""
        if not self.credit_usd:
            return None
        machines = self.solved.line.wall_clock_h.scaled((self.offer.price_usd_per_hour or 0.0) * self.nodes)
        rest_usd = max(self.cost_usd.p50 - machines.p50, 0.0)
        left = (max(part - self.credit_usd, 0.0) for part in (machines.p10, machines.p50, machines.p90))
        return Quantiles(*left).shifted(rest_usd)


class Solver:
    """Solves machine shapes for one question, each once."""

    def __init__(self, question: Question, credits: Sequence[Credit] = ()) -> None:
        """Start with nothing solved."""
        self._question = question
        self._credits = credits
        self._learned = bool(
            question.calibration.observations or question.calibration.spells or question.spot_signals
        )
        self._setups = SetUps(question.job, question.base)
        # without a GPU everything is on the host as it is
        here = question.base._replace(offload="none", reduces_each_micro_batch=False)
        self._setups_on_cpu = SetUps(question.job, here)
        self._fits: dict[tuple[object, ...], Fit | Refusal] = {}
        self._solved: dict[tuple[object, ...], Solved | Refusal] = {}
        self._egress: dict[tuple[int, str, str], float | None] = {}

    def price(self, offer: Offer, nodes: int) -> Priced | Refusal:
        """The job's bill on `nodes` machines of this offer, or why it cannot run there."""
        if (dear := self._question.filter.too_dear(offer, nodes)) is not None:
            return Refusal(*dear)
        solved = self.solve(offer, nodes)
        if isinstance(solved, Refusal):
            return solved
        per_hour_usd = (offer.price_usd_per_hour or 0.0) * nodes
        egress_usd = self._egress_usd(solved, offer)
        machines_usd = solved.line.billed_mean_h * per_hour_usd
        expected_usd = machines_usd + solved.fixed_total_usd + (egress_usd or 0.0)
        credit_usd = self._credit_usd(solved, offer) if self._credits else 0.0
        # To the cent: a fraction of one for storage is no reason to spend dollars of credits.
        paid_usd = round(expected_usd - min(credit_usd, machines_usd), 2) if credit_usd else expected_usd
        return Priced(offer, nodes, solved, expected_usd, paid_usd, credit_usd, egress_usd)

    def _credit_usd(self, solved: Solved, offer: Offer) -> float:
        """What is left on credits that last until the job is done, at its p90: one that ends before counts nothing."""
        done = self._question.goal.now + timedelta(hours=min(solved.line.finish_h.p90, _LONGEST_H))
        return sum(
            credit.usd
            for credit in self._credits
            if credit.cloud == offer.cloud
            and (credit.expires_at is None or done <= datetime.fromisoformat(credit.expires_at))
        )

    def _egress_usd(self, solved: Solved, offer: Offer) -> float | None:
        if offer.market == "local":
            return 0.0
        bucket = self._question.bucket
        if bucket is None:
            return None
        key = (id(solved), offer.cloud, offer.region)  # all solved ones live as long as this
        if key not in self._egress:
            self._egress[key] = egress_usd(solved.traffic, bucket, Place(offer.cloud, offer.region))
        return self._egress[key]

    def solve(self, offer: Offer, nodes: int) -> Solved | Refusal:
        """Fit and hours of a shape in a market."""
        key: tuple[object, ...] = (*_shape(offer, nodes), offer.market)
        if self._learned:
            key = (*key, *self._where(offer, nodes))
        solved = self._solved.get(key)
        if solved is None:
            solved = self._solved[key] = self._solve(offer, nodes)
        return solved

    def _where(self, offer: Offer, nodes: int) -> tuple[object, ...]:
        """What your own runs and the clouds say of places: without any a shape is the same everywhere."""
        calibration = self._question.calibration
        differ = offer.market == "spot" and (calibration.spells or self._question.spot_signals)
        return (
            offer.cloud if calibration.observations else None,
            place_hazards(self._question, offer, nodes) if differ else None,
        )

    def _solve(self, offer: Offer, nodes: int) -> Solved | Refusal:
        key = _shape(offer, nodes)
        if key not in self._fits:
            setups = self._setups_on_cpu if offer.gpu == "CPU" else self._setups
            self._fits[key] = _fit(self._question, setups, offer, nodes)
        fit = self._fits[key]
        return fit if isinstance(fit, Refusal) else _timed(self._question, offer, nodes, fit)


def _fit(question: Question, setups: SetUps, offer: Offer, nodes: int) -> Fit | Refusal:
    cluster = offered_cluster(offer, nodes, question.counts.total)
    if cluster is None:
        return Refusal("no_gpu_facts", f"nothing is known of the GPU {offer.gpu}")
    return best_fit(question.job, setups, cluster, question.freedom)


def _shape(offer: Offer, nodes: int) -> tuple[object, ...]:
    """What decides how the job runs there."""
    network = offered_network(offer, nodes)
    rate = None if network is None else (network.gbit_per_s, network.log_sd)
    return offer.gpu, offer.gpus_per_node, offer.gpu_mem_gib, nodes, rate


def offered_network(offer: Offer, nodes: int) -> Network | None:
    """Between machines of an offer, None for a single one."""
    return network_of(offer.cloud, offer.instance_type, offer.gpus_per_node) if nodes > 1 else None


def offered_cluster(offer: Offer, nodes: int, parameters: int) -> Cluster | None:
    """The machines with their links, None if nothing is known of their GPU; `parameters` as in `offered_gpu`."""
    facts, network = offered_gpu(offer, parameters), offered_network(offer, nodes)
    if facts is None:
        return None
    cluster = Cluster(facts, offer.gpus_per_node, nodes, offer.gpu_mem_gib)
    if network is None:
        return cluster
    return cluster._replace(inter_node_gbit_per_s=network.gbit_per_s, inter_node_log_sd=network.log_sd)


def offered_gpu(offer: Offer, parameters: int) -> GpuFacts | None:
    """Facts of an offer's GPU, or of the cores that a model of that size uses where it has none; None if unknown."""
    if offer.gpu == "CPU":
        return cpu_facts(int(offer.vcpus or 1), offer.ram_gib or 1.0, parameters)
    return gpu_facts(offer.gpu)


def _timed(question: Question, offer: Offer, nodes: int, found: Fit) -> Solved | Refusal:
    formula = _with_token_doubt(question, found)
    groups = groups_of(question, offer, nodes, formula.setup) if question.calibration.observations else {}
    learned = learn(question.calibration, groups, formula.step.step_time_s, formula.memory)
    fit = corrected_fit(formula, learned)
    if fit.memory.verdict == "oom":
        return Refusal("oom", f"{offer.gpu}: your own runs needed more memory than it has", fit.memory)
    checkpoint = checkpoint_bytes(fit.setup, question.trainable)
    share = machine_share(fit.setup, nodes)
    assumed = _overheads(question, offer, formula, checkpoint * share)
    around, learned = corrected_overheads(question.calibration, learned, assumed)
    hazards = place_hazards(question, offer, nodes) if offer.market == "spot" else None
    doubt = (
        question.job.tokens_log_sd if question.job.packed else 0.0
    )  # packed: the number of steps is in doubt
    line = timeline(question.job.full_steps, fit.step.step_time_s.widened(doubt), around, hazards)
    fixed = FREE_LINES if offer.market == "local" else _object_store_lines(question, line, checkpoint)
    saving_h = line.interruptions.checkpoint_h * assumed.save_s / around.save_s
    priors = priors_of(formula, assumed, saving_h)
    result = result_bytes(fit.setup, question.trainable)
    moved = _traffic(question, line, nodes, checkpoint, result)
    disk = disk_bytes(
        local=offer.market == "local",
        weight_bytes=question.stored_bytes,
        checkpoint=checkpoint,
        result=result,
        data_bytes=_data_bytes(question),
        keep=question.keep_checkpoints,
        share=share,
        chooses_best=question.chooses_best,
    )
    memory = _host_memory(question, offer, nodes, fit)
    total = sum(value for value in fixed.values() if value is not None)
    return Solved(fit, around, line, fixed, checkpoint, disk, memory, moved, priors, learned, total)


def _host_memory(question: Question, offer: Offer, nodes: int, fit: Fit) -> dict[str, float]:
    cluster = offered_cluster(offer, nodes, question.counts.total)
    if cluster is None:
        raise AssertionError("there is a fit, so its GPU is known")
    data = Data(question.job.data_tokens, _data_bytes(question))
    return host_memory_parts(fit.setup, cluster, fit.memory, stored_bytes=question.stored_bytes, data=data)


def _with_token_doubt(question: Question, fit: Fit) -> Fit:
    """Unpacked rows are as long as the examples: a step is as uncertain as their length."""
    if question.job.packed or question.job.tokens_log_sd == 0:
        return fit
    widened = fit.step.step_time_s.widened(question.job.tokens_log_sd)
    return fit._replace(step=fit.step._replace(step_time_s=widened))


def _overheads(question: Question, offer: Offer, fit: Fit, checkpoint: float) -> Overheads:
    return overheads(
        local=offer.market == "local",
        weight_bytes=question.stored_bytes,
        checkpoint_bytes=checkpoint,
        result_bytes=result_bytes(fit.setup, question.trainable),
        data_tokens=question.job.data_tokens,
        evaluate_s=_evaluate_s(question, fit),
    )


def _evaluate_s(question: Question, fit: Fit) -> float:
    batches = question.job.eval_rows / question.job.global_batch
    if fit.setup.task == "grpo":  # both models answer each row, as many at once as in a step
        return batches * 2 * fit.step.terms_s["generation"]
    return batches * fit.step.step_time_s.p50 * _EVALUATION_SHARE


def _traffic(question: Question, line: Timeline, nodes: int, checkpoint: float, result: float) -> Traffic:
    """Each start reads the data, each restart a checkpoint too; every commit writes one, and the end the result."""
    lost = line.interruptions.expected
    read_bytes = (_data_bytes(question) * (1 + lost) + checkpoint * lost) * nodes
    return Traffic(read_bytes / 1e9, (_commits(line) * checkpoint + result) / 1e9)


def _data_bytes(question: Question) -> float:
    job = question.job
    return _BYTES_PER_TOKEN * job.data_tokens if job.data_bytes is None else job.data_bytes


def _commits(line: Timeline) -> float:
    return max(line.finish_h.p50 * 3600 / line.interruptions.checkpoint_interval_s, 1.0)


def _object_store_lines(question: Question, line: Timeline, checkpoint: float) -> dict[str, float | None]:
    """Storage and requests of checkpoints; egress depends on the machine's place."""
    hours = line.finish_h.p50
    kept_gb = checkpoint * (question.keep_checkpoints + 1) / 1e9
    return {
        "storage": kept_gb * STORAGE_USD_PER_GB_MONTH * hours / 730,
        "requests": _commits(line) * _OBJECTS_PER_CHECKPOINT * WRITES_USD_PER_THOUSAND / 1000,
        "controller": 0.0,
    }
