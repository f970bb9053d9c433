"""A run's report as people read it: estimate against actual, base against tuned, where time and money went."""

from __future__ import annotations

from typing import Any

from planner.on_demand import START_UP

WORDS = {
    "step_time_s": "seconds a step",
    "tokens_per_s_total": "tokens a second",
    "wall_clock_h": "hours",
    "gpu_hours": "GPU-hours",
    "cost_usd": "cost, US dollars",
    "memory_allocated_gib": "GiB allocated",
    "memory_reserved_gib": "GiB reserved",
    "memory_nvml_gib": "GiB seen by NVML",
}


def render_report(document: dict[str, Any]) -> str:
    """The report as text."""
    lines = [f"{document['run_id']}: {document['state']}", ""]
    lines.append(
        f"{'':<18}  {'estimate p50 (p10-p90)':<28}  {'actual':>10}  {'estimate/actual':>15}  in interval"
    )
    lines += [_comparison(row) for row in document["comparison"] if row["actual"] is not None]
    unknown = [WORDS[row["quantity"]] for row in document["comparison"] if row["actual"] is None]
    if unknown:
        lines.append(f"not measured here: {', '.join(unknown)}")
    lines += ["", *metrics_table(document["metrics"]), ""]
    lines += guard_lines(document["guard"]) + _stages(document["stage_seconds"])
    lines.append(f"recoveries  {document['recoveries']}, steps computed twice {document['lost_steps']}")
    cost = document["cost_usd"]
    lines.append(f"cost        {'unknown' if cost is None else f'${cost}'}{against_on_demand(document)}")
    lines.append(f"model       {document['artifact_uri']}")
    lines.append(f"manifest    {document['artifact_manifest_sha256'] or 'not committed yet'}")
    return "\n".join(lines)


def against_on_demand(document: dict[str, Any]) -> str:
    """What else it would have cost, and what that makes the difference to what was really paid."""
    ahead, on_demand = document["paid_ahead_usd"], document["on_demand_cost_usd"]
    paid = ahead or document["cost_usd"]
    text = "" if ahead is None else f", of ${ahead} paid ahead for reserved capacity"
    if on_demand is None or paid is None:
        return text
    saved = float(on_demand) - float(paid)
    word = f"${saved:.2f} saved" if saved >= 0 else f"${-saved:.2f} more than that"
    return f"{text}; on demand about ${on_demand} at today's prices: {word}"


def guard_lines(guard: dict[str, Any] | None) -> list[str]:
    """Whether the model forgot more than it may; nothing without a guard."""
    if guard is None:
        return []
    verdict = "kept" if guard["passed"] else "BROKEN: the model forgot more than was allowed"
    change = f"{number(guard['base'])} to {number(guard['tuned'])}"
    return [f"guard       {guard['metric']} {change}, at most {guard['at_most_worse']:g} worse: {verdict}"]


def _stages(seconds: dict[str, float]) -> list[str]:
    lines = []
    for title, total, names in stages(seconds):
        parts = ", ".join(f"{name} {number(seconds[name])}" for name in names)
        lines.append(f"{title:<10}  {number(total)} s: {parts}")
    return lines


def stages(seconds: dict[str, float]) -> list[tuple[str, float, list[str]]]:
    """Where the time of the last attempt went: before the first step, training, and the rest."""
    start_up = [name for name in START_UP if name in seconds]
    rest = [name for name in seconds if name not in start_up]
    parts = (("start-up", start_up), ("then", rest))
    return [(title, sum(seconds[name] for name in names), names) for title, names in parts if names]


def _comparison(row: dict[str, Any]) -> str:
    what, span, actual, error, inside = compared(row)
    return f"{what:<18}  {span:<28}  {actual:>10}  {error:>15}  {inside}"


def compared(row: dict[str, Any]) -> tuple[str, str, str, str, str]:
    """A quantity, its estimate and interval, the actual value, how far that is off, and whether it lies inside."""
    predicted = {name: float(value) for name, value in row["predicted"].items()}
    span = f"{number(predicted['p50'])} ({number(predicted['p10'])}-{number(predicted['p90'])})"
    error = "" if row["error"] is None else f"{row['error']:+.0%}"
    inside = "yes" if row["inside_interval"] else "no"
    return WORDS[row["quantity"]], span, number(float(row["actual"])), error, inside


def metrics_table(metrics: list[dict[str, Any]]) -> list[str]:
    """Base against tuned, one line a metric."""
    if not metrics:
        return ["no metrics yet"]
    table = [("metric", "rows", "base", "tuned", "better is"), *map(measured, metrics)]
    wide = max(10, *(len(value) for _, _, *values, _ in table for value in values))
    return [
        f"{name:<18}  {rows:>6}  {base:>{wide}}  {tuned:>{wide}}  {better}"
        for name, rows, base, tuned, better in table
    ]


def measured(metric: dict[str, Any]) -> tuple[str, str, str, str, str]:
    """A metric, on how many rows, of the base, of the tuned model, and which is better."""
    name = metric["name"] + (" (guard)" if metric["split"] == "guard" else "")
    better = "higher" if metric["higher_is_better"] else "lower"
    return name, str(metric["n"]), number(metric["base"]), number(metric["tuned"]), better


def number(value: float | None) -> str:
    """Four significant digits, no exponent for what people read.

    >>> number(0.0123456), number(15987.3), number(1264123456.7), number(0.0), number(None)
    ('0.01235', '15,987', '1,264,123,457', '0', '?')
    """
    if value is None:
        return "?"
    if value == 0:
        return "0"
    if abs(value) >= 1e15 or abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
