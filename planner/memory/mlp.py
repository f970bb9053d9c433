"""What the MLPs of a block keep of a token, and what their backward pass holds beside it. Pure."""

from __future__ import annotations

from typing import NamedTuple

from planner.architecture import Adapter, ModelArchitecture, adapter_targets
from planner.architecture.linears import LAYOUTS
from planner.memory.block_form import BlockForm

#: Families whose activation is written out in elementary operations, and inner values that these keep for themselves.
_WRITTEN_OUT = {"gpt_oss": 2, "esm": 2}
#: Those whose GELU raises its input to the third power, as T5s do where their MLP is gated (1.1), and values it keeps.
_RAISED_TO_POWERS = frozenset({"gpt2", "gpt_neo", "gptj", "phi"})
_GATED_T5 = frozenset({"t5", "mt5", "umt5"})
_OF_POWERS = 3
#: Inner values that the backward pass of a GELU written out with torch's `erf` has at its most: what the derivative's
#: one expression makes of its argument (its square, the negative of that, the exponential, that scaled, the gradient;
#: derivatives.yaml) and the gradients of the product's two sides, less these sides themselves, which are gone by then.
_OF_ERF = 5


class MlpBytes(NamedTuple):
    """Bytes per token of an average block's MLPs.

    Attributes:
        saved: Kept from the forward to the backward pass.
        backward: What the backward pass has more than these at its most.
    """

    saved: float
    backward: float


def mlp_bytes(arch: ModelArchitecture, adapter: Adapter | None, form: BlockForm) -> MlpBytes:
    """Of one token, by what is trained and how it is computed.

    Args:
        arch: The model.
        adapter: None for full fine-tuning.
        form: How a block is computed.
    """
    full, width, fused = adapter is None or form.all_trained, form.width, form.fused_mlp
    down_kept = adapter is not None and _adapts_down(arch, adapter)
    kept = width * inner_width(arch) * _kept_values(arch, form, full)
    if arch.is_moe:
        kept += 2 * width * arch.hidden * arch.experts_per_token * arch.moe_layers / arch.layers
    backward = width * inner_width(arch) * _passing_values(arch, form, full, full or down_kept)
    if adapter is not None and down_kept and (form.adapter_input or adapter.dropout) and not fused:
        backward = max(backward, _adapting(arch, adapter, width, form.adapter_input))
    one_operation = fused or form.one_activation
    if form.fp32_powers and width < 4.0 and not one_operation and _raises_to_powers(arch):
        copied, backward = _raised_in_fp32(arch, width)
        kept += copied
    if form.fp32_routing:
        copied, passing = _fp32_routing(arch, width)
        kept, backward = kept + copied, backward + passing
    return MlpBytes(kept, backward)


def _kept_values(arch: ModelArchitecture, form: BlockForm, full: bool) -> int:
    """Values of its inner width that an MLP keeps."""
    gated = arch.mlp_matrices == 3
    if form.fused_mlp and gated:
        return 2 + (full and form.keeps_product)
    kept = (3 if gated else 1) + full
    if form.fused_mlp or form.one_activation:
        return kept
    return kept + (_OF_POWERS if _raises_to_powers(arch) else _WRITTEN_OUT.get(arch.model_type, 0))


def _passing_values(arch: ModelArchitecture, form: BlockForm, full: bool, trained: bool) -> int:
    """Such values that the backward pass has more at its most.

    That is when the product of a gated MLP is taken back: its gradient and those of its factors, less the product
    itself, if the last linear module kept it; else, at the activation's, the gradients of both sides. Where gradients
    are written over what was kept (`swiglu_backward` of Liger's ops/swiglu.py returns its inputs; torch's compiler
    reuses buffers) it is the product's gradient alone.
    """
    gated = arch.mlp_matrices == 3
    if form.fused_mlp:
        return 1 if gated and form.in_place else 3 if full else 2
    return (_OF_ERF if arch.model_type == "esm" else 3 if gated else 2) - trained


def _raised_in_fp32(arch: ModelArchitecture, width: float) -> tuple[float, float]:
    """What a GELU that is written out (`NewGELUActivation` in transformers) keeps more under autocast, which takes
    powers in fp32: a copy of its input in place of that, the hyperbolic tangent and one more than it in fp32 (and what
    it returns, where that is multiplied); in the backward pass the gradients of the product and of both its factors.
    """
    returned = 4.0 - width if arch.mlp_matrices == 3 else 0.0
    return (12.0 + width - 4 * width + returned) * inner_width(arch), 12.0 * inner_width(arch)


def _raises_to_powers(arch: ModelArchitecture) -> bool:
    gated_t5 = arch.model_type in _GATED_T5 and arch.mlp_matrices == 3
    return arch.model_type in _RAISED_TO_POWERS or gated_t5


def _fp32_routing(arch: ModelArchitecture, width: float) -> tuple[float, float]:
    """The copy in fp32 of what experts return, and in the backward pass its gradient, the same cast, and those of both
    products that take a token's copy for each of its experts, one for each and their sum.
    """
    copies = arch.hidden * arch.experts_per_token * arch.moe_layers / arch.layers
    return 4.0 * copies, (4.0 + 3 * width) * copies


def inner_width(arch: ModelArchitecture) -> float:
    """Width of an average block's MLPs, of all that a token visits."""
    if not arch.is_moe:
        return float(arch.intermediate)
    routed = arch.experts_per_token * arch.moe_intermediate + arch.shared_intermediate
    return (arch.dense_layers * arch.intermediate + arch.moe_layers * routed) / arch.layers


def _adapts_down(arch: ModelArchitecture, adapter: Adapter) -> bool:
    """Whether an adapter on the MLP's last linear module keeps what that takes."""
    down = LAYOUTS[arch.layout].down
    return any(shape.role == "mlp" and shape.name == down for shape in adapter_targets(arch, adapter))


def _adapting(arch: ModelArchitecture, adapter: Adapter, width: float, held: float) -> float:
    """What the adapter of an MLP's last linear module has beside what is kept, as its forward pass (the last of a block
    that is computed again) begins, or its backward pass.

    Forward it is the product as it came and its copy in fp32, which autocast casts back to keep it and a dropout drops
    out before; beside them lie what both norms returned, the residual stream and the module's output. Backward it is
    the gradient of the copy, in fp32, while that is still there. An adapter in the base's type copies nothing, but what
    it keeps is what its dropout left; the gradient of its output, scaled, is there before a block is computed again.
    """
    if not held:
        return width * inner_width(arch) + 5 * width * arch.hidden
    through_fp32 = (held < 4.0) + adapter.dropout
    forward = (width + 4.0 * through_fp32) * inner_width(arch) + 4 * width * arch.hidden
    return max(forward, 4.0 * inner_width(arch))
