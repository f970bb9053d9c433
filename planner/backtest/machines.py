"""GPUs, machines and sharding as published tables write them."""

from __future__ import annotations

import re

from planner.architecture import ModelArchitecture, parameter_counts
from planner.backtest.cells import Row, UnsupportedRunError, cell, dated_before, number, required
from planner.hardware import GpuFacts, gpu_facts
from planner.setup import Cluster, Parallelism, ParallelKind

_CLASS = re.compile(r"(\d+) ?GB(?:-class)?(?: ?(?:GPU|card|VRAM)s?)?$", re.IGNORECASE)
_TYPICAL = {6: "RTX2060", 8: "RTX4060", 10: "RTX3080", 11: "RTX2080-Ti", 12: "RTX3060", 16: "T4", 20: "RTXA4500",
            24: "RTX4090", 32: "V100-32GB", 40: "A100", 48: "L40S", 64: "MI250-GCD", 80: "A100-80GB", 96: "GH200",
            141: "H200", 180: "B200", 192: "MI300X"}  # fmt: skip
# What a table adds to a GPU's name: counts, remarks in brackets, the machine around it.
_AROUND = re.compile(
    r"\b\d{1,2}\s*[x×*]\s*(?=[A-Z])|^\d{1,3}\s+(?=NVIDIA|AMD|GeForce|Tesla|[ABHLVT]\d|RTX|GTX|MI\d)|\s+[x×*]\s*\d+\s*$|(?<=[\dB)])[x×*]\d+$|\(.*?\)|(?<=\d{3})s$"
    r"|\b(?:320|640) ?GB\b|(?<=\d)(?=SXM|PCIe)"
    r"|\b(?:NVL\d{1,2}|HGX|DGXS?(?:-\d+)?|GRID|HPU|Colab|Kaggle|Cards?|Pascal|Volta|Turing|Ampere"
    r"|Hopper|Blackwell)\b",
    re.IGNORECASE,
)
_MEMORY_IN_NAME = re.compile(r"(?<![\d.])(\d{1,3}) ?G(?:i?B)?\b", re.IGNORECASE)
# Boards that torch runs on as on the others: what they hold is known by their memory, if not how fast they are.
_GPU = re.compile(
    r"nvidia|geforce|\b[rg]tx|quadro|tesla|titan|radeon|instinct|\bmi ?\d{2,3}|\ba\d{2,4}\b", re.IGNORECASE
)
_MAKERS = r"NVIDIA|AMD|GeForce|Tesla|[ABHLVT]\d|RTX|GTX|MI\d"
_COUNT_IN_NAME = re.compile(
    rf"^\s*(\d{{1,4}})\s*[x×*]|^\s*(\d{{1,3}})\s+(?={_MAKERS})|(?<=[\s\dB)])[x×*]\s*(\d{{1,4}})\s*$",
    re.IGNORECASE,
)
_GPUS_PER_NODE = 8
# What published clusters of these chips have per machine where a row does not say: one port a GPU.
_NETWORK_GBIT_PER_S = {"A100": 1600.0, "A800": 1600.0, "H100": 3200.0, "H800": 3200.0, "H200": 3200.0, "B200": 3200.0,
                       "B300": 6400.0, "MI300X": 3200.0, "MI325X": 3200.0, "MI355X": 3200.0}  # fmt: skip
_SPELLED = (("tp", "tensor|tensor model|mp"), ("pp", "pipeline|pipeline model"), ("ep", "expert"),
            ("cp", "context|sequence|ulysses sp|ulysses|ring|sp"))  # fmt: skip
_SHARDED = re.compile("fsdp|zero[123]|shard|hsdp|mics")
# Shards within a machine and copies across machines, unless both degrees are told ("HSDP 2x4": copies x shards).
_HYBRID = re.compile(r"hsdp|hybrid[\s-]*shard|mics|within (?:a |the )?(?:node|machine)|intra[\s-]?node")
_COPIES_BY_SHARDS = re.compile(r"hsdp\s*\(?\s*(\d+)\s*[x×]\s*(\d+)")
_SHARD_DEGREE = re.compile(r"\b(?:dp )?shard(?:s|ing)?\s*[=:]\s*(\d+)|zero[123]\s*=\s*(\d+)")
_SEQUENCE_PARALLEL = "2022-05"  # since when Megatron-LM has `--sequence-parallel`, the first to have it
_DEGREES = {"tensor": ("tp",), "pipeline": ("pp",), "context": ("cp",), "expert": ("ep",)}


def cluster_of(row: Row) -> tuple[Cluster, bool]:
    """The cluster, and whether the GPU is known by more than its memory.

    Raises:
        UnsupportedRunError: If the GPU or the number of GPUs is missing or unknown.
    """
    name = row.get("gpu") or ""
    memory = number(row, "gpu_mem_gb") or _in_name(_MEMORY_IN_NAME, name)
    known = _known(name, memory)
    facts = known or _by_memory(name, memory)
    gpus = gpus_of(row)
    nodes = _nodes(row, gpus)
    same = memory is not None and abs(memory - facts.memory_gib) <= 0.12 * facts.memory_gib
    network = next((rate for chip, rate in _NETWORK_GBIT_PER_S.items() if facts.name.startswith(chip)), None)
    return Cluster(facts, -(-gpus // nodes), nodes, None if same else memory, network), known is not None


def gpus_of(row: Row) -> int:
    """GPUs in all, stated or written before the board's name.

    Raises:
        UnsupportedRunError: If neither.
    """
    counted = _in_name(_COUNT_IN_NAME, row.get("gpu") or "") if not cell(row, "num_gpus") else None
    return round(counted) if counted else required(row, "num_gpus")


def _in_name(pattern: re.Pattern[str], name: str) -> float | None:
    """A number that a table writes beside the GPU's name.

    >>> [_in_name(_COUNT_IN_NAME, name) for name in ("8xH100 SXM", "RTX 4090", "A100 x4")]
    [8.0, None, 4.0]
    """
    match = pattern.search(name)
    return float(next(group for group in match.groups() if group)) if match else None


def _known(name: str, memory: float | None) -> GpuFacts | None:
    """Facts of the board, or of the chip where no board of it has so much memory ("A100 64GB", "RTX 4090 48GB")."""
    plain = _AROUND.sub(" ", name).strip()
    chip = _MEMORY_IN_NAME.sub(" ", plain).strip()
    found = (gpu_facts(*spelled) for spelled in ((name, memory), (plain, memory), (chip, None)))
    return next((facts for facts in found if facts is not None), None)


def _by_memory(name: str, memory: float | None) -> GpuFacts:
    """A GPU of which only the size of its memory is known: enough for what fits, not for speed."""
    match = _CLASS.match(name.strip())
    facts = gpu_facts(_TYPICAL.get(int(match[1]), "")) if match else None
    if facts is None and memory and _GPU.search(name):
        facts = gpu_facts(_TYPICAL[min(_TYPICAL, key=lambda size: abs(size - memory))])
    if facts is None:
        raise UnsupportedRunError(f"GPU {name!r} is not known" if name else "gpu is not stated")
    return facts


#: Of prime-rl's pull request 2868: experts are spread over as many GPUs as divide both, up to 8, where nobody says.
_EXPERTS_SPREAD_SINCE, _EXPERT_RANKS = "2026-06", 8


def parallelism_of(row: Row, gpus: int, arch: ModelArchitecture, full: bool) -> Parallelism:
    """How the row says that the model is spread; where it does not, data parallel, sharded if it is large.

    >>> from planner.architecture import load_architecture
    >>> llama = load_architecture("llama-2-70b")
    >>> three = parallelism_of({"parallelism": "TP4 PP1 CP2"}, 16, llama, True)
    >>> three.tensor, three.context, three.data
    (4, 2, 2)
    >>> parallelism_of({"parallelism": "ZeRO-3 SP8"}, 32, llama, True)[:5]
    ('zero3', 4, 1, 1, 8)
    """
    text = _plain(cell(row, "parallelism"))
    degrees = {field: _degree(text, names) or 1 for field, names in _DEGREES.items()}
    experts = degrees.pop("expert")
    if experts == 1:
        experts = _degree(cell(row, "liger_fused"), ("ep",)) or 1
    if experts == 1 and "automodel" in cell(row, "framework"):
        experts = gpus  # `ep_size` of NeMo AutoModel's recipes
    if experts == 1 and "prime-rl" in cell(row, "framework") and not dated_before(row, _EXPERTS_SPREAD_SINCE):
        ranks = range(min(arch.experts, _EXPERT_RANKS), 0, -1)
        experts = next((each for each in ranks if arch.experts % each == gpus % each == 0), 1)
    experts = min(experts, arch.experts) if arch.is_moe else 1
    if "naive" in text or "device map" in text or text in ("pp", "mp", "model parallel"):
        return Parallelism("pp", 1, 1, gpus)
    parts = degrees["tensor"] * degrees["pipeline"] * degrees["context"]
    if max(parts, experts * degrees["pipeline"]) > gpus:
        raise UnsupportedRunError(f"{cell(row, 'parallelism')!r} needs more than {gpus} GPUs")
    data = max(1, gpus // parts)
    kind = _data_parallel(text, gpus, arch, full)
    if (parts > 1 or any(name in text for name in ("tp1", "pp1"))) and not _SHARDED.search(text):
        kind = "mixed"
    return Parallelism(kind, data, **degrees, expert=experts)


def virtual_stages_of(row: Row) -> int:
    """Parts of each pipeline stage, 0 where the row tells none.

    >>> virtual_stages_of({"parallelism": "TP4 PP4 VPP5"}), virtual_stages_of({"parallelism": "TP4 PP4"})
    (5, 0)
    """
    return _degree(cell(row, "parallelism"), ("vpp", "vp")) or 0


def sequence_parallel_of(row: Row) -> bool | None:
    """Whether the row says that tensor-parallel ranks share out the sequence; Megatron-LM could not before May 2022.

    >>> [sequence_parallel_of({"parallelism": text}) for text in ("TP2 SP", "TP2 no SP", "TP2", "TP2 SP2")]
    [True, False, None, None]
    """
    text = cell(row, "parallelism")
    named = re.search(
        r"(no |without )?(?<![a-z])(?:sp|sequence[- ]parallel(?:ism)?)\b(?!\s*[=:-]?\s*\d)", text
    )
    if named is not None and re.search(r"(?<![a-z])(?:tp|tensor)", text):
        return named[1] is None
    return False if dated_before(row, _SEQUENCE_PARALLEL) else None


def replicas_of(row: Row, gpus: int, parallelism: Parallelism) -> int:
    """Groups of ranks that shard a copy each, 1 where all share one.

    >>> wide = Parallelism("fsdp", 32)
    >>> [replicas_of({"parallelism": text}, 32, wide) for text in ("HSDP", "hsdp 2x16", "zero1=4, within node", "FSDP")]
    [4, 2, 8, 1]
    """
    text, ranks = _plain(cell(row, "parallelism")), parallelism.data * parallelism.context
    if not _HYBRID.search(text):
        return 1
    both, told = _COPIES_BY_SHARDS.search(text), _SHARD_DEGREE.search(text)
    per_node = gpus // _nodes(row, gpus) // parallelism.tensor
    shards = int(both[2]) if both else int(told[1] or told[2]) if told else per_node
    return ranks // shards if 0 < shards < ranks else 1


def _nodes(row: Row, gpus: int) -> int:
    """Machines as stated, or of eight GPUs each; none is without a GPU."""
    return min(gpus, max(1, round(number(row, "num_nodes") or -(-gpus // _GPUS_PER_NODE))))


def _plain(text: str) -> str:
    """One spelling for zero-3, ZeRO stage 3, z3, tensor parallel and the like."""
    text = re.sub(r"\b(?:z|ds|ds ?z)(?=[123]\b)", "zero", text.replace("_", " "))
    for degree, words in _SPELLED:
        text = re.sub(rf"\b(?:{words})[\s-]*parallel(?:ism)?\b|\b(?:{words})(?=\s*[=:-]?\s*\d)", degree, text)
    text = re.sub(r"\b(\d+)[\s-]*way[\s-]*(tp|pp|cp|ep)\b", r"\2\1", text)
    text = re.sub(r"zero[\s-]+offload", "zero2", text.replace("zero-infinity", "zero3"))
    text = re.sub(r"(?:zero)?[\s-]*stage[\s-]*(?=[123])", "zero", text)
    return re.sub(r"zero[\s-]+(?=[123])", "zero", text)


def _data_parallel(text: str, gpus: int, arch: ModelArchitecture, full: bool) -> ParallelKind:
    if "zero3" in text:
        return "zero3"
    if "zero2" in text or re.search(r"\bzero\b(?!\s*[\d+])", text):
        return "zero2"  # accelerate's default (`DeepSpeedPlugin.zero_stage`), where no stage is told
    if "zero1" in text:
        return "zero1"
    if gpus == 1:
        return "single"
    if "shard_grad_op" in text or "shard grad op" in text:
        return "zero2"
    if re.search(r"no[\s-]*shard", text):
        return "ddp"
    if "mics" in text or "zero++" in text:  # both are ways of ZeRO-3
        return "zero3"
    if "ddp" in text or text in ("dp", "data parallel"):
        return "ddp"
    big = full and parameter_counts(arch).total > 2e9
    return "fsdp" if "fsdp" in text or "hsdp" in text or "shard" in text or big else "ddp"


def _degree(text: str, names: tuple[str, ...]) -> int | None:
    """The number behind a name, or before "-way" of it.

    >>> _degree("tp=4, pp2", ("tp",)), _degree("fsdp", ("dp",))
    (4, None)
    """
    for name in names:
        match = re.search(rf"(?<![a-z]){name}\s*[=:_-]?\s*(\d+)", text)
        if match:
            return int(match[1])
    return None
