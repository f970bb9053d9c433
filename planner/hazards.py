"""How likely a spot machine is lost, by cloud, GPU, zone and age of its spell: a stated prior, and what own runs add.

Pure. Rates are per hour of one machine group (all machines of a job, lost together). They grow with the GPUs of a
machine, which need a host that is free as a whole, and little with the machines of a group, because those of a zone
are lost together: `planner.spot_sizes`. Nothing else is a rate: what clouds say of their spot machines is of other
units, and only leans the prior one way or the other (`planner.spot_signals`); own runs outweigh it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any, NamedTuple

from planner.quantiles import Quantiles
from planner.spot_sizes import sizes, spot_models

PRIOR_SOURCE = (
    "31 GPU spot zones on public record 2022-2025, by age of the spell, preemptions halved: see hazards.py"
)

#: The records show when a *new* machine could be had; a running one is kept about twice as long (assumed; own runs
#: replace it).
RUNNING_SHARE = 0.5
#: Spells beyond the last age bucket end at least this often: zones do not keep their regime for weeks.
_LEAST_PER_H = 0.02
#: What a zone's true rates may be, over the prior's, with their chances: log-normal with a factor of two, in steps of
#: the square root of two, out to where own runs may take it.
_FACTOR_WEIGHTS = [(2 ** (step / 2), math.exp(-(step**2) / 8)) for step in range(-6, 7)]
_FACTORS = tuple(
    (factor, weight / sum(weight for _, weight in _FACTOR_WEIGHTS)) for factor, weight in _FACTOR_WEIGHTS
)
_MEAN_FACTOR = sum(factor * chance for factor, chance in _FACTORS)
#: Weight of a spell seen elsewhere (power prior, Ibrahim and Chen 2000), by how much it shares with the place.
_SAME_ZONE, _SAME_CLOUD_AND_GPU, _SAME_CLOUD_OR_GPU, _ELSEWHERE = 1.0, 0.5, 0.25, 0.1
#: Rates of losses are made one figure by the chance of keeping a machine this long.
_KEPT_H = 4.0
#: Newest own spells that count.
_MOST_SPELLS = 500


@dataclass(frozen=True)
class Spell:
    """Lengths of spells whose hazard depends on their age only.

    Attributes:
        edges_h: Lower edges of the age buckets, first 0.
        ends_per_h: Rate at which a spell ends, by bucket.
    """

    edges_h: tuple[float, ...]
    ends_per_h: tuple[float, ...]

    @cached_property
    def _cumulated(self) -> list[float]:
        total, sums = 0.0, [0.0]
        for low, high, rate in zip(self.edges_h, self.edges_h[1:], self.ends_per_h, strict=False):
            total += rate * (high - low)
            sums.append(total)
        return sums

    @cached_property
    def _beyond(self) -> list[float]:
        """Integral of the survival from each edge on, hours."""
        rates = self.ends_per_h
        areas = [math.exp(-self._cumulated[-1]) / rates[-1]]
        for bucket in reversed(range(len(rates) - 1)):
            high, low = (math.exp(-self._cumulated[b]) for b in (bucket + 1, bucket))
            areas.append(areas[-1] + (low - high) / rates[bucket])
        return areas[::-1]

    def exposure(self, age_h: float) -> float:
        """Integral of the hazard up to an age: expected endings in spells followed that long."""
        bucket = self.bucket(age_h)
        return self._cumulated[bucket] + self.ends_per_h[bucket] * (age_h - self.edges_h[bucket])

    def bucket(self, age_h: float) -> int:
        """Index of the age bucket."""
        return bisect_right(self.edges_h, age_h) - 1

    def survival(self, age_h: float) -> float:
        """Chance that a spell gets this old."""
        return math.exp(-self.exposure(age_h))

    def beyond_h(self, age_h: float) -> float:
        """Integral of the survival from an age on; from 0 it is the mean length."""
        bucket = self.bucket(age_h)
        if bucket == len(self.edges_h) - 1:
            return self.survival(age_h) / self.ends_per_h[bucket]
        here, next_edge = self.survival(age_h), math.exp(-self._cumulated[bucket + 1])
        return self._beyond[bucket + 1] + (here - next_edge) / self.ends_per_h[bucket]

    def squared_h2(self) -> float:
        """Second moment of the length, twice the integral of t times the survival, piece by piece."""
        total = 0.0
        for bucket, rate in enumerate(self.ends_per_h):
            low, alive = self.edges_h[bucket], math.exp(-self._cumulated[bucket])
            total += alive * (low / rate + 1 / rate**2)
            if bucket + 1 < len(self.edges_h):
                high, left = self.edges_h[bucket + 1], math.exp(-self._cumulated[bucket + 1])
                total -= left * (high / rate + 1 / rate**2)
        return 2 * total


@dataclass(frozen=True)
class ZoneModel:
    """One kind of zone.

    Attributes:
        weight: Its share of all zones.
        up: Spells with a machine.
        down: Spells without.
    """

    weight: float
    up: Spell
    down: Spell

    @cached_property
    def up_share(self) -> float:
        """Share of the time with a machine."""
        up_h, down_h = self.up.beyond_h(0), self.down.beyond_h(0)
        return up_h / (up_h + down_h)


class SpotHazards(NamedTuple):
    """What a zone may be like: a mixture of models.

    Attributes:
        models: The mixture; weights sum to 1.
        source: Where it comes from.
        own_losses: Own interruptions behind it.
        own_hours: Own machine-group hours behind it.
    """

    models: tuple[ZoneModel, ...]
    source: str = PRIOR_SOURCE
    own_losses: int = 0
    own_hours: float = 0.0

    @property
    def own_text(self) -> str:
        """The own runs behind it."""
        return f"{self.own_losses} interruptions in {self.own_hours:.1f} h of your own spot runs"

    def losses_per_h(self, age_h: float) -> float:
        """Interruptions an hour of spells of this age, over all zones that are still up then."""
        alive = [model.weight * model.up.survival(age_h) for model in self.models]
        rates = [model.up.ends_per_h[model.up.bucket(age_h)] for model in self.models]
        return sum(a * r for a, r in zip(alive, rates, strict=True)) / sum(alive)

    def losses_spread_per_h(self, age_h: float) -> Quantiles:
        """The same by kind of zone: weighted quantiles over the models."""
        alive = [(m.up.ends_per_h[m.up.bucket(age_h)], m.weight * m.up.survival(age_h)) for m in self.models]
        total, reached = sum(weight for _, weight in alive), 0.0
        found: list[float] = []
        for rate, weight in sorted(alive):
            reached += weight / total
            found += [rate] * (sum(reached >= chance for chance in (0.1, 0.5, 0.9)) - len(found))
        found += [max(rate for rate, _ in alive)] * (3 - len(found))
        return Quantiles(*found)

    def times(self, factor: float) -> SpotHazards:
        """The same with another rate of losses."""
        return self if factor == 1 else _scaled(self, [factor] * len(self.models))

    def kept(self, hours: float) -> float:
        """Chance that a new machine is kept so long."""
        return sum(model.weight * model.up.survival(hours) for model in self.models)


class SpotGroup(NamedTuple):
    """Machines of one job, and where.

    Attributes:
        cloud: Where they are.
        place: Zone, or region where the zone is not known.
        gpu: On what.
        machines: How many machines together.
        gpus: Of each machine.
    """

    cloud: str
    place: str
    gpu: str
    machines: int = 1
    gpus: int = 1


class OwnSpell(NamedTuple):
    """One attempt of an own run on spot machines.

    Attributes:
        cloud: Where it ran.
        place: Zone, or region where the zone is not known.
        gpu: On what.
        machines: How many machines together.
        hours: How long it had them.
        lost: Whether it ended because a machine was taken away.
        gpus: Of each machine.
    """

    cloud: str
    place: str
    gpu: str
    machines: int
    hours: float
    lost: bool
    gpus: int = 1


@cache
def recorded() -> SpotHazards:
    """The public records as they are."""
    return from_record(spot_models())


@cache
def prior() -> SpotHazards:
    """What is assumed of a zone that nothing is known of, for machines of the size of `Sizes.gpus_reference`."""
    return recorded().times(RUNNING_SHARE)


def over_prior(hazards: SpotHazards) -> float:
    """How many times as often as the prior says machines are lost: one figure for who has models of zones of their own.

    The factor on all rates of the prior at which a machine is kept for `_KEPT_H` as often as with these hazards; what
    own runs say of kinds of zones is in it.

    >>> over_prior(prior().times(1.5))
    1.5
    """
    return _over_prior(hazards.kept(_KEPT_H))


@lru_cache(maxsize=4096)  # thousands of offers share a few hazards
def _over_prior(kept: float) -> float:
    low, high = 1 / 64, 64.0
    for _ in range(50):
        middle = math.sqrt(low * high)
        exposed = (model.weight * model.up.survival(_KEPT_H) ** middle for model in prior().models)
        low, high = (middle, high) if sum(exposed) > kept else (low, middle)
    return round(low, 4)


def from_record(record: Mapping[str, Any]) -> SpotHazards:
    """Hazards from the content of a `spot_models.json`."""
    edges = tuple(float(edge) for edge in record["age_edges_h"])

    def spell(rates: Sequence[float]) -> Spell:
        return Spell(edges, tuple(max(float(rate), _LEAST_PER_H) for rate in rates))

    total = sum(record["weight"])
    models = [
        ZoneModel(weight / total, spell(up), spell(down))
        for weight, (down, up) in zip(record["weight"], record["hazard_per_h"], strict=True)
    ]
    return SpotHazards(tuple(models))


def learned(spells: Sequence[OwnSpell], cloud: str, place: str, gpu: str, lean: float = 1.0) -> SpotHazards:
    """Hazards of a place after one's own runs, seen there and elsewhere; the prior where there are none.

    Each model may be off by a common factor; models and factors are weighted by how well they explain the spells.
    Endings are counted in interruptions and exposure in hours at risk, by age. For machines of the size of `prior`.

    Args:
        spells: Own ones, newest first.
        cloud, place, gpu: As in `SpotGroup`.
        lean: What the cloud's signals make of the prior's rates before any own run: `planner.spot_signals`.
    """
    seen = [
        (spell, _relevance(spell, cloud, place, gpu)) for spell in spells[:_MOST_SPELLS] if spell.hours > 0
    ]
    if not seen:
        return prior().times(lean)
    leaning = _leaning(lean)
    scores = [
        [math.log(chance * model.weight) + likelihood(factor / _MEAN_FACTOR) for factor, chance in leaning]
        for model in prior().models
        for likelihood in (_log_likelihood(model, seen),)
    ]
    top = max(max(row) for row in scores)
    shares = [[math.exp(score - top) for score in row] for row in scores]
    total = sum(map(sum, shares))
    factors = [
        sum(share * factor for share, (factor, _) in zip(row, leaning, strict=True))
        / (sum(row) * _MEAN_FACTOR)
        for row in shares
    ]
    scaled = _scaled(prior(), factors)
    models = [
        ZoneModel(sum(row) / total, model.up, model.down)
        for row, model in zip(shares, scaled.models, strict=True)
    ]
    losses, hours = sum(spell.lost for spell, _ in seen), sum(spell.hours for spell, _ in seen)
    found = SpotHazards(tuple(models), PRIOR_SOURCE, losses, hours)
    return found._replace(source=f"{found.own_text}, and {PRIOR_SOURCE}")


@cache
def _leaning(lean: float) -> tuple[tuple[float, float], ...]:
    """The factors with chances tilted so that their mean is `lean` times what it was; a Gaussian would be moved whole.

    No factor is ruled out, so that own runs win against any signal.
    """

    def tilted(tilt: float) -> list[tuple[float, float]]:
        weights = [(factor, chance * factor**tilt) for factor, chance in _FACTORS]
        total = sum(weight for _, weight in weights)
        return [(factor, weight / total) for factor, weight in weights]

    if lean == 1:
        return _FACTORS
    low, high = -8.0, 8.0
    for _ in range(50):
        middle = (low + high) / 2
        mean = sum(factor * chance for factor, chance in tilted(middle))
        low, high = (middle, high) if mean < lean * _MEAN_FACTOR else (low, middle)
    return tuple(tilted(low))


@cache
def hazards_of(spells: tuple[OwnSpell, ...], group: SpotGroup, lean: float = 1.0) -> SpotHazards:
    """Hazards of a machine group; places that own runs and signals say the same of share one answer.

    Args:
        spells: Own ones, newest first.
        group: The machines and where they are.
        lean: As of `learned`.
    """
    cloud, place, gpu = group.cloud, group.place, group.gpu
    if cloud not in {spell.cloud for spell in spells}:
        cloud = place = ""
    if gpu not in {spell.gpu for spell in spells}:
        gpu = ""
    if place not in {spell.place for spell in spells}:
        place = ""
    return _sized(spells, cloud, place, gpu, lean, sizes().factor(group.machines, group.gpus))


_learned_once = cache(learned)


@lru_cache(maxsize=4096)
def _sized(
    spells: tuple[OwnSpell, ...], cloud: str, place: str, gpu: str, lean: float, factor: float
) -> SpotHazards:
    """Machines of all clouds come in a few sizes, and what follows from one's rates is kept with them."""
    return _learned_once(spells, cloud, place, gpu, lean).times(factor)


def _relevance(spell: OwnSpell, cloud: str, place: str, gpu: str) -> float:
    if spell.cloud == cloud and spell.gpu == gpu:
        return _SAME_ZONE if spell.place == place else _SAME_CLOUD_AND_GPU
    return _SAME_CLOUD_OR_GPU if spell.cloud == cloud or spell.gpu == gpu else _ELSEWHERE


def _log_likelihood(model: ZoneModel, seen: Sequence[tuple[OwnSpell, float]]) -> Callable[[float], float]:
    """Of the spells under a model, by the factor that its rates are off by."""
    expected = losses = logs = 0.0
    for spell, relevance in seen:
        size = sizes().factor(spell.machines, spell.gpus)
        expected += relevance * size * model.up.exposure(spell.hours)
        if spell.lost:
            losses += relevance
            logs += relevance * math.log(size * model.up.ends_per_h[model.up.bucket(spell.hours)])
    return lambda factor: logs + losses * math.log(factor) - factor * expected


def _scaled(hazards: SpotHazards, factors: Sequence[float]) -> SpotHazards:
    """Each model with its own factor on the rate of losses."""
    models = [
        ZoneModel(
            model.weight,
            Spell(model.up.edges_h, tuple(rate * factor for rate in model.up.ends_per_h)),
            model.down,
        )
        for model, factor in zip(hazards.models, factors, strict=True)
    ]
    return SpotHazards(tuple(models), hazards.source, hazards.own_losses, hazards.own_hours)
