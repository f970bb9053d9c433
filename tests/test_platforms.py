"""Estimate, prices and schema run where there is no POSIX: nothing on their path imports what Windows has not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "llama-3.1-8b-lora.yaml"
CATALOG = """\
InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region
p5.48xlarge,H100,8,192,2048,,55.04,21.5,us-east-1
"""
#: Modules that only POSIX has, as the standard library's index marks them.
HIDDEN = ("fcntl", "grp", "posix_spawn", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty")
SCRIPT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

for name in {hidden!r}:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent())
from planner.cli.main import main
sys.argv[1:] = {words!r}
main()
"""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(hidden=HIDDEN, words=list(words))
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "words",
    [
        ("estimate", str(EXAMPLE)),
        ("estimate", str(EXAMPLE), "-o", "json"),
        ("offers", "--gpu", "H100:8"),
        ("prices", "show"),
        ("prices", "import", "{catalogs}"),
        ("diff", str(EXAMPLE), str(EXAMPLE)),
        ("config", "show"),
        ("schema", "spec"),
        ("--help",),
    ],
    ids=lambda words: " ".join(words[:1]),
)
def test_it_runs_without_posix(words: tuple[str, ...], tmp_path: Path):
    (tmp_path / "aws").mkdir()
    (tmp_path / "aws/vms.csv").write_text(CATALOG)
    done = run(*(word.replace("{catalogs}", str(tmp_path)) for word in words))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout


def test_launching_says_what_it_needs():
    done = run("launch", str(EXAMPLE))
    assert (done.returncode, done.stdout) == (2, "")
    assert "plan launch needs Linux, macOS or WSL" in done.stderr
