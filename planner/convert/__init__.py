"""Specs from other tools' configurations, and back; what has no counterpart is listed, never dropped silently."""

from planner.convert.axolotl import from_axolotl, is_axolotl
from planner.convert.axolotl_export import to_axolotl
from planner.convert.conversion import Conversion
from planner.convert.model import from_model
from planner.convert.trl import from_trl, is_trl
from planner.convert.writing import spec_yaml

__all__ = [
    "Conversion",
    "from_axolotl",
    "from_model",
    "from_trl",
    "is_axolotl",
    "is_trl",
    "spec_yaml",
    "to_axolotl",
]
