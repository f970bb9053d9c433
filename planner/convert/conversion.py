"""A configuration on its way to a spec: keys are taken one by one, and what nobody took is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_NO_COUNTERPART = "no counterpart"


@dataclass
class Conversion:
    """What was read so far.

    Attributes:
        tool: Whose configuration it is.
        given: The configuration; keys leave it as they are taken.
        sections: The spec, by section.
        notes: What was assumed or changed.
        left: Key -> why it was not taken over.
        harmless: Keys that need no counterpart: they change neither what is learned nor what it takes.
    """

    tool: str
    given: dict[str, Any]
    sections: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    harmless: list[str] = field(default_factory=list)

    def take(self, *names: str) -> Any:
        """The first of these keys that has a value, all of them counted as taken; None if there is none."""
        values = [self.given.pop(name, None) for name in names]
        return next((value for value in values if value is not None), None)

    def put(self, path: str, value: Any) -> None:
        """Set a dotted key of the spec; None sets nothing."""
        if value is None:
            return
        section, _, key = path.rpartition(".")
        target = self.sections.setdefault(section, {}) if section else self.sections
        target[key] = value

    def move(self, names: Mapping[str, str]) -> None:
        """Keys that only have another name here: old -> dotted."""
        for name, path in names.items():
            self.put(path, self.take(name))

    def refuse(self, name: str, reason: str) -> None:
        """Take a key out and say why it is not taken over; nothing if it is not set."""
        if self.take(name) is not None:
            self.left[name] = reason

    def finish(self, harmless: frozenset[str]) -> Conversion:
        """Account for what is left: keys that have a value."""
        for name, value in self.given.items():
            if name.startswith(tuple(harmless)):
                self.harmless.append(name)
            elif value not in (None, False, "", (), {}):
                self.left[name] = _NO_COUNTERPART
        self.given = {}
        return self


def global_batch(conversion: Conversion, micro_batch: Any, accumulated: Any, gpus: int) -> None:
    """Rows between optimizer steps: these tools count them for one GPU, a spec over all."""
    micro = int(micro_batch or 1)
    conversion.put("train.micro_batch", micro)
    conversion.put("train.global_batch", micro * int(accumulated or 1) * gpus)
    conversion.notes.append(
        f"train.global_batch is for {gpus} GPU{'s' if gpus > 1 else ''}; `--gpus` gives another number"
    )


def warmup(conversion: Conversion, ratio: Any, steps: Any) -> None:
    """A share of the steps; a number of steps is one only if the number of all steps is known."""
    if ratio is not None:
        conversion.put("train.warmup", float(ratio))
    elif steps:
        total = conversion.sections.get("train", {}).get("steps")
        if total:
            conversion.put("train.warmup", round(float(steps) / total, 4))
        else:
            conversion.left["warmup_steps"] = (
                "warmup is a share of the steps here, and their number is not given"
            )


def length_of_training(conversion: Conversion, steps: Any, epochs: Any) -> None:
    """Steps win over epochs, as in both tools; -1 means none."""
    if steps is not None and int(steps) > 0:
        conversion.put("train.steps", int(steps))
    elif epochs is not None:
        conversion.put("train.epochs", float(epochs))


def scheduler(conversion: Conversion, wanted: str) -> None:
    """A scheduler of ours, or the nearest."""
    known = ("linear", "cosine", "constant")
    nearest = next((name for name in known if wanted.startswith(name)), "cosine")
    conversion.put("train.scheduler", nearest)
    if nearest != wanted:
        conversion.notes.append(f"scheduler {wanted} is unknown here, {nearest} is close")


def offload(conversion: Conversion) -> None:
    """What a configuration of FSDP or DeepSpeed says of the host; the rest of it is the estimate's to choose."""
    sharding, fsdp, deepspeed = (conversion.take(name) for name in ("fsdp", "fsdp_config", "deepspeed"))
    said = {str(name).removeprefix("fsdp_"): value for name, value in (fsdp or {}).items()}
    words = sharding.split() if isinstance(sharding, str) else list(sharding or ())
    if "offload" in words or said.get("offload_params") or said.get("cpu_offload"):
        conversion.put("train.offload", "parameters")
    elif deepspeed is not None:
        _offload_of_deepspeed(conversion, deepspeed)
    for name, value in (("fsdp", sharding), ("fsdp_config", fsdp), ("deepspeed", deepspeed)):
        if value:
            conversion.left[name] = "how the model is spread over GPUs is chosen by the estimate"


def _offload_of_deepspeed(conversion: Conversion, settings: Any) -> None:
    """From the settings, or the name of their file as axolotl ships them (zero3_bf16_cpuoffload_params.json)."""
    if isinstance(settings, str):
        name = settings.rpartition("/")[2]
        parameters = "cpuoffload_all" in name or "cpuoffload_params" in name
        optimizer = not parameters and "offload" in name
    else:
        zero = settings.get("zero_optimization") or {}
        parameters, optimizer = (
            (zero.get(key) or {}).get("device", "none") != "none"
            for key in ("offload_param", "offload_optimizer")
        )
    if parameters:
        conversion.put("train.offload", "parameters")
        conversion.notes.append(
            "train.offload is torch's (FSDP2), not DeepSpeed's: the optimizer's step is slower"
        )
    elif optimizer:
        conversion.notes.append(
            "nothing is offloaded: torch takes weights to the host too, as train.offload: parameters"
        )


def no_packing_of_pairs(conversion: Conversion) -> None:
    """Only supervised fine-tuning packs rows."""
    task, train = conversion.sections["task"], conversion.sections["train"]
    if train.get("packing") and task != "sft":
        train["packing"] = False
        conversion.notes.append(f"packing is off: task {task} judges each example alone")


def number(value: Any) -> float | None:
    """A number that may have been written as text, as in `2e-5` read by YAML 1.1."""
    return None if value is None else float(value)
