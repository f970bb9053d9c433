"""How much more often large spot machines and groups of machines are lost than the pooled public records say. Pure."""

from __future__ import annotations

import json
import math
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

#: Largest sizes on record.
_MOST_GPUS, _MOST_MACHINES = 8, 16


class Sizes(NamedTuple):
    """How much more often large machines and groups are lost: exponents of the rate, `benchmarks/spot_sizes.py`.

    Measured in the same zones at the same ages and shrunk, as there are few campaigns: one and eight GPUs in two, of
    AWS (V100 and K80, 2022); groups of up to 16 machines in two, of AWS (V100, 2023) and Google Cloud (H100, 2025).
    A group's machines are lost together: 92 % of the interruptions of one type in one zone that fell together came
    within three minutes (Kim et al., arXiv 2604.16457).

    Attributes:
        gpus: Exponent of the GPUs of a machine.
        gpus_sd: Its standard deviation.
        gpus_reference: GPUs of the machine that the pooled records are of.
        machines: Exponent of the machines of a group.
        machines_sd: Its standard deviation.
    """

    gpus: float = 0.0
    gpus_sd: float = 0.0
    gpus_reference: float = 1.0
    machines: float = 0.0
    machines_sd: float = 0.0

    def factor(self, machines: int, gpus: int) -> float:
        """Rate of losses of such a group over that of the pooled records; beyond the sizes on record it stays.

        >>> round(Sizes(0.25, 0, 1.5, 0.1, 0).factor(4, 8) / Sizes(0.25, 0, 1.5, 0.1, 0).factor(1, 1), 3)
        1.932
        """
        large = min(max(gpus, 1), _MOST_GPUS) / self.gpus_reference
        return math.exp(self.gpus * math.log(large) + self.machines * math.log(min(machines, _MOST_MACHINES)))


@cache
def spot_models() -> dict[str, Any]:
    """What was fitted to the public records."""
    text = resources.files("planner").joinpath("data", "spot_models.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@cache
def sizes() -> Sizes:
    """What the public records say of the size of machines and groups."""
    return Sizes(**spot_models()["sizes"])
