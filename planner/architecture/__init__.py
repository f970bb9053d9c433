"""Model facts and exact parameter counts from a config alone, never through transformers."""

from planner.architecture.adapters import (
    WITHOUT_TARGETS,
    Adapter,
    adapter_parameters,
    adapter_targets,
    expert_adapter_parameters,
    whole_parameters,
)
from planner.architecture.counts import CLASSIFIERS, ParameterCounts, parameter_counts
from planner.architecture.linears import LinearShape, linear_shapes
from planner.architecture.model import ModelArchitecture
from planner.architecture.publication import Publication
from planner.architecture.registry import (
    known_models,
    load_architecture,
    maker_of,
    model_config,
    registered_model,
)

__all__ = [
    "CLASSIFIERS",
    "WITHOUT_TARGETS",
    "Adapter",
    "LinearShape",
    "ModelArchitecture",
    "ParameterCounts",
    "Publication",
    "adapter_parameters",
    "adapter_targets",
    "expert_adapter_parameters",
    "known_models",
    "linear_shapes",
    "load_architecture",
    "maker_of",
    "model_config",
    "parameter_counts",
    "registered_model",
    "whole_parameters",
]
