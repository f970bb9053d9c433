"""Exact and near duplicates, and what of the held-out data is in the training data; in bounded memory."""

from __future__ import annotations

import hashlib
import re
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

_WORD = re.compile(r"\w+")
_SHINGLE_WORDS = 3
#: Rows of the signature and how they are cut into bands: records of Jaccard similarity s meet in a band with
#: probability 1 - (1 - s^rows)^bands: 0.5 at s = 0.71, 0.98 at 0.85, 0.02 at 0.4. Agreement is then checked.
_ROWS, _BANDS = 64, 10
_ROWS_PER_BAND = 6
_SIMILAR = 0.8
_TEXT_FOR_SHINGLES = 20_000
#: Hashes kept for exact duplicates; beyond this many only a known share of all hashes is kept, and counts are scaled.
_MOST_HASHES = 2_000_000
#: Records compared for near duplicates; those after them are only looked up among these.
_MOST_SIGNATURES = 50_000


def normal(text: str) -> str:
    """A text as duplicates are compared: lower case, single spaces.

    >>> normal(" Ab  c\\n")
    'ab c'
    """
    return " ".join(text.lower().split())


def hash_of(text: str) -> int:
    """64 bits of a normalised text."""
    return int.from_bytes(
        hashlib.blake2b(normal(text).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
    )


@dataclass(slots=True)
class HashSet:
    """Distinct hashes with a bound: when full, only those with one more low zero bit stay.

    A hash is kept or dropped by its own bits, so all copies of a text share its fate and counts scale exactly in
    the mean.
    """

    most: int = _MOST_HASHES
    zero_bits: int = 0
    found: dict[int, int] = field(default_factory=dict)

    def first_of(self, value: int, number: int) -> int | None:
        """Number of the first record with this hash, None if this is the first one (or is not watched)."""
        if value & ((1 << self.zero_bits) - 1):
            return None
        first = self.found.setdefault(value, number)
        if len(self.found) > self.most:
            self._thin()
        return None if first == number else first

    @property
    def scale(self) -> int:
        """What a count of watched records is multiplied by."""
        return 1 << self.zero_bits

    def _thin(self) -> None:
        while len(self.found) > self.most:
            self.zero_bits += 1
            mask = (1 << self.zero_bits) - 1
            self.found = {value: number for value, number in self.found.items() if not value & mask}


def shingles(text: str) -> set[int]:
    """Hashes of every three words that follow each other, of the first part of a long text."""
    words = _WORD.findall(text[:_TEXT_FOR_SHINGLES].lower())
    if len(words) < _SHINGLE_WORDS:
        return set()
    return {
        zlib.crc32(" ".join(words[start : start + _SHINGLE_WORDS]).encode("utf-8", "surrogatepass"))
        for start in range(len(words) - _SHINGLE_WORDS + 1)
    }


class MinHash:
    """Signatures by random linear maps modulo a prime, the same in every process."""

    def __init__(self, rows: int = _ROWS) -> None:
        """Draw the maps from fixed hashes."""
        import numpy as np

        draws = [hashlib.blake2b(str(row).encode(), digest_size=8).digest() for row in range(2 * rows)]
        # odd multipliers modulo 2^64: multiply-shift hashing, no prime needed
        self._factor = np.array([int.from_bytes(one, "big") | 1 for one in draws[:rows]], dtype=np.uint64)
        self._offset = np.array([int.from_bytes(one, "big") for one in draws[rows:]], dtype=np.uint64)

    def signature(self, values: Iterable[int]) -> tuple[int, ...]:
        """The least image of the values under each map; equal rows estimate the Jaccard similarity."""
        import numpy as np

        column = np.fromiter(values, dtype=np.uint64)[:, None]
        images = (column * self._factor + self._offset) >> np.uint64(32)
        return tuple(images.min(axis=0).tolist())


@dataclass(slots=True)
class NearIndex:
    """Finds a record that is nearly the same as an earlier one."""

    most: int = _MOST_SIGNATURES
    signatures: list[array[int]] = field(default_factory=list)
    bands: dict[int, int] = field(default_factory=dict)

    def nearest(self, signature: tuple[int, ...]) -> int | None:
        """Number of an indexed record that is similar, None if there is none."""
        found = {self.bands[band] for band in _bands(signature) if band in self.bands}
        alike = (
            index for index in sorted(found) if similarity(signature, self.signatures[index]) >= _SIMILAR
        )
        return next(alike, None)

    def add(self, signature: tuple[int, ...]) -> None:
        """Remember a record under the next number, from 0, unless the index is full."""
        if self.full:
            return
        self.signatures.append(array("I", signature))
        for band in _bands(signature):
            self.bands.setdefault(band, len(self.signatures) - 1)

    @property
    def full(self) -> bool:
        """Later records are only looked up."""
        return len(self.signatures) >= self.most


def similarity(one: Sequence[int], other: Sequence[int]) -> float:
    """Share of equal rows: the estimated Jaccard similarity.

    >>> similarity((1, 2, 3, 4), (1, 2, 0, 4))
    0.75
    """
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def _bands(signature: tuple[int, ...]) -> Iterator[int]:
    """One hash for each band; hashes of whole numbers are the same in every process."""
    for band in range(_BANDS):
        start = band * _ROWS_PER_BAND
        yield hash((band, *signature[start : start + _ROWS_PER_BAND]))
