"""Facts of the model that a spec names, with where they come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from planner.architecture import ModelArchitecture, Publication, load_architecture


class ModelFacts(NamedTuple):
    """A model and, if it was asked for on the Hub, its publication."""

    arch: ModelArchitecture
    publication: Publication | None = None


#: (model, base_dir, revision) -> facts; raises as `load_architecture`, and whatever asking elsewhere may raise.
ModelSource = Callable[[str, Path, str | None], ModelFacts]


def local_facts(model: str, base_dir: Path, revision: str | None) -> ModelFacts:
    """Facts of a model that is known by name or lies here; asks nobody.

    Raises:
        UsageError: As `planner.architecture.load_architecture`.
    """
    return ModelFacts(load_architecture(model, base_dir, revision))
