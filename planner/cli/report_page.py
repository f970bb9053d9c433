"""A run's report as one page of HTML that opens offline: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import planner
from planner.cli.picture import svg_of
from planner.cli.report_plot import draw_report, has_curves
from planner.cli.report_text import WORDS, against_on_demand, compared, guard_lines, measured, number, stages
from planner.run_document import attempt_document
from planner.runs import Run, utc_text
from planner.whole_file import whole_file
from providers.errors import MissingExtraError


def write_page(document: dict[str, Any], run: Run, path: Path, *, now: datetime) -> None:
    """Write the page whole, or not at all.

    Args:
        document: As `planner.report.report_document` gives it.
        run: Of its name, terms and attempts.
        path: The file.
        now: UTC.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
        UsageError: The file cannot be written.
    """
    page = render_page(document, run, made_at=utc_text(now))
    with whole_file(path) as beside:
        beside.write_text(page, encoding="utf-8")


def render_page(document: dict[str, Any], run: Run, *, made_at: str) -> str:
    """The page's text; whatever a name holds, it stays text.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError:
        raise MissingExtraError("report", "a report as HTML") from None
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("planner").joinpath("cli", "report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        report=document,
        run=run,
        attempts=[_attempt(attempt_document(attempt)) for attempt in run.attempts],
        compared=[compared(row) for row in document["comparison"] if row["actual"] is not None],
        unmeasured=[WORDS[row["quantity"]] for row in document["comparison"] if row["actual"] is None],
        measured=list(map(measured, document["metrics"])),
        guard=guard_lines(document["guard"]),
        stages=_stages(document["stage_seconds"]),
        cost="unknown" if document["cost_usd"] is None else f"${document['cost_usd']}",
        against=against_on_demand(document),
        curves=svg_of(draw_report(document)) if has_curves(document) else None,
        made_at=made_at,
        version=planner.__version__,
    )


def _attempt(row: dict[str, Any]) -> dict[str, Any]:
    offer = row["offer"]
    place = "/".join(str(offer[key]) for key in ("cloud", "region", "zone") if offer.get(key))
    machine = f"{offer['gpus_per_node']} x {offer['gpu']}, {offer['market'].replace('_', '-')}"
    return {**row, "place": place, "machine": machine}


def _stages(seconds: dict[str, float]) -> list[tuple[str, str, str]]:
    """Stage, seconds, and the share of the longest in percent, for a bar."""
    longest = max(seconds.values(), default=0.0) or 1.0
    names = [name for _, _, part in stages(seconds) for name in part]
    return [(name, number(seconds[name]), f"{100 * seconds[name] / longest:.1f}") for name in names]
