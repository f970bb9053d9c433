"""Peak GPU memory by component, with a verdict and an upper bound."""

from planner.memory.estimate import MemoryEstimate, estimate_memory
from planner.memory.model_state import base_weight_bytes, model_state
from planner.memory.peak import Tensors, peak_tensors
from planner.memory.verdict import Verdict, verdict_of

__all__ = [
    "MemoryEstimate",
    "Tensors",
    "Verdict",
    "base_weight_bytes",
    "estimate_memory",
    "model_state",
    "peak_tensors",
    "verdict_of",
]
