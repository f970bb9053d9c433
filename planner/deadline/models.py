"""The bank of spot-market models: how likely a spell of capacity (or of none) ends, by its age."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import resources

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

#: States of a spot zone, also the second axis of `SpotModels.hazard_per_h`.
DOWN, UP = 0, 1


@dataclass(frozen=True, eq=False)
class SpotModels:
    """A few semi-Markov models of a zone; which one a zone follows is learned while watching it.

    Attributes:
        hazard_per_h: Rate at which a spell ends, [model, DOWN or UP, age bucket].
        weight: Prior share of each model, sums to 1.
        age_edges_h: Lower edges of the age buckets, first 0.
    """

    hazard_per_h: FloatArray
    weight: FloatArray
    age_edges_h: FloatArray

    def bucket(self, age_h: float) -> int:
        """Index of the age bucket that `age_h` falls into."""
        return int(np.searchsorted(self.age_edges_h, age_h + 1e-9, side="right")) - 1

    def advance(self, step_h: float) -> FloatArray:
        """Chance that a spell that lasts moves on to the next bucket within a step, by bucket."""
        widths = np.append(np.diff(self.age_edges_h), np.inf)
        return np.minimum(1.0, step_h / widths)


@cache
def shipped_models() -> SpotModels:
    """Models fitted on public spot traces; the file says which and how."""
    text = resources.files("planner").joinpath("data", "spot_models.json").read_text(encoding="utf-8")
    record = json.loads(text)
    return SpotModels(
        hazard_per_h=np.array(record["hazard_per_h"], float),
        weight=np.array(record["weight"], float),
        age_edges_h=np.array(record["age_edges_h"], float),
    )


@lru_cache(maxsize=64)
def with_losses(models: SpotModels, factor: float) -> SpotModels:
    """The same with so many times the rates at which spot is lost; one object a factor, by which tables are kept."""
    if factor == 1:
        return models
    hazard_per_h = models.hazard_per_h.copy()
    hazard_per_h[:, UP] *= factor
    return replace(models, hazard_per_h=hazard_per_h)
