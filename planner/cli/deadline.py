"""`plan deadline`: from the release date backwards."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.cli.context import App, pass_app
from planner.cli.output import emit_json, output_option
from planner.errors import OverBudgetError, PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from planner.release import Release, Way

_EXAMPLE = """\b
Examples:
  plan deadline spec.yaml
  plan deadline spec.yaml --by 2027-01-15 -o json
  plan deadline spec.yaml --within 36h --gpu H100
"""
#: The fastest in nine of ten cases: another may be faster in half of them.
_NAMES = {"fastest": "fastest p90", "more_machines": "more nodes"}


@click.command("deadline", epilog=_EXAMPLE)
@click.argument("spec_file", metavar="SPEC", type=click.Path(path_type=Path))
@click.option(
    "--by", metavar="DATE", help="The date, instead of the spec's: RFC 3339, or a day (its end, UTC)."
)
@click.option("--within", metavar="DURATION", help="Or hours from now, as in 36h.")
@click.option("--gpu", help="Only this GPU, as in A100-80GB.")
@click.option(
    "--count",
    type=click.IntRange(1, 1024),
    help="Only machines with this many GPUs each; where.nodes says how many machines.",
)
@click.option(
    "--jobs",
    type=click.IntRange(20, 10_000),
    default=60,
    show_default=True,
    help="Simulated, for each start.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the drawn zones.")
@output_option("table", "json")
@pass_app
def command(
    app: App,
    spec_file: Path,
    by: str | None,
    within: str | None,
    gpu: str | None,
    count: int | None,
    jobs: int,
    seed: int,
    output: str,
) -> None:
    """Plan SPEC backwards from its date: latest safe start, chance, the cheapest mix, and what to cut.

    Exit 9 if no way is likely to be in time, 5 if being in time costs more than the budget; the answer names the
    nearest date and the budget that is needed.
    """
    found = _released(app, spec_file, by, within, gpu, count, jobs, seed)
    if output == "json":
        emit_json("deadline", found.document(), now=app.now())
    else:
        click.echo("\n".join(_lines(found)))
    if not found.possible:
        asked = "" if found.more_machines is None else " on so few machines"
        raise PolicyError(f"not possible by {_at(found.deadline)}{asked}", hint=_nearest(found))
    if found.over_budget and found.needed_usd is not None:
        raise OverBudgetError(
            f"being in time costs about ${found.needed_usd:,.2f}, over ${found.budget_usd:,.2f}",
            hint=_cheaper(found),
        )


def _nearest(found: Release) -> str:
    nearest = (
        f"the nearest date is {_at(found.at(found.nearest_h[1]))} (90 %, {found.nearest_h[1]:.1f} h from now)"
    )
    return nearest if found.more_machines is None else f"{_more(found.more_machines)}; else {nearest}"


def _more(way: Way) -> str:
    """The change of the spec that more machines are."""
    return (
        f"`where.nodes: 1..{way.item.nodes}` would be in time in {way.p_in_time:.0%} of cases,"
        f" for about ${way.item.expected_usd:,.2f}"
    )


def _cheaper(found: Release) -> str:
    if found.affordable is None:
        return "nothing is within the budget, at any date"
    return f"within the budget it is done by {_at(found.at(found.affordable.finish_h.p90))} (90 %)"


def _released(
    app: App,
    spec_file: Path,
    by: str | None,
    within: str | None,
    gpu: str | None,
    count: int | None,
    jobs: int,
    seed: int,
) -> Release:
    from planner.answer import estimate_spec
    from planner.intake import Overrides
    from planner.placing import placed_in
    from planner.release import plan_release
    from planner.specfile import load_spec
    from planner.support import unsupported
    from providers.errors import UsageError

    loaded = load_spec(spec_file)
    spec = app.data_cache().localised(loaded.spec, loaded.base_dir)
    goal = _goal(spec.goal.deadline, spec.goal.within, by, within)
    if goal == (None, None):
        raise UsageError(
            "there is no date to plan for", hint="goal.deadline or goal.within in the spec, --by or --within"
        )
    changed = spec.goal.model_copy(update={"deadline": goal[0], "within": goal[1]})
    spec = spec.model_copy(update={"goal": changed})
    loaded.refuse(unsupported(spec))
    snapshot = app.snapshot("clouds")
    with placed_in(loaded):
        answer = estimate_spec(
            spec,
            loaded.base_dir,
            snapshot,
            app.now(),
            overrides=Overrides(gpu=gpu, count=count),
            limit=None,
            calibration=app.calibration(),
            spot_signals=app.spot_signals(),
            models=app.models(),
        )
    return plan_release(answer.estimate, snapshot, jobs=jobs, seed=seed)


def _goal(
    deadline: str | None, within_s: float | None, by: str | None, within: str | None
) -> tuple[str | None, float | None]:
    """The date of the command line, else the spec's."""
    from planner.units import parse_deadline, parse_duration_s
    from providers.errors import UsageError

    if by is not None and within is not None:
        raise UsageError("--by and --within exclude each other")
    try:
        if by is not None:
            parse_deadline(by)
            return by, None
        return (deadline, within_s) if within is None else (None, parse_duration_s(within))
    except ValueError as error:
        raise UsageError(str(error)) from None


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _lines(found: Release) -> Iterator[str]:
    from planner.release import where_of

    hours = (found.deadline - found.now).total_seconds() / 3600
    yield f"to be done by {_at(found.deadline)}, in {hours:.1f} h"
    yield ""
    heads = f"{'way':11} {'mean $':>9} {'$ p90':>9} {'h p50':>7} {'h p90':>7} {'in time':>8}"
    yield f"{heads}  {'latest safe start':<23} where"
    more = () if found.more_machines is None else (found.more_machines,)
    for way in (*found.ways, *more):
        finish = way.item.finish_h
        start = _at(found.at(way.latest_start_h)) if way.latest_start_h >= 0 else "was earlier"
        mark = "->" if way is found.chosen else "  "
        money = f"{way.item.expected_usd:9.2f} {way.item.cost_usd.p90:9.2f}"
        time = f"{finish.p50:7.1f} {finish.p90:7.1f} {way.p_in_time:8.0%}"
        name = _NAMES.get(way.name, way.name)
        doubt = ", may not fit its memory" if way.item.may_not_fit else ""
        yield (f"{name:11} {money} {time}  {start:<20} {mark} {where_of(way.item)}{doubt}")
    yield _chosen(found.chosen.p_in_time)
    if found.possible:
        yield from (_more(way) for way in more)
    yield from _mixed(found)
    yield ""
    yield f"{'time to model':15} {'hours':>7}  {'may save h':>10} {'for $':>9}  by"
    for part in found.parts:
        extra = "?" if part.extra_usd is None else f"{part.extra_usd:+.2f}"
        saves = f"{part.saves_h:10.2f} {extra:>9}  {part.cut}" if part.saves_h > 0.005 else f"{'-':>10}"
        yield f"{part.name:15} {part.hours:7.2f}  {saves}"
    first = found.first_cut
    if first is not None:
        part, hours = first
        yield f"cut {part.name} first: {part.cut} saves up to {hours:.1f} h"


def _chosen(p_in_time: float) -> str:
    """What the arrow means, by how likely the way is."""
    from planner.ranking import EVEN_CHANCE, SURE_ENOUGH

    if p_in_time >= SURE_ENOUGH:
        return f"-> the cheapest that is in time in {SURE_ENOUGH:.0%} of cases"
    if p_in_time >= EVEN_CHANCE:
        return f"-> none is in time in {SURE_ENOUGH:.0%} of cases: the likeliest, of about equal ones the cheapest"
    return "-> none has an even chance: the earliest by its p50, of about equal ones the cheapest"


def _mixed(found: Release) -> Iterator[str]:
    """The policy's mix, now and from later starts: what waiting costs."""
    from planner.ranking import SURE_ENOUGH
    from planner.release import where_of

    if found.mix is None:
        yield "no mix of spot and on-demand: no shape is offered as both, or none would be in time"
        return
    now, last = found.mix.starts[0], found.mix.starts[-1]
    yield ""
    yield f"the cheapest mix: {where_of(found.mix.spot)} as long as time allows,"
    yield "then on-demand of this shape (`plan launch --move`), by the time of the start:"
    yield f"{'start':20} {'mean $':>9} {'$ p90':>9} {'on spot':>8} {'in time':>8}"
    for row in found.mix.starts:
        money = f"{row.mean_usd:9.2f} {row.p90_usd:9.2f}"
        yield f"{_at(found.at(row.delay_h)):20} {money} {row.spot_share:8.0%} {row.p_in_time:8.0%}"
    on_demand = next((way for way in found.ways if way.name == "on_demand"), None)
    if on_demand is not None:
        later = f"starting as late as is safe {_change(last.mean_usd - now.mean_usd)} against now"
        yield (
            f"waiting for spot {_change(now.mean_usd - on_demand.item.expected_usd)} on average against on-demand,"
            f" and may cost ${now.p90_usd:.2f} in all (p90);"
            f" {later if last.delay_h > 0 else 'no later start is safe'}"
        )
    if not found.mix_is_best and found.chosen.p_in_time >= SURE_ENOUGH:
        yield "it is not needed: the way with the arrow is sure enough by itself, and about as cheap or cheaper"
    if found.mix_is_best:
        yield f"the mix is the cheapest that is in time in 90% of cases: ${now.mean_usd:.2f} on average"


def _change(usd: float) -> str:
    return f"costs ${usd:.2f} more" if usd >= 0 else f"saves ${-usd:.2f}"
