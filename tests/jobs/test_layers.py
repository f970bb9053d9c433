"""The worker's code starts with the standard library alone, from nothing but its bundle."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import jobs

ROOT = Path(jobs.__file__).parents[1]
CHECK = """
import pkgutil, sys
import jobs, jobs.train
import providers.sealed, providers.renewed_keys  # open the secrets before the worker starts, and fetch newer ones
for module in pkgutil.iter_modules(jobs.__path__):
    __import__(f"jobs.{module.name}")
foreign = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(sorted(foreign - {"__main__", "__mp_main__"}))
print(sorted(name for name in sys.modules if name.startswith("providers.")))
"""


def test_the_bundle_needs_the_standard_library_only(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in jobs.BUNDLE_MODULES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    answer = subprocess.run(
        [sys.executable, "-S", "-c", CHECK],
        env={"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    foreign, ours = answer.stdout.splitlines()
    assert foreign == "['jobs', 'providers']"
    needed = {f"providers.{Path(name).stem}" for name in jobs.BUNDLE_MODULES if "__init__" not in name}
    assert ours == str(sorted(needed))
