"""Calls of tools in conversations and the tools that a row offers, in OpenAI's format: told apart, checked, written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Message = dict[str, Any]

#: What a message has besides its text; a table's files hold None where a message has none of it.
_OPTIONAL = ("tool_calls", "tool_call_id", "name")


def calls_of(message: Mapping[str, Any]) -> list[Any]:
    """The calls of a message that was checked, none if it is an ordinary one."""
    return message.get("tool_calls") or []


def check_calls(message: Mapping[str, Any]) -> str | None:
    """What is wrong with the calls of a message, None if nothing is or there are none."""
    calls = message.get("tool_calls")
    if not calls:
        return None
    if message.get("role") != "assistant":
        return "only the assistant calls tools"
    if not isinstance(calls, list):
        return "tool_calls must be a list"
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if (
            not isinstance(function, dict)
            or not isinstance(function.get("name"), str)
            or not function["name"]
        ):
            return "a tool call needs a function with a name"
        if _arguments(function) is None:
            return f"the arguments of the call of {function['name']} must be a JSON object"
    return None


def check_tools(row: Mapping[str, Any]) -> str | None:
    """What is wrong with the tools that a row offers, None if nothing is or there are none."""
    return "tools must be a list of JSON objects" if _tools(row) is None else None


def tools_json(row: Mapping[str, Any]) -> str | None:
    """The tools that a checked row offers as one JSON list, as TRL takes them; None if there are none.

    A template that is given an empty list writes the frame of a list all the same.
    """
    found = _tools(row)
    return json.dumps(found, ensure_ascii=False) if found else None


def tool_texts(row: Mapping[str, Any]) -> Iterator[str]:
    """The tools that a checked row offers, each as most chat templates write it."""
    for tool in _tools(row) or ():
        yield json.dumps(tool, ensure_ascii=False)


def call_texts(message: Mapping[str, Any]) -> Iterator[str]:
    """The calls of a checked message, each as most chat templates write it.

    >>> list(call_texts({"tool_calls": [{"function": {"name": "add", "arguments": '{"a": 1}'}}]}))
    ['{"name": "add", "arguments": {"a": 1}}']
    """
    for call in calls_of(message):
        function = call["function"]
        written = {"name": function["name"], "arguments": _arguments(function)}
        yield json.dumps(written, ensure_ascii=False)


def with_calls(message: Message, *, as_text: bool = False, nothing: str | None = None) -> Message:
    """A checked message as chat templates expect it; one without calls has no key of them.

    Args:
        message: Of a conversation.
        as_text: Arguments become one text of JSON, else an object: most templates write the JSON themselves.
        nothing: Content of a message that calls and says nothing.
    """
    kept = {key: value for key, value in message.items() if value is not None or key not in _OPTIONAL}
    if not calls_of(kept):
        kept.pop("tool_calls", None)
        return kept
    calls = []
    for call in kept["tool_calls"]:
        found = _arguments(call["function"])
        arguments = json.dumps(found, ensure_ascii=False) if as_text else found
        calls.append({"type": "function", **call, "function": {**call["function"], "arguments": arguments}})
    return {**kept, "content": kept.get("content") or nothing, "tool_calls": calls}


def _arguments(function: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments of a call, None if they are no object: OpenAI writes them as JSON in a text."""
    given = function.get("arguments")
    if isinstance(given, str):
        given = _parsed(given) if given.strip() else {}
    if given is None:
        return {}
    return given if isinstance(given, dict) else None


def _tools(row: Mapping[str, Any]) -> list[Any] | None:
    """The tools of a row, None if they make no sense; TRL also reads them as JSON in a text."""
    given = row.get("tools")
    if isinstance(given, str):
        given = _parsed(given) if given.strip() else []
    if given is None and not isinstance(row.get("tools"), str):
        return []
    return given if isinstance(given, list) and all(isinstance(one, dict) for one in given) else None


def _parsed(text: str) -> Any:
    """JSON of a text; False, which is neither object nor list, for what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return False
