"""What stands against a spec's scheduled launches, said when the schedule is made rather than when nobody looks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from planner.errors import OverBudgetError
from providers.errors import TuneplanError

if TYPE_CHECKING:
    from pathlib import Path

    from planner.cli.context import App
    from planner.reserve.firing import Started
    from planner.reserve.schedules import Firing
    from planner.spec import FineTuneSpec
    from planner.specfile import LoadedSpec

#: `plan launch` starts a run now or ends with one of these, after which the scheduler asks again.
_ASKED_AGAIN = (1, 6, 7)


def refuse_what_never_starts(loaded: LoadedSpec, infra: str) -> None:
    """Refuse a spec that every launch would refuse as it is written.

    Raises:
        SpecError: With everything that is so.
    """
    from planner.data_check import unnamed_data
    from planner.model_support import model_blockers
    from planner.positions import position_blockers
    from planner.support import unsupported

    found = list(unsupported(loaded.spec, for_launch=True, infra=infra))
    found += unnamed_data(loaded.spec)
    found += model_blockers(loaded.spec, loaded.base_dir, rented=infra != "local")
    found += position_blockers(loaded.spec, loaded.base_dir)
    loaded.refuse(found)


def doubts(app: App, loaded: LoadedSpec, infra: str, budget_usd: float | None) -> Iterator[str]:
    """What would stop a launch now and may be mended until it is due: files, secrets, software, the price."""
    from planner.proposal import spec_blockers

    spec = app.data_cache().localised(loaded.spec, loaded.base_dir)
    found = list(spec_blockers(spec, loaded.base_dir, app.surroundings().environ, infra=infra))
    for finding in found:
        yield f"as things are now, a launch would refuse it: {finding}"
    if budget_usd is not None and not found:
        yield from _over_budget(app, spec, loaded.base_dir, infra, budget_usd)


def _over_budget(
    app: App, spec: FineTuneSpec, base_dir: Path, infra: str, budget_usd: float
) -> Iterator[str]:
    try:
        candidates = app.estimate(spec, base_dir, app.snapshot(infra)).estimate.candidates
    except TuneplanError as error:
        yield f"what a run costs cannot be estimated now: {error.message}"
        return
    if not candidates:
        yield "as things are now, nothing that can be had fits it: `plan estimate` says why"
        return
    cheapest = min(row.cost_usd.p50 for row in candidates)
    if cheapest > budget_usd:
        yield (
            f"a run is estimated at ${cheapest:,.2f} or more, and --budget-per-period is ${budget_usd:,.2f}: "
            "it would be stopped at its cap before it is done"
        )


def raise_unless_started(firing: Firing, launch: Started | None) -> None:
    """Turn a run that was asked for and did not start into the launch's own exit code.

    Raises:
        OverBudgetError: The period's budget is spent.
        TuneplanError: With the exit code of `plan launch`.
    """
    if firing.state == "skipped":
        raise OverBudgetError(f"no run of {firing.schedule_id} was started: {firing.reason}")
    if launch is None or launch.exit_code == 0:
        return
    again = launch.exit_code in _ASKED_AGAIN
    hint = "the scheduler asks again" if again else f"`plan schedule history {firing.schedule_id}` has it"
    error = TuneplanError(f"no run was started: {launch.message}", hint=hint, code="not_started")
    error.exit_code = launch.exit_code
    raise error
