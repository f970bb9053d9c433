"""What published runs imply about stacks: older ones, unknown ones, and their optimizers."""

from planner.backtest import estimate_run, predict, read_run

ROW = {
    "model": "meta-llama/Llama-3.1-8B", "method": "full", "precision": "bf16", "gpu": "A100-80GB", "gpu_mem_gb": "80",
    "num_gpus": "8", "parallelism": "FSDP", "seq_len": "2048", "micro_batch": "1", "grad_accum": "4",
    "grad_checkpointing": "true", "date": "2025-01",
}  # fmt: skip
STACKS = ("HF Trainer", "Homegrown")


def test_gradients_do_not_wait_in_an_unknown_stack():
    """Not to reduce them between micro-batches is accelerate's habit."""
    known, unknown = (estimate_run(ROW | {"framework": name}) for name in STACKS)
    assert (known.run.setup.framework, unknown.run.setup.framework) == ("hf", "other")
    held = [estimate.memory.components_bytes["comm_buffers"] for estimate in (known, unknown)]
    assert held[1] < held[0] - 8e9


def test_of_an_unknown_stack_only_weights_and_optimizer_are_sure_not_to_fit():
    many = ROW | {"micro_batch": "64"}
    assert [predict(many | {"framework": name})["verdict"] for name in STACKS] == ["oom", "borderline"]
    small = many | {"num_gpus": "1", "parallelism": "", "gpu": "RTX 4090", "gpu_mem_gb": "24"}
    assert predict(small | {"framework": STACKS[1]})["verdict"] == "oom"


def test_an_unknown_stack_gets_a_wider_bound():
    bounds = []
    for name in STACKS:
        memory = estimate_run(ROW | {"framework": name, "precision": "bf16-true"}).memory
        bounds.append(memory.upper_bytes / memory.nvml_bytes)
    assert bounds[1] > bounds[0] + 0.2
