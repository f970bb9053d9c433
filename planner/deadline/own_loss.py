"""How our spot machine is lost while another region still has spot: the less often, the older its region's spell."""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate

#: Losses per hour by stage of the region's spell, and mean hours of each stage but the last. The records of two to six
#: regions at once count 0.95 up to 20 min, 0.45 up to 1 h, 0.27 up to 2 h, 0.15 up to 4 h, 0.10 up to 8 h, 0.05 later.
OWN_LOSS_PER_H = (0.6, 0.22, 0.08)
OWN_STAGE_H = (1.0, 3.0)

_ENDS_H = list(accumulate(OWN_STAGE_H))
#: The chance of being kept is worked out in steps, for horizons that are a multiple of one.
_STEP_H = 1 / 12


def stage(spell_h: float) -> int:
    """Stage of a spell that is this old.

    >>> stage(0.5), stage(1.0), stage(9.0)
    (0, 1, 2)
    """
    return bisect_right(_ENDS_H, spell_h + 1e-9)


def own_losses_per_h(factor: float) -> tuple[float, ...]:
    """The rates by stage where machines are lost so many times as often."""
    return tuple(rate * factor for rate in OWN_LOSS_PER_H)


def kept(at: int, horizon_h: float, factor: float = 1.0) -> float:
    """Chance that a machine in this stage is not lost for as long, while the market stays.

    Args:
        at: Stage now.
        horizon_h: Hours from now.
        factor: On the rates.

    >>> [round(kept(at, 4.0), 2) for at in (0, 1, 2)]
    [0.36, 0.54, 0.73]
    """
    return _kept(at, max(1, round(horizon_h / _STEP_H)), factor)


@lru_cache(maxsize=1024)
def _kept(at: int, steps: int, factor: float) -> float:
    rates = own_losses_per_h(factor)
    chances = [float(index == at) for index in range(len(rates))]
    for _ in range(steps):
        stays = [chance * math.exp(-rate * _STEP_H) for chance, rate in zip(chances, rates, strict=True)]
        older = [stay * _STEP_H / hours for stay, hours in zip(stays, OWN_STAGE_H, strict=False)]
        chances = [
            stay - gone + come for stay, gone, come in zip(stays, [*older, 0.0], [0.0, *older], strict=True)
        ]
    return sum(chances)
