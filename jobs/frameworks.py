"""The frameworks of a training, imported once and without what they would take along."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobs.console import say
from jobs.spec import JobSpec
from jobs.spec_rules import BITSANDBYTES

#: transformers, peft and trl import these because they are installed, a second or two of CPU each; no job of ours needs
#: them through those. What a person's own code imports afterwards is there.
_TAKEN_ALONG = ("sklearn", "scipy", "wandb", "mlflow", "comet_ml", "deepspeed")


@contextmanager
def exchanged(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Something else in the place of a framework's own function, which takes no argument for it."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def import_frameworks(job: JobSpec) -> None:
    """Pay for the imports here, so that their seconds are told apart from loading the model."""
    with lean_imports(job):
        import peft.import_utils
        import transformers
        import trl.trainer.sft_trainer

        peft.import_utils.is_bnb_available()  # asked first while adapters are made, and then remembered

    transformers.utils.logging.disable_progress_bar()
    say(f"transformers {transformers.__version__}, peft {peft.__version__}, trl {trl.__version__}")


@contextmanager
def lean_imports(job: JobSpec) -> Iterator[None]:
    """Inside, packages that the job does not need look as if they were not installed, unless they are imported.

    What is imported stays: the collector neither looks for garbage among it meanwhile nor ever again, which is a
    quarter of the CPU time of the imports and half a second of every full collection after them.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # warns of a CPU kernel
    names = _TAKEN_ALONG if _needs_bitsandbytes(job) else (*_TAKEN_ALONG, "bitsandbytes")
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None is how Python says "not to be found"
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collected:
            gc.enable()
        for name in absent:
            sys.modules.pop(name, None)


def _needs_bitsandbytes(job: JobSpec) -> bool:
    """Its package is half of the imports where it is installed, and most jobs have nothing to do with it."""
    return job.quantization != "none" or job.train.optimizer in BITSANDBYTES
