"""`plan report`: estimate against actual, base against tuned."""

from __future__ import annotations

from typing import Any

import click

from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.desk import open_ledger, refresh
from planner.cli.output import emit_json, output_option

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


@click.command("report", epilog="\b\nExample:\n  plan report goat-1")
@click.argument("run", shell_complete=complete_run)
@output_option("table", "json")
@pass_app
def command(app: App, run: str, output: str) -> None:
    """Compare RUN with its estimate, and the tuned model with its base."""
    from planner.report import report_document

    with open_ledger(app) as store:
        found, _ = refresh(app, store, store.find(run))
    document = report_document(found)
    if output == "json":
        emit_json("report", document, now=app.now())
    else:
        click.echo(render_report(document))


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
    lines += ["", *_metrics(document["metrics"]), ""]
    lines.append(f"recoveries  {document['recoveries']}, steps computed twice {document['lost_steps']}")
    cost = document["cost_usd"]
    lines.append(f"cost        {'unknown' if cost is None else f'${cost}'}")
    lines.append(f"model       {document['artifact_uri']}")
    lines.append(f"manifest    {document['artifact_manifest_sha256'] or 'not committed yet'}")
    return "\n".join(lines)


def _comparison(row: dict[str, Any]) -> str:
    predicted = {name: float(value) for name, value in row["predicted"].items()}
    span = f"{_number(predicted['p50'])} ({_number(predicted['p10'])}-{_number(predicted['p90'])})"
    error = "" if row["error"] is None else f"{row['error']:+.0%}"
    inside = "yes" if row["inside_interval"] else "no"
    return f"{_WORDS[row['quantity']]:<18}  {span:<28}  {_number(float(row['actual'])):>10}  {error:>15}  {inside}"


def _metrics(metrics: list[dict[str, Any]]) -> list[str]:
    if not metrics:
        return ["no metrics yet"]
    lines = [f"{'metric':<14}  {'rows':>6}  {'base':>10}  {'tuned':>10}  better is"]
    for metric in metrics:
        better = "higher" if metric["higher_is_better"] else "lower"
        base, tuned = (_number(metric[key]) for key in ("base", "tuned"))
        lines.append(f"{metric['name']:<14}  {metric['n']:>6}  {base:>10}  {tuned:>10}  {better}")
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
