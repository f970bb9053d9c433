"""The optional dependencies: what each unlocks and what of it is installed. Nothing is imported to find out."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec


@dataclass(frozen=True, slots=True)
class Extra:
    """One extra of the package.

    Attributes:
        name: As in `pip install 'tuneplan[NAME]'`.
        modules: Distribution -> module that must be importable.
        unlocks: What works with it.
    """

    name: str
    modules: dict[str, str]
    unlocks: str


EXTRAS: tuple[Extra, ...] = (
    Extra(
        "train",
        {
            name: name
            for name in ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "safetensors")
        },
        "training on this machine",
    ),
    Extra("launch", {"skypilot": "sky"}, "launching on clouds and Slurm"),
    Extra("s3", {"boto3": "boto3"}, "checkpoints in s3://"),
    Extra("objectstore", {"obstore": "obstore"}, "checkpoints in gs:// and az://, and data in gs://"),
    Extra("report", {"matplotlib": "matplotlib", "jinja2": "jinja2"}, "pictures and HTML reports"),
    Extra("data", {"pyarrow": "pyarrow", "tokenizers": "tokenizers"}, "parquet files and exact token counts"),
    Extra("hub", {"huggingface-hub": "huggingface_hub"}, "handing models over to the Hugging Face Hub"),
    Extra("gguf", {"sentencepiece": "sentencepiece"}, "writing GGUF with llama.cpp's converter"),
    Extra("mlflow", {"mlflow-skinny": "mlflow"}, "tracking runs with MLflow"),
    Extra("wandb", {"wandb": "wandb"}, "tracking runs with Weights & Biases"),
    Extra(
        "reserve-gcp",
        {"google-cloud-compute": "google.cloud.compute_v1"},
        "future reservations of Google Cloud",
    ),
    Extra(
        "reserve-azure",
        {"azure-mgmt-compute": "azure.mgmt.compute", "azure-identity": "azure.identity"},
        "capacity reservations of Azure",
    ),
    Extra("tensorboard", {"tensorboard": "tensorboard"}, "tracking runs with TensorBoard"),
)


def installed_versions(extra: Extra) -> dict[str, str | None]:
    """Version of each distribution of an extra, None where it is missing or cannot be imported."""
    return {name: _version(name, module) for name, module in extra.modules.items()}


def _version(distribution: str, module: str) -> str | None:
    try:
        return version(distribution) if find_spec(module) is not None else None
    except (PackageNotFoundError, ModuleNotFoundError):  # the latter where a package above it is missing
        return None
