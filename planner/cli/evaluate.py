"""`plan evaluate`: the metric of a base model, or of a finished one on new data, without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.output import echo_err, emit_json, output_option
from planner.cli.report_text import metrics_table
from providers.errors import UsageError

if TYPE_CHECKING:
    from planner.appraisal import Question

_EXAMPLE = """\b
Examples:
  plan evaluate spec.yaml --base
  plan evaluate my-run --data this-month.jsonl
  plan evaluate my-run --data this-month.jsonl --check || plan launch spec.yaml
"""


@click.command("evaluate", epilog=_EXAMPLE)
@click.argument("target", metavar="SPEC|RUN", shell_complete=complete_run)
@click.option("--base", is_flag=True, help="Measure the base model of SPEC: is training needed at all?")
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    help="New data of the same format for RUN. Default: its own held-out data.",
)
@click.option("--step", type=click.IntRange(0), help="A checkpoint of RUN. Default: its finished model.")
@click.option("--check", is_flag=True, help="End with 12 unless goal.metric is met.")
@output_option("table", "json")
@pass_app
def command(
    app: App, target: str, base: bool, data: Path | None, step: int | None, check: bool, output: str
) -> None:
    """Measure without training, on this machine, with the worker's own code.

    With --base the base model of SPEC on its held-out data; otherwise base and finished model of RUN, side by side.
    """
    from planner.appraisal import appraisal_document, appraise, meets_goal
    from planner.bundle import missing_requirements
    from planner.errors import QualityError
    from providers.errors import MissingExtraError

    if base and (data is not None or step is not None):
        raise UsageError("--base takes the data of the spec", hint="leave out --data and --step")
    if missing_requirements():
        raise MissingExtraError("train", "measuring a model")
    question = _of_spec(app, Path(target)) if base else _of_run(app, target, data, step)
    if check and question.job.evaluate.goal is None:
        raise UsageError("there is no goal to check", hint="give goal.metric in the spec")
    answer = appraise(question, echo_err)
    of = None if question.pointer is None else question.pointer.step
    document = {
        "run_id": None if base else question.job.run_id,
        **appraisal_document(question.job, of, answer),
    }
    if output == "json":
        emit_json("evaluate", document, now=app.now())
    else:
        click.echo(render_evaluation(document))
    if check and not meets_goal(question.job, answer):
        hint = "`plan launch` trains again" if not base else "so training is needed"
        raise QualityError(f"{answer.metric} is below its goal", hint=hint, code="below_goal")


def _of_spec(app: App, path: Path) -> Question:
    from planner.appraisal import question_of_spec
    from planner.proposal import spec_blockers
    from planner.specfile import load_spec

    loaded = load_spec(path)
    spec = app.data_cache().localised(loaded.spec, loaded.base_dir)
    loaded.refuse(spec_blockers(spec, loaded.base_dir, app.surroundings().environ))
    return question_of_spec(spec, loaded.base_dir)


def _of_run(app: App, name: str, data: Path | None, step: int | None) -> Question:
    from jobs.spec import JobSpec
    from planner.appraisal import question_of_run
    from planner.cli.desk import open_ledger
    from providers.stores import open_store

    with open_ledger(app) as ledger:
        run = ledger.find(name)
    return question_of_run(
        JobSpec.from_json(run.terms.job_json), open_store(run.terms.checkpoint_uri), data, step
    )


def render_evaluation(document: dict[str, Any]) -> str:
    """The answer as text."""
    lines = [f"{document['run_id'] or document['name']} on {document['data']}", ""]
    lines += metrics_table(document["metrics"])
    goal = document["goal"]
    if goal is not None:
        met = goal["base_meets"] if goal["tuned_meets"] is None else goal["tuned_meets"]
        who = "base model" if goal["tuned_meets"] is None else "tuned model"
        lines += [
            "",
            f"goal: {goal['metric']} at least {goal['at_least']:g}: the {who} {'meets' if met else 'misses'} it",
        ]
        if goal["tuned_meets"] is None and met:
            lines.append("training would not start")
    return "\n".join(lines)
