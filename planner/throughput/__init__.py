"""Step time and throughput from a roofline over the set-up's operations."""

from planner.throughput.doubts import Doubt
from planner.throughput.estimate import StepEstimate, estimate_step

__all__ = ["Doubt", "StepEstimate", "estimate_step"]
