import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from jobs.formats import as_known, format_of
from planner.inspect import Inspection, inspect_files
from planner.inspect.duplicates import HashSet, MinHash, hash_of, shingles, similarity
from planner.inspect.findings import is_card, personal
from planner.inspect.records import read_records
from providers.errors import UsageError

WORDS = ["time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school"]


def text_of(seed: int, words: int = 60) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words)) + f" {seed}"


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def inspected(tmp_path: Path, rows: list[Any], **options: Any) -> Inspection:
    return inspect_files([write(tmp_path / "train.jsonl", rows)], **options)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"messages": []}, "messages"),
        ({"conversations": []}, "messages"),
        ({"prompt": "a", "completion": "b"}, "prompt_completion"),
        ({"instruction": "a", "input": "", "output": "b"}, "prompt_completion"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference"),
        ({"text": "a", "label": 1}, "label"),
        ({"text": "a"}, "text"),
        ({"prompt": "a", "completion": "b", "label": True}, "unpaired"),
        ({"prompt": "a"}, "prompt"),
        ({"question": "a"}, None),
    ],
)
def test_formats_are_told_by_their_keys(row: dict[str, Any], kind: str | None) -> None:
    assert format_of(as_known(row)) == kind


def test_a_broken_line_is_a_finding_with_its_line_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(
        b'{"text": "fine"}\n{"text": \n\xff\xfe\n[1]\n{"other": 1}\n{"text": 5}\n\n{"text": "fine too"}\n'
    )
    found = inspect_files([path])
    assert found.records == 2
    assert found.findings["broken"].lines == [f"train.jsonl:{line}" for line in (2, 3, 4, 5, 6)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"chosen": "a", "rejected": "a"}], "chosen and rejected are the same"),
        ([{"messages": [{"role": "user", "content": "q"}]}], "no message of the assistant"),
        ([{"messages": ["q"]}], "needs a role"),
        (
            [{"messages": [{"role": "assistant", "content": [{"text": "a"}]}]}],
            "content of a message must be text",
        ),
        ([{"text": "a", "label": float("nan")}], "label is missing"),
        ([{"prompt": "a", "completion": "b"}, {"text": "c"}], "prompt is missing"),
    ],
)
def test_what_the_worker_refuses_is_broken(tmp_path: Path, rows: list[Any], said: str) -> None:
    fine = {"chosen": "a", "rejected": "b"} if "chosen" in rows[0] else None
    records = list(read_records(write(tmp_path / "a.jsonl", [*([fine] if fine else []), *rows])))
    assert said in (records[-1].problem or "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'text,label\nab,1\n"c\nd",0\nx\n'),
        ("a.tsv", "text\tlabel\nab\t1\ncd\t0\nx\n"),
    ],
)
def test_tables_are_read_and_bad_rows_named(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    records = list(read_records(path))
    assert [record.label for record in records] == ["1", "0", None]
    assert records[2].problem is not None
    assert records[2].line == content.count("\n", 0, content.index("\nx")) + 2


def test_parquet_is_read_by_rows(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}] * 3
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    records = list(read_records(tmp_path / "a.parquet"))
    assert [record.line for record in records] == [1, 2, 3]
    assert (records[0].prompt, records[0].answer, records[0].problem) == ("q", "a", None)


def test_a_damaged_parquet_file_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
    for name in ("a.parquet", "gone.jsonl"):
        with pytest.raises(UsageError, match=name):
            inspect_files([tmp_path / name])


def test_a_file_without_examples_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no example"):
        inspected(tmp_path, [{"other": 1}])


def test_preference_prompts_count_for_both_answers(tmp_path: Path) -> None:
    row = {"prompt": "p p", "chosen": "c", "rejected": "r"}
    (record,) = read_records(write(tmp_path / "a.jsonl", [row]))
    assert record.text.split("\n") == ["p p", "p p", "c", "r"]


def test_exact_duplicates_are_counted_but_for_the_first(tmp_path: Path) -> None:
    rows = [{"text": text_of(n)} for n in range(20)] + [
        {"text": text_of(3).upper()},
        {"text": text_of(3) + "  "},
    ]
    found = inspected(tmp_path, rows)
    assert found.findings["duplicate"].records == 2
    assert found.findings["duplicate"].lines == ["train.jsonl:21", "train.jsonl:22"]
    assert found.findings["duplicate"].tokens == pytest.approx(2 * found.tokens.total.p50 / 22, rel=0.2)


def test_near_duplicates_are_found_and_different_texts_are_not(tmp_path: Path) -> None:
    rows = [{"text": text_of(n, 200)} for n in range(60)]
    changed = text_of(5, 200).replace("time", "hour", 1) + " at last"
    found = inspected(tmp_path, [*rows, {"text": changed}])
    assert found.findings["near_duplicate"].examples == ["train.jsonl:61 ~ train.jsonl:6"]
    assert "duplicate" not in found.findings


def test_leaks_into_the_training_data_are_named(tmp_path: Path) -> None:
    held_out = write(tmp_path / "eval.jsonl", [{"text": text_of(2, 200)}, {"text": text_of(99, 200)}])
    rows = [{"text": text_of(n, 200)} for n in range(10)]
    rows.append({"text": text_of(99, 200).replace("time", "hour", 2)})
    found = inspected(tmp_path, rows, held_out=held_out)
    assert found.findings["leaked"].examples == ["train.jsonl:3 = eval.jsonl:1"]
    assert found.findings["nearly_leaked"].examples == ["train.jsonl:11 ~ eval.jsonl:2"]


def test_signatures_estimate_similarity() -> None:
    minhash = MinHash()
    one = set(range(1000, 2000))
    for shared in (0, 300, 500, 900):
        other = set(range(2000 - shared, 3000 - shared))
        truth = len(one & other) / len(one | other)
        assert similarity(minhash.signature(one), minhash.signature(other)) == pytest.approx(truth, abs=0.2)
    assert shingles("too short") == set()


def test_a_full_hash_set_still_counts_duplicates_in_the_mean() -> None:
    hashes = HashSet(most=500)
    seen = 0
    for number in range(20_000):
        value = hash_of(f"text {number % 10_000}")
        seen += hashes.first_of(value, number) is not None
    assert len(hashes.found) <= 500
    assert seen * hashes.scale == pytest.approx(10_000, rel=0.35)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("mail me: jane.doe+x@mail.example.org.", ["email"]),
        ("call +49 170 1234567 or (555) 123-4567", ["phone"]),
        ("card 4111 1111 1111 1111", ["card"]),
        ("card 4111 1111 1111 1112", []),
        ("order 1234567890123, 3.14159265358979, 2026-11-22 10:00", []),
        ("pay to DE89 3704 0044 0532 0130 00 please", ["iban"]),
        ("GB82WEST12345698765432, and no other", ["iban"]),
        ("GB82WEST12345698765433 is none, 978-3-16-148410-0 a book", []),
        ("his number is 078-05-1120.", ["social_security"]),
        ("version 900-12-3456, 000-12-3456, 2026-11-22", []),
        ("AKIAIOSFODNN7EXAMPLE is a key", ["key"]),
        ("-----BEGIN RSA PRIVATE KEY-----", ["key"]),
        ("f(a@b) = a @ b.T", []),
        ("nothing at all", []),
    ],
)
def test_personal_data_by_its_looks(text: str, kinds: list[str]) -> None:
    assert list(personal(text)) == kinds


def test_luhn() -> None:
    assert [is_card(text) for text in ("5500 0000 0000 0004", "0000 0000 0000 0000", "4111")] == [
        True,
        False,
        False,
    ]


def test_a_record_in_another_language_is_named_though_its_letters_are_the_same(tmp_path: Path) -> None:
    english = "the cat of the house sat on the mat for a while and then it went away to sleep in number"
    rows: list[Any] = [{"text": f"{english} {n}"} for n in range(100)]
    rows += [
        {"text": "Der Hund ist nicht in dem Haus, und die Katze wird auch von der Tür auf das Dach gehen"},
        {"text": "no"},
    ]
    found = inspected(tmp_path, rows, sequence_tokens=1000).findings
    assert found["odd_script_latin_not_english"].lines == ["train.jsonl:101"]
    assert "odd_script_latin" not in found


def test_empty_long_and_foreign_records_are_named(tmp_path: Path) -> None:
    rows: list[Any] = [{"prompt": text_of(n), "completion": text_of(n + 500)} for n in range(100)]
    rows += [{"prompt": "why", "completion": "  "}, {"prompt": "", "completion": text_of(1, 3000)}]
    rows += [{"prompt": "", "completion": "\u041c\u044b \u0433\u043e\u0432\u043e\u0440\u0438\u043c " * 9}]
    found = inspected(tmp_path, rows, sequence_tokens=1000).findings
    assert found["empty"].lines == ["train.jsonl:101"]
    assert found["too_long"].lines == ["train.jsonl:102"]
    assert found["odd_script_cyrillic"].lines == ["train.jsonl:103"]


def calling(question: str, tools: list[Any] | None, **arguments: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": json.dumps(arguments)}
    calls = [{"id": "call_1", "type": "function", "function": function}]
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_1", "content": "4 C"},
    ]
    return {"messages": messages} if tools is None else {"messages": messages, "tools": tools}


def test_calls_of_tools_are_learned_and_offered_tools_are_counted(tmp_path: Path) -> None:
    parameters = {"properties": {f"key_{n}": {"type": "string", "description": text_of(n)} for n in range(9)}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    alone = inspected(tmp_path, [calling(text_of(n, 20), None, city=text_of(n + 50, 9)) for n in range(30)])
    assert (alone.records, alone.findings) == (30, {})
    assert 0.3 < alone.answer_share < 0.7
    offered = inspected(
        tmp_path, [calling(text_of(n, 20), tools, city=text_of(n + 50, 9)) for n in range(30)]
    )
    assert set(offered.findings) == set()  # not near duplicates for their tools
    assert offered.tokens.total.p50 > 3 * alone.tokens.total.p50


def test_labels_are_counted(tmp_path: Path) -> None:
    rows = [{"text": text_of(n), "label": "good" if n % 4 else "bad"} for n in range(40)]
    assert inspected(tmp_path, rows).labels == {"good": 30, "bad": 10}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b" \n\t\n", "every line is empty"),
        ("a.csv", b"text,label\n", "it has no row"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n', mtime=0), r"is compressed \(gzip\)"),
        ("a.jsonl", '{"text": "a"}\n'.encode("utf-16"), "is UTF-16"),
        ("a.json", b'\n[{"text": "a"}]', "is one JSON array"),
        ("a.txt", b"\x89PNG\r\n\x1a\n" + bytes(50), "is an image"),
        ("a.txt", bytes(500), "is a binary file"),
        ("a.csv", b"hello there,general\nanother one,kenobi\n", "keys general, hello there"),
        ("a.csv", "text,label\ncafé,1\n".encode("latin-1"), "a.csv:2: not UTF-8"),
        ("a.csv", b"text;label\ngood;1\n", "separates its columns by ';'"),
        ("a.jsonl", b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "has an image"),
        (
            "a.jsonl",
            b'{"messages": [{"role": "assistant", "content": null, "tool_calls": [{"id": 1}]}]}',
            "a tool call needs a function with a name",
        ),
        (
            "a.jsonl",
            b'{"messages": [{"role": "assistant", "content": "a"}], "tools": "b"}',
            "tools must be a list",
        ),
    ],
)
def test_odd_files_get_one_clear_answer(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        inspect_files([path])


def test_nul_bytes_marks_and_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "hello"}\r\n{"text": "x\x00y"}\r\n{"text": "a\\u0000b"}\r\n')
    found = inspect_files([path])
    assert (found.records, found.findings["broken"].lines) == (2, ["a.jsonl:2"])


def test_a_parquet_file_without_rows_has_no_row_and_no_lines(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), path)
    with pytest.raises(UsageError, match="holds no example: it has no row"):
        inspect_files([path])


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ('{"prompt": "straße", "completion": "b"}\n'.encode("latin-1"), "iconv"),
        (b'[{"prompt": "a", "completion": "b"}]', "jq -c"),
        (b'{"foo": "a"}\n', "keys: messages"),
    ],
    ids=["encoding", "array", "keys"],
)
def test_the_hint_fits_what_is_wrong_with_the_first_line(tmp_path: Path, content: bytes, hint: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="holds no example") as refused:
        inspect_files([path])
    assert hint in (refused.value.hint or "")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    os.mkfifo(path)
    with pytest.raises(UsageError, match="is no file"):
        inspect_files([path])
