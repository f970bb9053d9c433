"""Step time and throughput from a roofline over the set-up's operations."""

from planner.throughput.estimate import StepEstimate, estimate_step

__all__ = ["StepEstimate", "estimate_step"]
