"""What cannot be trained on a model, whatever the machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from planner.architecture import CLASSIFIERS, ModelArchitecture, load_architecture
from planner.errors import Finding
from planner.spec import FineTuneSpec
from planner.stacks import computed_by
from planner.support import not_yet
from providers.errors import TuneplanError

#: Families of the registry of which transformers (5.17) has no class with a classification head.
NO_CLASSIFIER = frozenset(
    {
        *("apertus", "cohere", "cohere2", "ernie4_5", "ernie4_5_moe", "glm4_moe", "glm4_moe_lite", "granite"),
        *("gemma4_text", "granitemoe", "llama4_text", "m2m_100", "marian", "minimax_m2", "olmoe", "pegasus"),
        "qwen3_5_moe_text",
    }
)
#: Those that it has no class for at all: their code lies beside the weights.
OWN_CODE = frozenset({"mimo", "minicpm", "qwen", "stablelm_alpha"})
#: Families that read more than text, of which the worker loads all towers and trains the one for text.
TOWERS_LEFT = frozenset(
    {
        *("gemma3", "gemma4", "glm4v_moe", "idefics3", "internvl", "llava_onevision", "mistral3"),
        *("qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "smolvlm"),
    }
)
#: Those of which transformers loads the text tower alone.
TEXT_ALONE = frozenset({"llama4", "qwen3_5", "qwen3_5_moe"})
#: Those of both that it has a class with a classification head for.
CLASSIFIED_TOWERS = frozenset({"gemma3", "qwen3_5"})
#: Triton kernels of the gated delta rule, which transformers takes where they are installed.
_DELTA_RULE = "flash-linear-attention"


def model_blockers(spec: FineTuneSpec, base_dir: Path, *, rented: bool) -> Iterator[Finding]:
    """What speaks against a launch, as far as the model is known here without the Hub."""
    try:
        arch = load_architecture(spec.model.id, base_dir)
    except TuneplanError:
        return
    yield from unsupported_model(spec, arch)
    if rented:
        yield from missing_kernels(spec, arch)


def as_launched(arch: ModelArchitecture) -> ModelArchitecture:
    """The model as the worker loads and computes it: trained on text, whatever else it reads."""
    arch = computed_by("trl", arch)
    if arch.published_type in TEXT_ALONE:
        return replace(arch, extra_parameters=0)
    return (
        replace(arch, idle_parameters=arch.extra_parameters) if arch.published_type in TOWERS_LEFT else arch
    )


def text_only(arch: ModelArchitecture) -> Iterator[tuple[str, str]]:
    """A warning where a model reads more than it is trained on."""
    if arch.published_type in TEXT_ALONE:
        yield "text_only", f"only what reads and writes text of {arch.id} is loaded, trained and saved"
    if arch.published_type in TOWERS_LEFT:
        millions = arch.extra_parameters / 1e6
        size = (
            f"its {millions:,.0f} M parameters for other inputs are" if millions else "its other towers are"
        )
        yield "text_only", f"{arch.id} is trained on text: {size} loaded and left as they are"


def unsupported_model(spec: FineTuneSpec, arch: ModelArchitecture) -> Iterator[Finding]:
    """What cannot be trained on this model: the worker would end when it loads it, on a machine that is paid for."""
    if spec.task in CLASSIFIERS and arch.model_type in NO_CLASSIFIER:
        what = f"launching {spec.task} on {arch.id} (transformers has no classifier for {arch.model_type})"
        yield not_yet("task", what, "choose another base model, or sft with the label as the answer")
    if spec.task not in CLASSIFIERS and arch.kind != "decoder":
        what = f"launching {spec.task} on {arch.id} (an {arch.kind}, which generates no text here)"
        yield not_yet("task", what, "use classification, or a base model that is a decoder")
    if spec.train.gradient_checkpointing is True and not arch.recomputes:
        what = f"launching {arch.id} with recomputation (transformers has none for {arch.model_type})"
        yield not_yet("train.gradient_checkpointing", what, "leave it out, or set it to false")
    yield from _unsupported_towers(spec, arch)
    if arch.model_type in OWN_CODE and not spec.model.trust_remote_code:
        what = f"launching {arch.id} without its own code (transformers has no class for {arch.model_type})"
        yield not_yet("model.id", what, "read that code, then set model.trust_remote_code: true")


def _unsupported_towers(spec: FineTuneSpec, arch: ModelArchitecture) -> Iterator[Finding]:
    whole = arch.published_type
    if not whole:
        return
    if whole not in TOWERS_LEFT | TEXT_ALONE:
        what = f"launching {spec.task} on {arch.id} ({whole} reads more than text, and is not trained here)"
        yield not_yet("model.id", what, "choose its language model alone")
    elif spec.task in CLASSIFIERS and whole not in CLASSIFIED_TOWERS and arch.model_type not in NO_CLASSIFIER:
        what = f"launching {spec.task} on {arch.id} (transformers has no classifier for {whole})"
        yield not_yet("task", what, "choose its language model alone, or sft with the label as the answer")


def missing_kernels(spec: FineTuneSpec, arch: ModelArchitecture) -> Iterator[Finding]:
    """A package without which transformers computes the model in plain torch, on a machine that is set up for it."""
    given = spec.environment
    prepared = given.image is not None or given.names_interpreter
    if not arch.linear_layers or prepared or any(name.startswith(_DELTA_RULE) for name in given.packages):
        return
    yield Finding(
        f"without {_DELTA_RULE} transformers computes the linear attention of {arch.id} in plain torch, "
        "more than ten times slower than is estimated and in more memory",
        path="environment.packages",
        code="missing_kernels",
        hint=f"environment: {{packages: [{_DELTA_RULE}]}}",
    )
