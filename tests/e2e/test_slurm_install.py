"""A run on a real Slurm whose node has none of the worker's packages: set-up installs them with uv, once.

`UV_*` and `PIP_*` of this environment go to the node, since a test machine may have an index of its own.
"""

import os
import re
from pathlib import Path

import pytest

from tests.bed.bed import Bed
from tests.e2e.renting import Person, eventually, goat_spec, order_of, progress_of

pytestmark = [pytest.mark.slurm, pytest.mark.train, pytest.mark.long, pytest.mark.timeout(1800)]


def test_a_node_without_the_packages_gets_them(slurm_bed: Bed, person: Person, shared: Path) -> None:
    spec = goat_spec(shared, steps=60)
    named = {name: value for name, value in os.environ.items() if re.match("(UV|PIP|TUNEPLAN_TORCH)_?", name)}
    passed = "".join(f', {name}: "{value}"' for name, value in named.items())
    text = re.sub(r"python: [^,]*, ", "", spec.read_text())
    spec.write_text(text.replace('OMP_NUM_THREADS: "1"', f'OMP_NUM_THREADS: "1"{passed}'))
    person.plan(*order_of(person, spec, "bare"), "--yes")
    person.plan("wait", "bare")
    run = person.json("status", "bare")["run"]
    assert (run["state"], run["step"]) == ("succeeded", 60), person.plan("logs", "bare")
    assert progress_of(shared / "store/bare").stage_seconds["environment"] > 1
    eventually(lambda: slurm_bed.slurm.run("squeue", "-h") == "")
