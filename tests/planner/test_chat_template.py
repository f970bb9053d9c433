"""Data of messages needs a model that has a template to write them by."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.architecture.registry import model_config
from planner.chat_template import untemplated_here, untemplated_on_hub
from planner.intake import gather
from planner.proposal import spec_blockers
from planner.spec import FineTuneSpec
from providers.hub import HubAccess
from tests.hub_host import HostedModel, HubHost, hub_host
from tests.planner.factories import NOW

TALK = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
SHAREGPT = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
TEXTS = {"prompt": "a", "completion": "b"}
NONE, SOME = b'{"model_max_length": 1}', b'{"chat_template": "{{ messages }}"}'


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubHost]:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with hub_host() as host:
        yield host


def spec_in(folder: Path, row: object, model: str = "model") -> FineTuneSpec:
    (folder / "train.jsonl").write_text(json.dumps(row) + "\n")
    return FineTuneSpec.model_validate({"name": "x", "model": f"./{model}", "data": "train.jsonl"})


def here_and_there(
    folder: Path, hub: HubHost, row: object, files: dict[str, bytes]
) -> tuple[FineTuneSpec, FineTuneSpec]:
    """A spec of a model of these files in a directory, and one of the same on the Hub."""
    (folder / "model").mkdir()
    for name, content in files.items():
        (folder / "model" / name).write_bytes(content)
    hub.models["lab/model"] = HostedModel(dict(files))
    spec = spec_in(folder, row)
    return spec, spec.model_copy(update={"model": spec.model.model_copy(update={"id": "lab/model"})})


@pytest.mark.parametrize(
    ("row", "files", "found"),
    [
        (TALK, {"tokenizer_config.json": NONE}, 1),
        (SHAREGPT, {"tokenizer_config.json": NONE}, 1),
        (
            {"prompt": TALK["messages"][:1], "completion": TALK["messages"][1:]},
            {"tokenizer_config.json": NONE},
            1,
        ),
        (TALK, {"tokenizer_config.json": SOME}, 0),
        (TALK, {"tokenizer_config.json": NONE, "chat_template.jinja": b""}, 0),
        (TALK, {"tokenizer_config.json": NONE, "tekken.json": b""}, 0),
        (TALK, {}, 0),
        (TALK, {"tokenizer.json": b"{}"}, 1),
        (TALK, {"tokenizer_config.json": b"no json"}, 0),
        (TEXTS, {"tokenizer_config.json": NONE}, 0),
    ],
)
def test_a_model_here_or_on_the_hub(
    tmp_path: Path, hub: HubHost, row: object, files: dict[str, bytes], found: int
) -> None:
    spec, there = here_and_there(tmp_path, hub, row, files)
    assert [one.code for one in untemplated_here(spec, tmp_path)] == ["no_chat_template"] * found
    blocked = [one.code for one in spec_blockers(spec, tmp_path, os.environ)]
    assert blocked.count("no_chat_template") == found
    assert list(untemplated_here(there, tmp_path)) == []
    access = HubAccess(hub.url)
    assert len(list(untemplated_on_hub(there, tmp_path, access))) == (
        found if "tokenizer_config.json" in files else 0
    )
    assert list(untemplated_on_hub(there, tmp_path, HubAccess(hub.url, offline=True))) == []


CALLS = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"messages": [*TALK["messages"][:1], {"role": "assistant", "content": None, "tool_calls": [CALLS]}]}
WRITES = "{% for m in messages %}{{ m.content or m.tool_calls }}{% endfor %}"
NAMED = json.dumps(
    {"chat_template": [{"name": "default", "template": ""}, {"name": "t", "template": WRITES}]}
)


@pytest.mark.parametrize(
    ("row", "files", "found"),
    [
        (CALLING, {"tokenizer_config.json": SOME}, 1),
        (TALK, {"tokenizer_config.json": SOME}, 0),
        (CALLING, {"tokenizer_config.json": NONE, "chat_template.jinja": b"{{ messages }}"}, 1),
        (CALLING, {"tokenizer_config.json": NONE, "chat_template.jinja": WRITES.encode()}, 0),
        (CALLING, {"tokenizer_config.json": NAMED.encode()}, 0),
        (CALLING, {"tokenizer_config.json": SOME, "tekken.json": b""}, 0),
    ],
)
def test_calls_of_tools_need_a_template_that_writes_them(
    tmp_path: Path, hub: HubHost, row: object, files: dict[str, bytes], found: int
) -> None:
    spec, there = here_and_there(tmp_path, hub, row, files)
    (tmp_path / "train.jsonl").write_text(json.dumps(TALK) + "\n" + json.dumps(row) + "\n")
    findings = list(untemplated_here(spec, tmp_path))
    assert [one.code for one in findings] == ["no_tool_template"] * found
    assert all("leaves out calls of tools" in one.message for one in findings)
    assert list(untemplated_here(spec, tmp_path, most_chars=10)) == []
    told = [one.code for one in untemplated_on_hub(there, tmp_path, HubAccess(hub.url))]
    assert told == ["no_tool_template"] * found


def test_an_estimate_warns_of_it_and_says_what_the_worker_does(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps(model_config("meta-llama/Llama-3.2-1B")))
    settings = tmp_path / "model/tokenizer_config.json"

    def warned(**data: object) -> str | None:
        spec = spec_in(tmp_path, TALK)
        given = spec.data.model_copy(update=data)
        question = gather(spec.model_copy(update={"data": given}), tmp_path, NOW)
        return dict(question.job.warnings).get("no_chat_template")

    elsewhere = {"train": "hf://lab/talks", "samples": 100, "tokens_per_sample": 100, "format": "messages"}
    for content, is_warned in ((NONE, True), (SOME, False)):
        settings.write_bytes(content)
        for data in ({}, elsewhere):
            said = warned(**data)
            assert (said is not None) == is_warned
            assert said is None or "./model has no chat template" in said
            assert said is None or "a worker would end before the first step (exit 78)" in said


def test_a_hub_that_does_not_answer_says_nothing(tmp_path: Path, hub: HubHost) -> None:
    spec = spec_in(tmp_path, TALK, "gone")
    there = spec.model_copy(update={"model": spec.model.model_copy(update={"id": "lab/gone"})})
    assert list(untemplated_on_hub(there, tmp_path, HubAccess(hub.url))) == []
