"""One upload or download by one client, in a process of its own; `benchmarks/object_store.py` starts it.

    python benchmarks/object_store_clients.py CLIENT upload|download DIRECTORY s3://bucket/prefix

Prints seconds of CPU and by the clock as JSON; ends with 3 if the client is not installed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

BUCKET = "tuneplan"
MISSING = 3


def _worker(name: str, act: str, place: str, prefix: str) -> dict[str, float]:
    """In a process of its own: get everything ready, then measure."""
    try:
        move = _MOVES[name](act, Path(place), prefix)
    except ModuleNotFoundError:
        sys.exit(MISSING)
    start_s, cpu_s = time.monotonic(), time.process_time()
    move()
    return {"cpu_s": time.process_time() - cpu_s, "wall_s": time.monotonic() - start_s}


def _ours(act: str, place: Path, prefix: str) -> Callable[[], None]:
    """What `jobs.checkpoint` does with the files: sends them without hashing, or fetches and verifies them."""
    from jobs.committed import fetch_files, hash_file
    from jobs.manifest import BLOBS, FileEntry, Manifest
    from providers.stores import open_store

    if "obstore" in prefix:
        prefix += "?client=obstore"
    store, index = open_store(prefix), place.with_name("hashes.json")
    store.get("warm-up")
    if act == "upload":
        files = sorted(place.iterdir())
        entries = {path.name: FileEntry(path.name, path.stat().st_size, hash_file(path)) for path in files}
        index.write_text(json.dumps({key: [one.bytes, one.sha256] for key, one in entries.items()}))

        def send() -> None:
            for path in files:
                store.put_file(BLOBS + entries[path.name].sha256, path)

        return send
    rows = json.loads(index.read_text())
    listed = tuple(FileEntry(key, *values) for key, values in rows.items())
    manifest = Manifest("bench", 1, 1, "", listed)
    return lambda: fetch_files(store, manifest, place)


def _boto3(act: str, place: Path, prefix: str, *, signed: bool = True) -> Callable[[], None]:
    import boto3
    from botocore.config import Config

    config = None if signed else Config(s3={"payload_signing_enabled": False})
    client = boto3.session.Session().client("s3", config=config)
    root = prefix.partition(f"{BUCKET}/")[2]
    names = _keys(client, root) if act == "download" else [path.name for path in sorted(place.iterdir())]

    def act_on_each() -> None:
        for name in names:
            if act == "upload":
                client.upload_file(str(place / name), BUCKET, f"{root}/{name}")
            else:
                client.download_file(BUCKET, f"{root}/{name}", str(place / name))

    return act_on_each


def _keys(client: Any, root: str) -> list[str]:
    rows = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{root}/")["Contents"]
    return [row["Key"].rpartition("/")[2] for row in rows]


def _obstore(act: str, place: Path, prefix: str) -> Callable[[], None]:
    import obstore
    from obstore.store import S3Store

    endpoint = os.environ["AWS_ENDPOINT_URL"]
    root = prefix.partition(f"{BUCKET}/")[2]
    store = S3Store(BUCKET, config={"endpoint": endpoint}, client_options={"allow_http": True})
    if act == "upload":
        files = sorted(place.iterdir())

        def send() -> None:
            for path in files:
                obstore.put(store, f"{root}/{path.name}", path)

        return send
    rows = [row["path"] for batch in obstore.list(store, root) for row in batch]

    def fetch() -> None:
        for path in rows:
            with (place / path.rpartition("/")[2]).open("wb") as file:
                for chunk in obstore.get(store, path).stream():
                    file.write(chunk)

    return fetch


def _torch(act: str, place: Path, prefix: str) -> Callable[[], None]:
    from s3torchconnector._s3client import S3Client

    client = S3Client("us-east-1", endpoint=os.environ["AWS_ENDPOINT_URL"])
    root = prefix.partition(f"{BUCKET}/")[2]
    if act == "upload":
        files = sorted(place.iterdir())

        def send() -> None:
            for path in files:
                with client.put_object(BUCKET, f"{root}/{path.name}") as writer, path.open("rb") as file:
                    shutil.copyfileobj(file, writer, 8 << 20)

        return send
    names = [info.key for page in client.list_objects(BUCKET, f"{root}/") for info in page.object_info]

    def fetch() -> None:
        for key in names:
            with (place / key.rpartition("/")[2]).open("wb") as file:
                shutil.copyfileobj(client.get_object(BUCKET, key), file, 8 << 20)

    return fetch


def _hash(act: str, place: Path, prefix: str) -> Callable[[], None]:
    from jobs.committed import hash_file

    files = sorted(place.iterdir())
    return lambda: [hash_file(path) for path in files] and None


_MOVES: dict[str, Callable[[str, Path, str], Callable[[], None]]] = {
    "ours": _ours,
    "ours obstore": _ours,
    "boto3": _boto3,
    "boto3 unsigned": partial(_boto3, signed=False),
    "obstore": _obstore,
    "s3torchconnector": _torch,
    "sha256": _hash,
}


if __name__ == "__main__":
    print(json.dumps(_worker(*sys.argv[1:])))
