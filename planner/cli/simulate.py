"""`plan simulate`: what a job may cost and when it may be done, many times over."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.context import App, pass_app
from planner.cli.output import echo_err, emit_json, output_option
from planner.cli.telling import telling
from planner.whole_file import whole_file
from providers.errors import UsageError

if TYPE_CHECKING:
    from planner.deadline.simulate import Simulated
    from planner.simulation import Simulation
    from planner.specfile import LoadedSpec

_EXAMPLE = """\b
Examples:
  plan simulate spec.yaml
  plan simulate spec.yaml --jobs 500 --plot risk.svg
  plan simulate --traces TRACES.json.gz --jobs JOBS.csv --policy ours --out results.csv
JOBS.csv has the columns job_id, traces (ids, ';' between regions), start_tick, work_h, deadline_h,
restart_overhead_h and, if wanted, history_h.
With several regions the simple policies move free of charge; ours and omniscient pay for each move.
On records ours counts money alone; what SPEC is simulated with counts waiting too, as `plan launch --move` does.
"""
_POLICIES = ("ours", "uniform_progress", "greedy", "spot_else_on_demand", "on_demand", "omniscient")
_COLUMNS = ("job_id", "policy", "cost_usd", "finish_h", "late", "launches", "spot_h", "on_demand_h")


@click.command("simulate", epilog=_EXAMPLE)
@click.argument("spec_file", metavar="[SPEC]", type=click.Path(path_type=Path), required=False)
@click.option("--jobs", help="Simulated jobs of a spec (200), or the CSV file of jobs on traces.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the drawn zones.")
@click.option("--gpu", help="Only this GPU, as in A100-80GB.")
@click.option(
    "--count",
    type=click.IntRange(1, 1024),
    help="Only machines with this many GPUs each; where.nodes says how many machines.",
)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw cost and finish: .svg or .png.")
@click.option("--traces", type=click.Path(path_type=Path), help="Replay jobs on these records.")
@click.option("--policy", type=click.Choice(_POLICIES), default="ours", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="CSV of results, with --traces.")
@output_option("table", "json")
@pass_app
def command(
    app: App,
    /,
    spec_file: Path | None,
    jobs: str | None,
    seed: int,
    gpu: str | None,
    count: int | None,
    plot: Path | None,
    traces: Path | None,
    policy: str,
    out: Path | None,
    output: str,
) -> None:
    """Simulate SPEC on spot, on demand and by the deadline policy; or replay jobs on recorded markets."""
    if traces is not None:
        if spec_file is not None or jobs is None or out is None:
            hint = "plan simulate --traces FILE --jobs JOBS.csv --policy ours --out results.csv"
            raise UsageError("--traces needs --jobs and --out, and no spec", hint=hint)
        if plot is not None or gpu is not None or count is not None:
            raise UsageError("--plot, --gpu and --count are for a spec, not for --traces")
        _emit_replay(app, _replay(traces, Path(jobs), policy, out), output)
        return
    if out is not None:
        raise UsageError("--out is for --traces", hint="`plan simulate SPEC -o json` has all of a spec's")
    if spec_file is None:
        raise UsageError("name a spec, or records with --traces", hint="plan simulate spec.yaml")
    from planner.specfile import load_spec

    loaded = load_spec(spec_file)
    found = _simulated(app, loaded, _count(jobs), seed, gpu=gpu, count=count)
    if plot is not None:
        from planner.cli.simulate_plot import plot_simulation

        plot_simulation(found, f"{loaded.spec.name} on {loaded.spec.model.id}", plot)
        echo_err(f"plot written to {plot}")
    if output == "json":
        emit_json("simulate", found.document(), now=app.now())
    else:
        click.echo(found.text())


def _count(jobs: str | None) -> int:
    try:
        number = int(jobs or 200)
    except ValueError:
        raise UsageError(f"--jobs {jobs}: a whole number, or use --traces for a file of jobs") from None
    if not 20 <= number <= 100_000:
        raise UsageError("--jobs: 20 to 100000")
    return number


def _simulated(app: App, loaded: LoadedSpec, jobs: int, seed: int, **fixed: Any) -> Simulation:
    from planner.answer import estimate_spec
    from planner.intake import Overrides
    from planner.placing import placed_in
    from planner.simulation import simulate_estimate
    from planner.support import unsupported

    cache = app.data_cache()
    loaded = loaded._replace(spec=cache.localised(loaded.spec, loaded.base_dir))
    loaded.refuse(unsupported(loaded.spec))
    with placed_in(loaded):
        answer = estimate_spec(
            loaded.spec,
            loaded.base_dir,
            app.snapshot("clouds"),
            app.now(),
            overrides=Overrides(**fixed),
            limit=None,
            calibration=app.calibration(),
            spot_signals=app.spot_signals(),
            models=app.models(),
        )
    with telling("jobs", jobs) as tell:
        return simulate_estimate(answer.estimate, jobs, seed, tell)


def _replay(traces: Path, jobs: Path, policy: str, out: Path) -> dict[str, Any]:
    from planner.deadline.simulate import POLICIES, simulate_all
    from planner.deadline.traces import load_jobs, load_traces

    name = next(known for known in POLICIES if known == policy)
    total_usd, late = 0.0, 0
    found = list(load_jobs(jobs, load_traces(traces)))
    rows: dict[int, list[str]] = {}
    with telling("jobs", len(found)) as tell:
        for index, result in simulate_all(found, name):
            traced = found[index]
            impossible = result.late and result.outcome is None
            total_usd += 0.0 if impossible else result.cost_usd
            late += result.late
            cost = "" if impossible else f"{result.cost_usd:.6f}"
            rows[index] = [traced.job_id, policy, cost, *_went(result)]
            tell(len(rows))
    with whole_file(out) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([_COLUMNS, *(rows[index] for index in sorted(rows))])
    return {
        "policy": policy,
        "jobs": len(rows),
        "late": late,
        "cost_usd": f"{total_usd:.6f}",
        "out": str(out),
    }


def _went(result: Simulated) -> list[str]:
    """Columns of how it went; of the optimum only whether it can be in time."""
    late, went = str(int(result.late)), result.outcome
    if went is None:
        return ["", late, "", "", ""]
    finish, spot, on_demand = (f"{s / 3600:.4f}" for s in (went.finish_s, went.spot_s, went.on_demand_s))
    return [finish, late, str(went.launches), spot, on_demand]


def _emit_replay(app: App, found: dict[str, Any], output: str) -> None:
    if output == "json":
        emit_json("simulate_replay", found, now=app.now())
    else:
        click.echo(
            f"{found['jobs']} jobs, {found['late']} late, ${float(found['cost_usd']):,.2f} in all; "
            f"results in {found['out']}"
        )
