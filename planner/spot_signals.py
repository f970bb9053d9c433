"""What clouds say of their spot machines, and how far it leans the assumed rate of losses. Pure.

No signal is a rate of losses, and none is read as one. A share of machines interrupted in a month counts machines that
their users had long given back; a chance of being evicted in an hour is an average over all ages; a score is about
getting a machine, not keeping it. What may be used is their order: among machines of one cloud the one with the worse
signal is lost more often, if only a little. So each signal is placed on a scale of its own, z, and multiplies the
prior's rates by exp(correlation x `PLACE_LOG_SD` x z): the regression of the logarithm of a place's rate on z. These
are rates at an age; as they fall with the age, losses in the long run move by about the square.

The correlations are assumed, and small. The studies say that the relation is weak: AWS's own data sets often disagree
about the same machine at the same time (Lee et al., SpotLake, arXiv 2202.02973 and IISWC 2022, who put the placement
score before the interruption band), and only a model of many
of them tells interruptions (Kim et al., WWW 2024, doi 10.1145/3589334.3645548). In the records behind our prior it is
weak too: every type and region of AWS in them stood at ">20%" (spotinfo's copies of the Advisor, 2021-02 and 2025-06),
while its zones were lost 0.13 to 1.7 times an hour. That is also why ">20%" is the prior, and lower bands lie below it.
At such correlations over eight tenths of the variance of places stay open: the quantiles stay as wide as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from providers.offers import Offer

#: Standard deviation of the logarithm of a place's rate at an age: 0.28 over the AWS zones with one GPU on record, 0.31
#: over those of Google Cloud (endings over those usual at their ages, `benchmarks/spot_sizes.py`).
PLACE_LOG_SD = 0.3
#: No set of signals moves a rate by more than this factor, either way; twice the losses in the long run.
LARGEST_LEAN = 1.4
#: Leans are told apart no finer: places that lean alike share a solution.
_LOG_STEP = 0.02

#: Assumed correlation of a signal with the logarithm of a place's rate: of bands and of the expected uptime, which are
#: about losses, and of scores, which are about getting a machine.
_OF_LOSSES, _OF_GETTING = 0.4, 0.3
#: Standard deviation of log(-log(1 - share)) over the 650 GPU types and regions of the Advisor's file of 2025-06.
_BAND_LOG_SD = 1.32
#: Shares in the middle of a band: the geometric mean of its ends, and half of the lowest's upper end.
_ADVISOR = {"<5%": 0.025, "5-10%": 0.07, "10-15%": 0.122, "15-20%": 0.173, ">20%": 0.447}
_AZURE = {"0-5": 0.025, "5-10": 0.07, "10-15": 0.122, "15-20": 0.173, "20+": 0.447}
#: The chance in an hour that the prior itself comes to, over all hours in which it has a machine.
_PRIOR_CHANCE = 0.09
#: The two values of Google Cloud's expected uptime, whose geometric mean is taken for the prior's.
_UPTIMES_S = (600.0, 3600.0)


class Said(NamedTuple):
    """One signal of one kind of machine, as it was given.

    Attributes:
        cloud, region: Of the machine.
        zone: None if it is about all zones of the region.
        instance_type: As the cloud calls it.
        nodes: Machines that were asked for together, None if it is about any number.
        kind: As `plan find` shows it.
        value: The figure or word.
        unit: Figures of another unit are another signal.
        source: Who says so.
        as_of_at: RFC 3339 UTC.
    """

    cloud: str
    region: str
    zone: str | None
    instance_type: str
    nodes: int | None
    kind: str
    value: float | str
    unit: str
    source: str
    as_of_at: str


class Reading(NamedTuple):
    """How a kind of signal is read.

    Attributes:
        z: Its place on the scale of its kind, in standard deviations; positive is worse. None if it is not understood.
        correlation: With the logarithm of a place's rate of losses.
        half_life_h: Hours after which half of its weight is gone.
    """

    z: Callable[[float | str], float | None]
    correlation: float
    half_life_h: float


class Part(NamedTuple):
    """What one signal does.

    Attributes:
        said: The signal.
        age_h: Hours since.
        factor: On the rate of losses, by itself.
    """

    said: Said
    age_h: float
    factor: float


class Lean(NamedTuple):
    """What all signals of a machine do to the prior's rate of losses.

    Attributes:
        factor: On the rate; own runs outweigh it.
        parts: The signals behind it, none if nothing is known: then the factor is 1.
    """

    factor: float = 1.0
    parts: tuple[Part, ...] = ()


NO_LEAN = Lean()


def _exposure_log(share: float) -> float:
    return math.log(-math.log1p(-share))


def _band(shares: Mapping[str, float], usual: float) -> Callable[[float | str], float | None]:
    def z(value: float | str) -> float | None:
        share = shares.get(str(value).replace(" ", ""))
        return None if share is None else (_exposure_log(share) - _exposure_log(usual)) / _BAND_LOG_SD

    return z


def _score(low: float, high: float) -> Callable[[float | str], float | None]:
    """Of a score that is better the higher it is, evenly spread for want of better knowledge."""

    def z(value: float | str) -> float | None:
        if isinstance(value, str) or not low <= value <= high:
            return None
        return ((low + high) / 2 - value) / ((high - low) / math.sqrt(12))

    return z


def _word(value: float | str) -> float | None:
    return {"High": -math.sqrt(1.5), "Medium": 0.0, "Low": math.sqrt(1.5)}.get(str(value))


def _uptime(value: float | str) -> float | None:
    if isinstance(value, str) or value <= 0:
        return None
    low, high = (math.log(s) for s in _UPTIMES_S)
    spread = (high - low) / 2
    return max(-1.0, min(1.0, ((low + high) / 2 - math.log(value)) / spread))


#: By (kind, unit) as the sources in `providers` write them; any other signal says nothing of losses.
READINGS: Mapping[tuple[str, str], Reading] = {
    ("interruption_band", "share of machines interrupted in the month before, a band"): Reading(
        _band(_ADVISOR, _ADVISOR[">20%"]), _OF_LOSSES, 30 * 24.0
    ),
    ("eviction_band", "% evicted within an hour, a band"): Reading(
        _band(_AZURE, _PRIOR_CHANCE), _OF_LOSSES, 30 * 24.0
    ),
    ("uptime", "s"): Reading(_uptime, _OF_LOSSES, 24.0),
    ("placement_score", "of 10"): Reading(_score(1, 10), _OF_GETTING, 6.0),
    ("placement_score", "High, Medium or Low"): Reading(_word, _OF_GETTING, 6.0),
    ("obtainability", "0 to 1"): Reading(_score(0, 1), _OF_GETTING, 6.0),
}


class SpotSignals:
    """Signals by the machine they are about."""

    def __init__(self, said: Iterable[Said] = ()) -> None:
        """Keep those that say something of losses."""
        self._by_machine: dict[tuple[str, str, str], list[Said]] = {}
        for one in said:
            if (one.kind, one.unit) in READINGS:
                self._by_machine.setdefault((one.cloud, one.region, one.instance_type), []).append(one)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._by_machine)

    def lean(self, offer: Offer, nodes: int, now: datetime) -> Lean:
        """What is known of an offer; the newest signal of each kind counts, by its age.

        Args:
            offer: Spot machines; of a zone whose name the signals do not know, only what is said of the region counts.
            nodes: Machines together.
            now: UTC.
        """
        newest: dict[str, Said] = {}
        for one in self._by_machine.get((offer.cloud, offer.region, offer.instance_type or ""), ()):
            if one.zone in (None, offer.zone) and one.nodes in (None, nodes):
                known = newest.get(one.kind)
                if known is None or known.as_of_at < one.as_of_at:
                    newest[one.kind] = one
        parts = tuple(part for one in newest.values() if (part := _part(one, now)) is not None)
        if not parts:
            return NO_LEAN
        most = math.log(LARGEST_LEAN)
        total = sum(math.log(part.factor) for part in parts)
        return Lean(math.exp(max(-most, min(most, round(total / _LOG_STEP) * _LOG_STEP))), parts)


NO_SIGNALS = SpotSignals()


def _part(said: Said, now: datetime) -> Part | None:
    reading = READINGS[said.kind, said.unit]
    z = reading.z(said.value)
    if z is None:
        return None
    age_h = max((now - datetime.fromisoformat(said.as_of_at)).total_seconds() / 3600, 0.0)
    weight = 0.5 ** (age_h / reading.half_life_h)
    return Part(said, age_h, math.exp(reading.correlation * PLACE_LOG_SD * z * weight))
