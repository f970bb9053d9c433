"""Turns a whole model into one GGUF file, with the converter that llama.cpp keeps for this."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from planner.errors import RunFailedError
from planner.finished_model import run_told
from providers.errors import MissingExtraError, UsageError

CONVERTER = "convert_hf_to_gguf.py"
#: Names the directory of llama.cpp.
VARIABLE = "LLAMA_CPP"
_MAGIC = b"GGUF"


def find_converter(environ: Mapping[str, str]) -> Path:
    """The converter in the directory that LLAMA_CPP names, else on PATH.

    Raises:
        UsageError: There is none; no package index carries it.
        MissingExtraError: It would find its packages missing.
    """
    given = environ.get(VARIABLE)
    found = str(Path(given, CONVERTER)) if given else shutil.which(CONVERTER, path=environ.get("PATH"))
    if found is None or not Path(found).is_file():
        where = f"in {given}" if given else "on this machine"
        hint = (
            f"`git clone --depth 1 https://github.com/ggml-org/llama.cpp`, then {VARIABLE}=./llama.cpp before "
            f"this command; or export with --merge and run {CONVERTER} elsewhere"
        )
        raise UsageError(f"there is no {CONVERTER} of llama.cpp {where}", hint=hint, code="no_converter")
    if find_spec("sentencepiece") is None:
        raise MissingExtraError("gguf", f"{CONVERTER} of llama.cpp")
    return Path(found).absolute()


def write_gguf(model: Path, out: Path, converter: Path, told: Callable[[str], None]) -> None:
    """Convert a directory that transformers loads, in 16 bits.

    Args:
        model: The directory.
        out: The file.
        converter: As `find_converter` gives it; it runs on this Python, which has torch and transformers.
        told: Called with each line of its log.

    Raises:
        RunFailedError: It does not know this architecture, or failed.
    """
    words = [sys.executable, str(converter), str(model), "--outfile", str(out), "--outtype", "auto"]
    code = run_told(words, {}, told)
    if code or not _is_gguf(out):
        hint = "the reason is above; --merge hands over the model as transformers loads it"
        raise RunFailedError(f"{CONVERTER} ended with exit code {code}", hint=hint)


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False
