"""Reads the examples to learn from and checks each one: a bad line is named before GPU time is spent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast

from jobs.data_files import Located, bad_row, data_sha256, read_rows
from jobs.formats import CHECKS, Row, format_of, is_talk, truth
from jobs.spec import DataFormat, DataJob, GuardJob, Task
from jobs.tool_calls import tools_json, with_calls
from providers.errors import UsageError

_FORMATS: dict[Task, tuple[DataFormat, ...]] = {
    "sft": ("prompt_completion", "messages", "text"),
    "classification": ("label",),
    "dpo": ("preference",),
    "reward": ("preference",),
    "kto": ("unpaired", "preference"),
    "grpo": ("prompt",),
}
# Data made for one task that another can learn from: a completion is the answer that rewards compare with.
_READ_AS: dict[tuple[Task, DataFormat], DataFormat] = {
    ("grpo", "prompt_completion"): "prompt",
    ("grpo", "unpaired"): "prompt",
    ("sft", "unpaired"): "prompt_completion",
}


@dataclass(frozen=True, slots=True)
class Examples:
    """Checked examples in file order.

    Attributes:
        format: As in the job, never auto. Conversations that each end in their only answer
            come as prompt_completion, both lists of messages: then only the answer is learned.
        train: Rows with the keys of the format only; labels are class indices. Conversations of data in which any
            row offers tools have theirs beside them, as JSON, or None.
        eval: Held-out rows, empty if the job has none.
        label_names: Class names by index, for classification.
        guard: Rows of the general hold-out, empty if the job has none.
    """

    format: DataFormat
    train: list[Row]
    eval: list[Row]
    label_names: tuple[str, ...] = ()
    guard: list[Row] = field(default_factory=list)

    @property
    def held_out(self) -> dict[str, list[Row]]:
        """Rows to measure on, by split; without splits that have none."""
        return {name: rows for name, rows in (("eval", self.eval), ("guard", self.guard)) if rows}


def load_examples(
    data: DataJob,
    task: Task,
    base: Path,
    *,
    eval_samples: int | None = None,
    guard: GuardJob | None = None,
) -> Examples:
    """Read and check the training and the held-out files.

    Args:
        data: Files and format.
        task: Decides which formats it can learn from.
        base: Directory that relative paths start from.
        eval_samples: At most this many held-out rows, the first ones.
        guard: The general hold-out.

    Raises:
        UsageError: A file is missing, empty or unreadable, or a row is wrong (named as file:line).
    """
    train_path = base / data.train
    train = list(read_rows(train_path))
    if not train:
        raise _no_example(train_path)
    found = _learned_format(train[0][2], data, task, train_path)
    names = (data.label_names or ()) if found == "label" else ()
    if found == "label" and not names:
        located = _checked(train, found)
        names = _label_names({str(row["label"]) for *_, row in located}, data.labels, train_path)
    rows = _all_kept(train, found, names)
    held_out = _held_out(data.eval, eval_samples, found, names, base)
    guarded = [] if guard is None else _held_out(guard.data, guard.samples, found, names, base)
    if found == "messages" and all(_is_one_answer(row) for row in (*rows, *held_out, *guarded)):
        rows, held_out, guarded = (_split_answers(part) for part in (rows, held_out, guarded))
        found = "prompt_completion"
    return Examples(found, rows, held_out, names, guarded)


def check_training_data(
    data: DataJob, task: Task, base: Path, *, most_chars: int | None = None
) -> tuple[DataFormat, tuple[str, ...]]:
    """Refuse what `load_examples` would refuse of the training data, row by row, with nothing kept.

    Args:
        data: Files and format.
        task: Decides which formats it can learn from.
        base: Directory that relative paths start from.
        most_chars: Look at the first rows of about so many characters only, None for all.

    Returns:
        The format, and the names of the classes, if there are any.

    Raises:
        UsageError: As `load_examples`.
        MissingExtraError: A Parquet file, and pyarrow is not installed.
    """
    path = base / data.train
    rows = read_rows(path)
    first = next(rows, None)
    if first is None:
        raise _no_example(path)
    found = _learned_format(first[2], data, task, path)
    whole = chain((first,), rows)
    head = whole if most_chars is None else first_chars(whole, most_chars)
    labels: set[str] = set()
    for *_, row in _checked(head, found, data.label_names or ()):
        if found == "label" and len(labels) <= data.labels:
            labels.add(str(row["label"]))
    if found != "label":
        return found, ()
    is_whole = next(whole, None) is None
    return found, data.label_names or _label_names(labels, data.labels, path, is_whole=is_whole)


def check_held_out(
    path: Path,
    samples: int | None,
    kind: DataFormat,
    names: tuple[str, ...],
    *,
    most_chars: int | None = None,
) -> None:
    """Refuse what `load_examples` would refuse of held-out rows.

    Args:
        path: File or directory.
        samples: At most this many rows are read.
        kind: Format of the training data.
        names: Names of its classes; without them labels are taken as they are.
        most_chars: As for `check_training_data`.

    Raises:
        UsageError: As `load_examples`.
        MissingExtraError: A Parquet file, and pyarrow is not installed.
    """
    rows: Iterator[Located] = islice(read_rows(path), samples)
    found = _checked(rows if most_chars is None else first_chars(rows, most_chars), kind, names)
    if next(found, None) is None:
        raise _no_example(path)
    for _ in found:
        pass


def first_chars(rows: Iterator[Located], most: int) -> Iterator[Located]:
    """Rows until so many characters have come."""
    seen = 0
    while seen < most and (located := next(rows, None)) is not None:
        seen += len(repr(located[2]))
        yield located


def _held_out(
    name: str | None, samples: int | None, kind: DataFormat, names: tuple[str, ...], base: Path
) -> list[Row]:
    """The first rows of a file or directory, in the format of the training data."""
    if name is None:
        return []
    rows = list(islice(read_rows(base / name), samples))
    if not rows:
        raise _no_example(base / name)
    return _all_kept(rows, kind, names)


def _no_example(path: Path) -> UsageError:
    return UsageError(f"{path} holds no example", code="bad_data", path=str(path))


def data_hashes(data: DataJob, base: Path) -> dict[str, str]:
    """Hexadecimal sha256 of the data by use: train, eval."""
    named = {"train": data.train, "eval": data.eval}
    return {use: data_sha256(base / name) for use, name in named.items() if name is not None}


def _learned_format(row: Row, data: DataJob, task: Task, path: Path) -> DataFormat:
    """What the task takes the data for, by the job or by its first row."""
    found = _format_of(row, path) if data.format == "auto" else data.format
    found = _READ_AS.get((task, found), found)
    if found not in _FORMATS[task]:
        hint = f"it learns from {' or '.join(_FORMATS[task])}"
        message = f"{path}: task {task} cannot learn from data of format {found}"
        raise UsageError(message, hint=hint, code="bad_data", path=str(path))
    return found


def _format_of(row: Row, path: Path) -> DataFormat:
    found = format_of(row)
    if found is not None:
        return cast(DataFormat, found)
    keys = ", ".join(sorted(map(str, row))) or "none"
    hint = (
        "use prompt and completion, messages, text, text and label, chosen and rejected, or prompt; "
        "instruction and output, or conversations, are read as Alpaca's and ShareGPT's"
    )
    raise UsageError(
        f"{path}: no known format has the keys {keys}", hint=hint, code="bad_data", path=str(path)
    )


def _is_one_answer(row: Row) -> bool:
    roles = [message["role"] for message in row["messages"]]
    return len(roles) > 1 and roles[-1] == "assistant" and "assistant" not in roles[:-1]


def _split_answers(rows: list[Row]) -> list[Row]:
    return [
        {
            "prompt": row["messages"][:-1],
            "completion": row["messages"][-1:],
            **{key: value for key, value in row.items() if key != "messages"},
        }
        for row in rows
    ]


def _checked(rows: Iterable[Located], kind: DataFormat, names: tuple[str, ...] = ()) -> Iterator[Located]:
    """The rows, each of which something can be learned from; labels are looked up in the names if there are any."""
    check, shape = CHECKS[kind][0], None
    for path, number, row in rows:
        problem = check(row)
        if problem is None and names and str(row["label"]) not in names:
            problem = f"label {row['label']!r} is none of {', '.join(names[:10])}"
        if problem is None and kind in ("preference", "unpaired", "prompt"):
            shape = shape or _shape(row)
            if _shape(row) != shape:
                problem = "its keys, or texts against messages, differ from the first example"
        if problem is not None:
            raise bad_row(path, number, problem)
        yield path, number, row


def _all_kept(rows: Iterable[Located], kind: DataFormat, names: tuple[str, ...]) -> list[Row]:
    keys = CHECKS[kind][1]
    kept = [_kept(row, kind, keys, names) for *_, row in _checked(rows, kind, names)]
    if kind != "prompt" and any("tools" in row for row in kept):
        return [{"tools": None, **row} for row in kept]  # the first row decides which keys the others have
    return kept


def _shape(row: Row) -> tuple[tuple[str, bool], ...]:
    return tuple(sorted((str(key), is_talk(value)) for key, value in row.items()))


def _kept(row: Row, kind: DataFormat, keys: tuple[str, ...], names: tuple[str, ...]) -> Row:
    if kind == "prompt":
        return _with_answer({key: _talk(value) if key == "prompt" else value for key, value in row.items()})
    kept = {key: _talk(row[key]) for key in keys if key in row}
    tools = tools_json(row) if any(map(is_talk, kept.values())) else None
    if tools is not None:
        kept["tools"] = tools
    if kind == "label":
        kept["label"] = names.index(str(row["label"]))
    if kind == "unpaired":
        kept["label"] = truth(row["label"])
    return kept


def _talk(value: Any) -> Any:
    """The messages of a conversation as templates expect them; what is no conversation stays as it is."""
    return [with_calls(message) for message in value] if is_talk(value) else value


def _with_answer(row: Row) -> Row:
    """All keys; a completion is called answer, since the trainer calls its own samples completions."""
    kept = {key: value for key, value in row.items() if key != "completion"}
    return {"answer": row["completion"], **kept} if "completion" in row else kept


def _label_names(found: set[str], labels: int, path: Path, *, is_whole: bool = True) -> tuple[str, ...]:
    """Class names by index: 0..n-1 for numbers, else the names in alphabetical order."""
    numbers = tuple(str(index) for index in range(labels))
    are_numbers = all(name.lstrip("-").isdigit() for name in found)
    shown = ", ".join(sorted(found)[:10])
    if len(found) > labels or (are_numbers and not found <= set(numbers)):
        message = f"{path}: labels {shown} do not fit {labels} classes"
        raise UsageError(message, hint="set data.labels, or count labels from 0", code="bad_data")
    if len(found) == 1 and is_whole:
        message = f"{path}: every example has the label {shown}, so there is nothing to tell apart"
        raise UsageError(message, hint="give examples of each class", code="bad_data")
    return numbers if are_numbers else tuple(sorted(found))
