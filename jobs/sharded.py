"""A model spread over processes (FSDP2): each saves its shard, any number of processes loads them, the end is whole.

A shard is safetensors files as torch.distributed.checkpoint writes them, each tensor with its offsets, so that nothing
is unpickled. `shards.json` says which files and shapes make a checkpoint whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jobs.frameworks import exchanged
from jobs.group import Group
from jobs.parts import part_directory
from jobs.resume import SHARDS
from jobs.spec import JobSpec, Task

_WEIGHTS, _STATE = "model.", "optimizer."
_FILE_BYTES = 2.0**30
_WITH_REFERENCE: tuple[Task, ...] = ("dpo", "kto", "grpo")


def sharding_settings(job: JobSpec, model: Any, processes: int) -> dict[str, Any]:
    """What a trainer's configuration says of the spreading, nothing if each process holds all.

    Activations are recomputed by the model itself, as the job says: accelerate's way would draw other dropouts then.
    Gradients that go to the host do so after each micro-batch: until they are reduced they would lie whole on the GPU.
    """
    if not job.train.is_spread(processes):
        return {}
    offloads = job.train.offload != "none"
    accumulation = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
    return {
        **({"accelerator_config": accumulation} if offloads else {}),
        "fsdp": True,
        "fsdp_config": {
            "state_dict_type": "SHARDED_STATE_DICT",
            "cpu_ram_efficient_loading": True,
            "cpu_offload": offloads,
            "transformer_layer_cls_to_wrap": _layers(model),
        },
    }


def _layers(model: Any) -> list[str]:
    """Classes of what is gathered as one: all that must not be split, but for what holds the embedding.

    That is gathered by itself, and BERT's kin name it among what must not be split.
    """
    embedding = model.get_input_embeddings()
    holding = {type(module): embedding in module.modules() for module in model.modules()}
    whole = {kind.__name__ for kind, holds in holding.items() if not holds}
    return sorted(whole & set(model._no_split_modules or ()))


@contextmanager
def loaded_once(job: JobSpec, processes: int) -> Iterator[None]:
    """While the base model is loaded: the other processes of a machine get its weights when it is spread.

    Until then transformers fills theirs with zeros, whole, which took as much of the machine's memory as weights do
    (its pull request 45649); here they are zeros that nobody has written.
    """
    names = {"ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING"}
    if job.train.sharding == "none" or processes == 1:
        yield
        return
    import torch

    write = torch.zeros_like

    def zeros(like: Any, **named: Any) -> Any:
        lies_here = set(named) == {"device"} and str(named["device"]) == "cpu"
        return _unwritten(like.shape, like.dtype) if lies_here else write(like, **named)

    os.environ.update(dict.fromkeys(names, "true"))
    try:
        with exchanged(torch, "zeros_like", zeros):
            yield
    finally:
        for name in names:
            os.environ.pop(name, None)


def _unwritten(shape: Any, dtype: Any) -> Any:
    """Zeros on the host that take memory only where something is written to them."""
    import numpy
    import torch

    # pages of the system's, as calloc gives them
    blank = numpy.zeros(max(shape.numel(), 1) * dtype.itemsize, numpy.uint8)
    return torch.from_numpy(blank).view(dtype)[: shape.numel()].view(shape)


@contextmanager
def shared_out(task: Task) -> Iterator[None]:
    """While a trainer is built: accelerate shards over CPUs too, which torch can and it leaves out; TRL spreads a
    reference model as the trained one is spread, layer by layer, from the one process that has loaded it.
    """
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    begin, choose = AcceleratorState.__init__, FullyShardedDataParallelPlugin.set_cpu_offload

    def not_pinned_without_gpu(self: Any) -> None:
        import torch
        from torch.distributed.fsdp import CPUOffloadPolicy

        choose(self)
        if isinstance(self.cpu_offload, CPUOffloadPolicy) and not torch.cuda.is_available():
            self.cpu_offload = CPUOffloadPolicy(pin_memory=False)

    def with_cpus(self: Any, *words: Any, **named: Any) -> None:
        shared = PartialState._shared_state
        if shared.get("distributed_type") == DistributedType.MULTI_CPU:
            shared["distributed_type"] = DistributedType.MULTI_GPU
        begin(self, *words, **named)

    with ExitStack() as changed:
        changed.enter_context(exchanged(AcceleratorState, "__init__", with_cpus))
        plugin = FullyShardedDataParallelPlugin
        changed.enter_context(exchanged(plugin, "set_cpu_offload", not_pinned_without_gpu))
        if task in _WITH_REFERENCE:
            trainer = import_module(f"trl.trainer.{task}_trainer")
            changed.enter_context(exchanged(trainer, "prepare_fsdp", _spread_out))
        yield


def _spread_out(model: Any, accelerator: Any) -> Any:
    """A model that is not trained, each layer spread over the processes; only the leading one needs its weights.

    accelerate would keep those that could be trained in fp32, twice as large here and on the GPUs.
    """
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    return fsdp2_prepare_model(accelerator, model.requires_grad_(False)).eval()


def _generate_together(model: Any) -> None:
    """Answers are sampled with the layers gathered one by one, and no process stops before the last has ended."""
    from torch.distributed.fsdp import register_fsdp_forward_method

    register_fsdp_forward_method(model, "generate")
    for module in model.modules():
        if hasattr(module, "generate"):
            module._is_fsdp_managed_module = True  # how transformers knows


def _prepare_to_receive(model: Any, *, widened: bool) -> None:
    """Weights of a process that gets them from the leading one, in the type that accelerate would copy them to.

    It trains in fp32 where products are in less (`fsdp2_prepare_model` of accelerate 1.15), and would write a whole
    model in every process before the first of them is spread.
    """
    import torch

    for weight in model.parameters():
        if widened and weight.requires_grad and weight.dtype in (torch.bfloat16, torch.float16):
            weight.data = _unwritten(weight.shape, torch.float32)


def _score_on(device: Any, model: Any) -> None:
    """The head's weights come to where the activations are: TRL computes the loss where it finds them, be it the host.

    Args:
        device: The GPU.
        model: Sharded, with its parameters on the host.
    """
    from torch import nn

    base = model.get_base_model() if hasattr(model, "peft_config") else model
    head, forward = base.get_output_embeddings(), base.forward
    if not isinstance(head, nn.Linear):
        return

    def brought() -> Any:
        bias = None if head.bias is None else head.bias.to(device)
        return SimpleNamespace(weight=head.weight.to(device), bias=bias)

    @wraps(forward)
    def with_head(*given: Any, **named: Any) -> Any:
        if not named.get("fused_lm_head"):
            return forward(*given, **named)
        with exchanged(base, "get_output_embeddings", brought):
            return forward(*given, **named)

    base.forward = with_head


def _scatter(model: Any) -> None:
    """Each process holds its own share alone again: the optimizer knows no other weights.

    An evaluation leaves the last layers gathered, for a backward pass that does not come.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _in_files(sizes_bytes: dict[str, float], most_bytes: float = _FILE_BYTES) -> dict[str, int]:
    """The file, from 1 on, that a process puts its share of each tensor into, in order.

    torch holds a file three times over while it is written: its tensors on the host, what safetensors makes of them,
    and a copy of that (`filesystem.py` of torch 2.13, `safetensors.torch.save` of 0.8). So files stay small.

    Args:
        sizes_bytes: Of each tensor's share, by name.
        most_bytes: Of a file, unless one tensor has more.

    >>> _in_files({"a": 3.0, "b": 3.0, "c": 9.0, "d": 1.0}, most_bytes=6.0)
    {'a': 1, 'b': 1, 'c': 2, 'd': 3}
    """
    found: dict[str, int] = {}
    number, filled = 1, 0.0
    for name, size in sizes_bytes.items():
        if filled and filled + size > most_bytes:
            number, filled = number + 1, 0.0
        found[name] = number
        filled += size
    return found


class Sharding:
    """How one trainer's weights and optimizer are spread over the processes of a group.

    Takes the places of the trainer's own methods that save or load whole files; every process must call each.
    """

    def __init__(self, trainer: Any, group: Group) -> None:
        """Spread the model, before anything is computed with it; one process alone holds it whole, or on the host."""
        self._trainer, self._group = trainer, group
        self._spread = group.joined
        trainer.create_optimizer()
        if not group.leads:
            _prepare_to_receive(trainer.model, widened=trainer.args.bf16 or trainer.args.fp16)
        model, trainer.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
        trainer.model = trainer.model_wrapped = model
        if self._spread and model.can_generate():
            _generate_together(model)
        if (trainer.args.fsdp_config or {}).get("cpu_offload"):
            for offloaded in (model, getattr(trainer, "ref_model", None)):
                if offloaded is not None and hasattr(offloaded, "get_output_embeddings"):
                    _score_on(trainer.args.device, offloaded)
        trainer._prepare_for_training = self._begin
        trainer._save_optimizer_and_scheduler = self._save
        trainer._load_from_checkpoint = self._load_weights
        trainer.save_model = self._save_whole

    def _begin(self, max_steps: int, rows: Any, resume_from_checkpoint: str | None) -> tuple[Any, Any]:
        """What the trainer does before its first step, with model and optimizer in place already."""
        import torch

        trainer = self._trainer
        trainer.accelerator.prepare_model(trainer.model)  # the trainer has made it forget both
        trainer.accelerator.prepare_optimizer(trainer.optimizer)
        trainer.create_scheduler(num_training_steps=max_steps)
        if resume_from_checkpoint is not None:
            directory = Path(resume_from_checkpoint)
            self._load(directory)
            trainer.lr_scheduler.load_state_dict(torch.load(directory / "scheduler.pt", weights_only=True))
            trainer._load_scaler(resume_from_checkpoint)
        for name in ("model", "optimizer", "lr_scheduler"):
            setattr(trainer.callback_handler, name, getattr(trainer, name))
        trainer.callback_handler.train_dataloader = rows
        return trainer.model, rows

    def _save(self, output_dir: str) -> None:
        """This process's shard, and what is the same for all."""
        import torch
        from torch.distributed import checkpoint

        own = part_directory(Path(output_dir), self._group)
        tensors, plain = self._state()
        parts = _in_files({name: tensor.nbytes / self._group.size for name, tensor in tensors.items()})
        writer = checkpoint.HuggingFaceStorageWriter(
            str(own), fqn_to_index_mapping=parts, save_distributed=True
        )
        checkpoint.save(tensors, storage_writer=writer, **self._together())
        files = self._group.gather([path.name for path in own.glob("shard-*.safetensors")])
        if self._group.leads:
            whole = {
                "files": sorted(name for names in files for name in names),
                "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
                **plain,
            }
            Path(output_dir, SHARDS).write_text(json.dumps(whole) + "\n", encoding="utf-8")
            torch.save(self._trainer.lr_scheduler.state_dict(), Path(output_dir, "scheduler.pt"))

    def _load(self, directory: Path) -> None:
        """Weights and optimizer."""
        from torch.distributed import checkpoint
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

        tensors, _ = self._state()
        reader = checkpoint.HuggingFaceStorageReader(str(directory))
        checkpoint.load(tensors, storage_reader=reader, **self._together())
        plain = json.loads((directory / SHARDS).read_text(encoding="utf-8"))
        state: dict[str, dict[str, Any]] = plain["state"]
        for name, tensor in tensors.items():
            if name.startswith(_STATE):
                parameter, _, key = name.removeprefix(_STATE).rpartition(".")
                state.setdefault(parameter, {})[key] = tensor
        set_optimizer_state_dict(
            self._trainer.model,
            self._optimizer,
            {"state": state, "param_groups": plain["param_groups"]},
            options=StateDictOptions(ignore_frozen_params=True),
        )

    def _load_weights(self, directory: str, model: Any = None) -> None:
        from torch.distributed import checkpoint

        reader = checkpoint.HuggingFaceStorageReader(directory)
        checkpoint.load(self._weights(), storage_reader=reader, **self._together())

    def _save_whole(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The finished model, gathered in the leading process; a checkpoint has its shards instead."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        if _internal_call:
            return
        trainer = self._trainer
        options = StateDictOptions(
            full_state_dict=True, cpu_offload=True, ignore_frozen_params=hasattr(trainer.model, "peft_config")
        )
        state = get_model_state_dict(trainer.model, options=options)
        if self._spread:
            trainer.model.unshard()  # what belongs to no layer: learned prompts are read from the module itself
        if self._group.leads:
            trainer._save(output_dir, state_dict=state)
        if self._spread:
            trainer.model.reshard()

    @property
    def _optimizer(self) -> Any:
        return self._trainer.optimizer.optimizer  # below accelerate's wrapper

    def _weights(self) -> dict[str, Any]:
        """Trained weights by name; they share the memory of the model's."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(ignore_frozen_params=True)
        found = get_model_state_dict(self._trainer.model, options=options)
        return {_WEIGHTS + name: tensor for name, tensor in found.items()}

    def _state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Tensors of weights and optimizer by name, and the optimizer's plain values."""
        import torch
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

        _scatter(self._trainer.model)
        options = StateDictOptions(ignore_frozen_params=True)
        found = get_optimizer_state_dict(self._trainer.model, self._optimizer, options=options)
        tensors, values = self._weights(), {}
        for parameter, state in found["state"].items():
            tensors |= {f"{_STATE}{parameter}.{key}": v for key, v in state.items() if torch.is_tensor(v)}
            values[parameter] = {key: value for key, value in state.items() if not torch.is_tensor(value)}
        return tensors, {"state": values, "param_groups": found["param_groups"]}

    def _together(self) -> dict[str, Any]:
        return {"process_group": self._group.control, "no_dist": self._group.size == 1}
