"""Brings conversations into the form that the model's chat template writes whole, or says that there is none.

Templates differ in what they take for a call of a tool: most write the JSON of its arguments themselves (Qwen, Llama),
some join them to their text (DeepSeek), and some leave out every call. Which one it is shows in what they write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

from jobs.console import say
from jobs.data import Examples
from jobs.formats import Row, is_conversation
from jobs.tool_calls import Message, calls_of, with_calls
from providers.errors import UsageError

_NAMES, _KEY, _VALUE, _TOOL = ("probe_first", "probe_second"), "probe_key", "probe_value", "probe_offer"
_SAID = "probe_text"
_HINT = "use a model whose chat template writes tool calls, or write the calls into the texts of the messages"


class _Kind(NamedTuple):
    """What templates may treat differently in a message that calls: tools offered, a text beside, several calls."""

    offered: bool
    speaks: bool
    several: bool


class _Form(NamedTuple):
    """How calls are handed to a template: arguments as a text, and the content of a message without one."""

    as_text: bool
    nothing: str | None


_FORMS = [_Form(*one) for one in product((False, True), (None, ""))]


def as_template_takes(tokenizer: Any, examples: Examples) -> Examples:
    """The examples with every conversation in a form that the tokenizer's chat template writes whole.

    Raises:
        UsageError: There is no chat template, or none that writes the calls of tools in the examples.
    """
    if not any(is_conversation(value) for value in examples.train[0].values()):
        return examples
    if tokenizer.chat_template is None:
        hint = "use an instruction-tuned model, or data with prompt and completion"
        raise UsageError(
            "the tokenizer of this model has no chat template", hint=hint, code="no_chat_template"
        )
    parts = (examples.train, examples.eval, examples.guard)
    kinds = {kind for part in parts for row in part for kind in _kinds(row)}
    form = _form_of(tokenizer, kinds) if kinds else None
    if any(row.get("tools") for part in parts for row in part) and not _writes_offers(tokenizer):
        say(
            "the chat template of this model leaves out the tools that the data offers: the model does not see them"
        )
    if form is None:
        return examples
    if any(_SAID not in _with_call(tokenizer, kind, form) for kind in kinds if kind.speaks):
        say("the chat template of this model leaves out texts that stand beside calls of tools")
    train, held_out, guard = ([_in_form(row, form) for row in part] for part in parts)
    return replace(examples, train=train, eval=held_out, guard=guard)


def _talks(row: Row) -> Iterator[tuple[str, list[Message]]]:
    return ((key, value) for key, value in row.items() if is_conversation(value))


def _kinds(row: Row) -> Iterator[_Kind]:
    for _, talk in _talks(row):
        for message in talk:
            if calls := calls_of(message):
                yield _Kind(bool(row.get("tools")), bool(message.get("content")), len(calls) > 1)


def _in_form(row: Row, form: _Form) -> Row:
    talks = {key: [with_calls(one, **form._asdict()) for one in talk] for key, talk in _talks(row)}
    return {**row, **talks}


def _form_of(tokenizer: Any, kinds: Collection[_Kind]) -> _Form:
    """The first form in which a call of each kind is written whole."""
    refusals = []
    for form in _FORMS:
        try:
            if all(_is_whole(tokenizer, kind, form) for kind in kinds):
                return form
        except Exception as error:  # a template may raise whatever its expressions do
            refusals.append(f"{type(error).__name__}: {error}")
    if len(refusals) == len(_FORMS):
        message = (
            f"the chat template of this model does not take the calls of tools in the data: {refusals[0]}"
        )
    else:
        message = "the chat template of this model leaves out calls of tools, which the data has"
    raise UsageError(message, hint=_HINT, code="no_tool_template")


def _is_whole(tokenizer: Any, kind: _Kind, form: _Form) -> bool:
    """Whether calls are written with names and arguments, these encoded once, and nothing is written as None."""
    written = _with_call(tokenizer, kind, form)
    plain = _written(tokenizer, [{"role": "assistant", "content": _SAID}], kind.offered)
    wanted = (*_NAMES[: 1 + kind.several], _KEY, _VALUE)
    is_encoded_twice = f'\\"{_KEY}' in written
    is_none_written = written.count("None") > plain.count("None")
    return all(one in written for one in wanted) and not is_encoded_twice and not is_none_written


def _with_call(tokenizer: Any, kind: _Kind, form: _Form) -> str:
    """What the template makes of a call of a kind in a form."""
    calls = [
        {"id": f"probe000{index}", "function": {"name": name, "arguments": {_KEY: _VALUE}}}
        for index, name in enumerate(_NAMES[: 1 + kind.several])
    ]
    calling = {"role": "assistant", "content": _SAID if kind.speaks else None, "tool_calls": calls}
    results = [{"role": "tool", "tool_call_id": one["id"], "content": "probe_result"} for one in calls]
    return _written(tokenizer, [with_calls(calling, **form._asdict()), *results], kind.offered)


def _writes_offers(tokenizer: Any) -> bool:
    """Whether the tools that a row offers are in what the template writes."""
    return _TOOL in _written(tokenizer, [{"role": "assistant", "content": _SAID}], offered=True)


def _written(tokenizer: Any, answers: list[Message], offered: bool) -> str:
    """What the template makes of a question and what follows it."""
    function = {"name": _TOOL, "description": "", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": function}] if offered else None
    talk = [{"role": "user", "content": "probe_question"}, *answers]
    return str(tokenizer.apply_chat_template(talk, tools=tools, tokenize=False))
