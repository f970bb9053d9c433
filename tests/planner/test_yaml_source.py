from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from planner.errors import SpecError
from planner.source_text import MAX_BYTES
from planner.yaml_nodes import MAX_DEPTH, MAX_VALUES
from planner.yaml_source import YamlSource, key_path, parse_yaml, path_text, read_yaml


def _refused(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        parse_yaml(text)
    return caught.value


def _alias_bomb(levels: int) -> str:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


def test_values_have_the_types_of_yaml_1_2() -> None:
    text = """
    whole: [12, -3, 0x1F, 0o17, 1_000]
    number: [1.5, 1e-4, .5, -2.]
    truth: [true, False]
    nothing: [null, ~, ]
    text: [yes, no, on, off, 2026-01-01, 12:30, 'true', "1", 1.2.3, 0x, plain words]
    block: |
      two
      lines
    """
    data = parse_yaml(text).data
    assert data["whole"] == (12, -3, 31, 15, 1000)
    assert data["number"] == (1.5, 1e-4, 0.5, -2.0)
    assert data["truth"] == (True, False)
    assert data["nothing"] == (None, None)
    assert data["text"] == (
        "yes",
        "no",
        "on",
        "off",
        "2026-01-01",
        "12:30",
        "true",
        "1",
        "1.2.3",
        "0x",
        "plain words",
    )
    assert data["block"] == "two\nlines\n"


def test_a_finding_points_at_the_value_its_key_or_the_nearest_parent() -> None:
    source = parse_yaml("train:\n  steps: 10\n  # note\nwhere: {gpus: [A, B]}\n")
    value = source.finding(("train", "steps"), "wrong")
    assert str(value) == "spec.yaml:2:10: train.steps: wrong"
    assert value.excerpt == "      steps: 10\n             ^"
    assert (
        str(source.finding(("train", "steps"), "wrong", at_key=True)) == "spec.yaml:2:3: train.steps: wrong"
    )
    assert str(source.finding(("train", "epochs"), "missing")) == "spec.yaml:1:1: train.epochs: missing"
    assert str(source.finding(("where", "gpus", 1), "wrong")) == "spec.yaml:4:19: where.gpus[1]: wrong"


def test_a_place_of_secrets_is_never_quoted() -> None:
    source = parse_yaml("environment:\n  secrets: [HF_TOKEN=hf_abc]\n")
    assert source.finding(("environment", "secrets", 0), "wrong").excerpt is None


def test_aliases_are_understood_within_limits() -> None:
    data = parse_yaml("a: &a {x: [1, 2]}\nb: *a\nc: [*a, *a]\n").data
    assert data == {"a": {"x": (1, 2)}, "b": {"x": (1, 2)}, "c": ({"x": (1, 2)}, {"x": (1, 2)})}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("---\n", "empty"),
        ("- a\n- b\n", "not_a_mapping"),
        ("just words", "not_a_mapping"),
        ('""', "not_a_mapping"),
        ("a: 1\n---\nb: 2\n", "many_documents"),
        ("a: [1, 2", "yaml"),
        ("a: 'x", "yaml"),
        ("a:\n\tb: 1", "yaml"),
        ("a: b: c", "yaml"),
        ("a: @x", "yaml"),
        ("a: \x07", "yaml"),
        ("%YAML 9.9\n---\na: 1", "yaml"),
        ("a: *nothing", "unknown_alias"),
        ("a: &a [*a]", "unknown_alias"),
        ("a: !!python/object:os.system x", "tag"),
        ("a: !custom x", "tag"),
        ("<<: {a: 1}", "bad_key"),
        ("? [a, b]\n: 1", "bad_key"),
        (": 1", "bad_key"),
        ("a: 1\na: 2", "duplicate_key"),
        ("a: " + "9" * 5000, "too_large"),
        ("a: 0x" + "f" * 5000, "too_large"),
        ("a: " + "[" * 100_000, "too_deep"),
        ("{a: " * 100_000, "too_deep"),
        ("- " * 100_000, "too_deep"),
        (_alias_bomb(50), "too_large"),
        ("a: [" + "1, " * (MAX_VALUES + 1) + "]", "too_large"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else None,
)
def test_refused_with_one_finding_that_has_a_code(text: str, code: str) -> None:
    (finding,) = _refused(text).findings
    assert finding.code == code
    assert finding.file == "spec.yaml"
    assert code == "empty" or finding.line is not None
    assert len(str(finding)) < 200


def test_depth_through_aliases_counts_too() -> None:
    lines = ["l0: &l0 [x]"] + [f"l{i}: &l{i} [*l{i - 1}]" for i in range(1, MAX_DEPTH + 1)]
    assert _refused("\n".join(lines)).findings[0].code == "too_deep"


def test_all_repeated_and_bad_keys_are_found_at_once() -> None:
    findings = _refused("a: 1\na: 2\nb:\n  c: 1\n  c: 2\n<<: {}\n").findings
    assert [str(finding) for finding in findings] == [
        "spec.yaml:2:1: a: stands here a second time, first in line 1",
        "spec.yaml:5:3: b.c: stands here a second time, first in line 4",
        "spec.yaml:6:1: merge keys (`<<`) are not understood, write the keys out",
    ]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\xff\xfen\x00a\x00", "UTF-16"),
        (b"\xfe\xff\x00n", "UTF-16"),
        (b"n\x00a\x00", "NUL"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "NUL"),
        (b"name: x\nmodel: caf\xe9", "not UTF-8 text: byte 0xe9"),
        (b"#" * (MAX_BYTES + 1), "larger than 1 MiB"),
    ],
)
def test_what_is_no_text(tmp_path: Path, body: bytes, words: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(body)
    with pytest.raises(SpecError, match=words) as caught:
        read_yaml(path)
    assert len(caught.value.findings) == 1


def test_the_place_of_a_bad_byte(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(b"name: x\nmodel: caf\xe9")
    with pytest.raises(SpecError) as caught:
        read_yaml(path)
    assert (caught.value.findings[0].line, caught.value.findings[0].column) == (2, 11)


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: x\r\nmodel: y\r\n")
    source = read_yaml(path)
    assert source.data == {"name": "x", "model": "y"}
    assert source.places[("model",)].line == 2


@pytest.mark.parametrize("name", ["missing.yaml", ".", "x\0y"])
def test_what_is_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_yaml(tmp_path / name)
    assert caught.value.findings[0].code in ("not_found", "unreadable")


def test_control_characters_of_the_file_never_reach_the_terminal() -> None:
    source = parse_yaml('"\\e[31m\\u202e": 1\n')
    text = path_text(next(path for path in source.places if path))
    assert text.isprintable()
    assert "\x1b" not in text


@given(st.lists(st.one_of(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.integers(0, 99)), min_size=1))
def test_a_path_survives_being_written(parts: list[str | int]) -> None:
    assert key_path(path_text(tuple(parts))) == tuple(parts)


@given(st.text(st.sampled_from("ab:-[]{}#&*!|>'\"%@`,? \n\t0.<~"), max_size=60))
@example("a: &b\n")
@example("? ")
def test_any_text_is_read_or_refused_with_findings(text: str) -> None:
    try:
        assert isinstance(parse_yaml(text), YamlSource)
    except SpecError as error:
        assert error.findings
        assert all("\n" not in str(finding) for finding in error.findings)
