"""Whether the worker can learn from a spec's data: its own reading, done here before a machine costs anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jobs.data import check_held_out, check_training_data
from jobs.spec import DataFormat, DataJob
from planner.data_cache import WHERE
from planner.errors import Finding
from planner.spec import FineTuneSpec
from planner.specfile import data_ref
from providers.errors import TuneplanError

#: Of each file, for an estimate: about 20 ms.
_SAMPLED_CHARS = 2_000_000


def unlearnable(spec: FineTuneSpec, base_dir: Path, *, most_chars: int | None = None) -> Iterator[Finding]:
    """The first thing in each file of this machine that the worker would refuse, with the file's line.

    Args:
        spec: Names the data, the task and the format.
        base_dir: Directory that the spec's paths are relative to.
        most_chars: Look at the first rows of about so many characters of each file, None for all.
    """
    train, held_out = _local(base_dir, spec.data.train), _local(base_dir, spec.data.eval)
    if train is None:
        return
    job = DataJob(str(train), format=spec.data.format, labels=spec.data.labels)
    try:
        kind, names = check_training_data(job, spec.task, base_dir, most_chars=most_chars)
    except TuneplanError as error:
        yield _finding("train", error)
        return
    names = names if most_chars is None else ()  # a sample need not show every class
    guard = spec.evaluate.guard
    guarded = None if guard is None else _local(base_dir, guard.data)
    for use, path, samples in (
        ("eval", held_out, spec.evaluate.samples),
        ("guard", guarded, None if guard is None else guard.samples),
    ):
        if path is not None:
            yield from _held_out(use, path, samples, kind, names, most_chars)


def data_warnings(spec: FineTuneSpec, base_dir: Path) -> Iterator[tuple[str, str]]:
    """A warning for what `plan launch` will refuse, as far as the first rows show it."""
    for finding in unlearnable(spec, base_dir, most_chars=_SAMPLED_CHARS):
        yield finding.code, f"cannot be trained on: {finding.message}"


def _local(base_dir: Path, text: str | None) -> Path | None:
    """Where data is on this machine, None if it is not."""
    reference = None if text is None else data_ref(base_dir, text)
    if reference is None or reference.kind != "path" or not Path(reference.value).exists():
        return None
    return Path(reference.value)


def _held_out(
    use: str,
    path: Path,
    samples: int | None,
    kind: DataFormat,
    names: tuple[str, ...],
    most_chars: int | None,
) -> Iterator[Finding]:
    try:
        check_held_out(path, samples, kind, names, most_chars=most_chars)
    except TuneplanError as error:
        yield _finding(use, error)


def _finding(use: str, error: TuneplanError) -> Finding:
    return Finding(error.message, path=WHERE[use], code=error.code, hint=error.hint)
