"""When to run on spot, when on on-demand, when to wait: on time at the least expected cost."""

from planner.deadline.placement import Placement
from planner.deadline.policy import DeadlinePolicy

__all__ = ["DeadlinePolicy", "Placement"]
