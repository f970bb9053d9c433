"""Tells a full disk from other failures of a save, whichever library found it."""

from __future__ import annotations

import errno

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# torch and safetensors write by themselves: the first says only that a write failed, the second the number
_TEXTS = ("no space left", "file too large", "disk quota", "os error 28", "os error 27", "os error 122")
_TORCH_TEXTS = ("pytorchstreamwriter failed", "iostream error")


def is_full_disk(error: BaseException) -> bool:
    """Whether this error, or one that led to it, says that the disk took no more.

    >>> is_full_disk(OSError(28, "No space left on device")), is_full_disk(ValueError("x"))
    (True, False)
    """
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen).lower()
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        if any(part in text for part in (*_TEXTS, *_TORCH_TEXTS)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
