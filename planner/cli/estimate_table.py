"""The estimate for a person: what the job is, the ranked offers, the bill of the best one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from planner.architecture import Publication
from planner.candidates import HOST_RAM_SHORT, Candidate, CandidateRisk
from planner.estimate import Estimate, Rejection
from planner.price_age import age_text
from planner.quantiles import Quantiles
from planner.relax import NearestFit
from planner.spec import FineTuneSpec
from providers.offers import FLAGS, Offer

#: Below this many columns the table keeps to what decides.
_ROOMY = 112
#: The place is never cut below this.
_LEAST_WHERE = 8
#: Vast's own client cuts every machine off at this, and leaves smaller ones out, for catalogs in SkyPilot's format.
_VAST_RAM_GIB = 64.0


def render_estimate(estimate: Estimate, spec: FineTuneSpec, *, rows: int, width: int) -> str:
    """The whole answer as text.

    Args:
        estimate: The answer.
        spec: The spec it is for.
        rows: Candidates to show.
        width: Columns of the terminal.
    """
    parts = [folded(render_job(estimate, spec), width)]
    if estimate.candidates:
        parts += [_table(estimate, rows, width), folded(_best(estimate.candidates[0]), width)]
    parts.append(folded("\n".join(_footer(estimate, min(rows, len(estimate.candidates)))), width, indent=2))
    return "\n\n".join(parts)


def folded(text: str, width: int, *, indent: int = 8) -> str:
    """Lines that are wider than the terminal go on below their text, not below its label."""
    import textwrap

    lines = (
        textwrap.wrap(
            line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
        )
        if len(line) > width
        else [line]
        for line in text.split("\n")
    )
    return "\n".join(row for rows in lines for row in rows)


def render_nearest(nearest: Sequence[NearestFit]) -> str:
    """The changes that would make it fit."""
    if not nearest:
        return "none of the changes that were tried makes it fit"
    lines = ["each of these changes would make it fit:"]
    for fit in nearest:
        cost = "price unknown" if fit.cost_usd is None else f"about ${fit.cost_usd.p50:,.2f}"
        lines.append(f"  {fit.text()}  ({fit.verdict}, {cost})")
    return "\n".join(lines)


def render_job(estimate: Estimate, spec: FineTuneSpec) -> str:
    """What is to be done: model, work and goal."""
    question, job = estimate.question, estimate.question.job
    counts = question.counts
    method = spec.method.kind if spec.method.kind == "full" else f"{spec.method.kind} r={spec.method.rank}"
    counted = "" if spec.model.id == question.arch.id else f" (counted as {question.arch.id})"
    lines = [
        f"job     {spec.name}: {spec.task}, {method} on {spec.model.id}{counted}",
        f"model   {_count(counts.total)} parameters, {_count(question.trainable)} trained"
        f"{_published(question.publication)}",
        f"work    {_counted(job.steps, 'step')} of {_counted(job.global_batch, 'row')}, "
        f"{_count(job.tokens_total)} tokens, sequence length {job.sequence_tokens:,}{' packed' if job.packed else ''}",
        f"goal    {_goal(estimate)}",
    ]
    return "\n".join(lines)


def _published(publication: Publication | None) -> str:
    """Commit, licence and gate of a model that the Hub was asked about."""
    if publication is None:
        return ""
    gate = "" if publication.gate is None else ", gated"
    licence = publication.license or "licence unknown"
    return f"; on the Hub at {publication.commit[:12]}, {licence}{gate}"


def _goal(estimate: Estimate) -> str:
    goal = estimate.question.goal
    parts = [goal.objective.replace("_", " ")]
    if goal.deadline is not None:
        parts.append(f"by {goal.deadline:%Y-%m-%d %H:%M} UTC")
    if goal.budget_usd is not None:
        parts.append(f"for at most ${goal.budget_usd:,.2f}")
    return ", ".join(parts)


def _table(estimate: Estimate, rows: int, width: int) -> str:
    """Columns without lines, so that they can be copied; on a narrow terminal only the place gives way.

    A cut number would be a wrong number. Drawn by hand, because the library for it takes longer to import than the
    table to fill.
    """
    shown = estimate.candidates[:rows]
    columns = _columns(estimate, _places(shown), compact=width < _ROOMY)
    gap = "  " if width >= _ROOMY else " "
    table = [tuple(columns)]
    table += [tuple(cell(row) for cell, _ in columns.values()) for row in shown]
    widths = {name: max(len(row[index]) for row in table) for index, name in enumerate(columns)}
    others = sum(widths.values()) - widths["where"] + len(gap) * (len(columns) - 1)
    widths["where"] = min(widths["where"], max(width - others, _LEAST_WHERE))
    return "\n".join(gap.join(_aligned(row, columns, widths)).rstrip() for row in table)


def _aligned(
    row: tuple[str, ...], columns: dict[str, tuple[Callable[[Candidate], str], bool]], widths: dict[str, int]
) -> Iterator[str]:
    for text, (name, (_, right)) in zip(row, columns.items(), strict=True):
        fitting = text if len(text) <= widths[name] else f"{text[: widths[name] - 1]}\u2026"
        yield fitting.rjust(widths[name]) if right else fitting.ljust(widths[name])


def _places(shown: Sequence[Candidate]) -> dict[str, str]:
    """Where each candidate (by its id) is; rows that would look the same are told apart by their kind of machine."""
    seen = Counter((_place(row.offer), _machines(row), row.offer.market) for row in shown)
    alike = {key for key, times in seen.items() if times > 1}
    return {
        row.candidate_id: f"{_place(row.offer)} {row.offer.instance_type or ''}".rstrip()
        if (_place(row.offer), _machines(row), row.offer.market) in alike
        else _place(row.offer)
        for row in shown
    }


def _place(offer: Offer) -> str:
    return f"{offer.cloud} {offer.zone or offer.region}"


def _columns(
    estimate: Estimate, places: dict[str, str], *, compact: bool
) -> dict[str, tuple[Callable[[Candidate], str], bool]]:
    """Column names with what fills a cell and whether it stands to the right."""
    now = estimate.question.goal.now
    columns: dict[str, tuple[Callable[[Candidate], str], bool]] = {
        "#": (lambda c: str(c.rank), True),
        "where": (lambda c: places[c.candidate_id], False),
        "GPUs": (_machines, False),
        "market": (lambda c: c.offer.market.replace("_", "-"), False),
        "$/h": (lambda c: _usd((c.offer.price_usd_per_hour or 0.0) * c.nodes), True),
        "time": (lambda c: duration(c.wall_clock_h, interval=not compact), True),
        "total $": (lambda c: span(c.cost_usd, 2), True),
        "you pay $": (_paid, True),
        "P(in time)": (_chance, True),
        "fits": (lambda c: c.fit_in_a_word, False),
        "age": (lambda c: _age(c.offer, now) + (" !" if c.offer.flags else ""), False),
    }
    left_out = {"age"} if compact else set()
    if all(candidate.after_credits_usd is None for candidate in estimate.candidates):
        left_out.add("you pay $")
    if estimate.question.goal.deadline is None or compact:
        left_out.add("P(in time)")
    return {name: column for name, column in columns.items() if name not in left_out}


def _machines(candidate: Candidate) -> str:
    gpus = _gpus(candidate.offer)
    return f"{candidate.nodes} x {gpus}" if candidate.nodes > 1 else gpus


def _chance(candidate: Candidate) -> str:
    chance = candidate.p_finish_by_deadline
    return "?" if chance is None else f"{chance:.0%}"


def _paid(candidate: Candidate) -> str:
    """After your credits, the same without any."""
    return _number((candidate.after_credits_usd or candidate.cost_usd).p50, 2)


def _gpus(offer: Offer) -> str:
    return f"{offer.gpu}:{offer.gpus_per_node}"


def _best(best: Candidate) -> str:
    memory = best.memory
    lines = [
        f"best    {best.offer.cloud} {best.offer.instance_type or ''} {_gpus(best.offer)} in "
        f"{best.offer.zone or best.offer.region}: {best.parallelism.kind}, micro-batch {best.micro_batch} x "
        f"{best.grad_accum} accumulated, checkpointing {'on' if best.gradient_checkpointing else 'off'}",
        f"memory  {memory.reserved_gib:.1f} GiB a GPU (up to {memory.upper_gib:.1f}) of {memory.limit_gib:.1f}: "
        + ", ".join(_largest(memory.components_gib)),
        f"time    {best.step_time_s.p50:.2f} s a step, {best.tokens_per_s_total.p50:,.0f} tokens/s, "
        f"{best.gpu_hours.p50:.1f} GPU-hours",
        f"cost    {_lines(best)}",
    ]
    if best.after_credits_usd is not None:
        paid = best.cost_usd.p50 - best.after_credits_usd.p50
        lines.append(
            f"credits {_usd(paid)} of your credits with {best.offer.cloud} go into it, you pay "
            f"{span(best.after_credits_usd, 2)}; budget and cap count the whole cost"
        )
    if best.risk is not None and best.risk.interruptions:
        lines.append(f"risk    {_risk(best.risk)}")
    if best.finish_at is not None:
        rented = best.offer.market in ("spot", "on_demand")
        lines.append(
            f"finish  {_moment(best.finish_at[1])} (p50), {_moment(best.finish_at[2])} (p90) UTC"
            + (", if a machine is had at once (plan find asks)" if rented else "")
        )
    if best.offer.flags:
        lines.append(f"flags   {', '.join(best.offer.flags)}")
    return "\n".join(lines)


def _risk(risk: CandidateRisk) -> str:
    """Interruptions in words; what they cost on average is in no quantile."""
    wait = f", {risk.wait_h.p90:.1f} h without a machine (p90)" if risk.wait_h.p90 >= 0.05 else ""
    return (
        f"{risk.interruptions:.2g} interruptions expected, {risk.rework_h.p90 + risk.restart_h.p90:.2g} h lost to them "
        f"(p90){wait}; mean cost {_usd(risk.expected_cost_usd)}; a checkpoint every "
        f"{risk.checkpoint_interval_s / 60:.1f} min"
    )


def _moment(at: str) -> str:
    return at[:16].replace("T", " ")


def _lines(best: Candidate) -> str:
    """The cost lines that are a cent or more, or unknown."""
    lines = [
        f"{name} {'unknown' if value is None else _usd(value)}"
        for name, value in best.cost_tree_usd.items()
        if value is None or value >= 0.005
    ]
    return ", ".join(lines) or "less than a cent"


def _largest(components: dict[str, float], most: int = 4) -> Iterator[str]:
    for name, value in sorted(components.items(), key=lambda item: -item[1])[:most]:
        yield (
            f"{name.replace('_', ' ')} {value:.1f}"
            if value >= 0.1
            else f"{name.replace('_', ' ')} {value:.2g}"
        )


def _footer(estimate: Estimate, shown: int) -> Iterator[str]:
    yield (
        f"shown {shown} of {estimate.candidates_total:,} ways to run it; time and total are p50 (p10-p90), "
        "billed time and US dollars before tax"
    )
    doubts = Counter(flag for row in estimate.candidates[:shown] for flag in row.offer.flags)
    for flag, times in sorted(doubts.items()):
        numbers = _ram_of(estimate.candidates[:shown]) if flag == HOST_RAM_SHORT else ""
        yield f"! {flag} ({times} of them): {FLAGS.get(flag, 'see the source')}{numbers}"
    yield from _dropped(estimate.rejected)
    yield from _calibrated(estimate)
    for _, message in estimate.warnings:
        yield f"note: {message}"


def _ram_of(shown: Sequence[Candidate]) -> str:
    """What machines that are short of memory state, and what the job takes there."""
    short = [row for row in shown if HOST_RAM_SHORT in row.offer.flags]
    pairs = dict.fromkeys((row.offer.ram_gib or 0.0, row.host_ram_gib) for row in short)
    told = [f"{stated:g} GiB stated, {needed:.1f} needed" for stated, needed in pairs]
    floor = "; every machine of Vast's catalog states 64 GiB or more as 64" * any(
        row.offer.cloud == "vast" and row.offer.ram_gib == _VAST_RAM_GIB for row in short
    )
    return f": {'; '.join(told[:3])}{'; ...' if len(told) > 3 else ''}{floor}"


def _calibrated(estimate: Estimate) -> Iterator[str]:
    """What your own runs changed about the best candidate: nobody should wonder why an estimate moved."""
    learned = estimate.priced[0].solved.learned if estimate.priced else None
    if learned is not None and (moved := learned.noticed()):
        runs = "one of your runs" if len(learned.runs) == 1 else f"{len(learned.runs)} of your runs"
        yield f"note: calibrated by {runs}: {moved} (`plan calibrate`; --no-calibration leaves them out)"


def _dropped(rejected: Sequence[Rejection], most: int = 5) -> Iterator[str]:
    """One line a reason; everything that is too small is one reason."""
    small = [row for row in rejected if row.reason_code == "oom"]
    rest = [row for row in rejected if row.reason_code != "oom"]
    most += len(rest) == most + 1  # a line that stands for a single reason may as well say it
    for row in rest[:most]:
        yield f"dropped {_offers(row.count)}: {row.reason}"
    if len(rest) > most:
        yield f"dropped {_offers(sum(row.count for row in rest[most:]))} for {len(rest) - most} more reasons"
    if small:
        names = [row.reason.partition(":")[0] for row in small]
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        yield f"dropped {_offers(sum(row.count for row in small))}: too little memory ({', '.join(names[:4])}{more})"


def _offers(count: int) -> str:
    return _counted(count, "offer")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def duration(hours: Quantiles, *, interval: bool) -> str:
    """Hours, or minutes or seconds where an hour is too coarse."""
    unit, size = next(
        (u, s) for u, s in (("h", 1.0), ("min", 60.0), ("s", 3600.0)) if hours.p50 * s >= 1 or u == "s"
    )
    middle = f"{_number(hours.p50 * size, 1)} {unit}"
    return f"{middle} ({_number(hours.p10 * size, 1)}-{_number(hours.p90 * size, 1)})" if interval else middle


def span(value: Quantiles, digits: int) -> str:
    """p50 (p10-p90)."""
    return f"{_number(value.p50, digits)} ({_number(value.p10, digits)}-{_number(value.p90, digits)})"


def _number(value: float, digits: int) -> str:
    return f"{value:,.{0 if value >= 1000 else digits}f}"


def _usd(value: float) -> str:
    return f"{value:,.2f}"


def _count(value: float) -> str:
    """Three digits and a unit; what rounds to a thousand of one is one of the next."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {unit}" if value < 999.5 * size else f"{value / size:,.0f} {unit}"
    return f"{value:.0f}"


def _age(offer: Offer, now: datetime) -> str:
    """Days since the price was true."""
    if offer.market == "local":
        return "own"
    return age_text(offer.as_of_at, now)
