import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from planner.dataset import measure_dataset
from planner.estimate import build_estimate
from planner.inspect.inspection import inspect_files
from planner.table_places import row_start
from providers.errors import UsageError
from tests.planner.factories import offer_of, question_of, snapshot_of

ROOT = Path(__file__).parents[2]


def _lines(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


WORDS = "The committee will meet again on the first of March to talk about the new proposal. "


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_may_never_end_is_no_data(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="is no file"):
        measure_dataset(path)


def test_tokens_are_guessed_from_words(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.jsonl", [{"prompt": WORDS * 4, "completion": WORDS}] * 3)
    facts = measure_dataset(path)
    assert facts.samples == 3
    assert facts.lengths.mean == pytest.approx(5 * 17, rel=0.15)  # 16 words and a full stop
    assert 0.02 < facts.tokens_log_sd < 0.2
    assert "guessed" in facts.source


def test_a_character_vocabulary_has_a_token_a_character(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.jsonl", [{"prompt": "12+34=", "completion": "46"}] * 3)
    assert measure_dataset(path, vocab=32).lengths.mean == pytest.approx(9, abs=1)


def test_the_tokenizer_of_a_local_model_counts(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.jsonl", [{"prompt": "12+34=", "completion": "46"}] * 30)
    facts = measure_dataset(path, 32, ROOT / "examples/tiny-goat/base/tokenizer.json")
    assert facts.lengths.mean == pytest.approx(9, abs=0.1)
    assert facts.tokens_log_sd < 0.05
    assert "tokenizer" in facts.source


def test_scripts_differ(tmp_path: Path) -> None:
    def tokens_per_character(text: str) -> float:
        return measure_dataset(_lines(tmp_path / "a.jsonl", [{"text": text}])).lengths.mean / len(text)

    english, chinese = (
        tokens_per_character(WORDS * 9),
        tokens_per_character("\u6211\u4eec\u660e\u5929\u518d\u8c08" * 90),
    )
    assert chinese > 2.5 * english


def test_messages_of_all_depths_are_counted(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": WORDS}, {"role": "assistant", "content": WORDS * 2}]}
    mean = measure_dataset(_lines(tmp_path / "a.jsonl", [row])).lengths.mean
    assert mean == pytest.approx(3 * 17 + 4, rel=0.2)


def test_calls_of_tools_and_offered_tools_are_counted(tmp_path: Path) -> None:
    def mean(row: object) -> float:
        return measure_dataset(_lines(tmp_path / "a.jsonl", [row])).lengths.mean

    def row(arguments: object, **more: object) -> dict[str, object]:
        call = {
            "id": "call_" + "x" * 60,
            "type": "function",
            "function": {"name": "note", "arguments": arguments},
        }
        talk = [{"role": "user", "content": WORDS}, {"role": "assistant", "tool_calls": [call]}]
        return {"messages": [*talk, {"role": "tool", "tool_call_id": call["id"], "content": "ok"}], **more}

    short, long = mean(row({"text": "a", "count": 1})), mean(row({"text": WORDS * 4, "count": 1}))
    assert long - short == pytest.approx(4 * 17, rel=0.1)
    assert mean(row(json.dumps({"text": WORDS * 4, "count": 1}))) == long
    assert short < 17 + 30  # no ids
    tool = {"type": "function", "function": {"name": "note", "description": WORDS * 4}}
    offered = mean(row({"text": "a", "count": 1}, tools=[tool]))
    assert offered - short == pytest.approx(4 * 17 + 15 + 90, rel=0.15)  # with what a template says of tools
    assert mean(row({"text": "a", "count": 1}, tools=json.dumps([tool]))) == offered


def test_csv_header_is_no_example(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nabcdefg,1\nabcdefg,0\n", encoding="utf-8")
    assert measure_dataset(path).samples == 2


def test_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        json.dumps({"text": "one\u2028two\x85three"}, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    assert measure_dataset(path).samples == 1


def test_only_what_the_format_keeps_is_counted(tmp_path: Path) -> None:
    row = {"instruction": WORDS, "output": WORDS}
    mean = measure_dataset(_lines(tmp_path / "a.jsonl", [row])).lengths.mean
    more = {**row, "text": WORDS * 9, "source": WORDS}
    assert measure_dataset(_lines(tmp_path / "a.jsonl", [more])).lengths.mean == pytest.approx(mean)


def test_parquet_is_counted_by_its_rows(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"prompt": WORDS * 4, "completion": WORDS}] * 300
    whole = measure_dataset(_lines(tmp_path / "a.jsonl", rows))
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    facts = measure_dataset(path)
    assert (facts.samples, facts.bytes) == (300, path.stat().st_size)
    assert facts.lengths.mean == pytest.approx(whole.lengths.mean)


def _short_then_long(short: int = 3000, long: int = 200) -> list[object]:
    return [{"text": WORDS}] * short + [
        {"text": f'{WORDS * 40}\n"{WORDS}"\n{number}'} for number in range(long)
    ]


def _write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def _write_parquet(path: Path, rows: list[object]) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(rows), path, row_group_size=100, use_dictionary=False
    )
    return path


SUFFIXES = {_lines: ".jsonl", _write_csv: ".csv", _write_parquet: ".parquet"}


@pytest.mark.parametrize("write", [_lines, _write_csv, _write_parquet])
def test_of_large_data_every_example_is_counted_wherever_the_long_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, list[object]], Path]
) -> None:
    path = write(tmp_path / f"a{SUFFIXES[write]}", _short_then_long())
    monkeypatch.setattr("planner.examples._SMALL_BYTES", 20_000)
    monkeypatch.setattr("planner.examples._PARSED_BYTES", 20_000)
    facts, seen = measure_dataset(path), inspect_files([path])
    assert (facts.samples, facts.is_partial) == (seen.records, False) == (3200, False)
    assert facts.lengths.mean == pytest.approx(seen.tokens.lengths.mean, rel=0.03)
    assert facts.lengths.longest == pytest.approx(seen.tokens.lengths.longest, rel=0.03)


@pytest.mark.parametrize("write", [_lines, _write_csv, _write_parquet])
def test_huge_data_is_counted_in_places_spread_over_it_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, list[object]], Path]
) -> None:
    path = write(tmp_path / f"a{SUFFIXES[write]}", _short_then_long(30_000, 2000))
    monkeypatch.setattr("planner.examples._SMALL_BYTES", 20_000)
    monkeypatch.setattr("planner.examples._PARSED_BYTES", 20_000)
    monkeypatch.setattr("planner.examples._SIZED_BYTES", 2_000_000)
    monkeypatch.setattr("planner.examples._PARQUET_BYTES", 2_000_000)
    facts, seen = measure_dataset(path), inspect_files([path])
    assert facts.is_partial and "counted in places spread over it, the rest scaled (+-" in facts.source
    assert facts.samples == pytest.approx(seen.records, rel=0.1)
    assert facts.lengths.mean == pytest.approx(seen.tokens.lengths.mean, rel=0.1)
    data = {"samples": None, "tokens_per_sample": None, "train": str(path)}
    question = question_of(data=data, train={"packing": False, "sequence_length": 4096})
    assert "data_sampled" in dict(question.job.warnings)
    assert question.job.sequence_tokens == 4096  # a longer one may be where nobody looked


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_row_of_a_table_is_found_from_any_place(line_end: str, separator: str) -> None:
    cells = [
        "plain",
        'He said, "yes".\n"No," said she,\nand left',
        "two\nlines",
        "",
        '"',
        "a, b\tc",
        '{"a": "b",\n"c": 1}',
    ]
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=separator, lineterminator=line_end)
    starts = []
    for number in range(40):
        starts.append(len(file.getvalue()))
        writer.writerow([cells[number % 7], str(number), cells[number // 3 % 7], cells[number // 5 % 7]])
    text = file.getvalue().encode()
    for place in range(1, starts[-5]):
        found = row_start(text[place:], separator.encode())
        assert found is not None and place + found == min(start for start in starts if start > place), place


@pytest.mark.parametrize("write", [_lines, _write_csv])
def test_the_number_of_scaled_examples_lies_in_its_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, list[object]], Path]
) -> None:
    monkeypatch.setattr("planner.examples._SMALL_BYTES", 20_000)
    monkeypatch.setattr("planner.examples._SIZED_BYTES", 200_000)
    inside = 0
    for seed in range(10):
        draw = Random(seed)
        rows = [{"text": WORDS * draw.randrange(1, 40)} for _ in range(1500)]
        facts = measure_dataset(write(tmp_path / f"{seed}{SUFFIXES[write]}", rows))
        doubt = float(facts.source.split("(+-")[1].split("%")[0]) / 100
        assert 0.001 < doubt < 0.2
        inside += abs(facts.samples - len(rows)) <= doubt * len(rows)
    assert inside >= 6


def test_places_in_a_directory_are_spread_over_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(3):
        _lines(folder / f"{number}.jsonl", _short_then_long(2000 * number, 100 * number))
    monkeypatch.setattr("planner.examples._SMALL_BYTES", 20_000)
    monkeypatch.setattr("planner.examples._PARSED_BYTES", 20_000)
    monkeypatch.setattr("planner.examples._SIZED_BYTES", 500_000)
    assert measure_dataset(folder).samples == pytest.approx(6300, rel=0.1)


def test_a_first_line_longer_than_what_is_parsed_is_an_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _lines(tmp_path / "a.jsonl", [{"text": WORDS * 100}, {"text": WORDS}])
    monkeypatch.setattr("planner.examples._SMALL_BYTES", 2000)
    facts = measure_dataset(path)
    assert facts.samples == 2
    assert facts.lengths.longest == pytest.approx(1700, rel=0.15)


def test_a_broken_line_of_large_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        json.dumps({"text": WORDS}).encode() + b"\n\n" + b"no json, and longer than that line" * 9
    )
    monkeypatch.setattr("planner.examples._SMALL_BYTES", 100)
    monkeypatch.setattr("planner.examples._PARSED_BYTES", 100)
    with pytest.raises(UsageError, match=r"a\.jsonl:3: not a JSON object"):
        measure_dataset(path)


def test_a_guess_makes_the_interval_wider(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.jsonl", [{"text": "7" * 500}] * 200)  # digits: one to three a token

    def spread(**data: object) -> float:
        question = question_of(
            data={"samples": None, "tokens_per_sample": None, **data}, train={"packing": False}
        )
        hours = build_estimate(question, snapshot_of(offer_of())).candidates[0].step_time_s
        return hours.p90 / hours.p10

    assert spread(train=str(path)) > 1.1 * spread(samples=200, tokens_per_sample=450)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "no examples"),
        ("a.jsonl", b'{"text": "a"}\nnot json\n', "a.jsonl:2: not a JSON object"),
        ("a.jsonl", b"\xff\xfe\x00", "is UTF-16"),
        ("a.csv", b"text\nok\ncaf\xe9\n", "a.csv:3: not UTF-8 text"),
        ("a.jsonl", b'[{"text": "a"}]\n', "a.jsonl:1: not a JSON object"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl:1: not a JSON object"),
        ("a.parquet", b"PAR1 no", "cannot read .*a.parquet"),
    ],
)
def test_broken_data_is_one_clear_error(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        measure_dataset(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.jsonl"):
        measure_dataset(tmp_path / "gone.jsonl")
