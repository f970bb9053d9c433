"""Looks at training data before money is spent on it: streaming, in one pass, with bounded memory."""

from planner.inspect.inspection import Inspection, inspect_files

__all__ = ["Inspection", "inspect_files"]
