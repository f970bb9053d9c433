from __future__ import annotations

from pathlib import Path

import pytest

from planner.errors import Finding, SpecError
from planner.specfile import DataRef, data_ref, load_spec, model_ref, resolve_path
from planner.support import unsupported


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def findings(path: Path) -> list[Finding]:
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert caught.value.exit_code == 2
    return caught.value.findings


def said(path: Path) -> list[str]:
    return [str(finding).replace(str(path), "spec.yaml") for finding in findings(path)]


def test_everything_wrong_is_said_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
name: Bad Name
model: 5
method:
  kind: lorra
  alpa: 32
  rank: true
train:
  micro_batch: fuor
  learning_rate: .nan
  lr: 3
  gradient_checkpointing: maybe
learning_rate: 3
where:
  gpus: [H10O, "H100:8..1"]
  clouds: []
goal: {within: 24, budget: 50eur, metric: {name: loss}}
spec_version: true
zzz: 1
""",
    )
    assert said(path) == [
        "spec.yaml:1:7: name: use up to 63 lower-case letters, digits and dashes",
        "spec.yaml:2:8: model: expected keys and values, got 5",
        "spec.yaml:4:9: method.kind: expected full, lora, qlora, dora, qdora, rslora, adalora, ia3, "
        "loha, lokr, vera, oft, boft, ln_tuning, prompt_tuning, prefix_tuning or p_tuning, "
        "got the text 'lorra', did you mean lora?",
        "spec.yaml:5:3: method.alpa: unknown key, did you mean alpha?",
        "spec.yaml:6:9: method.rank: expected a whole number, got true",
        "spec.yaml:8:16: train.micro_batch: expected a whole number or auto, got the text 'fuor'",
        "spec.yaml:9:18: train.learning_rate: must be a finite number, got nan",
        "spec.yaml:10:3: train.lr: unknown key, did you mean learning_rate?",
        "spec.yaml:11:27: train.gradient_checkpointing: expected true, false or auto, got the text 'maybe'",
        "spec.yaml:12:1: learning_rate: unknown key, did you mean train.learning_rate?",
        "spec.yaml:14:10: where.gpus[0]: unknown GPU 'H10O', did you mean H100?",
        "spec.yaml:14:16: where.gpus[1]: '8..1' runs backwards, write the smaller number first",
        "spec.yaml:15:11: where.clouds: must not be empty",
        "spec.yaml:16:16: goal.within: 24 has no unit, write it as in 24h or 24m",
        "spec.yaml:16:28: goal.budget: '50eur' is in another currency, convert it to US dollars as in 50usd",
        "spec.yaml:16:35: goal.metric.at_least: missing, it must be given",
        "spec.yaml:17:15: spec_version: expected 1, got true or false",
        "spec.yaml:18:1: zzz: unknown key",
    ]


def test_the_example_of_the_manual(tmp_path: Path) -> None:
    path = write(tmp_path, "name: x\nmodel: a/b\nmethod:\n  kind: lora\n  alpa: 32\n")
    (finding,) = findings(path)
    assert said(path) == ["spec.yaml:5:3: method.alpa: unknown key, did you mean alpha?"]
    assert finding.excerpt == "      alpa: 32\n      ^"
    assert finding.code == "unknown_key"


def test_missing_keys_point_at_their_parent(tmp_path: Path) -> None:
    path = write(tmp_path, "# a comment\ntask: sft\nmodel:\n  revision: main\n")
    assert said(path) == [
        "spec.yaml:2:1: name: missing, it must be given",
        "spec.yaml:3:1: model.id: missing, it must be given",
    ]


def test_a_number_where_text_is_wanted_is_taken_as_written(tmp_path: Path) -> None:
    text = "name: 2026-run\nmodel: {id: a/b, revision: 0012345}\nlabels: {team: 7}\n"
    text += "environment: {python: 3.10, env: {N: 1e3}}\ngoal: {budget: 50}\nproject: 12\n"
    spec = load_spec(write(tmp_path, text)).spec
    assert spec.model.revision == "0012345"
    assert spec.labels == {"team": "7"}
    assert spec.environment.python == "3.10"
    assert spec.environment.env == {"N": "1e3"}
    assert spec.goal.budget == 50
    assert spec.project == "12"


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("labels: {on-call: true}", "put it in quotes to make it text"),
        ("train: {seed: '3'}", "take the quotes off"),
        ("train: {packing: 'true'}", "take the quotes off"),
        ("train: {seed: three}", None),
    ],
)
def test_slips_with_quotes_get_a_hint(tmp_path: Path, line: str, hint: str | None) -> None:
    (finding,) = findings(write(tmp_path, f"name: x\nmodel: a/b\n{line}\n"))
    assert finding.hint == hint


def test_a_secret_in_the_wrong_place_is_never_repeated(tmp_path: Path) -> None:
    text = "name: x\nmodel: a/b\nenvironment:\n  secrets: [HF_TOKEN=hf_abc]\n  env: {HF_TOKEN: hf_abc, 'a b': hf_abc}\n"
    for finding in findings(write(tmp_path, text)):
        assert "hf_abc" not in f"{finding} {finding.hint} {finding.excerpt}"
    text = "name: x\nmodel: a/b\nenvironment:\n  env: {HF_TOKEN: hf_abc}\n"
    (finding,) = findings(write(tmp_path, text))
    assert finding.code == "secret_in_spec"
    assert "hf_abc" not in f"{finding} {finding.hint} {finding.excerpt}"


def test_contradictions_have_places_too(tmp_path: Path) -> None:
    path = write(
        tmp_path, "name: x\nmodel: a/b\ntrain:\n  epochs: 1\n  steps: 10\nmethod: full\nquantization: 8bit\n"
    )
    assert said(path) == [
        "spec.yaml:5:10: train.steps: train.epochs is given too",
        "spec.yaml:7:15: quantization: a 8bit base is frozen, but method full trains every weight",
    ]


def test_many_findings_are_cut(tmp_path: Path) -> None:
    path = write(tmp_path, "name: x\nmodel: a/b\n" + "".join(f"key{i}: 1\n" for i in range(500)))
    assert len(findings(path)) == 51
    assert said(path)[-1] == "spec.yaml: and 450 more findings"


def test_what_is_not_supported_yet_is_placed_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "name: x\nmodel: a/b\nenvironment: {image: x}\noutput:\n  uri: hdfs://b/x\n")
    loaded = load_spec(path)
    loaded.refuse(unsupported(loaded.spec))
    with pytest.raises(SpecError) as caught:
        loaded.refuse(unsupported(loaded.spec, for_launch=True))
    assert [str(finding).removeprefix(str(path)) for finding in caught.value.findings] == [
        ":3:22: environment.image: environment.image on this machine is not yet supported",
        ":5:8: output.uri: hdfs:// for output is not yet supported",
    ]


def test_the_same_spec_written_twice_has_one_hash(tmp_path: Path) -> None:
    first = load_spec(write(tmp_path, "name: x\nmodel: a/b\ngoal: {within: 1d}\n"))
    again = load_spec(write(tmp_path, "# changed\nmodel: {id: a/b}\nname: x\ngoal:\n  within: 24h\n"))
    assert first.spec_hash == again.spec_hash
    assert first.text_sha256 != again.text_sha256
    assert first.base_dir == tmp_path


def test_paths_are_relative_to_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert resolve_path(tmp_path, "train.jsonl") == tmp_path / "train.jsonl"
    assert resolve_path(tmp_path, "/data/train.jsonl") == Path("/data/train.jsonl")
    assert resolve_path(tmp_path, "file:///data/x") == Path("/data/x")
    assert resolve_path(tmp_path, "~/x") == Path("/home/someone/x")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("train.jsonl", "path"),
        ("./org/name", "path"),
        ("data/train.jsonl", "path"),
        ("file:///data/train.jsonl", "path"),
        ("tatsu-lab/alpaca", "hub"),
        ("hf://datasets/tatsu-lab/alpaca", "hub"),
        ("s3://bucket/train.jsonl", "s3"),
        ("gs://bucket/train.jsonl", "gs"),
        ("https://example.com/train.jsonl", "https"),
    ],
)
def test_what_a_data_reference_is(tmp_path: Path, text: str, kind: str) -> None:
    assert data_ref(tmp_path, text).kind == kind


def test_an_existing_directory_wins_over_the_hub(tmp_path: Path) -> None:
    assert model_ref(tmp_path, "org/name") == DataRef("hub", "org/name")
    assert model_ref(tmp_path, "./base") == DataRef("path", str(tmp_path / "base"))
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert model_ref(tmp_path, "org/name") == DataRef("path", str(tmp_path / "org/name"))
    assert data_ref(tmp_path, "org/name") == DataRef("path", str(tmp_path / "org/name"))
    assert data_ref(tmp_path, "hf://datasets/a/b") == DataRef("hub", "a/b")


@pytest.mark.parametrize("text", ["ftp://x/y", "http://x/y"])
def test_unknown_schemes_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpecError, match="is not understood"):
        data_ref(tmp_path, text)
    with pytest.raises(SpecError, match="is not understood"):
        model_ref(tmp_path, text)
