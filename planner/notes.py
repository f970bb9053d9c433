"""What a person should know of the best candidate besides its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from planner.hardware import gpu_facts
from planner.job import Assumption
from planner.memory.precision import widths
from planner.pricing import Priced, offered_network
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


def notes_on(best: Priced | None) -> Iterator[tuple[str, str]]:
    """Codes and sentences, none without a candidate."""
    if best is None:
        return
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


def _numerics(setup: TrainingSetup) -> str:
    """How a full fine-tuning in bf16 rounds, which the spreading decides and the spec does not."""
    if widths(setup).weight > 2:
        return (
            "weights and optimizer states are fp32, as of every model in shards; a candidate with the whole model on "
            "each GPU holds both in bf16, where small updates are lost"
        )
    return (
        "weights and optimizer states are bf16, where small updates are lost; a candidate with the model in shards "
        "(fsdp) keeps both in fp32"
    )
