"""Bytes of a base model's files: what is downloaded, lies on the machine's disk and is read into its memory."""

from __future__ import annotations

from pathlib import Path

from planner.architecture import parameter_counts
from planner.memory import base_weight_bytes
from planner.model_facts import ModelFacts
from planner.setup import TrainingSetup
from planner.spec import FineTuneSpec
from planner.spec_types import packed_in_4bit
from planner.specfile import model_ref


def stored_bytes(spec: FineTuneSpec, base_dir: Path, facts: ModelFacts, base: TrainingSetup) -> float:
    """What the files of a spec's model hold: as the Hub or the disk says, else two bytes for each parameter.

    A base packed in 4 bits that nobody was asked about is taken to be as large as it is in memory, with what is not
    packed in 16 bits; Llama-3-8B is 5.70 GB so and Mistral-7B-v0.3 4.14 GB, as the
    downloads in Unsloth's notebooks show of `unsloth/llama-3-8b-bnb-4bit` and `unsloth/mistral-7b-v0.3-bnb-4bit`. What
    Unsloth's dynamic quantisation (`-unsloth-bnb-4bit`) leaves unpacked is not known here: those are larger.

    Args:
        spec: Names the model.
        base_dir: Directory that the spec's paths are relative to.
        facts: Of the model.
        base: The training, with its adapter.
    """
    if facts.publication is not None and facts.publication.stored_bytes is not None:
        return float(facts.publication.stored_bytes)
    model = model_ref(base_dir, spec.model.id)
    if model.kind == "path" and (here := _bytes_in(Path(model.value))):
        return float(here)
    if packed_in_4bit(spec.model.id) and base.adapter is not None:
        return base_weight_bytes(base._replace(precision="bf16", quantization="4bit"))
    return 2.0 * parameter_counts(base.arch, base.task, base.labels).total


def _bytes_in(folder: Path) -> int:
    """Bytes of a directory's safetensors files, 0 if it has none or cannot be read."""
    try:
        return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    except OSError:
        return 0
