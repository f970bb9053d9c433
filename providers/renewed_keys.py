"""Session keys on a machine, renewed as long as the run goes on: AWS's `credential_process`.

Keys that the launch brought end after hours. Whoever watches the run puts newer ones into its prefix, boxed for this
machine (`providers.sealed`); every client of boto3 here asks `python -m providers.renewed_keys DIRECTORY` for keys
once an hour, which fetches what is new with the keys that still hold. All of it lies in a file that only its owner may
read.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from providers.errors import TuneplanError
from providers.object_store import ObjectStore
from providers.sealed import UNTIL, unbox

#: Key of the boxes in the run's prefix: `{"until_at": ..., "boxes": {name of a pad: box}}`.
KEY = "keys.json"
#: Variables of a session's keys, and how `credential_process` calls them.
NAMES = {
    "AWS_ACCESS_KEY_ID": "AccessKeyId",
    "AWS_SECRET_ACCESS_KEY": "SecretAccessKey",
    "AWS_SESSION_TOKEN": "SessionToken",
}
#: A client asks again after an hour, so that it has the newest keys long before its own end.
_ASK_AGAIN = timedelta(hours=1)


def install(values: dict[str, str], key: bytes, home: Path, bundle: Path, store: str) -> dict[str, str]:
    """Put session keys where boto3 finds them, unless newer ones lie there; the environment without them.

    Args:
        values: Secrets, the keys and `UNTIL` among them.
        key: Of the boxes for this machine.
        home: Below it the keys are kept.
        bundle: Where this module is.
        store: URI of the run's prefix.

    Raises:
        OSError: They cannot be written.
    """
    directory = home / ".tuneplan-keys"
    directory.mkdir(mode=0o700, exist_ok=True)
    kept = _read(directory)
    session = {name: values[name] for name in (*NAMES, UNTIL)}
    if kept.get("key") == key.hex() and kept.get(UNTIL, "") > session[UNTIL]:
        session = {name: kept[name] for name in session}
    _write(directory, {**session, "key": key.hex(), "store": store})
    process = [
        "env",
        f"PYTHONPATH={bundle}",
        "PYTHONSAFEPATH=1",
        sys.executable,
        "-m",
        "providers.renewed_keys",
    ]
    config = f"[default]\ncredential_process = {shlex.join([*process, str(directory)])}\n"
    (directory / "config").write_text(config)
    others = {name: value for name, value in values.items() if name not in session}
    return others | {"AWS_CONFIG_FILE": str(directory / "config")}


def newest(directory: Path, opened: Callable[[str], ObjectStore], now: datetime) -> dict[str, str | int]:
    """The newest keys as `credential_process` gives them.

    Args:
        directory: Of the kept keys.
        opened: Opens the run's store with the keys of the environment.
        now: UTC.
    """
    kept = before = _read(directory)
    for name in NAMES:
        os.environ[name] = kept[name]
    os.environ.pop("AWS_CONFIG_FILE", None)  # it names this very process
    try:
        found = opened(kept["store"]).get(KEY)
        boxes = {} if found is None else json.loads(found[0])["boxes"]
        for text in boxes.values():
            kept = _later(kept, text)
    except (TuneplanError, ValueError, KeyError, TypeError, AttributeError) as error:
        sys.stderr.write(f"no newer keys: {error}\n")
    if kept != before:
        _keep(directory, kept)
    until = min(datetime.fromisoformat(kept[UNTIL]), now + _ASK_AGAIN)
    keys = {theirs: kept[ours] for ours, theirs in NAMES.items()}
    return {"Version": 1, **keys, "Expiration": until.isoformat().replace("+00:00", "Z")}


def _later(kept: dict[str, str], text: str) -> dict[str, str]:
    """What is in a box, if it is for this machine and ends later."""
    try:
        values = unbox(text, bytes.fromhex(kept["key"]))
    except TuneplanError:  # for another launch's machine
        return kept
    return kept | values if values[UNTIL] > kept[UNTIL] else kept


def _read(directory: Path) -> dict[str, str]:
    try:
        found = json.loads((directory / "keys.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(directory: Path, values: dict[str, str]) -> None:
    """Write newer keys down, which a full disk does not make useless: they are in the store still."""
    try:
        _write(directory, values)
    except OSError as error:
        with contextlib.suppress(OSError):  # the log may be on the same disk
            sys.stderr.write(f"newer keys are not kept: {error}\n")


def _write(directory: Path, values: dict[str, str]) -> None:
    beside = directory / f".keys.{os.getpid()}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(values, file)
        beside.replace(directory / "keys.json")
    finally:
        beside.unlink(missing_ok=True)


def main(directory: Path) -> None:
    """Print the newest keys for boto3."""
    from providers.stores import open_store

    sys.stdout.write(json.dumps(newest(directory, open_store, datetime.now(UTC))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
