"""The plan behind a file: a plan file as it is, a spec as it is estimated now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planner.cli.context import App
    from planner.plan import Plan


def plan_of(app: App, file: Path, *, limit: int = 100) -> Plan:
    """The plan of a `.json` plan file, or of a spec on the prices in use.

    Args:
        app: Prices, models and what finished runs taught.
        file: A plan or a spec.
        limit: Candidates of a spec to keep.

    Raises:
        SpecError, UsageError, CorruptDataError: As `load_plan`, `load_spec` and `estimate_spec`.
    """
    from planner.placing import placed_in
    from planner.plan import load_plan
    from planner.specfile import load_spec
    from planner.support import unsupported

    if file.suffix == ".json":
        return load_plan(file)
    loaded = load_spec(file)
    loaded.refuse(unsupported(loaded.spec))
    with placed_in(loaded):
        spec = app.data_cache().localised(loaded.spec, loaded.base_dir)
        return app.estimate(spec, loaded.base_dir, app.snapshot("skypilot"), limit=limit).plan()
