"""What the worker writes, also in the object store: it can be read when the machine is gone.

Below the run's prefix: `logs/<fence>-<number>.log`, UTF-8 text in pieces, each written anew until it is full. A
thread of its own sends them; a store that does not answer costs log lines, never a step. Values of secrets are masked.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from typing import TextIO

from providers.errors import StorageError
from providers.object_store import ObjectStore

PREFIX = "logs/"
PIECE_BYTES = 256 << 10
#: Of one attempt; what comes after that rolls through the last piece, so that beginning and end are kept.
MOST_PIECES = 64
_MOST_WAITING_BYTES = 4 << 20
#: A worker that is killed soon is the one whose log is looked for.
_FIRST_S = 1.0
_MASK = b"***"
_LEFT_OUT = b"[lines left out]\n"
_LEAST_SECRET_CHARS = 6
#: Secrets by their nature, beside those that `TUNEPLAN_SECRETS` names.
_SECRETS = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)  # fmt: skip


class RunLog:
    """Copies stdout and stderr of this process.

    Args:
        secrets: Values that must not leave the machine.
    """

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        """Nothing is copied before `tee`, nothing sent before `attach`."""
        self._secrets = tuple(secret.encode() for secret in secrets if len(secret) >= _LEAST_SECRET_CHARS)
        self._lock = threading.Lock()
        self._waiting = b""
        self._piece = b""
        self._owed = False  # whether the store lacks some of the piece
        self._number = 0
        self._store: ObjectStore | None = None
        self._fence = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._streams: tuple[TextIO, TextIO] | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> RunLog:
        """Masking the secrets of an environment."""
        names = (*environ.get("TUNEPLAN_SECRETS", "").split(), *_SECRETS)
        return cls(tuple(environ[name] for name in names if name in environ))

    def tee(self) -> None:
        """From here on copy what is written; main thread only."""
        self._streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = _Copied(sys.stdout, self), _Copied(sys.stderr, self)

    def attach(self, store: ObjectStore, fence: int, *, every_s: float) -> None:
        """From here on send it to the run's prefix, as that of one attempt."""
        self._store, self._fence = store, fence
        self._thread = threading.Thread(target=self._run, args=(every_s,), name="log upload", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send the rest, and copy no more."""
        if self._streams is not None:
            sys.stdout, sys.stderr = self._streams
        if self._thread is not None:
            self._over.set()
            self._thread.join(timeout=30)
            self._send(last=True)

    def add(self, text: str) -> None:
        """Take what was written; the oldest goes if the store does not keep up."""
        with self._lock:
            self._waiting += text.encode(errors="replace")
            if len(self._waiting) > _MOST_WAITING_BYTES:
                self._waiting = _LEFT_OUT + self._waiting[-_MOST_WAITING_BYTES // 2 :]

    def _run(self, every_s: float) -> None:
        wait_s = min(every_s, _FIRST_S)
        while not self._over.wait(wait_s):
            self._send()
            wait_s = every_s

    def _send(self, *, last: bool = False) -> None:
        """Write full lines, at the end all there is; what cannot be written waits for the next time."""
        with self._lock:
            end = len(self._waiting) if last else self._waiting.rfind(b"\n") + 1
            lines, self._waiting = self._waiting[:end], self._waiting[end:]
        if self._store is None or not (lines or self._owed):
            return
        for secret in self._secrets:
            lines = lines.replace(secret, _MASK)
        self._piece += lines
        self._owed = True
        try:
            while len(self._piece) > PIECE_BYTES and self._number < MOST_PIECES - 1:
                end = self._piece.rfind(b"\n", 0, PIECE_BYTES) + 1 or PIECE_BYTES
                self._put(self._piece[:end])
                self._piece, self._number = self._piece[end:], self._number + 1
            if len(self._piece) > PIECE_BYTES:
                self._piece = _LEFT_OUT + self._piece[-PIECE_BYTES // 2 :]
            self._put(self._piece)
            self._owed = False
        except StorageError:
            # saying so would only make the log longer; the piece is written anew next time
            if len(self._piece) > _MOST_WAITING_BYTES:
                self._piece = _LEFT_OUT + self._piece[-_MOST_WAITING_BYTES // 2 :]

    def _put(self, body: bytes) -> None:
        if self._store is not None:
            self._store.put(f"{PREFIX}{self._fence:06d}-{self._number:06d}.log", body)


class _Copied:
    """A text stream whose writes are copied."""

    def __init__(self, stream: TextIO, log: RunLog) -> None:
        self._stream = stream
        self._log = log

    def write(self, text: str) -> int:
        self._log.add(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


class StoredLog:
    """The log of a run as its store has it; may be read again and again while it grows."""

    def __init__(self, store: ObjectStore) -> None:
        """Nothing is read yet."""
        self._store = store
        self._read: dict[str, int] = {}
        self._rest = b""

    def lines(self, *, last: bool = False) -> Iterator[str]:
        """Lines that came since the last call, oldest attempt first; with `last` also one without an end.

        Raises:
            StorageError: The store cannot be read.
        """
        for item in self._store.list(PREFIX):
            if item.bytes == self._read.get(item.key):
                continue
            found = self._store.get(item.key)
            body = b"" if found is None else found[0]
            before = self._read.get(item.key, 0)
            self._read[item.key] = len(body)
            # a piece that became shorter rolls: its beginning was left out
            *full, self._rest = (self._rest + (body[before:] if len(body) >= before else body)).split(b"\n")
            yield from (line.decode(errors="replace") for line in full)
        if last and self._rest:
            yield self._rest.decode(errors="replace")
            self._rest = b""
