"""Checks a YAML file against a pydantic model and says in plain words, with places, all that is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from planner.errors import Finding, SpecError
from planner.units import shown
from planner.yaml_source import KeyPath, YamlSource, scalar_value

MAX_FINDINGS = 50

ModelT = TypeVar("ModelT", bound=BaseModel)

# What pydantic wanted, in words; several of them at one place are the branches of a union.
_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "tuple_type": "a list",
    "dict_type": "keys and values",
    "model_type": "keys and values",
}
_RULES = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "string_too_short": "must not be empty",
    "string_too_long": "must not be longer than {max_length} characters",
    "too_short": "must not be empty",
    "too_long": "must not have more than {max_length} entries",
}


def validate(source: YamlSource, model: type[ModelT], synonyms: Mapping[str, str] | None = None) -> ModelT:
    """The file as the model, checked strictly: `"16"` is no number and `true` is not 1.

    A number where text is wanted (`python: 3.10`, a commit of digits alone) is taken as it is written.

    Args:
        source: The file.
        model: What it must hold.
        synonyms: Names of keys elsewhere -> ours, for suggestions.

    Raises:
        SpecError: With every finding, at most 50.
    """
    data: Any = source.data
    try:
        return model.model_validate(data, strict=True)
    except ValidationError as error:
        first = error
    for path in _numbers_for_text(first, source):
        data = _with(data, path, source.places[path].plain_text)
    try:
        return model.model_validate(data, strict=True)
    except ValidationError as error:
        raise SpecError(_findings(error, source, model, synonyms or {})) from None


def _numbers_for_text(error: ValidationError, source: YamlSource) -> list[KeyPath]:
    """Paths of plain numbers where text is wanted."""
    return [
        _path(detail, source)
        for detail in error.errors(include_url=False, include_context=False)
        if detail["type"] == "string_type" and type(detail["input"]) in (int, float)
    ]


def _with(data: Any, path: KeyPath, value: Any) -> Any:
    """A copy of nested dicts and tuples with one value exchanged."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(data, dict):
        return data | {head: _with(data[head], rest, value)}
    return tuple(_with(item, rest, value) if index == head else item for index, item in enumerate(data))


def _path(detail: ErrorDetails, source: YamlSource) -> KeyPath:
    """The error's place in the file: pydantic's location without the names of union branches."""
    path: KeyPath = ()
    for part in detail["loc"]:
        if (*path, part) in source.places:
            path = (*path, part)
    if detail["type"] == "missing" and path == detail["loc"][: len(path)]:
        path = (*path, detail["loc"][-1])
    return path


def _findings(
    error: ValidationError, source: YamlSource, model: type[BaseModel], synonyms: Mapping[str, str]
) -> list[Finding]:
    groups: dict[KeyPath, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        groups.setdefault(_path(detail, source), []).append(detail)
    found = [_finding(path, details, source, model, synonyms) for path, details in groups.items()]
    found.sort(key=lambda finding: (finding.line or 0, finding.column or 0))
    if len(found) > MAX_FINDINGS:
        more = Finding(f"and {len(found) - MAX_FINDINGS} more findings", file=source.source.file, code="more")
        found = [*found[:MAX_FINDINGS], more]
    return found


def _finding(
    path: KeyPath,
    details: list[ErrorDetails],
    source: YamlSource,
    model: type[BaseModel],
    synonyms: Mapping[str, str],
) -> Finding:
    kind = details[0]["type"]
    if kind == "extra_forbidden":
        message, hint = _unknown_key(path, model, synonyms)
        return source.finding(path, message, at_key=True, code="unknown_key", hint=hint)
    if kind == "missing":
        described = _describe(model, path)
        return source.finding(path, "missing, it must be given", code="missing_key", hint=described)
    at_key = "[key]" in details[0]["loc"]
    hint = _quotes_hint(details)
    return source.finding(path, _wrong_value(details), at_key=at_key, code="bad_value", hint=hint)


def _quotes_hint(details: list[ErrorDetails]) -> str | None:
    """Quotes make text of `true`, and text of a number; both are common slips."""
    kinds = {detail["type"] for detail in details}
    value = details[0]["input"]
    if "string_type" in kinds and isinstance(value, bool):
        return "put it in quotes to make it text"
    if kinds & {"int_type", "float_type", "bool_type"} and isinstance(value, str):
        meant = scalar_value(value)
        return "take the quotes off" if isinstance(meant, (int, float)) else None
    return None


def _wrong_value(details: list[ErrorDetails]) -> str:
    """One sentence for all that pydantic says of one value."""
    for detail in details:
        context = detail.get("ctx", {})
        if detail["type"] == "value_error":
            return str(context["error"])
        if detail["type"] in _RULES:
            rule = _RULES[detail["type"]].format(**{key: _bound(value) for key, value in context.items()})
            return rule if "must not" in rule else f"{rule}, got {_got(detail['input'])}"
    wanted = list(dict.fromkeys(word for detail in details for word in _wanted(detail)))
    value = details[0]["input"]
    message = f"expected {_either(wanted)}, got {_got(value)}"
    close = difflib.get_close_matches(value, wanted, n=1) if isinstance(value, str) else []
    return f"{message}, did you mean {close[0]}?" if close else message


def _bound(value: Any) -> Any:
    """0 for 0.0: a bound is shown as one writes it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _wanted(detail: ErrorDetails) -> list[str]:
    if detail["type"] == "literal_error":
        return [part.strip("'") for part in str(detail["ctx"]["expected"]).replace(" or ", ", ").split(", ")]
    if detail["type"] == "bool_type":
        return ["true", "false"]
    return [_WANTED.get(detail["type"], detail["msg"])]


def _either(words: list[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    return " or ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]


def _got(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {shown(value)}"
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, (tuple, list)):
        return "a list"
    return shown(value)


def _unknown_key(
    path: KeyPath, model: type[BaseModel], synonyms: Mapping[str, str]
) -> tuple[str, str | None]:
    """Message and hint."""
    name = str(path[-1])
    parent = _model_at(model, path[:-1])
    known = list(parent.model_fields) if parent is not None else []
    elsewhere = [f"{section}.{name}" for section, inner in _sections(model) if name in inner.model_fields]
    if name in model.model_fields and len(path) > 1:
        elsewhere.append(name)
    ours = synonyms.get(name.lower())
    close = difflib.get_close_matches(name.lower(), known, n=1)
    meant = ours or (close[0] if close else None) or (elsewhere[0] if elsewhere else None)
    if meant is not None:
        return f"unknown key, did you mean {meant}?", None
    return "unknown key", f"keys here are {', '.join(known)}" if known else None


def _sections(model: type[BaseModel]) -> Iterable[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        if inner is not None:
            yield name, inner


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as `MetricGoal | None`."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    inner: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, int):  # an entry of a list of sections
            continue
        field = inner.model_fields.get(part) if inner is not None else None
        inner = _model_of(field.annotation) if field is not None else None
    return inner


def _describe(model: type[BaseModel], path: KeyPath) -> str | None:
    parent = _model_at(model, path[:-1])
    field = parent.model_fields.get(str(path[-1])) if parent is not None else None
    return None if field is None or field.description is None else f"{path[-1]}: {field.description}"
