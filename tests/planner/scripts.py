"""Scripts beside the tests, which answer JSON on stdin with JSON at the end of stdout."""

import json
import os
import subprocess
import sys
from pathlib import Path


def answer_of(script, asked, limit_s):
    """What the script of that name answers; on one core."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script))],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=limit_s,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout[done.stdout.rindex("[") :])
