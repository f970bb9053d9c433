"""Where a job runs for the next tick."""

from __future__ import annotations

from typing import Literal, NamedTuple

Market = Literal["spot", "on_demand"]


class Placement(NamedTuple):
    """One choice of machine.

    Attributes:
        region: Index into the policy's lists of regions.
        market: "spot" or "on_demand".
    """

    region: int
    market: str
