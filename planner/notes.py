"""What a person should know of the best candidate besides its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from planner.hardware import gpu_facts
from planner.job import Assumption
from planner.memory.precision import widths
from planner.pricing import Priced, offered_network
from planner.risk import probability_by
from planner.setup import TrainingSetup
from planner.throughput import emulates_bf16


def network_assumption(priced: Sequence[Priced]) -> Iterator[Assumption]:
    """The network that the first candidate of several machines was computed with."""
    for item in priced:
        network = offered_network(item.offer, item.nodes)
        if network is not None:
            kind = f"{item.offer.cloud} {item.offer.instance_type or item.offer.gpu}"
            name = f"network between machines, {kind}"
            yield Assumption(name, network.gbit_per_s, "Gbit/s", network.source)
            return


def notes_on(ranked: Sequence[Priced], deadline_h: float | None) -> Iterator[tuple[str, str]]:
    """Codes and sentences on the first candidate, none without one."""
    if not ranked:
        return
    best = ranked[0]
    yield from _spot_passed_over(best, ranked, deadline_h)
    setup = best.solved.fit.setup
    network = offered_network(best.offer, best.nodes)
    if network is not None:
        yield "network", f"best candidate: {network.text()}"
    if emulates_bf16(setup.precision, gpu_facts(best.offer.gpu)):
        yield (
            "emulated_bf16",
            f"best candidate: {best.offer.gpu} has no bf16 units and computes bf16 in fp32, slower than fp16 "
            "(train.precision: fp16; --why has the difference)",
        )
    if setup.adapter is None and setup.precision == "bf16":
        yield "numerics", f"best candidate: {_numerics(setup)}"


def _spot_passed_over(
    best: Priced, ranked: Sequence[Priced], deadline_h: float | None
) -> Iterator[tuple[str, str]]:
    """Why a machine on demand comes before the same one on spot at a lower price an hour."""
    spot = next(
        (item for item in ranked if item.offer.market == "spot" and _shape(item) == _shape(best)), None
    )
    if best.offer.market != "on_demand" or spot is None or not _usd_per_h(spot) < _usd_per_h(best):
        return
    lost, place = spot.solved.line.interruptions.expected, spot.offer.zone or spot.offer.region
    text = (
        f"best candidate: on-demand, although {spot.offer.cloud} {place} has this machine"
        f" for ${_usd_per_h(spot):g}/h on spot: with {lost:.2g} interruptions expected that costs"
        f" ${spot.expected_usd:,.2f} on average (on-demand ${best.expected_usd:,.2f})"
    )
    if deadline_h is not None:
        chance, here = (probability_by(item.finish_h, deadline_h) for item in (spot, best))
        text += (
            f" and is in time in {chance:.0%} of cases ({here:.0%});"
            " spot as long as time allows: `plan deadline`, `plan launch --move`"
        )
    yield "spot_passed_over", text


def _shape(item: Priced) -> tuple[object, ...]:
    return item.offer.gpu, item.offer.gpus_per_node, item.nodes


def _usd_per_h(item: Priced) -> float:
    return (item.offer.price_usd_per_hour or 0.0) * item.nodes


def _numerics(setup: TrainingSetup) -> str:
    """How a full fine-tuning in bf16 rounds, which the spreading decides and the spec does not."""
    in_fp32 = "weights and optimizer states are fp32, as of every model in shards"
    if setup.offload != "none":
        return in_fp32
    if widths(setup).weight > 2:
        other = (
            "a candidate with the whole model on each GPU holds both in bf16, where small updates are lost"
        )
        return f"{in_fp32}; {other}"
    return (
        "weights and optimizer states are bf16, where small updates are lost; a candidate with the model in shards "
        "(fsdp) keeps both in fp32"
    )
