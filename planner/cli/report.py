"""`plan report`: estimate against actual, base against tuned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.desk import open_ledger, refresh
from planner.cli.output import echo_err, emit_json, output_option
from planner.on_demand import START_UP
from providers.errors import StorageError

if TYPE_CHECKING:
    from jobs.history import History
    from planner.runs import Run

_WORDS = {
    "step_time_s": "seconds a step",
    "tokens_per_s_total": "tokens a second",
    "wall_clock_h": "hours",
    "gpu_hours": "GPU-hours",
    "cost_usd": "cost, US dollars",
    "memory_allocated_gib": "GiB allocated",
    "memory_reserved_gib": "GiB reserved",
    "memory_nvml_gib": "GiB seen by NVML",
}


@click.command("report", epilog="\b\nExamples:\n  plan report goat-1\n  plan report goat-1 --plot goat.svg")
@click.argument("run", shell_complete=complete_run)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw loss and metric against steps: .svg or .png.",
)
@output_option("table", "json")
@pass_app
def command(app: App, run: str, plot: Path | None, output: str) -> None:
    """Compare RUN with its estimate, and the tuned model with its base."""
    from planner.report import report_document

    with open_ledger(app) as store:
        found, _ = refresh(app, store, store.find(run))
    offers = () if found.terms.infra == "local" else app.snapshot(found.terms.infra).offers
    document = report_document(found, _history(found), offers=offers, paid_ahead_usd=_paid_ahead(app, found))
    if plot is not None:
        from planner.cli.report_plot import plot_report

        plot_report(document, plot)
    if output == "json":
        emit_json("report", document, now=app.now())
    else:
        click.echo(render_report(document))


def _history(run: Run) -> History | None:
    from planner.report import read_history

    try:
        return read_history(run)
    except StorageError as error:
        echo_err(f"losses and evaluations are left out: {error.message}")
        return None


def _paid_ahead(app: App, run: Run) -> str | None:
    """What the capacity cost that was reserved for the run, None if none was."""
    from planner.cli.reserve_desk import open_book
    from planner.money import usd_text_of_micro

    with open_book(app) as book:
        paid = [row.paid_micro_usd for row in book.all() if row.run_id == run.run_id]
    return usd_text_of_micro(paid[0]) if paid and paid[0] is not None else None


def render_report(document: dict[str, Any]) -> str:
    """The report as text."""
    lines = [f"{document['run_id']}: {document['state']}", ""]
    lines.append(
        f"{'':<18}  {'estimate p50 (p10-p90)':<28}  {'actual':>10}  {'estimate/actual':>15}  in interval"
    )
    lines += [_comparison(row) for row in document["comparison"] if row["actual"] is not None]
    unknown = [_WORDS[row["quantity"]] for row in document["comparison"] if row["actual"] is None]
    if unknown:
        lines.append(f"not measured here: {', '.join(unknown)}")
    lines += ["", *metrics_table(document["metrics"]), ""]
    lines += _guard(document["guard"]) + _stages(document["stage_seconds"])
    lines.append(f"recoveries  {document['recoveries']}, steps computed twice {document['lost_steps']}")
    cost = document["cost_usd"]
    lines.append(f"cost        {'unknown' if cost is None else f'${cost}'}{_against_on_demand(document)}")
    lines.append(f"model       {document['artifact_uri']}")
    lines.append(f"manifest    {document['artifact_manifest_sha256'] or 'not committed yet'}")
    return "\n".join(lines)


def _against_on_demand(document: dict[str, Any]) -> str:
    """What else it would have cost, and what that makes the difference to what was really paid."""
    ahead, on_demand = document["paid_ahead_usd"], document["on_demand_cost_usd"]
    paid = ahead or document["cost_usd"]
    text = "" if ahead is None else f", of ${ahead} paid ahead for reserved capacity"
    if on_demand is None or paid is None:
        return text
    saved = float(on_demand) - float(paid)
    word = f"${saved:.2f} saved" if saved >= 0 else f"${-saved:.2f} more than that"
    return f"{text}; on demand about ${on_demand} at today's prices: {word}"


def _guard(guard: dict[str, Any] | None) -> list[str]:
    if guard is None:
        return []
    verdict = "kept" if guard["passed"] else "BROKEN: the model forgot more than was allowed"
    change = f"{_number(guard['base'])} to {_number(guard['tuned'])}"
    return [f"guard       {guard['metric']} {change}, at most {guard['at_most_worse']:g} worse: {verdict}"]


def _stages(seconds: dict[str, float]) -> list[str]:
    """Where the time of the last attempt went: before the first step, training, and the rest."""
    if not seconds:
        return []
    start_up = [name for name in START_UP if name in seconds]
    rest = [name for name in seconds if name not in start_up]
    lines = []
    for title, names in (("start-up", start_up), ("then", rest)):
        parts = ", ".join(f"{name} {_number(seconds[name])}" for name in names)
        total = sum(seconds[name] for name in names)
        lines += [f"{title:<10}  {_number(total)} s: {parts}"] if names else []
    return lines


def _comparison(row: dict[str, Any]) -> str:
    predicted = {name: float(value) for name, value in row["predicted"].items()}
    span = f"{_number(predicted['p50'])} ({_number(predicted['p10'])}-{_number(predicted['p90'])})"
    error = "" if row["error"] is None else f"{row['error']:+.0%}"
    inside = "yes" if row["inside_interval"] else "no"
    return f"{_WORDS[row['quantity']]:<18}  {span:<28}  {_number(float(row['actual'])):>10}  {error:>15}  {inside}"


def metrics_table(metrics: list[dict[str, Any]]) -> list[str]:
    """Base against tuned, one line a metric."""
    if not metrics:
        return ["no metrics yet"]
    lines = [f"{'metric':<18}  {'rows':>6}  {'base':>10}  {'tuned':>10}  better is"]
    for metric in metrics:
        better = "higher" if metric["higher_is_better"] else "lower"
        name = metric["name"] + (" (guard)" if metric["split"] == "guard" else "")
        base, tuned = (_number(metric[key]) for key in ("base", "tuned"))
        lines.append(f"{name:<18}  {metric['n']:>6}  {base:>10}  {tuned:>10}  {better}")
    return lines


def _number(value: float | None) -> str:
    """Four significant digits, no exponent for what people read.

    >>> _number(0.0123456), _number(15987.3), _number(0.0), _number(None)
    ('0.01235', '15,987', '0', '?')
    """
    if value is None:
        return "?"
    if value == 0:
        return "0"
    if abs(value) >= 1e9 or abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
