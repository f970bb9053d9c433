"""One name for each GPU, whatever a cloud, a driver or a paper calls it.

A canonical name stands for one memory size and one kind of board, because both change speed and fit:

- No suffix means the board most clouds rent: `A100` is the 40 GB SXM board, `H100` the 80 GB SXM board.
- A memory suffix tells larger boards of the same chip apart: `A100-80GB`, `V100-32GB`.
- `-PCIe` and `-NVL` are boards whose memory bandwidth or links differ from the SXM board.
  V100, T4 and other chips whose boards share one bandwidth keep one name.
- Workstation names are written as SkyPilot writes them: `RTX4090`, `RTXA6000`, `RTX6000-Ada`.
"""

from __future__ import annotations

import difflib
import re

CPU = "CPU"

# Canonical name -> memory of one GPU in GiB (2^30). For boards sold by "GB" this is the vendor's figure where
# the driver reports it in binary units (80 GB H100: 81559 MiB); a few GiB less are usable, which is the
# planner's matter.
CANONICAL_GPUS: dict[str, float] = {
    # Data centre, NVIDIA
    "K40": 12, "K80": 12, "M40": 12, "M60": 8, "P4": 8, "P40": 24, "P100": 16, "T4": 16, "T4g": 16,
    "V100": 16, "V100-32GB": 32,
    "A2": 16, "A10": 24, "A10G": 24, "A16": 16, "A30": 24, "A40": 48,
    "A100": 40, "A100-PCIe": 40, "A100-80GB": 80, "A100-80GB-PCIe": 80, "A800-40GB": 40, "A800-80GB": 80,
    "L4": 24, "L20": 48, "L40": 48, "L40S": 48,
    "H20": 96, "H100": 80, "H100-PCIe": 80, "H100-NVL": 94, "H100-96GB": 96, "H800": 80, "H200": 141, "H200-NVL": 141,
    "GH200": 96, "B100": 180, "B200": 180, "B300": 268, "GB200": 186, "GB300": 278,
    # Workstation and consumer, NVIDIA
    "M4000": 8, "P4000": 8, "GTX1070": 8, "GTX1080": 8, "GTX1080-Ti": 11, "TITAN-X": 12, "TITAN-Xp": 12,
    "TITAN-V": 12, "TITAN-RTX": 24, "RTX2060": 6, "RTX2070": 8, "RTX2070-Super": 8, "RTX2080": 8,
    "RTX2080-Super": 8, "RTX2080-Ti": 11, "RTX3050": 8, "RTX3070-Ti": 8, "RTX4070-Super": 12, "RTX5060": 8,
    "GB10": 128, "GTX1050-Ti": 4, "GTX1060": 6, "GTX1070-Ti": 8, "GTX1650": 4, "GTX1660": 6, "GTX1660-Super": 6,
    "GTX1660-Ti": 6, "RTX2060-Super": 8, "RTX3080-12GB": 12, "RTX4060-Ti-8GB": 8, "RTX5050": 8, "RTX5060-Ti-8GB": 8,
    "RTX3060": 12, "RTX3060-Ti": 8, "RTX3070": 8, "RTX3080": 10, "RTX3080-Ti": 12,
    "RTX3090": 24, "RTX3090-Ti": 24,
    "RTX4060": 8, "RTX4060-Ti": 16, "RTX4070": 12, "RTX4070-Ti": 12, "RTX4070-Ti-Super": 16, "RTX4080": 16,
    "RTX4080-Super": 16, "RTX4090": 24, "RTX4090-D": 24, "RTX5060-Ti": 16, "RTX5070": 12, "RTX5070-Ti": 16,
    "RTX5080": 16, "RTX5090": 32, "RTX4000": 8, "RTX5000": 16, "RTX6000": 24, "RTX8000": 48,
    "RTXA2000": 12, "RTXA4000": 16, "RTXA4500": 20, "RTXA5000": 24, "RTXA6000": 48,
    "RTX2000-Ada": 16, "RTX4000-Ada": 20, "RTX4500-Ada": 24, "RTX5000-Ada": 32,
    "RTX5880-Ada": 48, "RTX6000-Ada": 48,
    "RTXPRO4500": 32, "RTXPRO5000": 48, "RTXPRO6000": 96, "RTXPRO6000WS": 96,
    "M6000": 24, "P5000": 16, "P6000": 24, "GP100": 16, "GV100": 32, "RTXA5500": 24, "RTX4000-SFF-Ada": 20,
    "RTXPRO2000": 16, "RTXPRO4000": 24, "RTXPRO5000-72GB": 72, "RTXPRO6000MaxQ": 96,
    # Laptops, NVIDIA: other chips than the boards of the same number, and fed as many watts as the chassis cools
    "RTX3050-Laptop": 4, "RTX3050-Ti-Laptop": 4, "RTX3060-Laptop": 6, "RTX3070-Laptop": 8, "RTX3070-Ti-Laptop": 8,
    "RTX3080-Laptop": 8, "RTX3080-Laptop-16GB": 16, "RTX3080-Ti-Laptop": 16, "RTX4050-Laptop": 6, "RTX4060-Laptop": 8,
    "RTX4070-Laptop": 8, "RTX4080-Laptop": 12, "RTX4090-Laptop": 16, "RTX5060-Laptop": 8, "RTX5070-Laptop": 8,
    "RTX5070-Ti-Laptop": 12, "RTX5080-Laptop": 16, "RTX5090-Laptop": 24,
    # AMD; MI250-GCD is one of the two dies of a card, which is what software sees as a GPU
    "MI25": 16, "MI50": 16, "MI60": 32, "MI100": 32, "MI210": 64, "MI250-GCD": 64, "MI300A": 128, "MI300X": 192,
    "MI325X": 256, "MI350X": 288, "MI355X": 288, "Radeon-Pro-V520": 8, "RX7900-XTX": 24, "W7900": 48,
    "RX6800-XT": 16, "RX6900-XT": 16, "RX7600-XT": 16, "RX7700-XT": 12, "RX7800-XT": 16, "RX7900-GRE": 16,
    "RX7900-XT": 20, "RX9070": 16, "RX9070-XT": 16, "R9700": 32, "W6800": 32, "W7800": 32, "Radeon-VII": 16,
    # Intel
    "Gaudi": 32, "Gaudi2": 96, "Gaudi3": 128, "Max-1100": 48, "Max-1550": 128, "Arc-A770": 16,
    "Arc-A750": 8, "Arc-B570": 10, "Arc-B580": 12, "Arc-Pro-B60": 24,
}  # fmt: skip

# Chips sold as several boards: (memory in GiB, board) -> name. The first entry is meant if nothing more is
# said.
_BOARDS: dict[str, dict[tuple[int, str], str]] = {
    "A100": {(40, ""): "A100", (40, "PCIe"): "A100-PCIe",
             (80, ""): "A100-80GB", (80, "PCIe"): "A100-80GB-PCIe"},
    "A800": {(80, ""): "A800-80GB", (40, ""): "A800-40GB"},
    "V100": {(16, ""): "V100", (32, ""): "V100-32GB"},
    "H100": {(80, ""): "H100", (80, "PCIe"): "H100-PCIe", (94, "NVL"): "H100-NVL",
             (96, ""): "H100-96GB"},
    "H200": {(141, ""): "H200", (141, "NVL"): "H200-NVL"},
    "RTX3080": {(10, ""): "RTX3080", (12, ""): "RTX3080-12GB"},
    "RTX3080LAPTOP": {(8, ""): "RTX3080-Laptop", (16, ""): "RTX3080-Laptop-16GB"},
    "RTX4060TI": {(16, ""): "RTX4060-Ti", (8, ""): "RTX4060-Ti-8GB"},
    "RTX5060TI": {(16, ""): "RTX5060-Ti", (8, ""): "RTX5060-Ti-8GB"},
    "RTXPRO5000": {(48, ""): "RTXPRO5000", (72, ""): "RTXPRO5000-72GB"},
}  # fmt: skip

# What is left of a name once vendor, memory and board are taken off, upper case without separators.
_ALIASES: dict[str, str] = {
    "A4000": "RTXA4000", "A4500": "RTXA4500", "A5000": "RTXA5000", "A6000": "RTXA6000",
    "RTX6000": "RTX6000", "QUADRORTX6000": "RTX6000", "QUADRORTX8000": "RTX8000", "QUADROP4000": "P4000",
    "RTX4070STI": "RTX4070-Ti-Super", "RTX4070SUPERTI": "RTX4070-Ti-Super", "RTX4080S": "RTX4080-Super",
    "TITANRTX": "TITAN-RTX", "QUADRORTX4000": "RTX4000", "QUADRORTX5000": "RTX5000", "A5500": "RTXA5500",
    "QUADROM6000": "M6000", "QUADROP5000": "P5000", "QUADROP6000": "P6000", "QUADROGP100": "GP100",
    "QUADROGV100": "GV100", "RTXPRO2000BLACKWELL": "RTXPRO2000", "RTXPRO4000BLACKWELL": "RTXPRO4000",
    "RTXPRO4500BLACKWELL": "RTXPRO4500", "RTXPRO6000BLACKWELLMAXQWORKSTATION": "RTXPRO6000MaxQ",
    "GB200NVL72": "GB200", "GB300NVL72": "GB300", "DGXH100": "H100", "HGXH100": "H100", "DGXB200": "B200",
    "HGXB200": "B200",
    "RTXPRO6000WK": "RTXPRO6000WS", "RTXPRO6000WORKSTATION": "RTXPRO6000WS", "RTXPRO6000S": "RTXPRO6000",
    "RTXPRO6000SE": "RTXPRO6000", "RTXPRO6000SERVER": "RTXPRO6000",
    "RTXPRO6000BLACKWELL": "RTXPRO6000", "RTXPRO6000BLACKWELLSERVER": "RTXPRO6000",
    "RTXPRO6000BLACKWELLWORKSTATION": "RTXPRO6000WS",
    "TITANXPASCAL": "TITAN-X", "DGXSPARK": "GB10",
    "PROW6800": "W6800", "PROW7800": "W7800", "PROW7900": "W7900", "AIPROR9700": "R9700", "VII": "Radeon-VII",
    "DATACENTERMAX1550": "Max-1550", "PVC1550": "Max-1550",
    "DATACENTERMAX1100": "Max-1100", "A750": "Arc-A750", "A770": "Arc-A770", "B570": "Arc-B570", "B580": "Arc-B580",
    "PROB60": "Arc-Pro-B60", "HPUGAUDI2": "Gaudi2",
    "HABANAGAUDI": "Gaudi", "HABANAGAUDI2": "Gaudi2", "HABANAGAUDI3": "Gaudi3", "GAUDI1": "Gaudi",
    "HL205": "Gaudi", "GAUDIHL205": "Gaudi", "HL225": "Gaudi2", "GAUDI2HL225": "Gaudi2", "HL325": "Gaudi3",
    "GAUDI3HL325": "Gaudi3", "MI300": "MI300X", "V100S": "V100-32GB",
    "MI250": "MI250-GCD", "MI250X": "MI250-GCD", "MI250XGCD": "MI250-GCD",
    "PROV520": "Radeon-Pro-V520", "NONE": CPU,
}  # fmt: skip
_ALIASES |= {re.sub(r"[^A-Z0-9]", "", name.upper()): name for name in (*CANONICAL_GPUS, CPU)}
# Games' cards by their number alone, and laptops by the words that sellers have for them.
_ALIASES |= {
    re.sub(r"^(GTX|RTX|RX)", "", spelt): name
    for spelt, name in _ALIASES.items()
    if re.match(r"GTX1\d{3}|RTX[2-5]0[5-9]0|RX\d{4}", spelt)
}
_ALIASES |= {
    spelt.replace("LAPTOP", word): name
    for spelt, name in _ALIASES.items()
    for word in ("MOBILE", "NOTEBOOK")
    if "LAPTOP" in spelt
}

_NOISE = re.compile(
    r"NVIDIA|AMD|INTEL|TESLA|GEFORCE|INSTINCT|RADEON|GENERATION|EDITION|TENSOR|CORE|GPU|NVLINK|MEGA|HBM\dE?|SXM\d?|OAM"
    r"|R|TM|GRAPHICS"
)
_MEMORY = re.compile(r"^(\d+)(?:G|GB|GIB)$")
_WORD = re.compile(r"[A-Z0-9]+")


def canonical_gpu(name: str, memory_gib: float | None = None) -> str | None:
    """The canonical name, None if the GPU is not known.

    Args:
        name: As a cloud, a driver (`NVIDIA A100-SXM4-80GB`) or a person writes it.
        memory_gib: Memory of one GPU if it is known from elsewhere; a size in the name wins over it.

    >>> canonical_gpu("NVIDIA A100-SXM4-80GB"), canonical_gpu("A100-80GB-160GB"), canonical_gpu("H100_SXM5")
    ('A100-80GB', 'A100-80GB', 'H100')
    >>> canonical_gpu("A100", memory_gib=80), canonical_gpu("H100-80G-PCIe"), canonical_gpu("abacus")
    ('A100-80GB', 'H100-PCIe', None)
    """
    words = [word for word in _WORD.findall(name.upper().replace("+", " ")) if not _NOISE.fullmatch(word)]
    sizes = [int(match[1]) for word in words if (match := _MEMORY.match(word))]
    board = "NVL" if "NVL" in words else "PCIe" if "PCIE" in words else ""
    chip = "".join(word for word in words if not _MEMORY.match(word) and word not in ("NVL", "PCIE"))
    size = float(sizes[0]) if sizes else memory_gib
    known = _ALIASES.get(chip)
    boards = _BOARDS.get(chip) or _BOARDS.get(_squashed(known or ""))
    return _board(boards, size, board) if boards else known


def _squashed(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", name.upper())


def _board(boards: dict[tuple[int, str], str], memory_gib: float | None, board: str) -> str | None:
    fitting = {key: name for key, name in boards.items() if key[1] == board}
    fitting = fitting or {key: name for key, name in boards.items() if key[1] == ""}
    if memory_gib is None:
        return next(iter(fitting.values()))
    for (size, _), name in fitting.items():
        if same_memory(memory_gib, size):
            return name
    # An 80 GB figure for the 94 GB board and the like: the board is what the seller named.
    return next(iter(fitting.values())) if len(fitting) == 1 else None


def same_memory(memory_gib: float, nominal_gib: float) -> bool:
    """True if two figures can mean one board: GB or GiB, with ECC or not, up to 12 % apart."""
    return abs(memory_gib - nominal_gib) <= 0.12 * nominal_gib


def gpu_memory_gib(name: str) -> float | None:
    """Nominal memory of one GPU in GiB by canonical name, None if unknown."""
    return CANONICAL_GPUS.get(name)


def gpu_boards(name: str) -> tuple[str, ...]:
    """The other boards of the same chip, to point out what a strict filter leaves aside.

    >>> gpu_boards("H100")
    ('H100-PCIe', 'H100-NVL', 'H100-96GB')
    """
    for boards in _BOARDS.values():
        if name in boards.values():
            return tuple(other for other in boards.values() if other != name)
    return ()


def suggest_gpus(name: str) -> list[str]:
    """Up to two canonical names that a mistyped one probably means, the likeliest first.

    >>> suggest_gpus("H10O")[0], suggest_gpus("RTX409")[0], suggest_gpus("xyzzy")
    ('H100', 'RTX4090', [])
    """
    near = difflib.get_close_matches(_squashed(name), _ALIASES, n=4, cutoff=0.6)
    return list(dict.fromkeys(_ALIASES[alias] for alias in near))[:2]
