"""Models that read more than text: they are trained on text, and their other towers are left as they are.

A tower that sees nothing gets no gradient. Left trainable it would hold optimizer state for nothing, and processes that
train together would wait for its gradients.
"""

from __future__ import annotations

import re
from typing import Any


def text_model_class(config: Any) -> Any:
    """The auto class of a model that writes text, whatever else it reads."""
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    kind = type(config)
    of_images = kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and kind not in MODEL_FOR_CAUSAL_LM_MAPPING
    return AutoModelForImageTextToText if of_images else AutoModelForCausalLM


def freeze_other_towers(model: Any) -> None:
    """Only the text tower, and a head, stay trainable."""
    for tower in _other_towers(model).values():
        tower.requires_grad_(False)


def other_towers(model: Any) -> str | None:
    """Names of all modules of the other towers, as PEFT's `exclude_modules` takes them; None if there are none."""
    names = "|".join(re.escape(name) for name in _other_towers(model))
    return rf"({names})(\..*)?" if names else None


def _other_towers(model: Any) -> dict[str, Any]:
    """What stands beside the text tower, by name."""
    if model.config.get_text_config() is model.config:
        return {}
    text = model.get_decoder()
    whole, _, own = next(name for name, module in model.named_modules() if module is text).rpartition(".")
    prefix = f"{whole}." if whole else ""
    beside = model.get_submodule(whole).named_children()
    return {prefix + name: module for name, module in beside if name != own}
