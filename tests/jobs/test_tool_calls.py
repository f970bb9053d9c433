"""Conversations that call tools are trained as the model's chat template writes them, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.spec import DataJob, EvaluateJob, JobSpec, ModelJob
from tests.jobs.runs import Runs

TOOLS = [{"type": "function", "function": {"name": "w"}}]
USER = {"role": "user", "content": "hot?"}
ANSWER = {"role": "assistant", "content": "no"}


def calling(name: str = "w", **arguments: Any) -> dict[str, Any]:
    """A message that only calls a tool, in OpenAI's format."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": function}]}


RESULT = {"role": "tool", "tool_call_id": "c1", "content": "4"}
ROWS = [
    {"messages": [USER, ANSWER]},
    {"messages": [USER, calling(at="Oslo"), RESULT, ANSWER], "tools": TOOLS},
    {"messages": [USER, calling("v", n=3, deep={"a": [1, None]}), RESULT, ANSWER]},
]
WRITTEN = [
    "<u>hot?</s><a>no</s>",
    '{"type": "function", "function": {"name": "w"}}\n'
    '<u>hot?</s><a><call>{"name": "w", "arguments": {"at": "Oslo"}}</s><t>4</s><a>no</s>',
    '<u>hot?</s><a><call>{"name": "v", "arguments": {"n": 3, "deep": {"a": [1, null]}}}</s><t>4</s><a>no</s>',
]


def job_of(runs: Runs, rows: Iterable[Any], *, steps: int = 2, template: str | None = None) -> JobSpec:
    base = runs.root / "caller"
    runs.zygote.call("tests.jobs.tiny_models:make_caller", str(base), log=runs.root / "make.log")
    if template is not None:
        (base / "chat_template.jinja").write_text(template)
    data = runs.root / "calls.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = runs.sft("calls", kind="full", steps=steps)
    return replace(
        job,
        model=ModelJob("caller", path=str(base)),
        data=DataJob(str(data), str(data)),
        train=replace(job.train, sequence_length=192, learning_rate=5e-3),
        evaluate=EvaluateJob("loss"),
    )


def write_rows(arguments: list[str]) -> None:
    """What the trainer of a job learns from: texts, and what of them is learned."""
    from transformers import AutoTokenizer

    from jobs.build import built
    from jobs.data import load_examples

    job, scratch = JobSpec.load(Path(arguments[0])), Path(arguments[1])
    examples = load_examples(job.data, job.task, scratch)
    rows = built(job, scratch, examples, scratch / "out", 1).trainer.train_dataset
    tokenizer = AutoTokenizer.from_pretrained(job.model.path)
    told = [
        [tokenizer.decode(row["input_ids"]), tokenizer.decode([one for one in row["labels"] if one >= 0])]
        for row in rows
    ]
    (scratch / "rows.json").write_text(json.dumps(told))


def rows_of(runs: Runs, job: JobSpec) -> list[list[str]]:
    """Texts and learned parts of a job's rows."""
    (runs.root / "job.json").write_text(job.to_json())
    here = "tests.jobs.test_tool_calls:write_rows"
    runs.zygote.call(here, str(runs.root / "job.json"), str(runs.root), log=runs.root / "rows.log")
    found: list[list[str]] = json.loads((runs.root / "rows.json").read_text())
    return found


def test_each_call_has_its_own_arguments_and_each_row_its_own_tools(runs: Runs) -> None:
    assert rows_of(runs, job_of(runs, ROWS)) == [[one, one] for one in WRITTEN]


JOINED = (
    "{% for m in messages %}{% if m.content is none %}{{ m.tool_calls[0].function.name + "
    "m.tool_calls[0].function.arguments }}{% else %}{{ m.content }}{% endif %};{% endfor %}"
)
CARELESS = (
    "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %};{% endfor %}"
)


@pytest.mark.parametrize("template", [JOINED, CARELESS])
def test_calls_are_in_the_form_that_the_template_writes_whole(runs: Runs, template: str) -> None:
    """One joins arguments to its text, so that they must be one; one would write that there is no content."""
    assert rows_of(runs, job_of(runs, ROWS[1:2], template=template))[0][0] == 'hot?;w{"at": "Oslo"};4;no;'
    assert "leaves out the tools that the data offers" in (runs.root / "rows.log").read_text()


def test_a_call_alone_is_learned_by_heart(runs: Runs) -> None:
    row = {"messages": [USER, calling(at="Oslo")], "tools": TOOLS}
    job = job_of(runs, [row] * 16, steps=120)
    assert {learned for _, learned in rows_of(runs, job)} == {
        '<call>{"name": "w", "arguments": {"at": "Oslo"}}</s>'
    }
    metric = runs.complete(replace(job, evaluate=EvaluateJob("exact_match"))).metrics[0]
    assert (metric.name, metric.base, metric.tuned) == ("exact_match", 0.0, 1.0)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for m in messages %}{{ m.content or '' }}{% endfor %}", "leaves out calls of tools"),
        (
            "{% for m in messages %}{{ m.tool_calls[0].function.name if m.tool_calls else m.content }}{% endfor %}",
            "leaves out calls of tools",
        ),
        ("{{ raise_exception('no tools, please') }}", "TemplateError: no tools, please"),
    ],
)
def test_what_a_template_does_not_write_is_not_trained(runs: Runs, template: str, said: str) -> None:
    assert runs.finish(job_of(runs, ROWS[1:], template=template)) == 78
    assert said in runs.log("calls")


def test_a_conversation_that_a_template_refuses_is_bad_data(runs: Runs) -> None:
    template = "{{ raise_exception('not so') if messages[0].content == 'bad' else messages[0].content }}"
    job = job_of(
        runs, [ROWS[0], {"messages": [{"role": "user", "content": "bad"}, ANSWER]}], template=template
    )
    assert runs.finish(job) == 78
    assert "does not take a conversation of the data: not so" in runs.log("calls")


def write_forms(arguments: list[str]) -> None:
    """For each of the chat templates that TRL brings along whether one call, and two in one message, are written."""
    import trl
    from transformers import AutoTokenizer

    from jobs.chat_template import as_template_takes
    from jobs.data import Examples
    from jobs.tool_calls import with_calls
    from providers.errors import UsageError

    tokenizer, found = AutoTokenizer.from_pretrained(arguments[0]), {}
    call = calling(at="Oslo")
    for path in sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja")):
        tokenizer.chat_template = path.read_text()
        for calls in (1, 2):
            message = with_calls({**call, "tool_calls": call["tool_calls"] * calls})
            examples = Examples("messages", [{"messages": [USER, message]}], [])
            try:
                kept = as_template_takes(tokenizer, examples).train[0]["messages"][1]
                told = type(kept["tool_calls"][0]["function"]["arguments"]).__name__
            except UsageError as error:
                told = error.code
            found.setdefault(path.stem, []).append(told)
    Path(arguments[1]).write_text(json.dumps(found))


def test_templates_in_use_are_told_apart(runs: Runs) -> None:
    job_of(runs, ROWS)
    told = runs.root / "forms.json"
    here = "tests.jobs.test_tool_calls:write_forms"
    runs.zygote.call(here, str(runs.root / "caller"), str(told), log=runs.root / "forms.log")
    found = json.loads(told.read_text())
    assert found["qwen2_5"] == found["qwen3"] == ["dict", "dict"]
    assert found["llama3_1"] == ["dict", "no_tool_template"]  # it raises for several calls in a message
    assert found["gptoss"] == ["dict", "no_tool_template"]  # it leaves out all but the first
    assert found["deepseekv3"] == ["str", "str"]
    assert found["llama3"] == found["phi3"] == ["no_tool_template"] * 2
