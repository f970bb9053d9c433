"""The few fitted numbers of the memory model; ACCURACY.md says how well they do."""

from __future__ import annotations

CONSTANTS: dict[str, float] = {
    "fused_loss": 0.4,  # bytes per vocabulary entry and token, chunks included
    "slack_activations": 0.08,  # cached but unused, of activations
    "slack_logits": 0.3,  # of logits and their copies
    "slack_step": 0.15,  # of gradients and the step's temporary
    "slack_comm": 1.0,  # of gathered blocks and buckets
    "slack_base": 0.2,  # GiB
    # of activations and logits, where rows differ in length and longer ones are cut or dropped (measured by
    # benchmarks/fragmentation.py)
    "cut_activations": 0.1,
    "cut_logits": 0.6,
    "dropped_activations": 0.25,
    "dropped_logits": 2.4,
    "upper_lengths": 2.3,  # more of both, in nine of ten trainings at most
    "slack_least": 0.03,  # of all tensors, where memory is short
    "context": 0.55,  # GiB: CUDA context, kernels, cuBLAS workspace
    "nccl": 0.9,  # GiB, where several GPUs talk
    "cpu_context": 0.7,  # GiB: the Python process
    "upper": 1.30,
    "wide": 2.0,
}
