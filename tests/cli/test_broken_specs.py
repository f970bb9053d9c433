"""Every kind of broken spec through the real command: one clear error, exit 2, no traceback, nothing on stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from click.testing import Result

RunPlan = Callable[..., Result]
PLAN = Path(sys.executable).with_name("plan")
GOOD = """\
name: x
model: roberta-large
task: classification
method: full
data: {samples: 100, tokens_per_sample: 50}
"""


def bomb(levels: int = 40) -> str:
    lines = ["labels: &l0 {a: x, b: x, c: x}"]
    lines += [f"k{i}: &l{i} {{a: *l{i - 1}, b: *l{i - 1}, c: *l{i - 1}}}" for i in range(1, levels)]
    return GOOD + "\n".join(lines)


# name -> (content, place, words of the message); place is what follows the file's name
BROKEN: dict[str, tuple[str | bytes, str, str]] = {
    "empty": ("", "", "the file is empty"),
    "only comments": ("# nothing here\n\n", "", "the file is empty"),
    "a list": ("- name: x\n", ":1:1", "must hold keys and values"),
    "plain text": ("hello world\n", ":1:1", "must hold keys and values"),
    "json of a number": ("42", ":1:1", "must hold keys and values"),
    "binary": (b"\x7fELF\x02\x01\x01\x00\x00\x00\xff", ":1:8", "NUL byte"),
    "image": (b"\x89PNG\r\n\x1a\n\x89\x50", ":1:1", "not UTF-8"),
    "nul in text": (GOOD.encode() + b"project: a\0b\n", ":6:11", "NUL byte"),
    "utf-16": (GOOD.encode("utf-16"), ":1:1", "is UTF-16"),
    "utf-16 without mark": (GOOD.encode("utf-16-le"), ":1:2", "UTF-16"),
    "latin-1": (GOOD.encode() + "owner: Jos\u00e9\n".encode("latin-1"), ":6:11", "not UTF-8"),
    "control character": (GOOD + "owner: \x1b[31mred\n", ":6:1", "control character"),
    "too large": (GOOD + "#" * 2**20, "", "larger than 1 MiB"),
    "many values": (GOOD + "notify: [" + "x, " * 20_000 + "]", ":6:", "more than 10000 values"),
    "alias bomb": (bomb(), ":", "more than 10000 values"),
    "alias of itself": (GOOD + "labels: &a {x: *a}\n", ":6:16", "names nothing that is complete"),
    "unknown alias": (GOOD + "labels: *nope\n", ":6:9", "names nothing that is complete"),
    "deep brackets": (GOOD + "labels: " + "[" * 50_000, ":6:", "nested more than 40 deep"),
    "deep braces": (GOOD + "labels: " + "{a: " * 50_000, ":6:", "nested more than 40 deep"),
    "python object": (GOOD + "owner: !!python/object/apply:os.system [ls]\n", ":6:8", "is not understood"),
    "merge key": (GOOD + "<<: {task: sft}\n", ":6:1", "merge keys"),
    "complex key": (GOOD + "? [a, b]\n: 1\n", ":6:3", "a key must be text"),
    "two documents": (GOOD + "---\n" + GOOD, ":6:1", "a second document"),
    "tab": ("name: x\nmodel:\n\tid: a/b\n", ":3:1", "a tab stands"),
    "open bracket": (GOOD + "notify: [a, b\n", ":", "a bracket is opened"),
    "open quote": (GOOD + "owner: 'me\n", ":", "a quote is opened"),
    "bad indentation": ("name: x\nmodel:\n    id: a/b\n  revision: y\n", ":4:", "does not fit the lines above"),
    "two colons": ("name: x: y\n", ":1:8", "a `:` stands where none can"),
    "unknown key": (GOOD + "train:\n  epoch: 3\n", ":7:3: train.epoch", "did you mean epochs?"),
    "unknown section": (GOOD + "trian: {}\n", ":6:1: trian", "did you mean train?"),
    "key of another section": (GOOD + "learning_rate: 3\n", ":6:1: learning_rate", "did you mean train.learning_rate?"),
    "key of another tool": (GOOD + "train: {max_seq_length: 3}\n", ":6:9", "did you mean sequence_length?"),
    "repeated key": (GOOD + "name: y\n", ":6:1: name", "a second time, first in line 1"),
    "missing keys": ("task: sft\n", ":1:1: name", "missing"),
    "wrong type": (GOOD + "train: {steps: many}\n", ":6:16: train.steps", "expected a whole number"),
    "list for section": (GOOD + "train: [1]\n", ":6:8: train", "expected keys and values, got a list"),
    "section for list": (GOOD + "notify: {a: b}\n", ":6:9: notify", "expected a list"),
    "truth for text": (GOOD + "project: true\n", ":6:10: project", "expected text, got true"),
    "truth for number": (GOOD + "train: {seed: true}\n", ":6:15: train.seed", "expected a whole number, got true"),
    "yes for truth": (GOOD + "train: {fused_loss: yes}\n", ":6:21", "expected true or false"),
    "null for number": (GOOD + "train: {seed: }\n", ":6:14: train.seed", "got nothing"),
    "fraction for whole": (GOOD + "train: {steps: 1.5}\n", ":6:16", "expected a whole number, got 1.5"),
    "huge float": (GOOD + "train: {learning_rate: 1e400}\n", ":6:24", "finite"),
    "huge whole number": (GOOD + f"train: {{steps: {10**300}}}\n", ":6:16", "must be at most"),
    "number of 100,000 digits": (GOOD + "train: {steps: " + "9" * 100_000 + "}\n", ":6:16", "more than 400"),
    "hex of 100,000 digits": (GOOD + "train: {steps: 0x" + "f" * 100_000 + "}\n", ":6:16", "more than 400"),
    "not a number": (GOOD + "train: {learning_rate: .nan}\n", ":6:24", "finite"),
    "negative": (GOOD + "train: {epochs: -1}\n", ":6:17", "must be greater than 0, got -1"),
    "out of range": (GOOD.replace("full", "{rank: 0}"), ":4:16: method.rank", "must be at least 1, got 0"),
    "duration without unit": (GOOD + "goal: {within: 24}\n", ":6:16: goal.within", "24h or 24m"),
    "negative duration": (GOOD + "goal: {within: -24h}\n", ":6:16", "is not a duration"),
    "euros": (GOOD + "goal: {budget: 50eur}\n", ":6:16: goal.budget", "another currency"),
    "negative money": (GOOD + "goal: {budget: -5}\n", ":6:16", "US dollars"),
    "time without zone": (GOOD + "goal: {deadline: 2030-01-01T10:00:00}\n", ":6:18", "no time zone"),
    "no such day": (GOOD + "goal: {deadline: 2030-02-30}\n", ":6:18", "is not a moment"),
    "unknown gpu": (GOOD + "where: {gpus: [H10O]}\n", ":6:16: where.gpus[0]", "did you mean H100"),
    "backwards range": (GOOD + "where: {gpu_memory: 80GB..24GB}\n", ":6:21", "backwards"),
    "memory without unit": (GOOD + "where: {gpu_memory: 80}\n", ":6:21", "is not a size"),
    "endless nodes": (GOOD + "where: {nodes: 2..}\n", ":6:16", "no upper end"),
    "no clouds": (GOOD + "where: {clouds: []}\n", ":6:17", "must not be empty"),
    "secret value": (GOOD + "environment: {secrets: [A=b]}\n", ":6:25", "environment variable"),
    "secret in env": (GOOD + "environment: {env: {HF_TOKEN: x}}\n", ":6:31", "looks like a secret"),
    "newer version": ("spec_version: 2\n" + GOOD, ":1:15: spec_version", "newer than this tuneplan"),
    "epochs and steps": (GOOD + "train: {epochs: 1, steps: 2}\n", ":6:27: train.steps", "train.epochs is given too"),
    "two deadlines": (GOOD + "goal: {within: 1d, deadline: 2030-01-01}\n", ":6:16", "goal.deadline is given too"),
    "quantized full": (GOOD + "quantization: 4bit\n", ":6:15: quantization", "trains every weight"),
    "metric of another task": (GOOD + "evaluate: {metric: perplexity}\n", ":6:20", "no metric of task classification"),
    "patience in vain": (GOOD + "evaluate: {patience: 2}\n", ":6:22: evaluate.patience", "nothing is evaluated"),
    "best without evaluations": (GOOD + "evaluate: {choose: best}\n", ":6:20: evaluate.choose", "nothing is evaluated"),
    "guard's metric": (
        GOOD + "evaluate: {guard: {data: g.jsonl, metric: reward}}\n", ":6:43", "no metric of task classification"
    ),
    "guard without data": (GOOD + "evaluate: {guard: {at_most_worse: 1}}\n", ":6:12: evaluate.guard.data", "missing"),
    "objective without budget": (GOOD + "goal: {objective: fastest_within_budget}\n", ":6:19", "needs a budget"),
    "no such directory": (GOOD.replace("roberta-large", "./nothere"), ":2:8: model.id", "there is no"),
    "misspelt model": (GOOD.replace("roberta-large", "rob#rta-large"), ":2:8: model.id", "is not known"),
    "no such data": (GOOD.replace("{samples", "{train: no.jsonl, samples"), ":5:15: data.train", "No such file"),
    "no such held-out data": (GOOD.replace("{samples", "{eval: no.jsonl, samples"), ":5:14: data.eval", "No such file"),
    "scheme of data": (GOOD.replace("{samples", "{train: ftp://a/b, samples"), ":5:15: data.train", "not understood"),
    "one slash": (GOOD + "output: {uri: s3:/bucket/a}\n", ":6:15: output.uri", "without // is no address"),
    "micro over global": (GOOD + "train: {micro_batch: 64}\n", ":6:22", "train.global_batch (16)"),
}  # fmt: skip


def spec_file(folder: Path, content: str | bytes) -> Path:
    path = folder / "spec.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", BROKEN)
def test_one_clear_error(run_plan: RunPlan, tmp_path: Path, kind: str) -> None:
    content, place, words = BROKEN[kind]
    spec_file(tmp_path, content)
    result = run_plan("estimate", "spec.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    first = result.stderr.splitlines()[0]
    assert first.startswith(f"spec.yaml{place}"), first
    assert words in first
    assert len(first) < 250
    assert "Traceback" not in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("kind", BROKEN)
def test_the_same_as_json(run_plan: RunPlan, tmp_path: Path, kind: str) -> None:
    content, _, words = BROKEN[kind]
    spec_file(tmp_path, content)
    result = run_plan("estimate", "spec.yaml", "-o", "json")
    answer = json.loads(result.stdout)
    schema = json.loads(files("planner").joinpath("schemas", "error.json").read_text(encoding="utf-8"))
    jsonschema.validate(answer, schema)
    assert (result.exit_code, answer["exit_code"]) == (2, 2)
    first = answer["errors"][0]
    assert words in first["message"]
    assert first["file"] == "spec.yaml"
    assert first["code"] not in ("invalid", "internal")


def test_the_good_part_of_the_broken_specs_is_good(run_plan: RunPlan, tmp_path: Path) -> None:
    spec_file(tmp_path, GOOD)
    assert run_plan("estimate", "spec.yaml").exit_code == 0
    assert len(BROKEN) >= 60


@pytest.mark.parametrize(
    "name", ["missing.yaml", ".", "no/such/spec.yaml", "/dev/null", "/dev/zero", "spec\n.yaml"]
)
def test_what_is_no_file(run_plan: RunPlan, name: str) -> None:
    result = run_plan("estimate", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """As another user where the tests run as root, whom no mode stops."""
    loop = tmp_path / "spec.yaml"
    loop.symlink_to(loop)
    done = subprocess.run([PLAN, "estimate", loop], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be read: Too many levels of symbolic links" in done.stderr


@pytest.mark.parametrize("kind", ["unknown key", "alias bomb", "deep brackets", "binary"])
def test_in_a_process_of_its_own(tmp_path: Path, kind: str) -> None:
    content, place, words = BROKEN[kind]
    spec_file(tmp_path, content)
    done = subprocess.run([PLAN, "estimate", "spec.yaml"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"spec.yaml{place}")
    assert words in done.stderr
    assert len(done.stderr) < 1000


def test_a_byte_order_mark_is_no_mistake(run_plan: RunPlan, tmp_path: Path) -> None:
    spec_file(tmp_path, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert run_plan("estimate", "spec.yaml").exit_code == 0
