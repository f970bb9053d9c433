"""The same question to each tool as a person would ask it: what it costs in CPU, and what it answers.

    python benchmarks/same_question.py --venv DIR [--catalogs DIR]

The question: LoRA (rank 16; q, k, v, o) on Llama-3.1-8B in bf16, rows of 2,048 tokens, one row a GPU, gradient
checkpointing, AdamW, 50,000 examples of
2,048 tokens, 3 epochs. How much GPU memory, how long, how much money, and where? Each tool is
a process of its own, told as much of it as it has options for; user and system CPU seconds, best of `--rounds`.

`--venv` holds ftuneai, canifinetune, vramcalc, hf-vram-calc, gpuhunt and skypilot; no network is needed, and a tool
that wants one says so in the table. `--catalogs` is a directory of SkyPilot's price catalogs (`aws/vms.csv`, ...),
without which SkyPilot fetches its own. It is asked for each cloud by itself: `list_accelerators` expects the column
GpuInfo to have keys in capitals (`Gpus`), DigitalOcean's catalog of that copy has small letters, other clouds are not
known to this version of it, and the error of one cloud would be the only answer for all.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "same_question.md"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
}
SPEC = """\
spec_version: 1
name: same-question
model: meta-llama/Llama-3.1-8B
method: {kind: lora, rank: 16, targets: attention}
data: {samples: 50000, tokens_per_sample: 2048}
train: {epochs: 3, sequence_length: 2048, packing: true, global_batch: 16, micro_batch: 1, gradient_checkpointing: true}
where: {nodes: 1}
"""
GPUHUNT = (
    "from gpuhunt import query; print(min(query(gpu_name='A100', min_gpu_memory=80), key=lambda o: o.price))"
)
SKY = """
import sys
from sky import catalog
found, unread = [], []
for cloud in sys.argv[1:] or [None]:
    try:
        rows = catalog.list_accelerators(name_filter='^A100-80GB$', quantity_filter=1, clouds=cloud)
    except (KeyError, ValueError) as error:
        unread.append(f'{cloud} ({type(error).__name__})')
    else:
        found += [row for some in rows.values() for row in some]
row = min(found, key=lambda row: row.price)
print('no memory, no time; cheapest', row.cloud, row.instance_type, row.price, 'USD/h')
print('catalogs that it could not read:', ', '.join(unread) or 'none')
"""
PACKAGES = {
    "ftuneai": "ftuneai",
    "canifinetune": "canifinetune",
    "vramcalc": "vramcalc",
    "hf-vram-calc": "hf-vram-calc",
    "gpuhunt": "gpuhunt",
    "SkyPilot": "skypilot",
}


def questions(programs: Path, folder: Path, clouds: list[str]) -> dict[str, list[str]]:
    """Command line of each tool."""
    model, shape = folder / "model", folder / "shape.json"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    shape.write_text(json.dumps(CONFIG | {"total_params": 8_030_261_248, "family": "llama"}))
    (folder / "spec.yaml").write_text(SPEC)
    plan = str(Path(sys.executable).with_name("plan"))
    found = {
        "tuneplan": [plan, "estimate", "spec.yaml", "--limit", "1", "-o", "json"],
        "ftuneai": "ftune estimate -m meta-llama/Llama-3.1-8B --method lora -q none -b 1 -s 2048 -r 16 "
        "--lora-target attention_all -d 50000 -e 3 -o json",
        "canifinetune": "canifinetune estimate --model meta-llama/Llama-3.1-8B --method lora --quantization none "
        f"--gpu-vram-gb 80 --seq-len 2048 --lora-rank 16 --optimizer adamw_torch --override-json {shape} "
        "--offline --json",
        "vramcalc": f"vramcalc estimate {model} --train --lora 16 --dtype bf16 --precision pure --batch 1 "
        "--seq 2048 --grad-checkpoint --json",
        "hf-vram-calc": f"hf-vram-calc --model job --model_path {model} --dtype bf16 --max_batch_size 1 "
        "--max_seq_len 2048 --lora_rank 16",
        "gpuhunt": ["python", "-c", GPUHUNT],
        "SkyPilot": ["python", "-c", SKY, *clouds],
    }
    words = {name: row.split() if isinstance(row, str) else row for name, row in found.items()}
    return {
        name: row if name == "tuneplan" else [str(programs / row[0]), *row[1:]] for name, row in words.items()
    }


def asked(words: list[str], folder: Path, rounds: int) -> tuple[float, str]:
    """CPU seconds of the best round, and what was said last."""
    environment = {
        **os.environ,
        "HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "160",
        "NO_COLOR": "1",
    }
    environment |= {"PLAN_HOME": str(folder / "plan"), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    spent, said = [], ""
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        said = (
            done.stdout
            if done.returncode == 0
            else f"exit {done.returncode}: {(done.stderr or done.stdout).strip()[-200:]}"
        )
    return min(spent), said


def ours(text: str) -> str:
    """The best candidate in one line."""
    best = json.loads(text)["candidates"][0]
    offer, memory = best["offer"], best["memory_gib_per_gpu"]
    hours, cost = best["wall_clock_h"], {name: float(usd) for name, usd in best["cost_usd"].items()}
    return (
        f"{memory['reserved']:.1f} GiB ({best['verdict']}); "
        f"{hours['p50']:.1f} h ({hours['p10']:.1f}-{hours['p90']:.1f}); "
        f"${cost['p50']:.2f} ({cost['p10']:.2f}-{cost['p90']:.2f}) on "
        f"{offer['cloud']} {offer['region']} {offer['gpu']} {offer['market']}"
    )


def ftuneai(text: str) -> str:
    """Memory, its fastest machines and its cheapest offer."""
    found = json.loads(text)
    hours = ", ".join(f"{row['total_hours']:.0f} h on {row['gpu']}" for row in found["training_time"][:3])
    cheapest = min(found["costs"], key=lambda row: row["total_cost"])
    where = f"{cheapest['provider']} {cheapest['gpu']}"
    return f"{found['memory']['total_gb']:.1f} GiB; {hours}; ${cheapest['total_cost']} on {where}"


def canifinetune(text: str) -> str:
    """Memory and whether it fits."""
    found = json.loads(text)
    total = found["memory"]["total_estimated_gb"]
    return (
        f"{total:.1f} GiB with its safety margin, feasible on 80 GiB: {found['feasible']}; no time, no price"
    )


def vramcalc(text: str) -> str:
    """Memory."""
    return f"{json.loads(text)['estimate']['total'] / 2**30:.1f} GiB with its overhead; no time, no price"


READERS = {"tuneplan": ours, "ftuneai": ftuneai, "canifinetune": canifinetune, "vramcalc": vramcalc}


def told(name: str, text: str, most: int = 420) -> str:
    """An answer on one line of a table."""
    if name in READERS and not text.startswith("exit"):
        return READERS[name](text)
    flat = re.sub(r"[\s│─╭╮╰╯┃━┏┓┗┛┡┩├┤┼|]+", " ", text).strip()
    return flat if len(flat) <= most else "... " + flat[-most:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venv", type=Path, required=True)
    parser.add_argument("--catalogs", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    programs = options.venv.absolute() / "bin"
    script = "import importlib.metadata as m, sys; print(*(m.version(n) for n in sys.argv[1:]))"
    listed = [str(programs / "python"), "-c", script, *PACKAGES.values()]
    versions = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    known = {"tuneplan": metadata.version("tuneplan"), **dict(zip(PACKAGES, versions, strict=True))}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clouds = []
        if options.catalogs is not None:
            clouds = sorted(path.parent.name for path in options.catalogs.glob("*/vms.csv"))
            shutil.copytree(options.catalogs, folder / ".sky/catalogs/v8")
        commands = questions(programs, folder, clouds)
        own_s = 1.0
        for name, words in commands.items():
            seconds, text = asked(words, folder, options.rounds)
            own_s = seconds if name == "tuneplan" else own_s
            rows.append(
                f"| {name} {known[name]} | {seconds:.2f} | {seconds / own_s:.1f} | {told(name, text)} |"
            )
            print(rows[-1], flush=True)
    head = (__doc__ or "").split("\n\n")[2].replace("\n", " ")
    date = datetime.now(UTC).date().isoformat()
    lines = [
        "# The same question to each tool",
        "",
        f"`python benchmarks/same_question.py --rounds {options.rounds}`, {date}, load average of the machine "
        f"{os.getloadavg()[0]:.0f} on {os.cpu_count()} cores. {head}",
        "",
    ]
    lines += ["| tool | CPU s | ratio | answer |", "|---|---|---|---|", *rows]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
