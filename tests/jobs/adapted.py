"""Counts what peft makes trainable on random models; a script: FILE SHAPES, each family's shape by its name."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.small_jobs import ENCODERS, make_base
from jobs.spec import CheckpointsJob, DataJob, JobSpec, MethodJob, ModelJob, TrainJob
from planner.architecture import adapter_parameters, load_architecture, parameter_counts
from planner.intake import adapter_of
from tests.planner.factories import spec_of


def _trained(family: str, shape: dict[str, Any], base: Path) -> tuple[int, int]:
    from peft import get_peft_model

    from jobs.model import adapter_config, load_model, load_tokenizer

    make_base([str(base), json.dumps({"model_type": family, **shape})])
    task = "classification" if family in ENCODERS else "sft"
    job = JobSpec(
        run_id="adapted",
        name="adapted",
        model=ModelJob("random", path=str(base)),
        data=DataJob("none"),
        task=task,  # type: ignore[arg-type]
        checkpoints=CheckpointsJob("file:///none", every_steps=1),
        method=MethodJob("lora", 8),
        train=TrainJob(steps=1),
    )
    names = ("a", "b") if task == "classification" else ()
    model = load_model(job, base, load_tokenizer(job, base), names)
    adapted = get_peft_model(model, adapter_config(job, model))
    made = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    arch = load_architecture(str(base))
    adapter = adapter_of(spec_of(method={"kind": "lora", "rank": 8}), arch)
    assert adapter is not None
    head = parameter_counts(arch, task, 2).head if task == "classification" else 0
    return made, adapter_parameters(arch, adapter) + head


def main(arguments: list[str]) -> int:
    """Write the pairs."""
    out, shapes = arguments
    found = {}
    for family, shape in json.loads(shapes).items():
        with tempfile.TemporaryDirectory() as folder:
            found[family] = _trained(family, shape, Path(folder))
    Path(out).write_text(json.dumps(found))
    return 0
