"""`python -m jobs.appraise job.json --out FILE`: measures the base model, and with --adapter DIR a finished one too.

The model is built and measured as `jobs.train` does it, so that equal rows give equal numbers; nothing is trained.
`data.train` of the document is read for its format and the class names only. Exit codes as of `jobs.train`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from jobs.build import built
from jobs.codec import encode
from jobs.console import say
from jobs.data import load_examples
from jobs.evaluate import metric_of
from jobs.frameworks import import_frameworks
from jobs.inputs import bring_inputs
from jobs.progress import MetricResult, write_atomically
from jobs.scoring import measure, measure_base, results_of
from jobs.spec import JobSpec
from jobs.train import DONE, failed, set_defaults
from providers.errors import CorruptDataError


@dataclass(frozen=True, slots=True)
class Appraisal:
    """What was measured.

    Attributes:
        metric: The job's own.
        metrics: That one first.
        seconds: Wall-clock seconds of the whole.
    """

    metric: str
    metrics: tuple[MetricResult, ...]
    seconds: float
    schema: str = "tuneplan/appraisal"
    schema_version: int = 1


def main(arguments: list[str] | None = None) -> int:
    """Measure what a document describes; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m jobs.appraise", description="Measure one model.")
    parser.add_argument("job", type=Path, help="job.json; relative paths in it start from its directory")
    parser.add_argument("--adapter", type=Path, help="directory of a finished model of this job")
    parser.add_argument("--out", type=Path, required=True, help="where the answer goes, JSON")
    options = parser.parse_args(arguments)
    set_defaults(os.environ)
    try:
        job = JobSpec.load(options.job)
        answer = appraise(job, options.job.resolve().parent, options.adapter)
        write_atomically(options.out, encode(answer))
        return DONE
    except Exception as error:
        return failed(error)


def appraise(job: JobSpec, base: Path, adapter: Path | None) -> Appraisal:
    """Measure the base model on the job's held-out rows, and then a finished model.

    Args:
        job: What to measure on, and how the model was trained.
        base: Directory that relative paths in the job start from.
        adapter: Of a finished model, None to measure the base alone.

    Raises:
        TuneplanError: Data or model cannot be used.
    """
    start_s = time.monotonic()
    bring_inputs(job.inputs, base)
    examples = load_examples(job.data, job.task, base, eval_samples=job.evaluate.samples)
    metric = metric_of(job, examples.format)
    import_frameworks(job)
    with tempfile.TemporaryDirectory(prefix="plan-evaluate-") as scratch:
        training = built(job, base, examples, Path(scratch), processes=1)
    before = measure_base(training, "eval", lambda: None)
    say(f"base: {metric} {before.values[metric]:.4f} on {before.n} rows")
    after = None
    if adapter is not None:
        try:
            training.trainer._load_from_checkpoint(str(adapter))
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            message = f"{adapter} is no finished model of this job: {error}"
            raise CorruptDataError(message, path=str(adapter)) from error
        after = measure(training, "eval", lambda: None)
        say(f"tuned: {metric} {after.values[metric]:.4f} on {after.n} rows")
    results = results_of("eval", metric, before, after)
    return Appraisal(metric, results, round(time.monotonic() - start_s, 3))


if __name__ == "__main__":
    sys.exit(main())
