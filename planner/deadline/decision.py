"""One decision, with what was open and why this choice: for a person to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.deadline.placement import Placement


@dataclass(frozen=True, slots=True)
class Option:
    """One choice that was open.

    Attributes:
        placement: Where; None is to wait without a machine.
        cost_usd: Expected cost from now to the end of the job.
    """

    placement: Placement | None
    cost_usd: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What was chosen for a tick.

    Attributes:
        chosen: The option taken.
        options: All options that the hard rule left, the chosen one included.
        time_left_h: Hours to the deadline, whole ticks.
        work_left_h: Work left.
        slack_h: Hours that may still pass without progress before the job must be on on-demand; negative: late.
        spot_regions: Regions known to have spot.
        spell_h: Hours since the market last changed between having spot somewhere and nowhere.
        next_hour: Chance that it stays as it is for another hour.
        is_kept: The machine there is being got ready, and what is cheaper does not save another start.
    """

    chosen: Option
    options: tuple[Option, ...]
    time_left_h: float
    work_left_h: float
    slack_h: float
    spot_regions: tuple[int, ...]
    spell_h: float
    next_hour: float
    is_kept: bool = False

    def explain(self, zones: Sequence[str] | None = None) -> str:
        """The decision in plain words with its numbers; regions by name where `zones` has names."""
        what = name(self.chosen.placement, zones)
        return " ".join(
            [f"{what[0].upper()}{what[1:]}.", self._time(), self._market(zones), self._costs(zones)]
        )

    def _time(self) -> str:
        text = f"{self.work_left_h:.1f} h of work left, {self.time_left_h:.1f} h to the deadline"
        if self.slack_h < -1e-6:
            return f"{text}: too late even for on-demand without a break, {-self.slack_h:.1f} h short."
        return f"{text}: {self.slack_h:.1f} h to spare if on-demand starts now."

    def _market(self, zones: Sequence[str] | None) -> str:
        if not self.spot_regions:
            have = "No region is known to have spot"
        else:
            have = f"Spot in {', '.join(_region(region, zones) for region in self.spot_regions)}"
        return f"{have}, so for {self.spell_h:.1f} h; {self.next_hour:.0%} to stay so for an hour."

    def _costs(self, zones: Sequence[str] | None) -> str:
        ranked = sorted(self.options, key=lambda option: option.cost_usd)
        costs = ", ".join(f"{name(option.placement, zones)} ${option.cost_usd:.2f}" for option in ranked)
        if len(ranked) == 1 and self.chosen.placement is not None:
            return f"Nothing else would surely be in time; expected cost from here ${ranked[0].cost_usd:.2f}."
        return f"Expected cost from here: {costs}."


def name(placement: Placement | None, zones: Sequence[str] | None = None) -> str:
    """A placement in words."""
    if placement is None:
        return "wait"
    return f"{placement.market.replace('_', '-')} in {_region(placement.region, zones)}"


def _region(region: int, zones: Sequence[str] | None) -> str:
    return f"region {region}" if zones is None else zones[region]
