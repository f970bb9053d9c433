"""What the MLPs of a block keep of a token, and what their backward pass holds beside it. Pure."""

from __future__ import annotations

from planner.architecture import Adapter, ModelArchitecture, adapter_targets
from planner.architecture.linears import LAYOUTS

# Families whose activation is written out in elementary operations; each keeps what it needs for itself.
_WRITTEN_OUT = {"gpt2": 3, "gpt_neo": 3, "gptj": 3, "phi": 3, "gpt_oss": 2, "esm": 2}
#: Of them those whose GELU raises its input to the third power, as does that of T5s with a gated MLP (version 1.1).
_RAISED_TO_POWERS = frozenset({"gpt2", "gpt_neo", "gptj", "phi"})
_GATED_T5 = frozenset({"t5", "mt5", "umt5"})
#: Inner values that the backward pass of a GELU written out with torch's `erf` has at its most: what the derivative's
#: one expression makes of its argument (its square, the negative of that, the exponential, that scaled, the gradient;
#: derivatives.yaml) and the gradients of the product's two sides, less these sides themselves, which are gone by then.
_OF_ERF = 5


def raised_in_fp32(arch: ModelArchitecture, width: float) -> tuple[float, float]:
    """What a GELU that is written out (`NewGELUActivation` in transformers) keeps more under autocast, which takes
    powers in fp32: a copy of its input in place of that, the hyperbolic tangent and one more than it in fp32 (and what
    it returns, where that is multiplied); in the backward pass the gradients of the product and of both its factors.
    """
    returned = 4.0 - width if arch.mlp_matrices == 3 else 0.0
    return (12.0 + width - 4 * width + returned) * inner_width(arch), 12.0 * inner_width(arch)


def raises_to_powers(arch: ModelArchitecture) -> bool:
    """Whether the activation is a GELU that is written out with a third power."""
    gated_t5 = arch.model_type in _GATED_T5 and arch.mlp_matrices == 3
    return arch.model_type in _RAISED_TO_POWERS or gated_t5


def mlp_bytes(
    arch: ModelArchitecture,
    width: float,
    full: bool,
    fused: bool,
    keeps_product: bool,
    down_kept: bool,
    in_place: bool,
) -> tuple[float, float]:
    """Saved bytes, and what the backward pass has more than them at its most.

    That is when the product of a gated MLP is taken back: its gradient and those of its factors, less the product
    itself, if the last linear module kept it; else, at the activation's, the gradients of both sides. Where gradients
    are written over what was kept (`swiglu_backward` of Liger's ops/swiglu.py returns its inputs; torch's compiler
    reuses buffers) it is the product's gradient alone.
    """
    inner = inner_width(arch)
    extra = 0.0
    if arch.is_moe:
        extra = 2 * width * arch.hidden * arch.experts_per_token * arch.moe_layers / arch.layers
    gated = arch.mlp_matrices == 3
    kept = (3 if gated else 1) + (1 if full else 0)
    if fused and gated:
        kept = 2 + (1 if full and keeps_product else 0)
    elif not fused:
        kept += 3 if raises_to_powers(arch) else _WRITTEN_OUT.get(arch.model_type, 0)
    if fused:
        gradients = 1 if gated and in_place else 3 if full else 2
        return width * inner * kept + extra, width * inner * gradients
    gradients = _OF_ERF if arch.model_type == "esm" else 3 if gated else 2
    gradients -= 1 if full or down_kept else 0
    return width * inner * kept + extra, width * inner * gradients


def inner_width(arch: ModelArchitecture) -> float:
    """Width of an average block's MLPs, of all that a token visits."""
    if not arch.is_moe:
        return float(arch.intermediate)
    routed = arch.experts_per_token * arch.moe_intermediate + arch.shared_intermediate
    return (arch.dense_layers * arch.intermediate + arch.moe_layers * routed) / arch.layers


def adapts_down(arch: ModelArchitecture, adapter: Adapter) -> bool:
    """Whether an adapter on the MLP's last linear module keeps what that takes."""
    down = LAYOUTS[arch.layout].down
    return any(shape.role == "mlp" and shape.name == down for shape in adapter_targets(arch, adapter))


def adapting(arch: ModelArchitecture, adapter: Adapter, width: float, held: float) -> float:
    """What the adapter of an MLP's last linear module has beside what is kept, as its forward pass (the last of a block
    that is computed again) begins, or its backward pass.

    Forward it is the product as it came and its copy in fp32, which autocast casts back to keep it and a dropout drops
    out before; beside them lie what both norms returned, the residual stream and the module's output. Backward it is
    the gradient of the copy, in fp32, while that is still there.
    """
    through_fp32 = (held < 4.0) + adapter.dropout
    forward = (width + 4.0 * through_fp32) * inner_width(arch) + 4 * width * arch.hidden
    return max(forward, 4.0 * inner_width(arch))
