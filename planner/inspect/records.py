"""Reads examples of any kind one after another; what cannot be read is a broken record, not the end."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from jobs.data_files import parquet_rows, table_rows
from jobs.formats import CHECKS, as_known, format_of
from jobs.tool_calls import call_texts, calls_of, check_calls, check_tools, tool_texts
from planner.inspect.file_kinds import check_text_file
from providers.errors import UsageError

DataFormat = Literal["messages", "prompt_completion", "preference", "unpaired", "label", "text", "prompt"]

#: Tokens of a chat template around one message (ChatML: two markers, role, two line ends), and of an end mark.
_TOKENS_PER_MESSAGE, _TOKENS_PER_END = 5, 1
#: Around one call of a tool (two markers, two line ends), and what is said of tools that are offered: the templates of
#: Qwen 2.5, Qwen 3 and Llama 3.1 take 90 to 115 for it by `planner.token_guess`, GPT-OSS's takes 20.
_TOKENS_PER_CALL, _TOKENS_PER_OFFER = 4, 90
_PICTURES = frozenset({"image", "image_url", "input_audio", "audio", "video"})


@dataclass(frozen=True, slots=True)
class Record:
    """One example, or a line that is none.

    Attributes:
        line: Line (row of a Parquet file) it begins in, from 1.
        prompt: What is given, without what is learned; the whole context of a conversation.
        answer: What is learned (of a preference pair the chosen and the rejected answer).
        label: Class, None if there is none.
        marks: Tokens that the format adds: chat markers, end of text.
        parts: Number of texts.
        glue: What stands between prompt and answer when they are tokenised.
        problem: Why it is no example, None if it is one.
        kind: Its format, None if its keys are of none.
        offers: Tools that the prompt offers, the same in many examples.
    """

    line: int
    prompt: str = ""
    answer: str = ""
    label: str | None = None
    marks: int = 0
    parts: int = 0
    glue: str = "\n"
    problem: str | None = None
    kind: DataFormat | None = None
    offers: str = ""

    @property
    def text(self) -> str:
        """Everything that is tokenised."""
        return self.glue.join(filter(None, (self.offers, self.prompt, self.answer)))

    @property
    def own_text(self) -> str:
        """What makes it another example than those that are offered the same tools."""
        return self.glue.join(filter(None, (self.prompt, self.answer)))


def read_records(path: Path, wanted: DataFormat | None = None) -> Iterator[Record]:
    """Records in file order; empty lines of a text file are none.

    Args:
        path: .jsonl, .ndjson, .json (one object a line), .csv, .tsv, .parquet; anything else is text by lines.
        wanted: Format of every record, None to go by the keys of the first that has a known one, as the worker does.

    Raises:
        UsageError: The file cannot be opened, is no text (`check_text_file`), or no Parquet file.
        MissingExtraError: A Parquet file, and pyarrow is not installed.
    """
    reader = _READERS.get(path.suffix.lower(), _text_rows)
    try:
        if reader is not parquet_rows:
            check_text_file(path)
        for line, row in reader(path):
            record = Record(line, problem=row) if isinstance(row, str) else _record(line, row, wanted)
            wanted = wanted or record.kind
            yield record
    except (OSError, csv.Error) as error:
        raise UsageError(f"cannot read {path}: {error}", path=str(path)) from error


Row = dict[str, Any] | str  # a text is the problem of the line


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                row = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError:
                yield number, "not UTF-8"
            except (ValueError, RecursionError):
                yield number, "not JSON"
            else:
                yield number, row if isinstance(row, dict) else "not a JSON object"


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = table_rows(path, file)
        _check_separator(path, reader.fieldnames or ())
        before = 1
        for row in reader:
            line, before = before + 1, reader.line_num
            if None in row or None in row.values():
                yield line, "number of columns differs from the header"
            else:
                yield line, row if _is_text(row.values()) else "not UTF-8"


def _check_separator(path: Path, names: Sequence[str]) -> None:
    """Refuse a file with one column whose name holds the separator that was meant."""
    other = next((sign for sign in ";\t|," if len(names) == 1 and sign in names[0]), None)
    if other is not None:
        raise UsageError(
            f"{path} separates its columns by {other!r}",
            hint="give a .csv with commas, a .tsv with tabs, or JSONL",
            path=str(path),
        )


def _is_text(values: Iterable[str]) -> bool:
    """Whether no byte was kept as a surrogate because it is not UTF-8."""
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return False
    return True


def _text_rows(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                yield number, {"text": raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")}
            except UnicodeDecodeError:
                yield number, "not UTF-8"


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Row]]]] = {
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".parquet": parquet_rows,
}


def _record(line: int, row: dict[str, Any], wanted: DataFormat | None) -> Record:
    row = as_known(row)
    kind = wanted or cast("DataFormat | None", format_of(row))
    if kind is None:
        keys = ", ".join(sorted(map(str, row))[:6]) or "none"
        return Record(line, problem=f"no known format has the keys {keys}")
    try:
        record, problem = _BUILDERS[kind](line, row), CHECKS[kind][0](row)
    except (KeyError, TypeError, ValueError) as error:
        record, problem = Record(line), str(error)
    if problem is not None:
        return Record(line, problem=f"not of format {kind}: {problem}", kind=kind)
    return replace(record, kind=kind)


def _text(value: Any, key: str) -> str:
    """A text, or the texts of a list of messages or parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        if any(isinstance(one, dict) and _PICTURES & {*one, one.get("type")} for one in value):
            raise ValueError(f"{key} has an image or sound, and only texts are trained on")
        return "\n".join(_said(one, key) if isinstance(one, dict) else _text(one, key) for one in value)
    raise ValueError(f"{key} is missing" if value is None else f"{key} is no text")


def _said(message: Mapping[str, Any], key: str) -> str:
    """The text of a message and the tools that it calls, or that of a part."""
    if problem := check_calls(message):
        raise ValueError(problem)
    calls, content = calls_of(message), message.get("content", message.get("text"))
    if not calls:
        return _text(content, key)
    return "\n".join([*([] if content is None else [_text(content, key)]), *call_texts(message)])


def _messages(line: int, row: Mapping[str, Any]) -> Record:
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages is no list of messages")
    messages = [one for one in messages if isinstance(one, dict)]
    if problem := check_tools(row):
        raise ValueError(problem)
    turns = [(one.get("role"), _said(one, "content")) for one in messages]
    learned = [text for role, text in turns if role == "assistant"]
    given = [text for role, text in turns if role != "assistant"]
    offers = "\n".join(tool_texts(row))
    calls = sum(len(calls_of(one)) for one in messages)
    marks = _TOKENS_PER_MESSAGE * len(turns) + _TOKENS_PER_CALL * calls + _TOKENS_PER_OFFER * bool(offers)
    return Record(line, "\n".join(given), "\n".join(learned), marks=marks, parts=len(turns), offers=offers)


def _prompt_completion(line: int, row: Mapping[str, Any]) -> Record:
    prompt, answer = _text(row.get("prompt"), "prompt"), _text(row.get("completion"), "completion")
    return Record(line, prompt, answer, marks=_TOKENS_PER_END, parts=2, glue="")


def _preference(line: int, row: Mapping[str, Any]) -> Record:
    prompt = _text(row["prompt"], "prompt") if row.get("prompt") is not None else ""
    chosen, rejected = _text(row.get("chosen"), "chosen"), _text(row.get("rejected"), "rejected")
    # the prompt is computed with each of the two answers
    return Record(line, f"{prompt}\n{prompt}" if prompt else "", f"{chosen}\n{rejected}", marks=2, parts=3)


def _label(line: int, row: Mapping[str, Any]) -> Record:
    return Record(line, _text(row.get("text"), "text"), label=str(row.get("label")), marks=2, parts=1)


def _plain(line: int, row: Mapping[str, Any]) -> Record:
    return Record(line, answer=_text(row.get("text"), "text"), marks=_TOKENS_PER_END, parts=1)


def _prompt(line: int, row: Mapping[str, Any]) -> Record:
    return Record(line, _text(row.get("prompt"), "prompt"), parts=1)


_BUILDERS: dict[DataFormat, Callable[[int, Mapping[str, Any]], Record]] = {
    "messages": _messages,
    "prompt_completion": _prompt_completion,
    "preference": _preference,
    "unpaired": _prompt_completion,
    "label": _label,
    "text": _plain,
    "prompt": _prompt,
}
