"""How often spot machines are lost over what the bank of models says: by region, and for the market that they make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

#: The market's factor is rounded to so many steps an octave: jobs whose factors differ little share value tables.
_STEPS_AN_OCTAVE = 4
#: A factor beyond these, either way, counts as one of them.
LEAST, MOST = 1 / 8, 8.0


class LossFactors(NamedTuple):
    """Factors on the rates at which spot is lost.

    Attributes:
        market: Of the market as a whole, and of a machine that is lost while another region still has spot.
        regions: Of each region.
    """

    market: float
    regions: tuple[float, ...]


def loss_factors(given: Sequence[float | None] | None, regions: int) -> LossFactors:
    """The factors as the policy takes them: the market's is the regions' geometric mean, in coarse steps.

    The regions' keep their exact ratios to one another and are rounded with the market's: what makes a region better
    or worse is its factor over the market's.

    Args:
        given: By region; None where nothing is known, which then is as the others. None altogether: as the models say.
        regions: How many there are.

    >>> loss_factors([2.1, None], 2)
    LossFactors(market=2.0, regions=(2.0, 2.0))
    """
    logs = [
        None if factor is None else math.log(min(max(factor, LEAST), MOST))
        for factor in (given if given is not None else [None] * regions)
    ]
    known = [one for one in logs if one is not None]
    mean = sum(known) / len(known) if known else 0.0
    market = float(2.0 ** (round(_STEPS_AN_OCTAVE * mean / math.log(2.0)) / _STEPS_AN_OCTAVE))
    return LossFactors(
        market, tuple(market * math.exp((mean if one is None else one) - mean) for one in logs)
    )
