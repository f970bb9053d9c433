"""A model whose weights, gradients and optimizer stay with the host: it learns what one on the GPU does."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

import pytest

from jobs.sharded import _score_on
from jobs.spec import JobSpec, MethodJob
from tests.jobs.runs import Runs, renamed
from tests.jobs.test_methods import TRAIN, job_of, paired, results
from tests.jobs.test_together import losses, together
from tests.jobs.zygote import Zygote

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def runs(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(zygote, tmp_path_factory.mktemp("offload"))


def on_host(runs: Runs, name: str, kind: str = "full") -> JobSpec:
    """A short training of one process, without dropout."""
    job = runs.sft(name, kind=kind, steps=12)
    method = replace(job.method, dropout=0.0)
    train = replace(job.train, sharding="fsdp", offload="parameters", optimizer="adamw_fused")
    return replace(job, method=method, train=train)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_one_process_learns_and_goes_on_exactly(runs: Runs, kind: str) -> None:
    job = on_host(runs, kind, kind)
    runs.complete(job)
    whole = renamed(runs, job, f"{kind}-whole")
    runs.complete(replace(whole, train=replace(whole.train, sharding="none", offload="none")))
    assert losses(runs, kind) == pytest.approx(losses(runs, whole.run_id), rel=1e-3)
    twin = renamed(runs, job, f"{kind}-twin")
    runs.interrupt(twin, lambda: runs.newest_step(twin.run_id) >= 4)
    assert runs.complete(twin).resumed_from_step is not None
    assert runs.weights(twin.run_id) == runs.weights(kind)


def test_two_processes_go_on_from_what_one_saved(runs: Runs) -> None:
    job = on_host(runs, "pair")
    assert runs.interrupt(job, lambda: runs.newest_step("pair") >= 4) == -signal.SIGKILL
    assert together(runs, job) == [0, 0], runs.log("pair")
    assert runs.progress("pair").resumed_from_step is not None
    base, tuned = losses(runs, "pair")
    assert tuned < base - 1


def test_a_preference_is_learned_beside_a_reference(runs: Runs) -> None:
    """Both models are on the host."""
    train = replace(
        TRAIN, sharding="fsdp", offload="parameters", precision="bf16", gradient_checkpointing=True
    )
    job = job_of(runs, "dpo", "dpo", paired, method=MethodJob("full"), train=replace(train, steps=10))
    metric = results(runs.complete(job))["reward_margin"]
    assert metric.tuned is not None
    assert metric.tuned > (metric.base or 0.0)


def test_the_head_comes_to_where_the_activations_are() -> None:
    """Beyond that a model's forward pass is its own, also when answers are sampled."""
    torch = pytest.importorskip("torch")

    class Model(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(2, 3)

        def get_output_embeddings(self) -> Any:
            return self.head

        def forward(self, fused_lm_head: bool = False) -> Any:
            return self.get_output_embeddings().weight.device.type

    model = Model()
    _score_on("meta", model)
    assert (model(fused_lm_head=True), model(), model.get_output_embeddings()) == ("meta", "cpu", model.head)
