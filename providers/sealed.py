"""Secrets on their way to the machine, in two shares of which neither alone says anything.

A backend writes an environment variable into its database, its scripts and, on Slurm, the command line that everybody
on the node can see. So what is given to it is the secrets XOR random bytes; the random bytes travel as a file of the
bundle that only the user may read. `python -m providers.sealed COMMAND` joins the two and runs a command with the
secrets in its environment.

What is sent to a machine later goes through the object store in a box: encrypted and signed with a key that follows
from the random bytes, which the bundles on both sides hold and the store does not.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from providers.errors import UsageError

#: Holds `<name of the file>.<the other share>`.
VARIABLE = "TUNEPLAN_SECRET_SHARE"
#: Directory of the bundle in which the files lie, one for each launch.
DIRECTORY = "sealed"
#: Among the secrets: when the session keys beside it end, RFC 3339 UTC.
UNTIL = "TUNEPLAN_KEYS_UNTIL"
_NONCE_BYTES, _MARK_BYTES = 16, 32
_NAME = re.compile(r"[0-9a-f]{16}")
_SIZE_STEP_BYTES = 256


def seal(values: Mapping[str, str], bundle: Path) -> str:
    """Write one share into the bundle and return the other, the value of `VARIABLE`.

    Args:
        values: Secrets by the name of their environment variable.
        bundle: Directory of the bundle.

    Raises:
        OSError: It cannot be written.
    """
    clear = json.dumps(dict(values)).encode()
    clear += b" " * (-len(clear) % _SIZE_STEP_BYTES)  # the length of a share says little of what is in it
    pad = secrets.token_bytes(len(clear))
    name = secrets.token_hex(8)
    (bundle / DIRECTORY).mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(bundle / DIRECTORY / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pad)
    return f"{name}.{base64.b64encode(_xor(clear, pad)).decode()}"


def unseal(variable: str, bundle: Path) -> dict[str, str]:
    """The secrets that `seal` was given.

    Raises:
        UsageError: The shares do not belong together, or the file is gone.
    """
    name, _, share = variable.partition(".")
    try:
        if _NAME.fullmatch(name) is None:
            raise ValueError("no name of a file")
        pad = (bundle / DIRECTORY / name).read_bytes()
        clear = json.loads(_xor(base64.b64decode(share, validate=True), pad))
    except (OSError, ValueError, binascii.Error):
        # the cause may hold part of a secret
        raise UsageError(f"the secrets of {VARIABLE} cannot be joined", code="bad_secrets") from None
    return {str(key): str(value) for key, value in clear.items()}


def box_key(pad: bytes) -> bytes:
    """The key of boxes for whoever holds a share's random bytes."""
    return hashlib.sha256(b"tuneplan box\0" + pad).digest()


def pads(bundle: Path) -> dict[str, bytes]:
    """The random bytes of every launch of a bundle, by the name of their file."""
    directory = bundle / DIRECTORY
    return {path.name: path.read_bytes() for path in directory.iterdir()} if directory.is_dir() else {}


def box(values: Mapping[str, str], key: bytes) -> str:
    """The values for the holder of the key alone, as text.

    A stream from SHAKE-256 of key and a fresh nonce, then HMAC-SHA256 over both, with a key of its own.
    """
    clear = json.dumps(dict(values)).encode()
    nonce = secrets.token_bytes(_NONCE_BYTES)
    hidden = nonce + _xor(clear, _stream(key, nonce, len(clear)))
    return base64.b64encode(_mark(key, hidden) + hidden).decode()


def unbox(text: str, key: bytes) -> dict[str, str]:
    """What `box` was given.

    Raises:
        UsageError: It is none, was changed, or is for another key.
    """
    try:
        whole = base64.b64decode(text, validate=True)
        mark, hidden = whole[:_MARK_BYTES], whole[_MARK_BYTES:]
        if not hmac.compare_digest(mark, _mark(key, hidden)):
            raise ValueError("another key, or changed")
        nonce, body = hidden[:_NONCE_BYTES], hidden[_NONCE_BYTES:]
        found = json.loads(_xor(body, _stream(key, nonce, len(body))))
    except (ValueError, binascii.Error):
        raise UsageError("the box cannot be opened", code="bad_secrets") from None
    return {str(name): str(value) for name, value in found.items()}


def _stream(key: bytes, nonce: bytes, size: int) -> bytes:
    return hashlib.shake_256(b"stream" + key + nonce).digest(size)


def _mark(key: bytes, hidden: bytes) -> bytes:
    return hmac.digest(b"mark" + key, hidden, "sha256")


def _xor(left: bytes, right: bytes) -> bytes:
    if len(left) != len(right):
        raise ValueError("shares of different lengths")
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def main(command: list[str]) -> None:
    """Become the command; without secrets it is run all the same."""
    environment = dict(os.environ)
    sealed = environment.pop(VARIABLE, None)
    if sealed is not None:
        environment |= _installed(unseal(sealed, Path.cwd()), sealed)
    os.execvpe(command[0], command, environment)  # noqa: S606 - that is what it is for; no shell


def _installed(values: dict[str, str], variable: str) -> dict[str, str]:
    """The secrets; keys that end are put where newer ones take their place (`providers.renewed_keys`)."""
    if UNTIL not in values:
        return values
    from providers.renewed_keys import install

    pad = (Path.cwd() / DIRECTORY / variable.partition(".")[0]).read_bytes()
    return install(values, box_key(pad), Path.home(), Path.cwd(), os.environ.get("TUNEPLAN_STORE", ""))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (UsageError, OSError) as error:
        sys.exit(f"error: {error}")
