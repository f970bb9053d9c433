"""The deadline policy in operation: a pure step per tick, with a state that survives a crash as plain JSON.

Whoever watches a run keeps a `ControllerState` beside it and calls `step` at every look, as often as it likes:

    state = ControllerState.begin(mission)
    state, advice = step(state, Observation(elapsed_h, remaining_work_h, available, spot_usd_per_h, current, left_h))
    save(state.to_document())                   # then act on `advice.placement`; `advice.explanation` says why
    ...
    state = ControllerState.from_document(load())   # after a crash: the same observation gives the same advice

Save before acting: a repeated step within a tick returns the same advice while nothing has changed, so acting must be
idempotent (it is: launch by run id and attempt). What was done since the last committed checkpoint, `uncommitted_h`,
is lost with the machine: the hard rule and every other place count it as work. `mission.margin_h` is time the policy
does not know of: the longest that a decision may come late, and what a failed launch costs before the next try. Ticks
that nobody looked at count as "not probed". A zone is up (True) when our spot machine runs there or a probe says so,
down (False) after a preemption or a stock-out, None when unknown: an unknown zone is never chosen, so probe zones now
and then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from planner.deadline.decision import Decision, name
from planner.deadline.placement import Placement
from planner.deadline.policy import LIVE_TIME_SHARE, DeadlinePolicy

_VERSION = 1
_STATES: dict[bool | None, str] = {True: "up", False: "down", None: "unknown"}
_BY_NAME = {text: state for state, text in _STATES.items()}

#: What was seen of a zone: (state, ticks) in turn, oldest first.
Seen = tuple[tuple[bool | None, int], ...]


@dataclass(frozen=True, slots=True)
class Mission:
    """What does not change while a job runs.

    Attributes:
        work_h: Hours of work on a running machine, at the start.
        deadline_h: Hours from the start to the deadline.
        restart_overhead_h: Billed hours from a launch to the first progress.
        tick_h: Hours between decisions.
        zones: A name for each place, in the order of all other sequences.
        on_demand_usd_per_h: Price of all machines of the job by zone; None where on-demand cannot be had or is unknown.
        margin_h: Kept free before the deadline.
        loss_factors: How many times as often as the bank's models say spot is lost, by zone; None where nothing is
            known, which then is as the others. Empty, as in documents of earlier versions, is as the models say.
    """

    work_h: float
    deadline_h: float
    restart_overhead_h: float
    tick_h: float
    zones: tuple[str, ...]
    on_demand_usd_per_h: tuple[float | None, ...]
    margin_h: float = 0.0
    loss_factors: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a mission that cannot be decided.

        Raises:
            ValueError: No zone, no on-demand price at all, lengths that differ, or times or factors that are not
                positive.
        """
        if not self.zones or len(self.zones) != len(self.on_demand_usd_per_h):
            raise ValueError("zones and on_demand_usd_per_h: one entry for each zone, at least one")
        if all(price is None for price in self.on_demand_usd_per_h):
            raise ValueError("on_demand_usd_per_h: a deadline needs at least one zone with on-demand")
        if (
            min(self.work_h, self.deadline_h, self.tick_h) <= 0
            or min(self.restart_overhead_h, self.margin_h) < 0
        ):
            raise ValueError(
                "work_h, deadline_h and tick_h must be positive, overhead and margin not negative"
            )
        if len(self.loss_factors) not in (0, len(self.zones)):
            raise ValueError("loss_factors: one entry for each zone, or none at all")
        if any(factor is not None and not 0 < factor < math.inf for factor in self.loss_factors):
            raise ValueError("loss_factors: positive and finite, or None")


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known at one look.

    Attributes:
        elapsed_h: Hours since the start.
        remaining_work_h: Work left where it runs; from the last committed checkpoint if it runs nowhere.
        available: Whether each zone has spot; None if not probed.
        spot_usd_per_h: Spot price by zone for all machines of the job; None if unknown (then the on-demand price is
            taken, and where that is unknown too the zone is not used).
        current: Where the job runs; None if nowhere, as after a preemption.
        overhead_left_h: Start-up time left of the current machine.
        uncommitted_h: Work done on it since the last committed checkpoint.
    """

    elapsed_h: float
    remaining_work_h: float
    available: tuple[bool | None, ...]
    spot_usd_per_h: tuple[float | None, ...]
    current: Placement | None = None
    overhead_left_h: float = 0.0
    uncommitted_h: float = 0.0


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do until the next tick.

    Attributes:
        placement: Where to run; None is to hold no machine.
        where: The same in words.
        explanation: Why, in plain words with numbers: slack, market, expected cost of each option.
        decision: All options with their expected costs.
        next_at_h: Hours since the start at which to ask again, sooner after a preemption.
    """

    placement: Placement | None
    where: str
    explanation: str
    decision: Decision
    next_at_h: float


@dataclass(frozen=True, slots=True)
class ControllerState:
    """All that the next decision depends on besides its observation.

    Attributes:
        mission: The job.
        seen: What was seen of each zone, before and since the start, the last entry being that of `tick`.
        tick: Index of the last tick decided; -1 before the first.
        prices: The policy's `price_memory`.
    """

    mission: Mission
    seen: tuple[Seen, ...]
    tick: int = -1
    prices: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def begin(
        cls, mission: Mission, history: Sequence[Sequence[bool | int | None]] | None = None
    ) -> ControllerState:
        """State before the first tick.

        Args:
            mission: The job.
            history: Capacity of past ticks by zone, same length, oldest first.
        """
        past = history if history is not None else [()] * len(mission.zones)
        return cls(mission, tuple(_runs([None if s is None else bool(s) for s in zone]) for zone in past))

    def to_document(self) -> dict[str, object]:
        """The state as JSON values."""
        mission = {field: getattr(self.mission, field) for field in Mission.__slots__}
        mission |= {key: list(value) for key, value in mission.items() if isinstance(value, tuple)}
        seen = [[[_STATES[state], ticks] for state, ticks in zone] for zone in self.seen]
        return {
            "version": _VERSION,
            "mission": mission,
            "seen": seen,
            "tick": self.tick,
            "prices": list(self.prices),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, object]) -> ControllerState:
        """The state that `to_document` wrote.

        Raises:
            ValueError: It is of another version or damaged.
        """
        if document.get("version") != _VERSION:
            raise ValueError(f"controller state: version {document.get('version')!r}, known is {_VERSION}")
        try:
            return _parsed(document)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"controller state: {type(error).__name__}: {error}") from error


def step(state: ControllerState, now: Observation) -> tuple[ControllerState, Advice]:
    """Decide where the job should run from now until the next tick. Pure.

    Args:
        state: From `begin` or the step before.
        now: What is known now.

    Raises:
        ValueError: The observation has another number of zones.
    """
    mission = state.mission
    if not len(now.available) == len(now.spot_usd_per_h) == len(mission.zones):
        raise ValueError(f"observation: {len(mission.zones)} zones expected")
    tick = max(math.ceil(now.elapsed_h / mission.tick_h - 1e-6), 0, state.tick)
    before = _until(state, tick)
    policy = _policy(before)
    up, spot = _market(mission, now)
    elapsed_h = tick * mission.tick_h
    decision = policy.weigh(
        elapsed_h, now.remaining_work_h, up, spot, now.current, now.overhead_left_h, now.uncommitted_h
    )
    decision = _patient(decision, now, spot, mission)
    placement = decision.chosen.placement
    here = [now.current == (zone, "spot") or known for zone, known in enumerate(now.available)]
    seen = tuple(_grown(zone, known, 1) for zone, known in zip(before.seen, here, strict=True))
    advice = Advice(
        placement=placement,
        where=name(placement, mission.zones),
        explanation=decision.explain(mission.zones),
        decision=decision,
        next_at_h=elapsed_h + mission.tick_h,
    )
    return ControllerState(mission, seen, tick, policy.price_memory), advice


def _policy(state: ControllerState) -> DeadlinePolicy:
    mission = state.mission
    policy = DeadlinePolicy(
        mission.work_h,
        max(mission.deadline_h - mission.margin_h, mission.tick_h),
        mission.restart_overhead_h,
        mission.tick_h,
        [math.inf if price is None else price for price in mission.on_demand_usd_per_h],
        history=[_expanded(zone) for zone in state.seen],
        time_share=LIVE_TIME_SHARE,
        losses=mission.loss_factors or None,
    )
    policy.price_memory = state.prices
    return policy


def _patient(decision: Decision, now: Observation, spot: Sequence[float], mission: Mission) -> Decision:
    """A machine that is being got ready is left, while it is in time, only where that saves the price of a start.

    Where little work is left the start is most of what is to be paid, and what places are expected to cost changes from
    tick to tick by nearly as much: a run that follows pays for starts, and does nothing else.
    """
    here, to = now.current, decision.chosen.placement
    if here is None or here.market != "spot" or now.overhead_left_h <= 0 or to == here:
        return decision
    mine = next((option for option in decision.options if option.placement == here), None)
    again = here if to is None else to
    price = spot[again.region] if again.market == "spot" else mission.on_demand_usd_per_h[again.region]
    start_usd = mission.restart_overhead_h * (price or 0.0)
    if mine is None or mine.cost_usd - decision.chosen.cost_usd > start_usd:
        return decision
    return replace(decision, chosen=mine, is_kept=True)


def _market(mission: Mission, now: Observation) -> tuple[list[bool | None], list[float]]:
    """Capacity and price of spot by zone; a zone whose price nobody knows is closed, at any price."""
    dearest = max(price for price in mission.on_demand_usd_per_h if price is not None)
    prices = [
        spot if spot is not None else on_demand
        for spot, on_demand in zip(now.spot_usd_per_h, mission.on_demand_usd_per_h, strict=True)
    ]
    up = [known and price is not None for known, price in zip(now.available, prices, strict=True)]
    return up, [dearest if price is None else price for price in prices]


def _until(state: ControllerState, tick: int) -> ControllerState:
    """The state just before `tick`: its own observation taken back, ticks that nobody looked at filled in."""
    if tick == state.tick:
        return replace(state, seen=tuple(_shortened(zone) for zone in state.seen))
    missed = tick - state.tick - 1
    return replace(state, seen=tuple(_grown(zone, None, missed) for zone in state.seen))


def _runs(states: Sequence[bool | None]) -> Seen:
    return tuple((state, len(list(group))) for state, group in groupby(states))


def _expanded(seen: Seen) -> list[bool | None]:
    return [state for state, ticks in seen for _ in range(ticks)]


def _grown(seen: Seen, state: bool | None, ticks: int) -> Seen:
    if ticks <= 0:
        return seen
    if seen and seen[-1][0] is state:
        return (*seen[:-1], (state, seen[-1][1] + ticks))
    return (*seen, (state, ticks))


def _shortened(seen: Seen) -> Seen:
    state, ticks = seen[-1]
    return seen[:-1] if ticks == 1 else (*seen[:-1], (state, ticks - 1))


def _parsed(document: Mapping[str, object]) -> ControllerState:
    mission, seen, tick, prices = (document[key] for key in ("mission", "seen", "tick", "prices"))
    if not (isinstance(mission, Mapping) and isinstance(seen, list) and isinstance(prices, list)):
        raise TypeError("mission, seen or prices has another form")
    if not isinstance(tick, int):
        raise TypeError("tick is no whole number")
    work_h, deadline_h, overhead_h, tick_h, margin_h = (
        float(mission[key]) for key in ("work_h", "deadline_h", "restart_overhead_h", "tick_h", "margin_h")
    )
    on_demand = tuple(None if usd is None else float(usd) for usd in mission["on_demand_usd_per_h"])
    factors = tuple(None if one is None else float(one) for one in mission.get("loss_factors", ()))
    job = Mission(
        work_h, deadline_h, overhead_h, tick_h, tuple(mission["zones"]), on_demand, margin_h, factors
    )
    zones = tuple(tuple((_BY_NAME[state], int(ticks)) for state, ticks in zone) for zone in seen)
    return ControllerState(job, zones, tick, (float(prices[0]), float(prices[1])))
