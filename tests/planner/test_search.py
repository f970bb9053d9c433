import pytest

import planner.search
from planner.estimate import build_estimate
from planner.memory import Tensors, estimate_memory
from planner.pricing import offered_gpu
from planner.setup import Cluster, TrainingSetup
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
        assert fit.memory == whole


def test_what_a_set_up_holds_is_asked_once_for_all_gpus_on_which_it_runs_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A100, H100 and cards of other sizes share it; a V100, which has no flash kernel, does not."""
    asked = []
    peak_tensors = planner.search.peak_tensors

    def counted(setup: TrainingSetup, *, on_cpu: bool) -> Tensors:
        asked.append((setup, on_cpu))
        return peak_tensors(setup, on_cpu=on_cpu)

    monkeypatch.setattr(planner.search, "peak_tensors", counted)

    def estimated(*gpus: str) -> int:
        asked.clear()
        offers = [offer_of(gpu, 8) for gpu in gpus]
        smaller = [one._replace(gpu_mem_gib=23.0) for one in offers]
        build_estimate(question_of(train={"micro_batch": 1}), snapshot_of(*offers, *smaller))
        assert len(set(asked)) == len(asked)
        return len(asked)

    alone = estimated("H100")
    assert alone > 0
    assert estimated("H100", "A100-80GB", "H200", "B200") == alone
    assert estimated("H100", "V100-32GB") > alone
