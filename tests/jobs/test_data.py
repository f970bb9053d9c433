"""Data files: every format is read, and a broken row is named by its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.data import Examples, check_held_out, check_training_data, load_examples
from jobs.spec import DataJob
from providers.errors import UsageError

PAIR = {"prompt": "1+1=", "completion": "2"}
USER = {"role": "user", "content": "hello"}
ASSISTANT = {"role": "assistant", "content": "hi"}


def load(directory: Path, body: str | bytes, name: str = "train.jsonl", **job: Any) -> Examples:
    """Write a file and read it as a job would; what is checked before a launch says the same of it."""
    (directory / name).write_bytes(body.encode() if isinstance(body, str) else body)
    task, data = job.pop("task", "sft"), DataJob(name, **job)
    try:
        examples = load_examples(data, task, directory)
    except UsageError as error:
        with pytest.raises(UsageError) as caught:
            kind, names = check_training_data(data, task, directory)
            if data.eval is not None:
                check_held_out(directory / data.eval, None, kind, names)
        assert (caught.value.message, caught.value.hint) == (error.message, error.hint)
        raise
    assert check_training_data(data, task, directory)[1] == examples.label_names
    return examples


def lines(*rows: Any) -> str:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_prompt_and_completion(tmp_path: Path) -> None:
    examples = load(tmp_path, lines(PAIR, {**PAIR, "id": 7}))
    assert (examples.format, examples.train, examples.eval) == ("prompt_completion", [PAIR, PAIR], [])


def test_csv_tsv_text_and_a_byte_order_mark(tmp_path: Path) -> None:
    assert load(tmp_path, '\ufeffprompt,completion\n"1,5",2\n', "a.csv").train == [
        {"prompt": "1,5", "completion": "2"}
    ]
    assert load(tmp_path, "prompt\tcompletion\n1\t2\n", "a.tsv").train == [{"prompt": "1", "completion": "2"}]
    assert load(tmp_path, "one\n\ntwo\n", "a.txt").train == [{"text": "one"}, {"text": "two"}]


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([PAIR, PAIR]), tmp_path / "a.parquet")
    assert load_examples(DataJob("a.parquet"), "sft", tmp_path).train == [PAIR, PAIR]
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UsageError, match=r"cannot read .*b\.parquet"):
        load_examples(DataJob("b.parquet"), "sft", tmp_path)


def test_conversations_with_one_answer_become_prompt_and_completion(tmp_path: Path) -> None:
    examples = load(tmp_path, lines({"messages": [USER, ASSISTANT]}))
    assert examples.format == "prompt_completion"
    assert examples.train == [{"prompt": [USER], "completion": [ASSISTANT]}]


def test_longer_conversations_stay_whole(tmp_path: Path) -> None:
    rows = [{"messages": [USER, ASSISTANT]}, {"messages": [USER, ASSISTANT, USER, ASSISTANT]}]
    examples = load(tmp_path, lines(*rows))
    assert (examples.format, examples.train) == ("messages", rows)


@pytest.mark.parametrize(
    ("labels", "names", "indices"),
    [(["no", "yes"], ("no", "yes"), [0, 1]), ([1, 0], ("0", "1"), [1, 0]), (["1", "0"], ("0", "1"), [1, 0])],
)
def test_labels_are_numbered(
    tmp_path: Path, labels: list[Any], names: tuple[str, ...], indices: list[int]
) -> None:
    rows = [{"text": "x", "label": label} for label in labels]
    examples = load(tmp_path, lines(*rows), task="classification")
    assert examples.label_names == names
    assert [row["label"] for row in examples.train] == indices


def test_held_out_rows_are_limited_and_use_the_names_of_training(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": label} for label in ("b", "a")]
    (tmp_path / "eval.jsonl").write_text(lines({"text": "y", "label": "b"}, {"text": "z", "label": "a"}))
    (tmp_path / "train.jsonl").write_text(lines(*rows))
    job = DataJob("train.jsonl", "eval.jsonl")
    assert load_examples(job, "classification", tmp_path).eval == [
        {"text": "y", "label": 1},
        {"text": "z", "label": 0},
    ]
    assert len(load_examples(job, "classification", tmp_path, eval_samples=1).eval) == 1


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("{", "no JSON"),
        ("[1]", "expected an object"),
        ("[" * 100_000, "no JSON"),
        ({"prompt": "x"}, "completion is missing"),
        ({"prompt": "x", "completion": ""}, "completion is empty"),
        ({"prompt": 1, "completion": "x"}, "prompt must be text"),
        ({"prompt": None, "completion": "x"}, "prompt must be text"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, second: Any, said: str) -> None:
    body = (
        lines(PAIR) + "\n" + (second if isinstance(second, str) else json.dumps(second)) + "\n" + lines(PAIR)
    )
    with pytest.raises(UsageError) as caught:
        load(tmp_path, body)
    assert caught.value.message.startswith(f"{tmp_path / 'train.jsonl'}:3: {said}")
    assert caught.value.code == "bad_data"


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "non-empty list"),
        ("hello", "non-empty list"),
        ([{"content": "x"}], "needs a role"),
        ([{"role": "robot", "content": "x"}], "needs a role"),
        (["x"], "needs a role"),
        ([{"role": "user", "content": None}], "must be text"),
        ([USER], "no message of the assistant"),
    ],
)
def test_a_broken_conversation_is_named(tmp_path: Path, messages: Any, said: str) -> None:
    with pytest.raises(UsageError, match=rf"train\.jsonl:1: .*{said}"):
        load(tmp_path, lines({"messages": messages}))


@pytest.mark.parametrize(
    ("body", "name", "said"),
    [
        ("", "a.jsonl", "holds no example"),
        (b"\xff\xfe", "a.jsonl", "a.jsonl:1: not UTF-8 text"),
        (b"\x00\x01", "a.xlsx", "unknown kind of data file"),
        ("prompt,completion\n1\n", "a.csv", "a.csv:2: number of columns"),
        ("prompt,completion\n1,2,3\n", "a.csv", "a.csv:2: number of columns"),
        (lines({"question": "x"}), "a.jsonl", "no known format has the keys question"),
        (lines({"text": "x", "label": 1}), "a.jsonl", "task sft cannot learn from data of format label"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, body: str | bytes, name: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, body, name)
    assert said in caught.value.message


ALPACA = {"instruction": "Add.", "input": "1, 2", "output": "3"}
SHAREGPT = {"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "hi"}]}


def test_rows_of_alpaca(tmp_path: Path) -> None:
    examples = load(tmp_path, lines(ALPACA, {"instruction": "Sing.", "output": "la", "text": "all of it"}))
    assert examples.format == "prompt_completion"
    assert [row["completion"] for row in examples.train] == ["3", "la"]
    given, alone = (row["prompt"] for row in examples.train)
    assert given.endswith(
        "completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:\n"
    )
    assert "paired with an input" in given
    assert alone.endswith("completes the request.\n\n### Instruction:\nSing.\n\n### Response:\n")


def test_conversations_of_sharegpt(tmp_path: Path) -> None:
    twice = {"conversations": SHAREGPT["conversations"] * 2, "system": "Be kind."}
    examples = load(tmp_path, lines(twice, SHAREGPT))
    assert examples.train[0]["messages"] == [
        {"role": "system", "content": "Be kind."},
        *[USER, ASSISTANT] * 2,
    ]
    assert load(tmp_path, lines(SHAREGPT)).train == [{"prompt": [USER], "completion": [ASSISTANT]}]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**ALPACA, "history": [["a", "b"]]}, "no known format has the keys history, input, instruction"),
        ({"conversations": [{"from": "robot", "value": "x"}]}, "a.jsonl:1: a message needs a role"),
        ({"conversations": [{"from": ["gpt"], "value": "x"}]}, "a.jsonl:1: a message needs a role"),
        ({"conversations": []}, "a.jsonl:1: messages must be a non-empty list"),
        ({"instruction": "x", "output": ""}, "a.jsonl:1: completion is empty"),
    ],
)
def test_what_is_not_quite_theirs(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, lines(row), "a.jsonl")
    assert said in caught.value.message


@pytest.mark.parametrize("label", [None, "", float("nan"), ["a"]])
def test_a_row_without_a_label(tmp_path: Path, label: Any) -> None:
    rows = [{"text": "x", "label": "a"}, {"text": "x", "label": label}]
    with pytest.raises(UsageError, match=r"train\.jsonl:2: label (is missing|must be)"):
        load(tmp_path, lines(*rows), task="classification")


@pytest.mark.parametrize("label", ["a", 1])
def test_one_label_is_nothing_to_learn(tmp_path: Path, label: Any) -> None:
    rows = [{"text": "x", "label": label}] * 3
    with pytest.raises(UsageError, match=f"every example has the label {label}"):
        load(tmp_path, lines(*rows), task="classification")


def test_a_sample_says_what_is_certain_of_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(
        lines(*({"text": "x" * 90, "label": "a"} for _ in range(50)), {"text": "y", "label": "b"}, {})
    )
    data = DataJob("train.jsonl")
    assert check_training_data(data, "classification", tmp_path, most_chars=1000)[0] == "label"
    with pytest.raises(UsageError, match=r"train\.jsonl:52"):
        check_training_data(data, "classification", tmp_path)
    check_held_out(path, None, "label", (), most_chars=1000)
    with pytest.raises(UsageError, match=r"train\.jsonl:52"):
        check_held_out(path, None, "label", ())


@pytest.mark.parametrize("labels", [["a", "b", "c"], [0, 5], [-1, 0], [1, 2]])
def test_labels_that_do_not_fit_the_classes(tmp_path: Path, labels: list[Any]) -> None:
    rows = [{"text": "x", "label": label} for label in labels]
    with pytest.raises(UsageError, match="do not fit 2 classes"):
        load(tmp_path, lines(*rows), task="classification")


def test_a_label_that_training_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "eval.jsonl").write_text(lines({"text": "y", "label": "c"}))
    rows = [{"text": "x", "label": label} for label in ("a", "b")]
    with pytest.raises(UsageError, match=r"eval\.jsonl:1: label 'c' is none of a, b"):
        load(tmp_path, lines(*rows), task="classification", eval="eval.jsonl")


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "4 C"}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def called(**arguments: Any) -> dict[str, Any]:
    """A call with its arguments as chat templates take them."""
    return {**CALL, "function": {"name": "weather", "arguments": arguments}}


def test_messages_that_only_call_tools(tmp_path: Path) -> None:
    absent = {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": ""}}]}
    plain = {**ASSISTANT, "tool_calls": None}
    rows = [
        {"messages": [USER, plain]},
        {"messages": [USER, CALLING, RESULT, {**ASSISTANT, "tool_calls": []}], "tools": TOOLS},
        {"messages": [USER, absent], "tools": json.dumps(TOOLS)},
        {"messages": [USER, plain], "tools": []},
    ]
    examples = load(tmp_path, lines(*rows))
    assert [row["messages"] for row in examples.train] == [
        [USER, ASSISTANT],
        [USER, {**CALLING, "tool_calls": [called(city="Oslo")]}, RESULT, ASSISTANT],
        [USER, {**CALLING, "tool_calls": [{"type": "function", "function": called()["function"]}]}],
        [USER, ASSISTANT],
    ]
    assert [row["tools"] and json.loads(row["tools"]) for row in examples.train] == [None, TOOLS, TOOLS, None]


def test_a_call_may_be_the_only_answer(tmp_path: Path) -> None:
    row = {"messages": [USER, CALLING], "tools": TOOLS}
    examples = load(tmp_path, lines(row))
    assert examples.format == "prompt_completion"
    assert examples.train == [
        {
            "prompt": [USER],
            "completion": [{**CALLING, "tool_calls": [called(city="Oslo")]}],
            "tools": json.dumps(TOOLS),
        }
    ]
    pair = {"prompt": [USER], "chosen": [CALLING], "rejected": [ASSISTANT], "tools": TOOLS}
    assert load(tmp_path, lines(pair), task="dpo").train[0]["tools"] == json.dumps(TOOLS)
    texts = {"prompt": "a", "chosen": "b", "rejected": "c", "tools": "none of the kind"}
    assert "tools" not in load(tmp_path, lines(texts), task="dpo").train[0]


@pytest.mark.parametrize(
    ("message", "tools", "said"),
    [
        ({**CALLING, "tool_calls": []}, None, "must be text"),
        ({**CALLING, "content": 1}, None, "must be text"),
        ({**CALLING, "tool_calls": {}}, None, "must be text"),
        ({**CALLING, "tool_calls": "x"}, None, "tool_calls must be a list"),
        ({**CALLING, "tool_calls": [{"id": "c1"}]}, None, "needs a function with a name"),
        ({**CALLING, "tool_calls": [{"function": {"name": ""}}]}, None, "needs a function with a name"),
        (
            {**CALLING, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]},
            None,
            "of the call of f must be a JSON object",
        ),
        (
            {**CALLING, "tool_calls": [{"function": {"name": "f", "arguments": [1]}}]},
            None,
            "of the call of f must be a JSON object",
        ),
        ({**USER, "tool_calls": [CALL]}, None, "only the assistant calls tools"),
        (CALLING, "weather", "tools must be a list"),
        (CALLING, {"weather": 1}, "tools must be a list"),
        (CALLING, ["weather"], "tools must be a list"),
    ],
)
def test_a_broken_call_is_named(tmp_path: Path, message: Any, tools: Any, said: str) -> None:
    with pytest.raises(UsageError, match=rf"train\.jsonl:1: .*{said}"):
        load(tmp_path, lines({"messages": [USER, message, ASSISTANT], "tools": tools}))
