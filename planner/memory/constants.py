"""The few fitted numbers of the memory model; ACCURACY.md says how well they do."""

from __future__ import annotations

CONSTANTS: dict[str, float] = {
    "fused_loss": 0.4,  # bytes per vocabulary entry and token, chunks included
    "fragmentation": 0.10,  # of activations, logits and temporaries
    "fragmentation_base": 0.15,  # GiB
    "context": 0.55,  # GiB: CUDA context, kernels, cuBLAS workspace
    "nccl": 0.9,  # GiB, where several GPUs talk
    "cpu_context": 0.35,  # GiB: the Python process
    "upper": 1.30,
    "band": 0.06,
    "wide": 2.0,
}
