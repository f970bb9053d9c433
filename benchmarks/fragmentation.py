"""What rows of many lengths leave unused: torch's caching allocator, replayed over traced trainings without a GPU.

    python benchmarks/fragmentation.py > benchmarks/results/fragmentation.md    # needs the extra [trace], 20 minutes

A step is traced at two lengths; every allocation is linear in the length, so that any other follows. The replay keeps
the allocator's rules (c10's CUDACachingAllocator, segments that do not grow): sizes rounded to 512 bytes, a small pool
up to 1 MiB, segments of 2 MiB, of 20 MiB, or rounded to 2 MiB from 10 MiB on, the best fit, blocks split where more
than 1 MiB is left, neighbours merged. Lengths are drawn log-normally (0.6) and, where they are longer than the limit,
cut to it or drawn again, as trainers do that drop such rows; a micro-batch is as long as its longest row.
"""

from __future__ import annotations

import bisect
import gc
import random
import statistics
import weakref
from pathlib import Path

import torch

from planner import trace
from planner.architecture import Adapter, load_architecture, model_config
from planner.hardware import gpu_facts
from planner.memory import estimate_memory
from planner.setup import Cluster, TrainingSetup

MIB, GIB = 2**20, 2**30
STEPS, SEEDS = 60, 8
LONGEST = 2048
MEDIANS = {"most are longer": 1.3, "half as long": 0.5, "a fifth as long": 0.2}
LONGER_ONES = ("cut", "dropped")
Event = tuple[int, float, float]  # storage, bytes at length 0 (negative: freed), bytes per token of length


class Block:
    """A piece of a segment."""

    __slots__ = ("after", "before", "free", "key", "size", "small")

    def __init__(self, size: int, *, small: bool) -> None:
        self.size, self.small = size, small
        self.before: Block | None = None
        self.after: Block | None = None
        self.free = False
        self.key: tuple[int, int, Block] | None = None


class Allocator:
    """The caching allocator of one GPU with room enough."""

    def __init__(self) -> None:
        self.pools: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}
        self.numbered = self.reserved = self.allocated = self.peak = 0

    def malloc(self, size: int) -> Block:
        size = max(512, -(-size // 512) * 512)
        small = size <= MIB
        pool = self.pools[small]
        at = bisect.bisect_left(pool, (size, 0))
        if at < len(pool):
            block = pool.pop(at)[2]
            block.free = False
        else:
            segment = 2 * MIB if small else 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB
            block = Block(segment, small=small)
            self.reserved += segment
        left = block.size - size
        if left >= 512 if small else left > MIB:
            rest = Block(left, small=small)
            rest.before, rest.after = block, block.after
            if block.after is not None:
                block.after.before = rest
            block.after, block.size = rest, size
            self._keep(rest)
        self.allocated += block.size
        self.peak = max(self.peak, self.allocated)
        return block

    def release(self, block: Block) -> None:
        self.allocated -= block.size
        before, after = block.before, block.after
        if before is not None and before.free:
            self._take(before)
            block.size += before.size
            block.before = before.before
            if before.before is not None:
                before.before.after = block
        if after is not None and after.free:
            self._take(after)
            block.size += after.size
            block.after = after.after
            if after.after is not None:
                after.after.before = block
        self._keep(block)

    def _keep(self, block: Block) -> None:
        self.numbered += 1
        block.key, block.free = (block.size, self.numbered, block), True
        bisect.insort(self.pools[block.small], block.key)

    def _take(self, block: Block) -> None:
        pool = self.pools[block.small]
        del pool[bisect.bisect_left(pool, block.key)]
        block.free = False


class Recorder(trace._Tracker):
    """Writes births and ends of storages down."""

    def __init__(self) -> None:
        super().__init__(None)
        self.before: list[tuple[int, int]] = []
        self.events = self.before
        self.names: dict[int, int] = {}
        self.born = 0

    def count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self.names or storage.nbytes() == 0:
            return
        self.born += 1
        self.names[storage._cdata] = self.born
        self.events.append((self.born, storage.nbytes()))
        weakref.finalize(storage, self.forget, storage._cdata)

    def forget(self, key: int) -> None:
        name = self.names.pop(key, None)
        if name is not None:
            self.events.append((name, 0))


def record(setup: TrainingSetup, length: int) -> tuple[list[int], list[tuple[int, int]]]:
    """Bytes of what lies there all the time, and the events of one step, once the optimizer has its states."""
    model = trace._prepared(setup, trace._built(setup, model_config(setup.arch.id, Path())))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = trace._optimizer(setup, trained)
    recorder = Recorder()
    for tensor in (*model.parameters(), *model.buffers()):
        recorder.count(tensor)
    with recorder.mode():
        for step in range(2):
            if step:
                gc.collect()
                recorder.events = []
            ids = torch.empty((setup.micro_batch, length), dtype=torch.long, device="meta")
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            del loss, ids
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    lasting: dict[int, int] = {}
    for name, size in recorder.before:
        if size:
            lasting[name] = size
        else:
            lasting.pop(name, None)
    return list(lasting.values()), list(recorder.events)


def pattern(setup: TrainingSetup) -> tuple[list[int], list[Event]]:
    """A step of any length, from two."""
    (lasting, first), (_, second) = record(setup, 512), record(setup, 1024)
    names: dict[int, int] = {}
    found: list[Event] = []
    for (name, small), (_, large) in zip(first, second, strict=True):
        if small:
            names[name] = len(names)
            slope = (large - small) / 512
            found.append((names[name], small - slope * 512, slope))
        elif name in names:
            found.append((names[name], -1.0, 0.0))
    return lasting, found


def drawn(chance: random.Random, median: float, longer_ones: str, rows: int) -> int:
    """Tokens of the longest row of a micro-batch."""
    found: list[float] = []
    while len(found) < rows:
        length = chance.lognormvariate(0, 0.6) * median * LONGEST
        if length <= LONGEST or longer_ones == "cut":
            found.append(min(length, LONGEST))
    return max(16, int(max(found)))


def held_after(lasting: list[int], events: list[Event], lengths: list[int]) -> tuple[int, int, int]:
    """What lies there all the time, the tensors' peak, and what is reserved in the end."""
    allocator = Allocator()
    held = [allocator.malloc(size) for size in lasting]
    base = allocator.allocated
    for length in lengths:
        live: dict[int, Block] = {}
        for name, size, slope in events:
            if size >= 0 or slope:
                live[name] = allocator.malloc(max(1, int(size + slope * length)))
            elif name in live:
                allocator.release(live.pop(name))
        for block in live.values():
            allocator.release(block)
    assert held
    return base, allocator.peak, allocator.reserved


def share_of_logits(setup: TrainingSetup) -> float:
    """Of what a step of the longest rows needs, the part that is logits and their like, as the closed form has it."""
    gpu = gpu_facts("H200")
    assert gpu is not None
    parts = estimate_memory(setup._replace(sequence_tokens=LONGEST), Cluster(gpu)).components_bytes
    return parts["logits_loss"] / (parts["logits_loss"] + parts["activations"])


def in_parts(points: list[tuple[float, float]]) -> tuple[float, float]:
    """What is unused in parts of activations and of logits: least squares over (share of logits, unused)."""
    aa = sum((1 - share) ** 2 for share, _ in points)
    ll = sum(share**2 for share, _ in points)
    al = sum(share * (1 - share) for share, _ in points)
    ay = sum((1 - share) * unused for share, unused in points)
    ly = sum(share * unused for share, unused in points)
    whole = aa * ll - al**2
    return (ay * ll - ly * al) / whole, (ly * aa - ay * al) / whole


def main() -> None:
    lora = Adapter("lora", 8, ("q", "k", "v"), fp32=True)
    print("# Reserved beyond the tensors, in parts of what a step of the longest rows needs\n")
    print(
        f"{STEPS} steps, rows of up to {LONGEST} tokens; {SEEDS} draws of each kind, smallest to largest.\n"
    )
    print("| model | longer ones | " + " | ".join(MEDIANS) + " |\n|---|---|" + "---|" * len(MEDIANS))
    every: dict[str, list[tuple[float, list[float]]]] = {kind: [] for kind in LONGER_ONES}
    for name, rows, recomputed in (("llama-2-7b", 1, True), ("qwen2.5-7b", 1, True), ("qwen2.5-7b", 4, True),
                                   ("llama-2-7b", 1, False)):  # fmt: skip
        setup = TrainingSetup(
            load_architecture(name), adapter=lora, micro_batch=rows, gradient_checkpointing=recomputed,
            framework="hf", optimizer="adamw_fused", attention="flash",
        )  # fmt: skip
        lasting, events = pattern(setup)
        base, peak, reserved = held_after(lasting, events, [LONGEST] * 3)
        what = f"{name}, LoRA, {rows} row{'s' * (rows > 1)}" + ("" if recomputed else ", nothing recomputed")
        print(f"| {what} | all as long: {(reserved - peak) / (peak - base):.2f} | | | |", flush=True)
        for longer_ones in LONGER_ONES:
            cells, more = [], []
            for median in MEDIANS.values():
                shares = []
                for seed in range(SEEDS):
                    chance = random.Random(seed)
                    lengths = [drawn(chance, median, longer_ones, rows) for _ in range(STEPS)]
                    held = held_after(lasting, events, lengths)[2]
                    shares.append((held - peak) / (peak - base))
                    more.append((held - reserved) / (peak - base))
                cells.append(", ".join(f"{one:.2f}" for one in sorted(shares)))
            every[longer_ones].append((share_of_logits(setup), more))
            print(f"| {what} | {longer_ones} | " + " | ".join(cells) + " |", flush=True)
    print(
        "\nBeyond what rows all as long leave, in parts of activations and of logits (least squares over the models):\n"
    )
    print(
        "| longer ones | median: activations | logits | nine of ten: activations | logits |\n|---|---|---|---|---|"
    )
    for longer_ones, found in every.items():
        middle = in_parts([(share, statistics.median(more)) for share, more in found])
        most = in_parts([(share, sorted(more)[int(0.9 * len(more))]) for share, more in found])
        print(f"| {longer_ones} | " + " | ".join(f"{one:.2f}" for one in (*middle, *most)) + " |")


if __name__ == "__main__":
    main()
