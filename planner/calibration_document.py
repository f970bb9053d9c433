"""The calibration table as the JSON of `plan calibrate`. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from planner.calibration import SHARES, Calibration, Observation
from planner.quantiles import Z90

#: p90 / p50 of the formulas, for corrections that are shown without an estimate around them.
_SPREADS = {"step_time": 1.45, "memory": 1.1}
_CPU_SPREAD, _OVERHEAD_SPREAD = 2.6, 2.0
#: The group by which a quantity is shown.
_SHOWN_BY = {"step_time": "class", "memory": "class", "evaluate": "class"}


def calibration_document(calibration: Calibration) -> dict[str, Any]:
    """Rows by group and quantity, and the runs behind them, newest first."""
    return {
        "rows": list(_rows(calibration)),
        "runs": [
            {
                "run_id": one.run_id,
                "groups": dict(one.groups),
                "actual_over_formula": {
                    name: math.exp(one.log_ratios[name]) if name in one.log_ratios else None
                    for name in SHARES
                },
            }
            for one in calibration.observations
        ],
    }


def _rows(calibration: Calibration) -> Iterator[dict[str, Any]]:
    for quantity in SHARES:
        found: dict[str, list[Observation]] = {}
        for one in calibration.observations:
            if quantity in one.log_ratios:
                found.setdefault(one.groups[_SHOWN_BY.get(quantity, "place")], []).append(one)
        for group, members in sorted(found.items()):
            yield _row(calibration, quantity, group, members)


def _row(calibration: Calibration, quantity: str, group: str, members: list[Observation]) -> dict[str, Any]:
    newest = members[0].groups
    spread = _SPREADS.get(quantity, _OVERHEAD_SPREAD)
    if quantity == "step_time" and group.startswith("CPU"):
        spread = _CPU_SPREAD
    sd = math.log(spread) / Z90
    same = calibration.correction(quantity, newest, sd)
    other = calibration.correction(quantity, {**newest, "job": "", "model": ""}, sd)
    return {
        "quantity": quantity,
        "group": group,
        "runs": len(members),
        "jobs": len({one.groups["job"] for one in members}),
        "ratio": math.exp(fmean(one.log_ratios[quantity] for one in members)),
        "factor_other_job": other.factor,
        "factor_same_job": same.factor,
    }
