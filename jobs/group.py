"""The processes that train one model together: rank 0 leads, commits and reports; all stop at the same step."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")

# A rank may wait while another uploads for hours; one that has died is noticed by `jobs.ranks`, not here.
_PATIENCE = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Group:
    """One process among those of a training; alone by default.

    Attributes:
        rank: 0 leads.
        size: Processes in all.
        local_rank: Among those of this machine.
        control: torch's group for messages that are no tensors.
        joined: torch knows of the group, be it of this process alone.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: Any = None
    joined: bool = False

    @classmethod
    def join(cls, environ: MutableMapping[str, str], *, alone: bool = False) -> Group:
        """Meet the others, as RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT say; waits for all.

        Args:
            environ: The process's.
            alone: A process without others makes a group too, and says so in `environ`, where accelerate looks.
        """
        size = int(environ.get("WORLD_SIZE", "1"))
        if size == 1 and not alone:
            return cls()
        import torch
        from torch import distributed

        local_rank = int(environ.get("LOCAL_RANK", "0"))
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank)
            backend = "cpu:gloo,cuda:nccl"
        else:
            # the trainer loads its state to "cpu:0", which torch does not know as a place
            torch.serialization.register_package(
                5, lambda _: None, lambda storage, place: storage if place.startswith("cpu:") else None
            )
        if size == 1:
            environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_WORLD_SIZE="1")
            distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
            return cls(joined=True)
        distributed.init_process_group(backend)
        control = distributed.new_group(backend="gloo", timeout=_PATIENCE)
        return cls(distributed.get_rank(), size, local_rank, control, joined=True)

    def sibling(self) -> Group:
        """The same processes over connections of their own, for another thread; every process must call this."""
        if self.size == 1:
            return self
        from torch import distributed

        return replace(self, control=distributed.new_group(backend="gloo", timeout=_PATIENCE))

    @property
    def leads(self) -> bool:
        """Whether this process commits and reports."""
        return self.rank == 0

    @property
    def leads_machine(self) -> bool:
        """Whether this process looks after its machine's scratch directory."""
        return self.local_rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all, by rank; every process must call this."""
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value, group=self.control)
        return values

    def share(self, value: T) -> T:
        """The leader's value; every process must call this."""
        if self.size == 1:
            return value
        from torch import distributed

        values = [value]
        distributed.broadcast_object_list(values, src=0, group=self.control)
        return values[0]

    def first(self, value: T | None) -> T | None:
        """The value of the lowest rank that has one; every process must call this."""
        return next((one for one in self.gather(value) if one is not None), None)

    def wait(self) -> None:
        """Until all are here."""
        self.gather(None)

    def leave(self) -> None:
        """Part in good order."""
        if self.joined:
            from torch import distributed

            distributed.destroy_process_group()


ALONE = Group()
"""A training of one process."""
