"""The types of the spec's fields: how a value may be written, what is refused, and what editors are told.

Each validator raises ValueError with a sentence for the person who wrote the spec.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from planner import units

MAX_NODES = 1024
AdapterKind = Literal[
    "full",
    "lora",
    "qlora",
    "dora",
    "qdora",
    "rslora",
    "adalora",
    "ia3",
    "loha",
    "lokr",
    "vera",
    "oft",
    "boft",
    "ln_tuning",
    "prompt_tuning",
    "prefix_tuning",
    "p_tuning",
]
RUN_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,254}$"
PYTHON_VERSION = r"^(3\.[0-9]{1,2}|/[^\s]+)$"


def listed(value: Any) -> Any:
    """A single text where a list is wanted means a list of one."""
    return (value,) if isinstance(value, str) else value


def keyed(key: str, section: type[BaseModel]) -> BeforeValidator:
    """A single text where a section is wanted means its main key; an empty section means its defaults."""

    def mapping(value: Any) -> Any:
        if isinstance(value, str):
            return {key: value}
        return {} if value is None else value

    return BeforeValidator(mapping, json_schema_input_type=section | str | None)


def optional_keyed(key: str, section: type[BaseModel]) -> BeforeValidator:
    """As `keyed`, of a section that may be absent."""

    def mapping(value: Any) -> Any:
        return {key: value} if isinstance(value, str) else value

    return BeforeValidator(mapping, json_schema_input_type=section | str | None)


def or_empty(section: type[BaseModel]) -> BeforeValidator:
    """A section whose lines are all commented out means its defaults."""

    def mapping(value: Any) -> Any:
        return {} if value is None else value

    return BeforeValidator(mapping, json_schema_input_type=section | None)


def _matching(pattern: str, words: str) -> Callable[[str], str]:
    """A check whose message never repeats the value: it may be a secret in the wrong place."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if compiled.fullmatch(value) is None:
            raise ValueError(words)
        return value

    return check


def version(value: Any) -> Any:
    """A `spec_version` that is a number, and not a later one."""
    if isinstance(value, bool):  # true equals 1 for pydantic
        raise ValueError("expected 1, got true or false")
    if isinstance(value, int) and value > 1:
        raise ValueError(
            f"{units.shown(value)} is newer than this tuneplan understands, which is 1: update it"
        )
    return value


def _gpu_text(value: str) -> str:
    return str(units.parse_gpu_filter(value))


def _memory_text(value: str) -> str:
    units.parse_memory_range_gib(value)
    return value


def _nodes_text(value: Any) -> str:
    _, most = units.parse_count_range(value)
    if most is None or most > MAX_NODES:
        raise ValueError(f"{units.shown(value)} has no upper end up to {MAX_NODES}, write it as in 1..4")
    return str(value).strip()


def _moment_text(value: str) -> str:
    units.parse_deadline(value)
    return value


def _every_text(value: Any) -> str:
    units.parse_every(value)
    return str(value)


Seconds = Annotated[
    float,
    BeforeValidator(units.parse_duration_s, json_schema_input_type=str),
    PlainSerializer(units.duration_text, return_type=str, when_used="json"),
]
Sha256 = Annotated[
    str,
    AfterValidator(_matching(r"[0-9a-f]{64}", "64 lower-case hexadecimal digits, as sha256sum prints them")),
    Field(json_schema_extra={"pattern": r"^[0-9a-f]{64}$"}),
]
Usd = Annotated[float, BeforeValidator(units.parse_usd, json_schema_input_type=float | str)]
GpuText = Annotated[str, AfterValidator(_gpu_text)]
MemoryRangeText = Annotated[str, AfterValidator(_memory_text)]
NodesText = Annotated[str, BeforeValidator(_nodes_text, json_schema_input_type=int | str)]
MomentText = Annotated[str, AfterValidator(_moment_text)]
EveryText = Annotated[str, BeforeValidator(_every_text, json_schema_input_type=str)]
# A number where text is wanted is taken as it is written, `planner.validation` sees to that.
WrittenText = Annotated[str, WithJsonSchema({"type": ["string", "number"]})]
RunName = Annotated[
    str,
    AfterValidator(_matching(RUN_NAME, "use up to 63 lower-case letters, digits and dashes")),
    Field(json_schema_extra={"pattern": RUN_NAME}),
]
PythonVersion = Annotated[
    WrittenText,
    AfterValidator(
        _matching(PYTHON_VERSION, "write a version as in 3.11, or the path of an interpreter on the machine")
    ),
    Field(json_schema_extra={"pattern": PYTHON_VERSION}),
]
Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Name = Annotated[
    str,
    AfterValidator(
        _matching(ENV_NAME, "not the name of an environment variable: letters, digits and _ only")
    ),
    Field(json_schema_extra={"pattern": ENV_NAME}),
]
Texts = Annotated[tuple[Text, ...], BeforeValidator(listed, json_schema_input_type=str | tuple[Text, ...])]
Names = Annotated[tuple[Name, ...], BeforeValidator(listed, json_schema_input_type=str | tuple[Name, ...])]
SomeTexts = Annotated[
    tuple[Text, ...],
    BeforeValidator(listed, json_schema_input_type=str | tuple[Text, ...]),
    Field(min_length=1),
]


def packed_in_4bit(model: str) -> bool:
    """Whether the name of a model or its directory says that its files hold weights packed by bitsandbytes in 4 bits.

    >>> packed_in_4bit("unsloth/Qwen3-8B-unsloth-bnb-4bit"), packed_in_4bit("Qwen/Qwen3-8B")
    (True, False)
    """
    return model.rstrip("/").lower().endswith("-bnb-4bit")


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values never change, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)
