"""What a spec may say that this version cannot do yet: one clear finding a key, never silence."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.spec_rules import OFFLOAD_METHODS, OFFLOAD_PRECISIONS, SHARDED_METHODS, SHARDED_OPTIMIZERS
from planner.errors import Finding
from planner.spec import FineTuneSpec
from providers.s3_location import is_bucket

_ON_QUANTISED = ("lora", "qlora", "rslora", "dora", "qdora")
#: Kinds whose state peft does not save, so that a run could not go on after a loss.
_NOT_RESUMABLE = {
    "adalora": "how it shares out ranks is in no checkpoint",
    "p_tuning": "the network that makes its tokens is in no checkpoint",
}


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


def not_yet(path: str, what: str, hint: str | None = None) -> Finding:
    """The finding that something asked for at a path is not built."""
    return Finding(f"{what} is not yet supported", path=path, code="not_yet_supported", hint=hint)


def _estimating(spec: FineTuneSpec) -> Iterator[Finding]:
    if "reserved" in spec.where.market:
        yield not_yet("where.market", "the market `reserved`", "use spot or on_demand")


def _training(spec: FineTuneSpec) -> Iterator[Finding]:
    quantization = spec.effective_quantization()
    if quantization == "fp8":
        yield not_yet("quantization", "launching on an fp8 base", "use 4bit or 8bit")
    if quantization != "none" and spec.method.kind not in _ON_QUANTISED:
        hint = f"methods that run on a quantised base are {', '.join(_ON_QUANTISED)}"
        yield not_yet("method.kind", f"launching {spec.method.kind} on a quantised base", hint)
    if spec.method.kind in _NOT_RESUMABLE:
        message = f"launching {spec.method.kind} ({_NOT_RESUMABLE[spec.method.kind]})"
        yield not_yet("method.kind", message, "use lora or prompt_tuning")
    if spec.train.precision == "fp8":
        yield not_yet("train.precision", "launching with fp8", "use bf16")
    elif spec.train.offload != "none" and spec.train.precision not in OFFLOAD_PRECISIONS:
        what = f"launching {spec.train.precision} with train.offload"
        yield not_yet("train.precision", what, f"use {' or '.join(OFFLOAD_PRECISIONS)}")
    if spec.train.offload != "none" and spec.method.kind not in OFFLOAD_METHODS:
        hint = f"methods that run with parameters on the host are {', '.join(OFFLOAD_METHODS)}"
        yield not_yet("method.kind", f"launching {spec.method.kind} with train.offload", hint)


def unsupported_spread(spec: FineTuneSpec, kind: str, processes: int) -> Iterator[Finding]:
    """What cannot be trained yet the way a candidate spreads the model: its kind of parallelism, its processes."""
    if kind in ("single", "ddp"):
        return
    spread = f"a model spread over {processes} GPUs ({kind})" if processes > 1 else "a model on the host"
    if kind != "fsdp":
        yield not_yet("where.gpus", spread, "fsdp shards the same; make the plan anew to have it chosen")
        return
    hint = "choose a candidate whose model fits one GPU, as in where.gpu_memory: 80GB.."
    if spec.train.offload != "none":
        hint = "leave train.offload out"
    for path, value, allowed in (
        ("quantization", spec.effective_quantization(), ("none",)),
        ("method.kind", spec.method.kind, SHARDED_METHODS),
        ("train.optimizer", spec.train.optimizer, SHARDED_OPTIMIZERS),
    ):
        if value not in allowed:
            what = f"{spread} with {path} {value}"
            yield not_yet(path, what, f"{hint}, or use {', '.join(allowed)}")


def _surroundings(spec: FineTuneSpec, infra: str) -> Iterator[Finding]:
    yield from _tracker(spec, infra)
    if infra != "local" and any(".py:" in reward for reward in spec.rollout.rewards):
        hint = "put it into a package under environment.packages, as package.module:function"
        yield not_yet("rollout.rewards", "a reward in a file of this machine on rented machines", hint)
    for key in ("image", "python", "packages", "setup") if infra == "local" else ():
        if getattr(spec.environment, key):
            yield not_yet(f"environment.{key}", f"environment.{key} on this machine", "leave it out")


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
            yield not_yet(f"{key}.uri", f"{scheme}:// for {key}", hint)
