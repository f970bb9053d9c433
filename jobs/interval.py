"""How long to train between two checkpoints, from what losing the machine, saving and uploading cost. Pure."""

from __future__ import annotations

import math

LEAST_S = 10.0
MOST_S, MOST_SAVING = 1800.0, 0.05
_FIRST_S = 60.0


def hazard_now_per_s(prior_per_h: float, trained_h: float) -> float:
    """Losses a second, from the planner's prior and the hours that this machine has stayed.

    The mean of a gamma distribution of one loss in 1 / prior hours, after `trained_h` hours without one:
    1 / (1 / prior + trained). Neglects what other machines have shown; right within a factor of two or so.

    >>> hazard_now_per_s(0.5, 0.0) * 3600, hazard_now_per_s(0.5, 2.0) * 3600
    (0.5, 0.25)
    """
    return 1 / (1 / prior_per_h + trained_h) / 3600


def interval_s(hazard_per_s: float, save_s: float, upload_s: float) -> float:
    """Seconds from one save to the next.

    Daly's optimum sqrt(2 C M) - C for C < 2 M, else M (Future Gener. Comput. Syst. 22 (2006) 303), where C is the
    time that a save stops the training and M the mean time between losses. An upload runs beside the training: it
    adds to what a loss costs whatever the interval, but no save is worth it that an upload still under way makes
    useless. Machines that stay crash too: it is half an hour at most, or what keeps saving below a twentieth of the
    time. Before the first save, when C is not known, a minute.

    >>> round(interval_s(0.5 / 3600, 0.4, 3.0)), round(interval_s(0.5 / 3600, 6.0, 200.0)), interval_s(1e-3, 0, 0)
    (75, 288, 60.0)
    """
    if save_s <= 0:
        return _FIRST_S
    mean_s = 1 / hazard_per_s
    best_s = math.sqrt(2 * save_s * mean_s) - save_s if save_s < 2 * mean_s else mean_s
    return min(max(best_s, upload_s, LEAST_S), max(MOST_S, save_s / MOST_SAVING, upload_s))
