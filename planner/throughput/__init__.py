"""Step time and throughput from a roofline over the set-up's operations."""

from planner.throughput.doubts import Doubt
from planner.throughput.estimate import StepEstimate, estimate_step
from planner.throughput.terms import emulates_bf16

__all__ = ["Doubt", "StepEstimate", "emulates_bf16", "estimate_step"]
