"""Closed form of memory against other stacks' own model and step code, traced without a GPU.

litgpt's `finetune` scripts (`fit` of full.py and lora.py, through Lightning Fabric) and torchtune's recipes for one GPU
(`train`) run on torch's meta device; every storage is counted as `planner.trace` does. Kernels of CUDA that keep other
tensors than the meta device's have the stand-ins of `planner.trace_modules`.

With the project's own packages (torch, transformers, bitsandbytes, pytest) in a virtual environment of its own, as of
December 2026 (0.9 is the torchao that torchtune 0.6.1 was made for):

    pip install litgpt torchmetrics torchtune torchao==0.9.0 torchdata==0.11.0
    python -m benchmarks.stack_traces [parts of cases' names, all of them ...]
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import torch

from benchmarks.stack_cases import CASES, closed_form
from planner.trace import FusedAdamW, Tracker
from planner.trace_functions import AsOnCuda
from planner.trace_modules import fused_attention, packed, quantise

_KINDS = {"bf16": torch.bfloat16, "amp_bf16": torch.float32, "fp32": torch.float32}


class _Rows:
    """A loader of one batch, over and over."""

    def __init__(self, case):
        ids = torch.empty((case.rows, case.tokens), dtype=torch.long, device="meta")
        counts = {name: torch.zeros(1) for name in ("raw", "raw_plus_prompt_template")}
        self.batch = {"input_ids": ids, "labels": ids, "token_counts": counts}
        self.dataset = [{"input_ids": range(case.tokens)}]

    def __iter__(self):
        return iter([self.batch] * 10)

    def __len__(self):
        return 10


def _attend(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    return fused_attention().apply(query, key, value)


def _fabric(case, functions):
    """Fabric as the scripts make it for one device, with CUDA's autocast in place of the CPU's."""
    import lightning
    from lightning.fabric.plugins import HalfPrecision, MixedPrecision, Precision

    if case.precision == "bf16":
        plugin = HalfPrecision("bf16-true")
    elif case.precision == "amp_bf16":
        plugin = MixedPrecision("bf16-mixed", "cuda")
        plugin.forward_context = functions.step
    else:
        plugin = Precision()
    return lightning.Fabric(accelerator="cpu", devices=1, plugins=[plugin])


def trace_litgpt(case):
    """Peak bytes and phase of litgpt's own `fit`."""
    from litgpt.args import EvalArgs, TrainArgs

    script = importlib.import_module(f"litgpt.finetune.{case.script}")
    functions = AsOnCuda(torch.bfloat16 if case.precision == "amp_bf16" else None)
    fabric = _fabric(case, functions)
    fields = {"n_layer": case.layers, **case.lora}
    config = script.Config.from_name(case.name, **fields)
    with fabric.init_module(), torch.device("meta"):
        model = script.GPT(config)
    if case.script == "lora":
        script.mark_only_lora_as_trainable(model)
    if case.quantised:  # as `BitsandbytesPrecision` does
        quantise(model, packed)
    if case.recomputed:
        _recompute(model, functions)
    model = fabric.setup_module(model, move_to_device=False)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    if case.quantised:  # as `main` of finetune/lora.py does, once there is an optimizer
        model.transformer.wte = _stable_embedding(model.transformer.wte)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    model.train()
    tracker = _tracker(model)
    loader = _Rows(case)
    train = TrainArgs(
        global_batch_size=case.rows * case.accumulated, micro_batch_size=case.rows, epochs=9, max_steps=2,
        log_interval=1000, save_interval=None,
    )  # fmt: skip
    given = {
        "fabric": fabric, "train_dataloader": loader, "val_dataloader": loader, "devices": 1, "checkpoint_dir": None,
        "out_dir": None, "train": train, "eval": EvalArgs(interval=1000), "data": None,
    }  # fmt: skip
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    if "state" in script.fit.__code__.co_varnames[:2]:
        given |= {"state": parts | {"iter_num": 0, "step_count": 0}, "resume": False}
    else:
        given |= parts
    silent = types.SimpleNamespace(
        to=lambda *_: silent, update=lambda *_, **__: None, compute_and_log=lambda *_, **__: None
    )
    with (
        mock.patch.multiple(
            script, Tokenizer=mock.Mock(), validate=lambda *_, **__: None, RunningMean=lambda *_, **__: silent,
            ThroughputMonitor=lambda *_, **__: silent, create=True,
        ),
        mock.patch.object(fabric, "print", lambda *_: None),
        _phases(tracker, optimizer),
        mock.patch("torch.nn.functional.scaled_dot_product_attention", _attend),
        functions.mode() if functions.kind is None else nullcontext(),
        tracker.mode(),
    ):  # fmt: skip
        script.fit(**given)
    return tracker


def _stable_embedding(plain):
    """Trained by no optimizer, but it gets a gradient all the same."""
    from bitsandbytes.nn import StableEmbedding

    with torch.device("meta"):
        return StableEmbedding(plain.num_embeddings, plain.embedding_dim).to(plain.weight.dtype)


def _recompute(model, functions):
    """As Fabric's FSDP strategy does with `activation_checkpointing_policy={Block}`."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    for number, block in enumerate(model.transformer.h):
        model.transformer.h[number] = checkpoint_wrapper(
            block, context_fn=lambda: (nullcontext(), functions.mode())
        )


def _tracker(model):
    tracker = Tracker(None)
    for tensor in (*model.parameters(), *model.buffers()):
        tracker.count(tensor)
    return tracker


@contextmanager
def _phases(tracker, optimizer):
    """The tracker is told what part of a step it is in."""

    def told(phase, function):
        def call(*args, **kwargs):
            tracker.phase = phase
            function(*args, **kwargs)
            tracker.phase = "loss"

        return call

    with ExitStack() as patches:
        patches.enter_context(
            mock.patch.object(torch.Tensor, "backward", told("backward", torch.Tensor.backward))
        )
        if optimizer is not None:
            patches.enter_context(
                mock.patch.object(optimizer, "step", told("optimizer_step", optimizer.step))
            )
        yield


def trace_torchtune(case):
    """Peak bytes and phase of `train` of torchtune's recipes for one device."""
    import torchtune

    # its recipes come with it and cannot be imported
    path = Path(torchtune.__file__).parents[1] / "recipes" / f"{case.script}_single_device.py"
    found = importlib.util.spec_from_file_location(path.stem, path)
    recipe = importlib.util.module_from_spec(found)
    found.loader.exec_module(recipe)
    kind = next(value for name, value in vars(recipe).items() if name.endswith("RecipeSingleDevice"))
    functions = AsOnCuda(None)
    package, builder = case.name.rsplit(".", 1)
    build = getattr(importlib.import_module(f"torchtune.models.{package}"), builder)
    from torchtune import modules, training

    fewer = _fewer_layers(package, case.layers)
    with training.set_default_dtype(_KINDS[case.precision]), torch.device("meta"), fewer:
        model = build(**case.lora)
    for module in model.modules():  # a cache that is computed from values
        if getattr(module, "is_cache_built", True) is False:
            shape = (module.max_seq_len, module.dim // 2, 2)
            module.register_buffer("cache", torch.empty(shape, device="meta"), persistent=False)
            module.is_cache_built = True
    if case.lora:
        from torchtune.modules.peft import get_adapter_params, set_trainable_params

        set_trainable_params(model, get_adapter_params(model))
    if case.recomputed:
        training.set_activation_checkpointing(model, auto_wrap_policy={modules.TransformerSelfAttentionLayer})
    loss = modules.loss.CEWithChunkedOutputLoss()
    model.set_num_output_chunks(loss.num_output_chunks)
    model.train()
    tracker = _tracker(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = FusedAdamW(trained)
    ids = torch.empty((case.rows, case.tokens), dtype=torch.long, device="meta")
    silent = mock.MagicMock()
    loader = _Batches([{"tokens": ids, "labels": ids} for _ in range(2 * case.accumulated)])
    itself = kind.__new__(kind)
    vars(itself).update(
        _model=model, _loss_fn=loss, _optimizer=optimizer, _dataloader=loader, _profiler=silent, _metric_logger=silent,
        _lr_scheduler=silent, _compile=False, _device=torch.device("meta"), _clip_grad_norm=None, epochs_run=0,
        total_epochs=1, _steps_per_epoch=2, max_steps_per_epoch=2, _gradient_accumulation_steps=case.accumulated,
        profiler_profile_memory=False, activations_handling_ctx=nullcontext(), global_step=0, _log_every_n_steps=9,
        _log_peak_memory_stats=False, _optimizer_in_bwd=False, save_checkpoint=lambda **_: None,
        ignore_labels_cache=torch.full((case.rows, 1), -100, device="meta"),
    )  # fmt: skip
    with (
        mock.patch.object(recipe, "tqdm", silent),
        _phases(tracker, optimizer),
        mock.patch("torch.nn.functional.scaled_dot_product_attention", _attend),
        functions.mode(),
        tracker.mode(),
    ):
        itself.train()
    return tracker


class _Batches(list):
    """A loader."""

    sampler = mock.Mock()


def _fewer_layers(package, layers):
    """The builders have the number of layers in them."""
    from torchtune.modules import TransformerDecoder

    first = TransformerDecoder.__init__

    def cut(self, *args, **kwargs):
        kwargs["layers"] = torch.nn.ModuleList(list(kwargs["layers"])[:layers])
        first(self, *args, **kwargs)

    return mock.patch.object(TransformerDecoder, "__init__", cut)


TRACES = {"litgpt": trace_litgpt, "torchtune": trace_torchtune}


def main():
    """Print closed form and trace of each case."""
    asked = sys.argv[1:]
    print(
        "| case | traced MB | phase | closed form MB | phase | closed / traced |\n|---|---|---|---|---|---|"
    )
    for case in CASES:
        if not all(part in case.label for part in asked):
            continue
        traced = TRACES[case.stack](case)
        closed = closed_form(case)
        print(
            f"| {case.label} | {traced.peak / 1e6:,.1f} | {traced.peak_phase} | {closed.allocated_bytes / 1e6:,.1f} |"
            f" {closed.peak_phase} | {closed.allocated_bytes / traced.peak:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
