"""How fast machines of one job talk to each other, by what is rented; each rate with its source.

A machine as SkyPilot 0.14 rents it has one interface to the cloud's ordinary network. The fabric that the type is sold
with (EFA on every card, InfiniBand, RDMA) takes more: the fast rate counts only where it is sure to be there. We do not
ask for `network_tier: best`: on AWS it brings one EFA interface of up to 32 unless the user's SkyPilot has internal
addresses, on Google Cloud it fails for all but two types, and everywhere it replaces the image by one that the
worker's installation has never been tried on.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

_NETWORKS = Path(__file__).parent / "data" / "networks.json"
#: Your own machines: only you know their network.
_OWN = frozenset({"kubernetes", "local", "slurm", "ssh"})
# Where nobody says: what own clusters of GPUs have at least, and what clouds give whole and smaller machines.
_OWN_GBIT_PER_S, _WHOLE_GBIT_PER_S, _SMALL_GBIT_PER_S = 100.0, 25.0, 10.0
_WHOLE_GPUS = 8
# How much of the rate NCCL gets over sockets is uncertain; the rate itself, where it is a guess, by a factor of four.
_STATED_LOG_SD, _ASSUMED_LOG_SD = 0.3, 1.0


class Network(NamedTuple):
    """Between the machines of one kind, per machine and direction.

    Attributes:
        gbit_per_s: As rented.
        log_sd: How far that may be off: standard deviation of the logarithm.
        is_stated: Whether somebody says it, or it is assumed.
        source: Who.
        fabric_gbit_per_s: Of the fabric that the type is sold with, where it is faster; None if there is none.
        fabric_needs: What the fabric takes.
    """

    gbit_per_s: float
    log_sd: float
    is_stated: bool
    source: str
    fabric_gbit_per_s: float | None = None
    fabric_needs: str = ""

    def text(self) -> str:
        """One sentence for a person.

        >>> network_of("vast", None, 1).text()
        'machines talk over a network whose rate is not known: 10 Gbit/s assumed'
        """
        if not self.is_stated:
            return f"machines talk over a network whose rate is not known: {self.gbit_per_s:g} Gbit/s assumed"
        said = f"machines talk over {self.gbit_per_s:g} Gbit/s as they are rented"
        if self.fabric_gbit_per_s is None:
            return said
        return (
            f"{said}; the type's {self.fabric_gbit_per_s:,g} Gbit/s, which are not counted on, "
            f"take {self.fabric_needs}"
        )


@lru_cache(maxsize=1)
def _table() -> dict[tuple[str, str], Network]:
    groups = json.loads(_NETWORKS.read_text(encoding="utf-8"))
    return {
        (group["cloud"], kind): Network(
            rented, _STATED_LOG_SD, True, group["source"], fabric, group["fabric_needs"] if fabric else ""
        )
        for group in groups
        for kind, (rented, fabric) in group["types"].items()
    }


def network_of(cloud: str, instance_type: str | None, gpus: int) -> Network:
    """The network between machines of a cloud's instance type with so many GPUs.

    >>> p5 = network_of("aws", "p5.48xlarge", 8)
    >>> p5.gbit_per_s, p5.fabric_gbit_per_s
    (100, 3200)
    """
    found = _table().get((cloud, instance_type or ""))
    if found is not None:
        return found
    if cloud in _OWN:
        return Network(_OWN_GBIT_PER_S, _ASSUMED_LOG_SD, False, "assumed of your own machines")
    rate = _WHOLE_GBIT_PER_S if gpus >= _WHOLE_GPUS else _SMALL_GBIT_PER_S
    return Network(rate, _ASSUMED_LOG_SD, False, "assumed: no rate is known of these machines")
