import pytest

from planner.estimate import build_estimate
from planner.memory import estimate_memory
from planner.pricing import offered_gpu
from planner.setup import Cluster
from tests.planner.factories import offer_of, question_of, snapshot_of

OFFERS = tuple(offer_of(gpu, count) for gpu in ("A10", "A100-80GB", "H100", "H200") for count in (1, 8))
SPECS = {
    "lora": {},
    "full": {"method": {"kind": "full"}},
    "full 70B": {"method": {"kind": "full"}, "model": "meta-llama/Llama-3.1-70B", "where": {"nodes": "1..8"}},
    "classifier": {
        "task": "classification",
        "model": "roberta-large",
        "train": {"packing": False, "sequence_length": 512},
    },
}


@pytest.mark.parametrize("name", SPECS)
def test_the_memory_that_is_promised_is_that_of_the_set_up_that_is_chosen(name: str) -> None:
    """Accumulated gradients included: sharded full training keeps them whole between micro-batches."""
    question = question_of(**{"train": {"global_batch": 64}, **SPECS[name]})
    estimate = build_estimate(question, snapshot_of(*OFFERS), limit=None)
    assert estimate.priced
    for item in estimate.priced:
        facts = offered_gpu(item.offer, question.counts.total)
        assert facts is not None
        cluster = Cluster(facts, item.offer.gpus_per_node, item.nodes, item.offer.gpu_mem_gib)
        fit = item.solved.fit
        whole = estimate_memory(fit.setup, cluster)
        assert fit.memory.verdict == whole.verdict
        assert fit.memory.nvml_bytes == pytest.approx(whole.nvml_bytes)
