"""Whether the worker can learn from a spec's data: its own reading, done here before a machine costs anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jobs.data import check_held_out, check_training_data, first_chars
from jobs.data_files import files_of, read_rows
from jobs.formats import CHECKS, Row, format_of, is_conversation, is_talk
from jobs.spec import DataFormat, DataJob
from jobs.tool_calls import calls_of
from planner.data_cache import WHERE
from planner.errors import Finding
from planner.spec import FineTuneSpec
from planner.specfile import data_ref
from providers.errors import TuneplanError

#: Of each file, for an estimate: about 20 ms.
SAMPLED_CHARS = 2_000_000


def unnamed_data(spec: FineTuneSpec) -> Iterator[Finding]:
    """A spec that names nothing to train on."""
    if spec.data.train is None:
        hint = "name a file or a directory, a data set of the Hub (org/name), or an s3://, gs:// or https:// address"
        yield Finding("there is no data to train on", path="data.train", code="data_missing", hint=hint)


def missing_data(spec: FineTuneSpec, base_dir: Path) -> Iterator[Finding]:
    """Data that should be on this machine and is not, or that is no data set."""
    yield from unnamed_data(spec)
    guard = spec.evaluate.guard
    wanted = {"data.train": spec.data.train, "data.eval": spec.data.eval}
    wanted["evaluate.guard.data"] = None if guard is None else guard.data
    for key, text in wanted.items():
        if text is None:
            continue
        reference = data_ref(base_dir, text)
        if reference.kind != "path":
            from providers.web import shown_address

            message = f"{shown_address(text)} is not on this machine"
            yield Finding(
                message, path=key, code="data_missing", hint="`plan data fetch SPEC` brings it here"
            )
        elif not Path(reference.value).exists():
            yield Finding(f"there is no file {reference.value}", path=key, code="data_missing")
        elif Path(reference.value).is_dir():
            yield from _directory(Path(reference.value), key)


def _directory(path: Path, key: str) -> Iterator[Finding]:
    """A directory that the worker could not read as one data set."""
    try:
        files_of(path)
    except TuneplanError as error:
        yield Finding(error.message, path=key, code="data_missing", hint=error.hint)


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


def talks(spec: FineTuneSpec, base_dir: Path) -> bool:
    """Whether the first example, or what the spec says of those elsewhere, is a conversation: writing it takes a chat
    template.
    """
    train = _local(base_dir, spec.data.train)
    if train is None:
        return spec.data.format == "messages"
    try:
        row = next((row for *_, row in read_rows(train)), {})
    except TuneplanError:
        return False
    kind = format_of(row) if spec.data.format == "auto" else spec.data.format
    return kind is not None and any(is_talk(row.get(key)) for key in CHECKS[kind][1])


def calls_tools(spec: FineTuneSpec, base_dir: Path, most_chars: int | None = None) -> bool:
    """Whether an answer in the training data calls a tool: some chat templates leave that out.

    Args:
        spec: Names the data.
        base_dir: Directory that the spec's paths are relative to.
        most_chars: Look at the first rows of about so many characters only, None for all.
    """
    train = _local(base_dir, spec.data.train)
    if train is None:
        return False
    try:
        rows = read_rows(train) if most_chars is None else first_chars(read_rows(train), most_chars)
        return any(_calls(row) for *_, row in rows)
    except TuneplanError:
        return False


def _calls(row: Row) -> bool:
    talks = (value for value in row.values() if is_conversation(value))
    return any(isinstance(one, dict) and calls_of(one) for talk in talks for one in talk)


def data_warnings(spec: FineTuneSpec, base_dir: Path) -> Iterator[tuple[str, str]]:
    """A warning for what `plan launch` will refuse, as far as the first rows show it."""
    for finding in unlearnable(spec, base_dir, most_chars=SAMPLED_CHARS):
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
