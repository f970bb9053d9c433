"""`plan export RUN`: what is handed over loads as it is, says what it is, and goes only where it may be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result

from jobs.codec import encode
from jobs.committed import hash_file
from jobs.progress import GuardResult, MetricResult
from jobs.spec import DataJob, JobSpec
from planner.cli.schema import schema_text
from planner.model_card import Facts, model_card
from planner.store import Store
from providers.stores import open_store
from tests.hub_host import HostedModel, HubHost, hub_host
from tests.jobs.runs import Runs
from tests.jobs.zygote import Zygote
from tests.planner.run_factories import attempt_of, terms_of
from tests.seaweed import BUCKET, Seaweed

RunPlan = Callable[..., Result]


@dataclass
class Tuned:
    """A run that was really trained."""

    job: JobSpec
    output: Path


@pytest.fixture(scope="module")
def trained(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    runs = Runs(zygote, tmp_path_factory.mktemp("trained"))
    job = runs.sft("tuned", steps=8, every=8)
    job = replace(job, train=replace(job.train, learning_rate=0.05))
    runs.complete(job)
    return Tuned(job, runs.output("tuned"))


@pytest.fixture
def run(trained: Tuned, plan_home: Path) -> str:
    """The run in the ledger."""
    job = trained.job
    terms = terms_of(job_json=job.to_json(), checkpoint_uri=job.checkpoints.uri, name=job.name)
    (plan_home / "state").mkdir(parents=True, exist_ok=True)
    with Store(plan_home / "state" / "plan.db") as store:
        store.create("tuned", terms, attempt_of())
    return "tuned"


def compare_logits(arguments: list[str]) -> None:
    """The merged model against base and adapter, on one row."""
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    adapter, merged, base = arguments
    row = torch.arange(3, 12)[None]
    with torch.no_grad():
        want = AutoPeftModelForCausalLM.from_pretrained(adapter).eval()(row).logits
        got = AutoModelForCausalLM.from_pretrained(merged).eval()(row).logits
        untuned = AutoModelForCausalLM.from_pretrained(base).eval()(row).logits
    assert torch.allclose(got, want, atol=1e-4), (got - want).abs().max()
    assert not torch.allclose(got, untuned, atol=1e-1), "nothing was merged"


@pytest.mark.train
def test_an_adapter_is_not_worked_into_a_base_that_is_packed(
    run_plan: RunPlan, trained: Tuned, plan_home: Path, tmp_path: Path
) -> None:
    job = replace(trained.job, model=replace(trained.job.model, id="org/tiny-bnb-4bit"))
    terms = terms_of(job_json=job.to_json(), checkpoint_uri=job.checkpoints.uri, name=job.name)
    (plan_home / "state").mkdir(parents=True, exist_ok=True)
    with Store(plan_home / "state" / "plan.db") as store:
        store.create("tuned", terms, attempt_of())
    refused = run_plan("export", "tuned", "--merge", "--to", tmp_path / "merged")
    assert refused.exit_code == 2
    assert "packed in 4 bits" in refused.stderr and "--adapter" in refused.stderr


@pytest.mark.train
def test_adapter_and_merged_model_load_and_agree(
    run_plan: RunPlan, run: str, trained: Tuned, zygote: Zygote, tmp_path: Path
) -> None:
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    result = run_plan("export", run, "--adapter", "--to", adapter, "--license", "apache-2.0", "-o", "json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    jsonschema.validate(document, json.loads(schema_text("export")))
    assert (document["to"], document["public"]) == (str(adapter), False)
    weights = "adapter_model.safetensors"
    assert (adapter / weights).read_bytes() == (trained.output / weights).read_bytes()
    card = (adapter / "README.md").read_text()
    digest = json.loads((trained.output / "result.json").read_text())["data_sha256"]["train"]
    for words in ('license: "apache-2.0"', "library_name: peft", digest, "| exact_match | 20 |", "seed 0"):
        assert words in card
    assert run_plan("export", run, "--merge", "--to", merged).exit_code == 0
    assert "library_name: transformers" in (merged / "README.md").read_text()
    assert not (merged / "adapter_config.json").exists()
    base = str(trained.job.model.path)
    zygote.call("tests.cli.test_export:compare_logits", str(adapter), str(merged), base, log=tmp_path / "log")


def test_a_bucket_gets_the_model_and_nothing_stale_stays_beside_it(
    run_plan: RunPlan, run: str, trained: Tuned, s3_server: Seaweed, tmp_path: Path
) -> None:
    target = f"s3://{BUCKET}/exported/{tmp_path.name}"
    store = open_store(target)
    result = run_plan("export", run, "--adapter", "--to", target)
    assert result.exit_code == 0, result.stderr
    weights = "adapter_model.safetensors"
    assert store.get_file(weights, tmp_path / weights) == hash_file(trained.output / weights)
    card = store.get("README.md")
    assert card is not None and b"library_name: peft" in card[0]
    taken = run_plan("export", run, "--merge", "--to", target)
    assert taken.exit_code == 2 and "already" in taken.stderr and "merged into" not in taken.stderr
    assert (
        "NoSuchBucket" in run_plan("export", run, "--adapter", "--to", "s3://no-such-bucket-at-all/x").stderr
    )


#: Does what our side of llama.cpp's converter needs; the real one comes in no package.
CONVERTER = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("--outfile", type=pathlib.Path)
parser.add_argument("--outtype")
words = parser.parse_args()
assert json.loads((words.model / "config.json").read_text())["model_type"] == "llama", words
assert (words.model / "tokenizer.json").exists() and (words.model / "model.safetensors").exists()
print("converting", words.outtype)
words.outfile.write_bytes(MAGIC)
"""


@pytest.mark.train
@pytest.mark.long
def test_the_converter_of_llama_cpp_is_given_the_merged_model(
    run_plan: RunPlan, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    missing = run_plan("export", run, "--gguf", "--to", tmp_path / "out")
    assert missing.exit_code == 2 and f"in {tmp_path}" in missing.stderr and "git clone" in missing.stderr
    converter = tmp_path / "convert_hf_to_gguf.py"
    converter.write_text(CONVERTER.replace("MAGIC", "b'GGUF and so on'"))
    with monkeypatch.context() as bare:
        bare.setattr("planner.gguf.find_spec", lambda name: None)
        unable = run_plan("export", run, "--gguf", "--to", tmp_path / "out")
    assert unable.exit_code == 2 and "tuneplan[gguf]" in unable.stderr
    made = run_plan("export", run, "--gguf", "--to", tmp_path / "out")
    assert made.exit_code == 0, made.stderr
    assert "converting auto" in made.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "result.json",
        "subtract.gguf",
    ]
    assert "library_name: gguf" in (tmp_path / "out" / "README.md").read_text()
    converter.write_text(CONVERTER.replace("MAGIC", "b'no such thing'"))
    wrong = run_plan("export", run, "--gguf", "--to", tmp_path / "other")
    assert wrong.exit_code == 10 and "convert_hf_to_gguf.py ended with" in wrong.stderr
    assert not (tmp_path / "other").exists()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    with hub_host() as host:
        monkeypatch.setenv("HF_ENDPOINT", host.url)
        monkeypatch.setenv("HF_TOKEN", host.token)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # as read at its import
        yield host


def test_a_repository_of_the_hub_is_private_unless_told_otherwise(
    run_plan: RunPlan, run: str, hub: HubHost, trained: Tuned
) -> None:
    result = run_plan("export", run, "--adapter", "--to", "hf://me/tuned")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip().startswith(f"{hub.url}/me/tuned/commit/")
    uploaded = hub.models["me/tuned"]
    assert uploaded.private
    weights = "adapter_model.safetensors"
    assert uploaded.files[weights] == (trained.output / weights).read_bytes()
    assert b"base_model:" in uploaded.files["README.md"]
    uploaded.files |= {"model-00002-of-00002.safetensors": b"of another model", "notes.md": b"mine"}
    assert run_plan("export", run, "--adapter", "--to", "hf://me/tuned").exit_code == 0
    assert "notes.md" in uploaded.files and "model-00002-of-00002.safetensors" not in uploaded.files
    assert run_plan("export", run, "--adapter", "--to", "hf://me/open", "--public").exit_code == 0
    assert not hub.models["me/open"].private


def test_a_public_repository_is_not_written_to_by_accident(run_plan: RunPlan, run: str, hub: HubHost) -> None:
    hub.models["me/known"] = HostedModel({})
    result = run_plan("export", run, "--adapter", "--to", "hf://me/known")
    assert result.exit_code == 2 and "everybody can read me/known" in result.stderr
    assert hub.models["me/known"].files == {}


def test_a_token_that_may_not_write_is_told_and_not_shown(
    run_plan: RunPlan, run: str, hub: HubHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    result = run_plan("export", run, "--adapter", "--to", "hf://me/tuned")
    assert result.exit_code == 4 and "HF_TOKEN" in result.stderr
    assert "hf_wrong" not in result.stderr
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert run_plan("export", run, "--adapter", "--to", "hf://me/tuned").exit_code == 4
    assert hub.models == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to", "somewhere"), "--adapter, --merge or --gguf"),
        (("--gguf", "--to", "somewhere"), "there is no convert_hf_to_gguf.py of llama.cpp on this machine"),
        (("--adapter", "--to", "ftp://host/x"), "cannot hand over"),
        (("--adapter", "--to", "hf://no-owner"), "owner/name"),
        (("--adapter", "--to", "."), "exists already"),
        (("--adapter", "--public", "--to", "somewhere"), "--public is for hf://"),
        (("--merge", "--to", "axolotl"), "is for a spec"),
    ],
)
def test_what_cannot_be_exported_is_told_before_anything_is_made(
    run_plan: RunPlan,
    run: str,
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("something").touch()
    result = run_plan("export", run, *words)
    assert result.exit_code == 2 and said in result.stderr
    assert not Path("somewhere").exists()


def test_a_model_that_regressed_is_handed_over_only_on_purpose(
    run_plan: RunPlan, run: str, trained: Tuned, tmp_path: Path
) -> None:
    from jobs.checkpoint import CheckpointStore

    store = CheckpointStore(open_store(trained.job.checkpoints.uri), "tuned")
    before = store.take_over()
    result = trained.output / "result.json"
    kept = result.read_text()
    try:
        guard = GuardResult("loss", 0.1, 1.0, 2.0, passed=False)
        result.write_text(json.dumps({**json.loads(kept), "guard": json.loads(encode(guard))}))
        store.publish_output(trained.output, 8)
        refused = run_plan("export", run, "--adapter", "--to", tmp_path / "bad")
        assert refused.exit_code == 12 and "--even-if-regressed" in refused.stderr
        assert (
            run_plan("export", run, "--adapter", "--even-if-regressed", "--to", tmp_path / "bad").exit_code
            == 0
        )
        assert "**Regressed.**" in (tmp_path / "bad" / "README.md").read_text()
    finally:
        result.write_text(kept)
        store._commit(lambda head: replace(head, output=before.output))


def test_the_card_says_unknown_where_nobody_knows() -> None:
    job = replace(JobSpec.from_json(terms_of().job_json), data=DataJob("a|b.jsonl"))
    metric = MetricResult("loss", "guard", 3, None, 0.5, higher_is_better=False)
    facts = Facts(job, "AutoModelForCausalLM", True, False, 7, [metric], None, {}, None, None, None, "1.0")
    card = model_card(facts)
    assert "license_name: unknown" in card and "| cost | unknown |" in card
    assert "| loss (general hold-out) | 3 | unknown | 0.5 | lower |" in card
    assert "revision not pinned" in card and "weights of step 7" in card


@pytest.mark.parametrize(
    ("auto_class", "merged", "lines"),
    [
        ("AutoModelForCausalLM", False, ["from peft import AutoPeftModelForCausalLM"]),
        ("AutoModelForImageTextToText", True, ["from transformers import AutoModelForImageTextToText"]),
        (
            "AutoModelForImageTextToText",
            False,
            [
                "from peft import PeftModel",
                "from transformers import AutoModelForImageTextToText",
                'model = PeftModel.from_pretrained(base, "PATH_OR_REPOSITORY")',
            ],
        ),
    ],
)
def test_the_card_loads_the_model_by_the_class_that_trained_it(auto_class, merged, lines) -> None:
    job = JobSpec.from_json(terms_of().job_json)
    card = model_card(Facts(job, auto_class, merged, False, 7, [], None, {}, None, None, None, "1.0"))
    code = card.split("```python\n")[1].split("\n```")[0].splitlines()
    assert [line for line in lines if line in code] == lines
    compile("\n".join(code), "card", "exec")
