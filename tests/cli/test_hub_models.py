"""`plan estimate` of models that only the Hub knows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result

from planner.architecture import load_architecture, parameter_counts
from planner.plan import load_plan
from tests.hub_host import COMMIT, HostedModel, HubHost, hub_host, safetensors_head

Run = Callable[..., Result]
SCHEMA = json.loads((Path(__file__).parents[2] / "planner" / "schemas" / "estimate.json").read_text())
CONFIG = {
    "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "head_dim": 64,
    "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128256, "tie_word_embeddings": True,
}  # fmt: skip
TOTAL = parameter_counts(load_architecture("meta-llama/Llama-3.2-1B")).total


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubHost]:
    with hub_host() as host:
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setenv("HF_ENDPOINT", host.url)
        monkeypatch.setenv("HF_TOKEN", host.token)
        host.models["lab/new-1b"] = hosted()
        yield host


def hosted(total: int = TOTAL, config: dict[str, Any] = CONFIG, **fields: Any) -> HostedModel:
    head = safetensors_head({"weights": ("BF16", [total])})
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": head}
    return HostedModel(**{"files": files, "info": {"cardData": {"license": "mit"}}, **fields})


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text("name: x\nmodel: lab/new-1b\ndata: {samples: 1000, tokens_per_sample: 200}\n")
    return path


def document_of(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    jsonschema.validate(document, SCHEMA)
    return document


def warnings_of(document: dict[str, Any]) -> dict[str, str]:
    return {row["code"]: row["message"] for row in document["warnings"]}


def test_an_unknown_model_is_fetched_once_and_pinned_in_the_plan(hub: HubHost, run_plan: Run, spec: Path):
    out = spec.with_name("plan.json")
    result = run_plan("estimate", spec, "-o", "json", "--out", out)
    model = document_of(result)["model"]
    assert (model["id"], model["revision"], model["license"], model["gate"]) == (
        "lab/new-1b",
        COMMIT,
        "mit",
        None,
    )
    assert model["params_total"] == TOTAL
    assert f"asking {hub.url} about lab/new-1b" in result.stderr
    assert load_plan(out).spec.model.revision == COMMIT
    asked = len(hub.requests)
    text = run_plan("estimate", spec).stdout
    assert f"on the Hub at {COMMIT[:12]}, mit" in text
    assert len(hub.requests) == asked


def test_the_download_is_of_the_bytes_that_the_hub_has(hub: HubHost, run_plan: Run, spec: Path):
    explained = ("estimate", spec, "--explain", "-o", "json")

    def weights_gib() -> float:
        sections = {row["key"]: row for row in document_of(run_plan(*explained))["explanation"]["sections"]}
        terms = {term["name"]: term for term in sections["hours"]["terms"]}
        return float(terms["start: model"]["inputs"]["weights GiB"])

    assert weights_gib() == pytest.approx(2 * TOTAL / 2**30)
    tensors = {"packed": ("U8", [TOTAL // 2]), "norms": ("F32", [1000])}
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": safetensors_head(tensors)}
    hub.models["lab/new-1b-bnb-4bit"] = HostedModel(files=files)
    spec.write_text(spec.read_text().replace("lab/new-1b", "lab/new-1b-bnb-4bit"))
    assert weights_gib() == pytest.approx((TOTAL // 2 + 4000) / 2**30)


def test_offline_and_unreachable_use_what_is_remembered_and_say_its_age(
    hub: HubHost, run_plan: Run, spec: Path, monkeypatch: pytest.MonkeyPatch, plan_home: Path
):
    run_plan("estimate", spec)
    for kept in (plan_home / "cache" / "models").iterdir():
        kept.write_text(kept.read_text().replace('asked_at": "20', 'asked_at": "19'))
    hub.statuses = [404]
    assert run_plan("estimate", spec).exit_code == 2  # asked again, as a branch may move
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "days old" in warnings_of(document_of(run_plan("estimate", spec, "-o", "json")))["model_facts_old"]
    pinned = spec.read_text().replace("lab/new-1b", f"{{id: lab/new-1b, revision: {COMMIT}}}")
    spec.write_text(pinned)
    assert "model_facts_old" not in warnings_of(document_of(run_plan("estimate", spec, "-o", "json")))


def test_without_network_or_memory_the_model_is_unknown_with_the_reason(
    hub: HubHost, run_plan: Run, spec: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("providers.web._WAITS_S", ())
    monkeypatch.setenv("HF_ENDPOINT", "http://localhost:9")
    result = run_plan("estimate", spec, "-o", "json")
    error = json.loads(result.stdout)["errors"][0]
    assert (result.exit_code, error["code"], error["line"]) == (2, "unknown_model", 2)
    assert "cannot reach localhost:9" in error["message"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in run_plan("estimate", spec).stderr


def test_a_name_that_is_no_id_gets_the_nearest_known_one_and_the_hub_is_not_asked(
    hub: HubHost, run_plan: Run, spec: Path
):
    spec.write_text(spec.read_text().replace("lab/new-1b", "Llama 3.1 8B"))
    said = run_plan("estimate", spec).stderr
    assert "it is no Hugging Face model id" in said and "did you mean meta-llama/Llama-3.1-8B?" in said
    assert "asking " not in said


def test_gates_and_code_of_the_model_are_told_before_it_is_used(hub: HubHost, run_plan: Run, spec: Path):
    config = {**CONFIG, "auto_map": {"AutoModelForCausalLM": "modeling.New"}}
    hub.models["lab/new-1b"] = hosted(config=config, gate="manual", info={})
    told = warnings_of(document_of(run_plan("estimate", spec, "-o", "json")))
    assert "terms must be accepted" in told["gated_model"]
    assert "unless model.trust_remote_code is true" in told["remote_code"]
    assert "names no licence" in told["license_unknown"]
    spec.write_text(spec.read_text().replace("lab/new-1b", "{id: lab/new-1b, trust_remote_code: true}"))
    told = warnings_of(document_of(run_plan("estimate", spec, "-o", "json")))
    assert f"at {COMMIT[:12]} will run" in told["remote_code"]


def test_a_closed_gate_is_exit_4_with_the_page_to_accept_at(
    hub: HubHost, run_plan: Run, spec: Path, monkeypatch: pytest.MonkeyPatch
):
    hub.models["lab/new-1b"] = hosted(gate="auto")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    result = run_plan("estimate", spec)
    assert result.exit_code == 4
    assert f"accept them at {hub.url}/lab/new-1b, then set HF_TOKEN" in result.stderr


@pytest.mark.parametrize(
    ("total", "params", "doubt"),
    [
        (TOTAL + 1000, TOTAL + 1000, None),
        (TOTAL * 2, TOTAL * 2, "parameters_differ"),  # say, a vision tower
        (TOTAL // 2, TOTAL, "parameters_differ"),
    ],
)
def test_the_files_have_the_last_word_on_parameters(
    hub: HubHost, run_plan: Run, spec: Path, total: int, params: int, doubt: str | None
):
    hub.models["lab/new-1b"] = hosted(total)
    document = document_of(run_plan("estimate", spec, "-o", "json"))
    assert document["model"]["params_total"] == params
    assert ("parameters_differ" in warnings_of(document)) is (doubt is not None)


def test_other_commands_know_it_too(hub: HubHost, run_plan: Run, tmp_path: Path):
    path = tmp_path / "new.yaml"
    assert run_plan("init", path, "--yes", "--from", "lab/new-1b").exit_code == 0
    assert COMMIT in path.read_text()
    (tmp_path / "d.jsonl").write_text('{"text": "hello"}\n')
    assert run_plan("data", "inspect", tmp_path / "d.jsonl", "--model", "lab/new-1b").exit_code == 0


def test_a_simulation_knows_it_too(hub: HubHost, run_plan: Run, spec: Path):
    result = run_plan("simulate", spec, "--jobs", "20", "--gpu", "L4", "--count", "1")
    assert result.exit_code == 0, result.stderr


def test_two_processes_at_once_share_cache_and_plan_file(hub: HubHost, spec: Path, plan_home: Path):
    hub.meet = threading.Barrier(2)
    out = spec.with_name("plan.json")
    words = ("estimate", str(spec), "--limit", "1", "--out", str(out))
    command = [sys.executable, "-c", "from planner.cli.main import main; main()", *words]
    both = [
        subprocess.Popen(command, env={**os.environ, "PLAN_HOME": str(plan_home)}, stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [process.wait(120) for process in both] == [0, 0]
    assert load_plan(out).spec.model.revision == COMMIT
    assert {path.name for path in spec.parent.iterdir()} == {"spec.yaml", "plan.json"}
    remembered = sorted((plan_home / "cache/models").iterdir())
    assert len(remembered) == 2 and all(json.loads(path.read_text())["format"] for path in remembered)
