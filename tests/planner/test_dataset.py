import json
from pathlib import Path

import pytest

from planner.dataset import measure_dataset
from providers.errors import UsageError


def _lines(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_prompts_and_completions_are_counted(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.jsonl", [{"prompt": "abcd", "completion": "efgh"}] * 3)
    facts = measure_dataset(path)
    assert (facts.samples, facts.lengths.mean) == (3, 2.0)
    assert measure_dataset(path, chars_per_token=1).lengths.mean == 8.0


def test_nested_messages_are_counted(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "x" * 36}, {"role": "assistant", "content": "y" * 51}]}
    assert measure_dataset(_lines(tmp_path / "a.jsonl", [row])).lengths.mean == (4 + 36 + 9 + 51) / 4


def test_csv_header_is_no_example(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nabcdefg,1\nabcdefg,0\n", encoding="utf-8")
    facts = measure_dataset(path)
    assert (facts.samples, facts.lengths.mean) == (2, 2.0)


def test_a_large_file_is_scaled_from_its_head(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    line = json.dumps({"text": "é" * 400}, ensure_ascii=False) + "\n"
    path.write_text(line * 12_000, encoding="utf-8")
    facts = measure_dataset(path)
    assert facts.samples == pytest.approx(12_000, rel=0.01)
    assert facts.lengths.mean == 100
    assert "scaled" in facts.source


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "no examples"),
        ("a.jsonl", b'{"text": "a"}\nnot json\n', "a.jsonl:2: not a JSON object"),
        ("a.jsonl", b"\xff\xfe\x00", "cannot read"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl:1: not a JSON object"),
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
