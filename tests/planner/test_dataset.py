import json
from pathlib import Path

import pytest

from planner.dataset import measure_dataset
from planner.estimate import build_estimate
from providers.errors import UsageError
from tests.planner.factories import offer_of, question_of, snapshot_of

ROOT = Path(__file__).parents[2]


def _lines(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


WORDS = "The committee will meet again on the first of March to talk about the new proposal. "


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


def test_parquet_is_counted_by_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"prompt": WORDS * 4, "completion": WORDS}] * 300
    whole = measure_dataset(_lines(tmp_path / "a.jsonl", rows))
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    facts = measure_dataset(path)
    assert (facts.samples, facts.bytes) == (300, path.stat().st_size)
    assert facts.lengths.mean == pytest.approx(whole.lengths.mean)
    monkeypatch.setattr("planner.dataset._READ_WHOLE_BYTES", 10_000)
    assert measure_dataset(path).samples == 300
    assert "scaled by rows" in measure_dataset(path).source


def test_a_large_file_is_scaled_from_its_head(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    line = json.dumps({"text": "\u00e9" * 400}, ensure_ascii=False) + "\n"
    path.write_text(line * 12_000, encoding="utf-8")
    facts = measure_dataset(path)
    assert facts.samples == pytest.approx(12_000, rel=0.01)
    assert "scaled" in facts.source


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
