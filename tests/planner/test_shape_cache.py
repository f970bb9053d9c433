import gc

from planner.architecture import load_architecture
from planner.setup import TrainingSetup
from planner.shape_cache import by_shape

LLAMA = TrainingSetup(load_architecture("llama-3.1-8b"))


def test_set_ups_that_differ_in_their_batch_alone_share_an_answer() -> None:
    asked: list[TrainingSetup] = []

    @by_shape
    def precision(setup: TrainingSetup) -> str:
        asked.append(setup)
        return setup.precision

    for micro_batch in (1, 2, 4, 4):
        assert precision(LLAMA._replace(micro_batch=micro_batch)) == "bf16"
    assert len(asked) == 1
    assert precision(LLAMA._replace(precision="fp32")) == "fp32"
    assert len(asked) == 2


def test_a_set_up_is_never_taken_for_one_that_is_gone() -> None:
    """Answers are found by identity first, and a new object may lie where an old one was."""

    @by_shape
    def labels_of(setup: TrainingSetup) -> int:
        return setup.labels

    for labels in range(2, 6000):
        assert labels_of(LLAMA._replace(labels=labels)) == labels
        if labels % 1000 == 0:
            gc.collect()
