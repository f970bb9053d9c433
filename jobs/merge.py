"""`python -m jobs.merge job.json --adapter DIR --out DIR`: the base model with its adapter worked in, as one model.

A quantised base is loaded whole, since weights are added to it. Exit codes as of `jobs.train`.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from jobs.console import say
from jobs.frameworks import lean_imports
from jobs.inputs import bring_inputs
from jobs.model import load_model, load_tokenizer, save_processor
from jobs.spec import JobSpec
from jobs.spec_rules import PROMPT_LEARNING
from jobs.train import DONE, failed, set_defaults
from providers.errors import CorruptDataError, UsageError


def main(arguments: list[str] | None = None) -> int:
    """Merge what a document describes; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m jobs.merge", description="Merge an adapter.")
    parser.add_argument("job", type=Path, help="job.json; relative paths in it start from its directory")
    parser.add_argument("--adapter", type=Path, required=True, help="directory of the finished adapter")
    parser.add_argument("--out", type=Path, required=True, help="directory that the model is written to")
    options = parser.parse_args(arguments)
    set_defaults(os.environ)
    try:
        merge(JobSpec.load(options.job), options.job.resolve().parent, options.adapter, options.out)
        return DONE
    except Exception as error:
        return failed(error)


def merge(job: JobSpec, base: Path, adapter: Path, out: Path) -> None:
    """Write the merged model with its tokenizer.

    Args:
        job: How the adapter was trained.
        base: Directory that relative paths in the job start from.
        adapter: The finished adapter.
        out: Directory.

    Raises:
        UsageError: Adapters of this kind cannot be merged.
        CorruptDataError: The adapter does not go with the base model.
        TuneplanError: The base model cannot be loaded.
    """
    if job.method.kind in PROMPT_LEARNING:
        hint = "export it with --adapter"
        raise UsageError("learned tokens cannot be merged into the weights of a model", hint=hint)
    bring_inputs(job.inputs, base)
    whole = replace(job, quantization="none")
    with lean_imports(whole):
        from peft import PeftModel

    tokenizer = load_tokenizer(whole, base)
    model = load_model(whole, base, tokenizer, job.data.label_names or ())
    try:
        tuned = PeftModel.from_pretrained(model, str(adapter))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        message = f"{adapter} is no adapter of {job.model.source}: {error}"
        raise CorruptDataError(message, path=str(adapter)) from error
    merged = tuned.merge_and_unload(safe_merge=True)  # refuses weights that are no numbers
    merged.save_pretrained(str(out))
    tokenizer.save_pretrained(str(out))
    save_processor(whole, base, merged, out)
    say(
        f"merged into {job.model.source}: {sum(weight.numel() for weight in merged.parameters()):,} parameters"
    )


if __name__ == "__main__":
    sys.exit(main())
