"""SkyPilot's own optimizer, told how long the job takes on each machine.

Left alone it counts one hour for every machine, and so takes the one with the cheapest hour. It does not travel with a
launch: SkyPilot's server reads a task from YAML, which holds no estimator; there the order of the candidates, which is
ours, decides. So this is asked before a launch, as a second opinion with SkyPilot's own prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from providers.errors import LaunchError
from providers.offers import Offer
from providers.skypilot import sky_module
from providers.skypilot_task import CLOUDS, resources_of


@dataclass(frozen=True, slots=True)
class Timed:
    """A machine, and the hours that the whole job takes on it."""

    offer: Offer
    hours: float


@dataclass(frozen=True, slots=True)
class Opinion:
    """What SkyPilot's optimizer takes.

    Attributes:
        chosen: The first of the machines given that it may be.
        cost_usd: Of the whole job, by SkyPilot's catalog.
    """

    chosen: Timed
    cost_usd: float


def opinion(machines: Sequence[Timed], nodes: int = 1) -> Opinion:
    """Which of the machines SkyPilot's optimizer takes; nothing is launched.

    Args:
        machines: In any order.
        nodes: How many of each at a time.

    Raises:
        LaunchError: SkyPilot can rent none of them, no cloud of theirs is enabled, or it takes another machine.
        MissingExtraError: SkyPilot is not installed.
    """
    known = [row for row in machines if row.offer.cloud in CLOUDS]
    if not known:
        raise LaunchError("SkyPilot can rent none of the machines", code="no_offer")
    with sky_module() as sky:
        asked = set().union(*(sky.Resources.from_yaml_config(resources_of(row.offer)) for row in known))
        with sky.Dag() as dag:
            task = sky.Task(num_nodes=nodes)
            task.set_resources(asked)
            task.set_time_estimator(lambda resources: _timed(known, resources).hours * 3600)
        sky.Optimizer.optimize(dag, quiet=True)
        chosen = _timed(known, task.best_resources)
        return Opinion(chosen, task.best_resources.get_cost(chosen.hours * 3600) * nodes)


def _timed(machines: Sequence[Timed], resources: Any) -> Timed:
    """The machine that these resources of SkyPilot's are.

    Raises:
        LaunchError: None of them.
    """
    found = next((row for row in machines if _is_of(row.offer, resources)), None)
    if found is None:
        raise LaunchError(f"it speaks of {resources}, which is none of the machines that were asked for")
    return found


def _is_of(offer: Offer, resources: Any) -> bool:
    asked = resources_of(offer)
    if "instance_type" in asked:
        same_machine = resources.instance_type == offer.instance_type
    else:  # told by its GPUs, if it has any
        name = asked.get("accelerators", "").rpartition(":")[0]
        same_machine = (resources.accelerators or {}) == ({name: offer.gpus_per_node} if name else {})
    return (
        str(resources.cloud).lower() == offer.cloud
        and resources.region in (None, offer.region)
        and bool(resources.use_spot) == asked.get("use_spot", False)
        and same_machine
    )
