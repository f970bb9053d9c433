"""A process that has paid for the imports once: it forks a child for each job, which then takes seconds.

Reads one JSON request a line on stdin and answers each with one line on stdout.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TRAINING = (
    *("datasets", "peft", "torch", "transformers"),
    *(f"trl.trainer.{kind}_trainer" for kind in ("dpo", "grpo", "kto", "reward", "sft")),
)


class Zygote:
    """The parent's side.

    Args:
        modules: What the process imports before it forks.
    """

    def __init__(self, modules: Sequence[str] = TRAINING) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.jobs.zygote", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
            text=True,
        )
        self._answer()

    def start(self, function: str, arguments: Sequence[str], log: Path) -> int:
        """Call `module:function(arguments)` in a new process; its pid. Its result is the exit code."""
        return int(self._ask(start=function, arguments=list(arguments), log=str(log))["pid"])

    def wait(self, pid: int) -> int:
        """Exit code, negative for a signal."""
        return int(self._ask(wait=pid)["code"])

    def call(self, function: str, *arguments: str, log: Path) -> None:
        """Start, wait, and insist on success."""
        code = self.wait(self.start(function, arguments, log))
        assert code == 0, log.read_text()

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=60)

    def _ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the zygote died"
        return json.loads(line)


def _serve() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    gc.freeze()  # as workers do after their imports
    print("{}", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            print(json.dumps({"pid": _fork(request)}), flush=True)
        else:
            _, status = os.waitpid(request["wait"], 0)
            print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def _fork(request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        module, _, name = request["start"].partition(":")
        code = getattr(importlib.import_module(module), name)(request["arguments"]) or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
