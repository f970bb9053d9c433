"""Reward functions for grpo: how good a sampled answer is, by name or from the user's own code.

A function is called as TRL does: `function(prompts=..., completions=..., **columns)`, with a list for each key of
the data, and gives one number for each completion (None: this function does not judge that row).
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from providers.errors import UsageError

Reward = Callable[..., list[float | None]]

_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*")


def text_of(completion: Any) -> str:
    """The text of an answer, be it a text or a list of messages.

    >>> text_of([{"role": "assistant", "content": "4"}])
    '4'
    """
    if isinstance(completion, str):
        return completion
    return "\n".join(str(message["content"]) for message in completion)


def exact_match(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> list[float | None]:
    """1 where the answer is, but for white space around it, that of the data's key `answer`.

    >>> exact_match(completions=[" 4", "5"], answer=["4", "4"])
    [1.0, 0.0]
    """
    pairs = zip(completions, answer, strict=True)
    return [float(text_of(given).strip() == text_of(wanted).strip()) for given, wanted in pairs]


def contains_answer(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> list[float | None]:
    """1 where the data's key `answer` stands anywhere in the answer."""
    pairs = zip(completions, answer, strict=True)
    return [float(text_of(wanted).strip() in text_of(given)) for given, wanted in pairs]


def last_number(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> list[float | None]:
    """1 where the last number of the answer is the last number of the data's key `answer`.

    >>> last_number(completions=["2 + 2 makes 4.", "no idea"], answer=["so #### 4", "4"])
    [1.0, 0.0]
    """
    pairs = zip(completions, answer, strict=True)
    return [float(_last(text_of(given)) == _last(text_of(wanted)) != "") for given, wanted in pairs]


def _last(text: str) -> str:
    found = _NUMBER.findall(text)
    return found[-1].replace(",", "") if found else ""


REWARDS: dict[str, Reward] = {
    "exact_match": exact_match,
    "contains_answer": contains_answer,
    "last_number": last_number,
}


def load_rewards(names: Sequence[str], columns: Sequence[str]) -> list[Reward]:
    """The functions that a job names.

    Args:
        names: Of this module, `package.module:function` or `/path/file.py:function`.
        columns: Keys of the data.

    Raises:
        UsageError: There is no such function, it cannot be imported, or the data lacks what it needs.
    """
    return [_load(name, columns) for name in names]


def _load(name: str, columns: Sequence[str]) -> Reward:
    if name not in REWARDS:
        return _own(name)
    if "answer" not in columns:
        hint = "give each example an `answer` (or a completion), or name a reward function of your own"
        raise UsageError(
            f"reward {name} compares with the key `answer`, which the data lacks", hint=hint, code="bad_data"
        )
    return REWARDS[name]


def _own(name: str) -> Reward:
    place, _, function = name.rpartition(":")
    if not place or not function:
        raise _no_reward(name, "it is neither built in nor written as module:function")
    try:
        module = _module_of_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        found = getattr(module, function)
    except Exception as error:  # the user's code may raise anything while it is imported
        raise _no_reward(name, f"{type(error).__name__}: {error}") from error
    if not callable(found):
        raise _no_reward(name, "it is no function")
    return _checked(name, found)


def _module_of_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"reward_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _checked(name: str, function: Any) -> Reward:
    """The function, whose own errors name it: a traceback from inside the trainer would not."""

    @wraps(function)
    def reward(**arguments: Any) -> list[float | None]:
        try:
            return [None if value is None else float(value) for value in function(**arguments)]
        except Exception as error:
            raise _no_reward(name, f"{type(error).__name__}: {error}") from error

    return reward


def _no_reward(name: str, problem: str) -> UsageError:
    hint = f"built in are {', '.join(REWARDS)}"
    return UsageError(f"reward {name} cannot be used: {problem}", hint=hint, code="bad_reward")
