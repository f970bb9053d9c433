"""What an example of each format must hold: one sentence about what is wrong with a row, or None."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jobs.tool_calls import calls_of, check_calls, check_tools

Row = dict[str, Any]
Check = Callable[[Row], str | None]

_ROLES = ("system", "developer", "user", "assistant", "tool")
_TRUTH = {"true": True, "false": False, "1": True, "0": False}
#: Roles as ShareGPT names them.
_SPEAKERS = {"human": "user", "gpt": "assistant", "model": "assistant"}
#: The prompt that Alpaca was trained with, which whoever takes over its data expects.
_ALPACA = (
    "Below is an instruction that describes a task{given}. "
    "Write a response that appropriately completes the request.\n\n"
)
_ALPACA_GIVEN = ", paired with an input that provides further context"
#: Keys beside Alpaca's own that change what is asked; rows that use them are not understood.
_ALPACA_MORE = ("system", "history")


def as_known(row: Row) -> Row:
    """The row with the keys of a format of ours beside its own, if it is Alpaca's or ShareGPT's; else the row itself.

    Alpaca's `instruction`, `input` and `output` make prompt and completion, ShareGPT's `conversations` make messages.

    >>> as_known({"conversations": [{"from": "human", "value": "2+2"}, {"from": "gpt", "value": "4"}]})["messages"]
    [{'role': 'user', 'content': '2+2'}, {'role': 'assistant', 'content': '4'}]
    """
    if isinstance(row.get("conversations"), list) and "messages" not in row:
        return {**row, "messages": list(_messages(row))}
    if isinstance(row.get("instruction"), str) and "output" in row and not any(map(row.get, _ALPACA_MORE)):
        return {"prompt": _alpaca_prompt(row), "completion": row["output"], **row}
    return row


def _messages(row: Row) -> Iterator[Any]:
    """Messages of a ShareGPT conversation, led by the row's system text; what is no message stays as it is."""
    system = row.get("system")
    if isinstance(system, str) and system:
        yield {"role": "system", "content": system}
    for turn in row["conversations"]:
        if isinstance(turn, Mapping) and "from" in turn and "value" in turn:
            speaker = str(turn["from"])
            yield {"role": _SPEAKERS.get(speaker, speaker), "content": turn["value"]}
        else:
            yield turn


def _alpaca_prompt(row: Row) -> str:
    given = row.get("input")
    more = f"### Input:\n{given}\n\n" if given else ""
    head = _ALPACA.format(given=_ALPACA_GIVEN if given else "")
    return f"{head}### Instruction:\n{row['instruction']}\n\n{more}### Response:\n"


def format_of(row: Row) -> str | None:
    """The format that the keys of a row tell, None if there is none.

    >>> format_of({"prompt": "2+2=", "completion": "5", "label": False})
    'unpaired'
    """
    if "chosen" in row and "rejected" in row:
        return "preference"
    if "messages" in row:
        return "messages"
    if "prompt" in row and "completion" in row:
        return "unpaired" if "label" in row else "prompt_completion"
    if "text" in row:
        return "label" if "label" in row else "text"
    return "prompt" if "prompt" in row else None


def is_talk(value: Any) -> bool:
    """Whether a value is a list of messages, not a text."""
    return isinstance(value, list)


def is_conversation(value: Any) -> bool:
    """Whether a value of any key is a list of messages, not another list."""
    return is_talk(value) and bool(value) and isinstance(value[0], Mapping) and "role" in value[0]


def truth(value: Any) -> bool | None:
    """True or false as JSON and CSV files write it, None if it is neither."""
    if isinstance(value, bool):
        return value
    return _TRUTH.get(str(value).strip().lower()) if isinstance(value, str | int) else None


def check_prompt_completion(row: Row) -> str | None:
    """Two texts; the completion is not empty."""
    return _need_text(row, "prompt", empty=True) or _need_text(row, "completion")


def check_messages(row: Row) -> str | None:
    """A conversation with an answer of the assistant."""
    problem = _need_talk(row.get("messages"), "messages") or check_tools(row)
    if problem is None and all(message["role"] != "assistant" for message in row["messages"]):
        return "no message of the assistant to learn from"
    return problem


def check_text(row: Row) -> str | None:
    """One text."""
    return _need_text(row, "text")


def check_label(row: Row) -> str | None:
    """One text and its class, a text or a number."""
    label = row.get("label")
    if label is None or label == "" or (isinstance(label, float) and math.isnan(label)):
        return _need_text(row, "text") or "label is missing"
    return _need_text(row, "text") or (
        None if isinstance(label, str | int | float) else "label must be text or a number"
    )


def check_preference(row: Row) -> str | None:
    """A better and a worse answer, both texts or both conversations, and perhaps their common prompt."""
    keys = ["chosen", "rejected", *(["prompt"] if "prompt" in row else [])]
    problem = _alike(row, keys) or _offered(row, "chosen")
    if problem is None and row["chosen"] == row["rejected"]:
        return "chosen and rejected are the same"
    return problem


def check_unpaired(row: Row) -> str | None:
    """A prompt, an answer, and whether the answer is good."""
    problem = _alike(row, ["prompt", "completion"]) or _offered(row, "completion")
    if problem is None and truth(row.get("label")) is None:
        return "label must be true or false"
    return problem


def check_prompt(row: Row) -> str | None:
    """A prompt; further keys go to the reward functions."""
    return _alike(row, ["prompt"])


CHECKS: dict[str, tuple[Check, tuple[str, ...]]] = {
    "prompt_completion": (check_prompt_completion, ("prompt", "completion")),
    "messages": (check_messages, ("messages",)),
    "text": (check_text, ("text",)),
    "label": (check_label, ("text", "label")),
    "preference": (check_preference, ("prompt", "chosen", "rejected")),
    "unpaired": (check_unpaired, ("prompt", "completion", "label")),
    "prompt": (check_prompt, ("prompt",)),
}
"""Check of each format, and the keys that are kept; those of `prompt` are kept all."""


def _alike(row: Row, keys: list[str]) -> str | None:
    """All texts or all conversations."""
    talks = [is_talk(row.get(key)) for key in keys]
    if len(set(talks)) > 1:
        return f"{' and '.join(keys)} must be all texts or all lists of messages"
    for key in keys:
        problem = _need_talk(row.get(key), key) if talks[0] else _need_text(row, key, empty=key == "prompt")
        if problem is not None:
            return problem
    return None


def _offered(row: Row, key: str) -> str | None:
    """What is wrong with the tools of a row of conversations; with texts the key means nothing."""
    return check_tools(row) if is_talk(row[key]) else None


def _need_talk(messages: Any, key: str) -> str | None:
    if not isinstance(messages, list) or not messages:
        return f"{key} must be a non-empty list"
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            return f"a message needs a role, one of {', '.join(_ROLES)}"
        if problem := check_calls(message):
            return problem
        silent = bool(calls_of(message)) and message.get("content") is None
        if not silent and not isinstance(message.get("content"), str):
            return "the content of a message must be text"
    return None


def _need_text(row: Row, key: str, *, empty: bool = False) -> str | None:
    value = row.get(key)
    if not isinstance(value, str):
        return f"{key} is missing" if key not in row else f"{key} must be text"
    return None if value or empty else f"{key} is empty"
