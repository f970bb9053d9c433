"""What a spec may say that this version cannot do yet: one clear finding a key, never silence."""

from __future__ import annotations

from collections.abc import Iterator

from planner.errors import Finding
from planner.spec import FineTuneSpec
from providers.s3_location import is_bucket

_ON_QUANTISED = ("lora", "qlora", "rslora", "dora", "qdora")
_OPTIMIZERS = ("adamw", "adamw_fused", "adafactor", "sgd")


def unsupported(spec: FineTuneSpec, *, for_launch: bool = False, infra: str = "local") -> list[Finding]:
    """Everything asked for that is not built yet, code `not_yet_supported`, with dotted paths and no places.

    Args:
        spec: The whole spec.
        for_launch: Also what only running needs; an estimate may know more than the worker can do.
        infra: Where it shall run: local or skypilot.
    """
    found = list(_estimating(spec))
    if for_launch:
        found += _training(spec)
        found += _surroundings(spec, infra)
        found += _places(spec)
    return found


def _not_yet(path: str, what: str, hint: str | None = None) -> Finding:
    return Finding(f"{what} is not yet supported", path=path, code="not_yet_supported", hint=hint)


def _estimating(spec: FineTuneSpec) -> Iterator[Finding]:
    if "reserved" in spec.where.market:
        yield _not_yet("where.market", "the market `reserved`", "use spot or on_demand")


def _training(spec: FineTuneSpec) -> Iterator[Finding]:
    quantization = spec.effective_quantization()
    if quantization == "fp8":
        yield _not_yet("quantization", "launching on an fp8 base", "use 4bit or 8bit")
    if quantization != "none" and spec.method.kind not in _ON_QUANTISED:
        hint = f"methods that run on a quantised base are {', '.join(_ON_QUANTISED)}"
        yield _not_yet("method.kind", f"launching {spec.method.kind} on a quantised base", hint)
    if spec.train.optimizer not in _OPTIMIZERS:
        hint = f"optimizers that run are {', '.join(_OPTIMIZERS)}"
        yield _not_yet("train.optimizer", f"launching with {spec.train.optimizer}", hint)
    if spec.train.precision == "fp8":
        yield _not_yet("train.precision", "launching with fp8", "use bf16")


def _surroundings(spec: FineTuneSpec, infra: str) -> Iterator[Finding]:
    yield from _tracker(spec, infra)
    if infra != "local" and any(".py:" in reward for reward in spec.rollout.rewards):
        hint = "put it into a package under environment.packages, as package.module:function"
        yield _not_yet("rollout.rewards", "a reward in a file of this machine on rented machines", hint)
    for key in ("image", "python", "packages", "setup") if infra == "local" else ():
        if getattr(spec.environment, key):
            yield _not_yet(f"environment.{key}", f"environment.{key} on this machine", "leave it out")


def _tracker(spec: FineTuneSpec, infra: str) -> Iterator[Finding]:
    """A rented machine has none of this one's settings: where and as whom it tracks must be in the spec."""
    named = {*spec.environment.env, *spec.environment.secrets}
    needed = {"mlflow": "MLFLOW_TRACKING_URI", "wandb": "WANDB_API_KEY"}.get(spec.track)
    offline = spec.track == "wandb" and spec.environment.env.get("WANDB_MODE") == "offline"
    if infra != "local" and needed is not None and needed not in named and not offline:
        hint = f"name {needed} under environment.secrets" + (" or env" if spec.track == "mlflow" else "")
        message = f"{spec.track} needs {needed} on the rented machine"
        yield Finding(message, path="track", code="tracker_unset", hint=hint)


def _places(spec: FineTuneSpec) -> Iterator[Finding]:
    for key in ("checkpoints", "output"):
        uri = getattr(spec, key).uri
        scheme = uri.partition("://")[0] if uri is not None and "://" in uri else "file"
        if scheme != "file" and not is_bucket(uri or ""):
            hint = (
                "use s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, a file:// URI or a path"
            )
            yield _not_yet(f"{key}.uri", f"{scheme}:// for {key}", hint)
