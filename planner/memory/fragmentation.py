"""What the caching allocator holds beyond the tensors: rounding, and blocks that no longer fit."""

from __future__ import annotations

from typing import NamedTuple

from planner.memory.constants import CONSTANTS
from planner.memory.stages import is_scheduled
from planner.setup import TrainingSetup

_GIB = float(2**30)


class Peak(NamedTuple):
    """The largest moment of a step.

    Attributes:
        phase: generation, loss, backward or optimizer_step.
        components: Bytes of its tensors by kind.
        beside: Bytes that another moment took: the step's temporaries where the peak is before it, or what passes
            through the backward pass.
    """

    phase: str
    components: dict[str, float]
    beside: float


def fragmentation(setup: TrainingSetup, peak: Peak, head: float, streams: float) -> float:
    """Bytes that are held and not used at the peak, where there is room for them.

    Logits are cached after the loss, whatever the peak's phase, but on the last of several stages alone; gathers run on
    streams with pools of their own. DeepSpeed's ZeRO-1 and fp16 take a step's temporaries in one piece
    (`single_grad_partition`), for which segments as large as a block's input, of which a pipeline leaves hundreds,
    cannot be put together; with other stacks that is among what the slack was fitted to.

    Args:
        setup: The training.
        peak: Its largest moment.
        head: Bytes of logits and their like at the loss.
        streams: Bytes that pass through streams with pools of their own.
    """
    components = peak.components
    stepping = components["gradients"] + components["optimizer_step_temporary"]
    if is_scheduled(setup):
        head = components["logits_loss"]
    return (
        CONSTANTS["slack_activations"] * components["activations"]
        + CONSTANTS["slack_logits"] * head
        + _unused_by_others(setup, components, head)
        + CONSTANTS["slack_step"] * stepping
        + CONSTANTS["slack_comm"] * streams
        + CONSTANTS["slack_base"] * _GIB
        + (peak.beside if setup.framework == "megatron-deepspeed" else 0.0)
    )


def _unused_by_others(setup: TrainingSetup, components: dict[str, float], head: float) -> float:
    """Blocks of rows of one length that rows of another do not fit, less the room that the step's temporaries leave."""
    if not setup.varied_lengths:
        return 0.0
    kind = "dropped" if setup.drops_longer_rows else "cut"
    activations = components["activations"]
    unused = CONSTANTS[f"{kind}_activations"] * activations + CONSTANTS[f"{kind}_logits"] * head
    return unused if activations else max(0.0, unused + head - components["optimizer_step_temporary"])
