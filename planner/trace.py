"""The exact peak of one training step, from running the real model code without weights or GPU.

The model that transformers and PEFT build is run on torch's meta device: shapes, no numbers. Every storage is counted
from its first operation until it is freed, in blocks of 512 bytes as the CUDA allocator rounds. Where a CUDA kernel
keeps less than the plain formula (fused attention, 4-bit products), a stand-in keeps what the kernel keeps.

Gradients of weights that embedding and head share are added out of place under the tracer, in place without it: a
trace of a full fine-tuning with tied embeddings is too high by one embedding.

Needs the extra [trace]. Takes 1-15 s; the closed form of `planner.memory` is held against it by tests.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from planner.architecture import Adapter, ModelArchitecture, adapter_targets, parameter_counts
from planner.architecture.linears import LAYOUTS
from planner.memory.precision import widths
from planner.setup import TrainingSetup
from providers.errors import MissingExtraError, UsageError

_BLOCK_BYTES = 512
_TELL_EVERY = 1000
_SIZE_TOLERANCE = 0.01
_TOWER_SHARE = 0.01  # of all parameters: less than that is a detail of the model itself
_KEPT_WHOLE = ("lm_head", "score", "classifier", "gate")


@dataclass(frozen=True, slots=True)
class TracedPeak:
    """What one traced step needs.

    Attributes:
        peak_bytes: Largest sum of live storages.
        phase: loss (forward), backward or optimizer_step.
        static_bytes: Weights before the first step.
        operations: Operations that were traced.
    """

    peak_bytes: int
    phase: str
    static_bytes: int
    operations: int


def trace_step(
    setup: TrainingSetup,
    config: Mapping[str, Any],
    steps: int = 2,
    progress: Callable[[int, str], None] | None = None,
) -> TracedPeak:
    """Trace optimizer steps of a set-up on one GPU.

    Args:
        setup: What to train; sharding is ignored, attention eager or fused.
        config: The model's config.json as a mapping.
        steps: Steps to run; the optimizer's state exists from the second on.
        progress: Called now and then with the operations so far and the phase.

    Raises:
        MissingExtraError: Without torch, transformers and peft.
        UsageError: If transformers cannot build the model.
    """
    for package in ("torch", "transformers", "peft"):
        if find_spec(package) is None:
            raise MissingExtraError("trace", "tracing a step")
    import torch

    built = _built(setup, config)
    _check_size(built, setup)
    model = _prepared(setup, built)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = _optimizer(setup, trained)
    tracker = _Tracker(progress)
    tracker.live = int(towers(setup) * widths(setup).frozen)
    for tensor in (*model.parameters(), *model.buffers()):
        tracker.count(tensor)
    static = tracker.live
    ids = torch.empty((setup.micro_batch, setup.sequence_tokens), dtype=torch.long, device="meta")
    labels = ids if setup.task != "classification" else ids[:, 0].clone()
    with tracker.mode():
        for _ in range(steps):
            tracker.phase = "loss"
            loss = model(input_ids=ids, labels=labels).loss
            tracker.phase = "backward"
            loss.backward()
            del loss
            tracker.phase = "optimizer_step"
            if optimizer is not None:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
    return TracedPeak(tracker.peak, tracker.peak_phase, static, tracker.operations)


class _Tracker:
    """Follows every storage from its birth to its end."""

    def __init__(self, progress: Callable[[int, str], None] | None = None) -> None:
        self.progress = progress
        self.sizes: dict[int, int] = {}
        self.live = self.peak = self.operations = 0
        self.phase = self.peak_phase = "loss"

    def count(self, tensor: Any) -> None:
        """Take in a tensor's storage, once."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        size = -(-storage.nbytes() // _BLOCK_BYTES) * _BLOCK_BYTES
        if key in self.sizes or size == 0:
            return
        self.sizes[key] = size
        self.live += size
        weakref.finalize(storage, self.forget, key)
        if self.live > self.peak:
            self.peak, self.peak_phase = self.live, self.phase

    def forget(self, key: int) -> None:
        """A storage has gone."""
        self.live -= self.sizes.pop(key, 0)

    def mode(self) -> Any:
        """A context in which every operation passes here."""
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode
        from torch.utils._pytree import tree_iter

        def dispatch(_: Any, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.ops.aten._local_scalar_dense.default:
                return 1
            self.operations += 1
            if self.progress is not None and self.operations % _TELL_EVERY == 0:
                self.progress(self.operations, self.phase)
            result = function(*args, **(kwargs or {}))
            for value in tree_iter(result):
                if isinstance(value, torch.Tensor) and value.device.type == "meta":
                    self.count(value)
            return result

        return type("Tracking", (TorchDispatchMode,), {"__torch_dispatch__": dispatch})()


def _check_size(model: Any, setup: TrainingSetup) -> None:
    """Refuse a model that transformers read differently from what the estimate counted."""
    counted = parameter_counts(setup.arch, setup.task, setup.labels).total - towers(setup)
    size = sum(parameter.numel() for parameter in model.parameters())
    if abs(size - counted) > _SIZE_TOLERANCE * counted:
        raise UsageError(
            f"transformers builds {size:,} parameters of {setup.arch.id}, the estimate counts {counted:,}",
            hint="give the model as a directory with its own config.json",
            code="trace",
        )


#: What the registry says of a model beside the fields of its configuration.
_OURS = ("source", "extra_parameters", "published_type")


def towers(setup: TrainingSetup) -> int:
    """Parameters of other towers than the language model, which is all that is traced; they only lie there."""
    extra = setup.arch.extra_parameters
    return extra if extra > _TOWER_SHARE * parameter_counts(setup.arch).total else 0


def _native(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by the names that transformers' own class of the family has: OPT's MLP and embedding have others.

    Where none shares keys nothing is said of it, and some classes then take a number of their own (Qwen2's is 32).
    """
    fields = {key: value for key, value in config.items() if key not in _OURS}
    if "num_attention_heads" in fields:
        fields.setdefault("num_key_value_heads", fields["num_attention_heads"])
    if fields["model_type"] == "opt":
        fields.setdefault("ffn_dim", fields.get("intermediate_size"))
        fields.setdefault("word_embed_proj_dim", fields["hidden_size"])
    return fields


def _built(setup: TrainingSetup, config: Mapping[str, Any]) -> Any:
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
    )

    fields = _native(config)
    with_head = AutoModelForSeq2SeqLM if setup.arch.kind == "encoder-decoder" else AutoModelForCausalLM
    classes = AutoModelForSequenceClassification if setup.task == "classification" else with_head
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    try:
        built = AutoConfig.for_model(fields.pop("model_type"), **fields)
        built.use_cache, built.pad_token_id = False, 0
        if setup.arch.kind == "encoder-decoder":
            built.decoder_start_token_id = 0
        attention = "eager" if setup.attention == "eager" else _register_fused_attention()
        with torch.device("meta"):
            model = classes.from_config(built, attn_implementation=attention, dtype=kinds[setup.precision])
            if setup.arch.kind == "encoder-decoder" and not setup.arch.tied_embeddings:
                # transformers 5 builds every T5 with a tied head, and loads a head of its own where the file has one
                rows, width = model.lm_head.weight.shape
                model.lm_head = torch.nn.Linear(width, rows, bias=False, dtype=kinds[setup.precision])
    except (KeyError, ValueError) as error:
        raise UsageError(f"transformers cannot build this model: {error}", code="trace") from error
    model.train()
    for module in model.modules():
        if hasattr(module, "layerdrop"):
            module.training = False  # OPT draws which blocks to leave out, and without values leaves out all
    return model


def _prepared(setup: TrainingSetup, model: Any) -> Any:
    """Quantise, add adapters, switch checkpointing on: in the order of a training script."""
    import torch

    if setup.quantization in ("4bit", "8bit"):
        _quantise(model, _packed if setup.quantization == "4bit" else _rounded)
    if setup.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if setup.adapter is None:
        return model
    from peft import inject_adapter_in_model

    if setup.gradient_checkpointing:
        model.enable_input_require_grads()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    names = sorted({shape.name for shape in adapter_targets(setup.arch, setup.adapter)})
    with torch.device("meta"):
        model = inject_adapter_in_model(_peft_config(setup.adapter, setup.arch, names), model)
    kind = torch.float32 if setup.adapter.fp32 else torch.bfloat16
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(kind)
    return model


def _peft_config(adapter: Adapter, arch: ModelArchitecture, names: list[str]) -> Any:
    """PEFT's own configuration of the method, where it may be put into a model without weights."""
    from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig

    if adapter.kind == "loha":
        return LoHaConfig(r=adapter.rank, alpha=adapter.rank, target_modules=names)
    if adapter.kind == "lokr":
        return LoKrConfig(r=adapter.rank, alpha=adapter.rank, target_modules=names)
    if adapter.kind == "ia3":
        feed = [name for name in names if name == LAYOUTS[arch.layout].down]
        return IA3Config(target_modules=names, feedforward_modules=feed)
    return LoraConfig(r=adapter.rank, target_modules=names, use_dora="dora" in adapter.kind)


def _optimizer(setup: TrainingSetup, trained: list[Any]) -> Any:
    import torch

    if setup.optimizer == "sgd":
        return torch.optim.SGD(trained, lr=1e-4)
    # The single-tensor step keeps as little beside the parameters as the fused kernel does.
    return torch.optim.AdamW(trained, lr=1e-4, foreach=setup.optimizer == "adamw")


def _function(name: str, forward: Any, backward: Any) -> Any:
    """An autograd function from its two halves."""
    import torch

    halves = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(name, (torch.autograd.Function,), halves)


def _register_fused_attention() -> str:
    """Attention that keeps queries, keys, values, output and one statistic a row, as the fused kernels do."""
    import torch
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def forward(context: Any, query: Any, key: Any, value: Any) -> Any:
        rows, heads, length, _ = query.shape
        out = query.new_empty((rows, length, heads, value.shape[-1])).transpose(1, 2)
        statistic = query.new_empty((rows, heads, length), dtype=torch.float32)
        context.save_for_backward(query, key, value, out, statistic)
        return out

    def backward(context: Any, gradient: Any) -> Any:
        query, key, value, _, _ = context.saved_tensors
        gradient = gradient.contiguous()
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)

    fused = _function("FusedAttention", forward, backward)

    def attend(module: Any, query: Any, key: Any, value: Any, mask: Any, **_: Any) -> Any:
        return fused.apply(query, key, value).transpose(1, 2).contiguous(), None

    ALL_ATTENTION_FUNCTIONS.register("tuneplan_fused", attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register("tuneplan_fused", lambda *_, **__: None)
    return "tuneplan_fused"


def _quantise(model: Any, packed: Callable[[Any], Any]) -> None:
    """Linear modules become quantised ones."""
    import torch

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is torch.nn.Linear and name not in _KEPT_WHOLE:
                setattr(module, name, packed(child))


@cache
def _quantised_linear(eight: bool) -> Any:
    """A linear module whose product dequantises its weight, forward and backward; in 8 bits it multiplies integers and
    keeps its input.
    """
    import torch

    def forward(context: Any, values: Any, shape: Any) -> Any:
        context.shape = shape
        if not eight:
            return torch.nn.functional.linear(values, values.new_empty(shape))
        context.save_for_backward(values)
        integers = torch.empty(values.shape, dtype=torch.int8, device="meta")
        sums = integers.new_empty((*values.shape[:-1], shape[0]), dtype=torch.int32)
        return sums.to(values.dtype)

    def backward(context: Any, gradient: Any) -> Any:
        return gradient @ gradient.new_empty(context.shape), None

    product = _function("DequantisedProduct", forward, backward)

    def call(self: Any, values: Any) -> Any:
        out = product.apply(values, (self.out_features, self.in_features))
        return out if self.bias is None else out + self.bias

    return type("QuantisedLinear", (torch.nn.Linear,), {"forward": call})


def _without_weight(plain: Any, *, eight: bool) -> Any:
    import torch

    kind = _quantised_linear(eight)
    made = kind.__new__(kind)
    torch.nn.Module.__init__(made)
    made.in_features, made.out_features, made.bias = plain.in_features, plain.out_features, plain.bias
    return made


def _rounded(plain: Any) -> Any:
    """One byte a weight and a scale for each output."""
    import torch

    made = _without_weight(plain, eight=True)
    shape = (plain.out_features, plain.in_features)
    made.weight = torch.nn.Parameter(torch.empty(shape, dtype=torch.int8, device="meta"), requires_grad=False)
    made.register_buffer("scales", torch.empty(plain.out_features, dtype=torch.float32, device="meta"))
    return made


def _packed(plain: Any) -> Any:
    """Half a byte a weight, and a scale for each 64."""
    import torch

    packed = _without_weight(plain, eight=False)
    count = plain.in_features * plain.out_features
    halves = torch.empty((count // 2, 1), dtype=torch.uint8, device="meta")
    packed.weight = torch.nn.Parameter(halves, requires_grad=False)
    for name, size, width in (("scales", 64, torch.uint8), ("scales_of_scales", 64 * 256, torch.float32)):
        packed.register_buffer(name, torch.empty(-(-count // size), dtype=width, device="meta"))
    return packed
