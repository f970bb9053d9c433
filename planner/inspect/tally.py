"""Counts tokens of a stream of texts from a stratified sample of them, and says how sure the total is."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from planner.lengths import Lengths, lengths_of
from planner.quantiles import Z90, Quantiles

#: Counts tokens of each text, without special ones.
Counter = Callable[[Sequence[str]], Sequence[int]]

#: Up to this many characters everything is counted, beyond it a sample.
_EXACT_CHARS = 8_000_000
_LEAST_SAMPLE, _MOST_SAMPLE = 12, 400
#: Tokens sampled of one stratum at most.
_STRATUM_TOKENS = 400_000
_LENGTHS = 20_000


@dataclass(slots=True)
class _Stratum:
    """Texts of about the same length: guesses of all, a uniform sample of the texts."""

    seen: int = 0
    guessed: float = 0.0
    sample: list[tuple[str, float]] = field(default_factory=list)
    ratio: float = 1.0
    variance: float = 0.0


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens of everything that was seen.

    Attributes:
        total: Tokens, 80 % interval.
        lengths: Of the records.
        how: counted, sampled or guessed.
        counted_records: Records that went through a tokenizer.
    """

    total: Quantiles
    lengths: Lengths
    how: str
    counted_records: int


class Tally:
    """One pass over records; memory does not grow with their number.

    Args:
        counter: The model's tokenizer, None to stay with the guesses.
        exact_chars: Up to this many characters every text is counted.
        seed: Of the sample.
    """

    def __init__(
        self, counter: Counter | None = None, *, exact_chars: int = _EXACT_CHARS, seed: int = 0
    ) -> None:
        """Start with nothing seen."""
        self._counter = counter
        self._exact_chars = exact_chars
        self._random = random.Random(seed)  # noqa: S311
        self._strata: dict[int, _Stratum] = {}
        self._chars = 0
        self._marks = 0
        self._lengths: list[tuple[int, float, int]] = []
        self._longest = (0, 0.0, 0)
        self.records = 0

    def add(self, text: str, guess: float, marks: int) -> None:
        """See one record.

        Args:
            text: Everything that is tokenised.
            guess: Tokens of it by its characters.
            marks: Tokens that the format adds.
        """
        self.records += 1
        self._marks += marks
        key = max(int(math.log2(guess)), 0) if guess > 0 else 0
        stratum = self._strata.setdefault(key, _Stratum())
        stratum.seen += 1
        stratum.guessed += guess
        self._keep_length((key, guess, marks))
        if self._counter is not None:
            self._keep_text(key, stratum, text, guess)

    def _keep_length(self, length: tuple[int, float, int]) -> None:
        if length[1] + length[2] > self._longest[1] + self._longest[2]:
            self._longest = length
        if len(self._lengths) < _LENGTHS:
            self._lengths.append(length)
        elif (place := self._random.randrange(self.records)) < _LENGTHS:
            self._lengths[place] = length

    def _keep_text(self, key: int, stratum: _Stratum, text: str, guess: float) -> None:
        exact_before = self._chars <= self._exact_chars
        self._chars += len(text)
        if self._chars <= self._exact_chars:
            stratum.sample.append((text, guess))
            return
        if exact_before:
            self._thin()
        most = _sample_size(key)
        if len(stratum.sample) < most and stratum.seen <= most:
            stratum.sample.append((text, guess))
        elif (place := self._random.randrange(stratum.seen)) < len(stratum.sample):
            stratum.sample[place] = (text, guess)

    def _thin(self) -> None:
        """From everything to a uniform sample of each stratum."""
        for key, stratum in self._strata.items():
            most = _sample_size(key)
            if len(stratum.sample) > most:
                stratum.sample = self._random.sample(stratum.sample, most)

    def result(self, log_sd: float) -> TokenCount:
        """Total and lengths.

        Args:
            log_sd: Standard deviation of the logarithm of the guesses' common error, where nothing is counted.

        Raises:
            ValueError: Nothing was seen.
        """
        counted = 0
        if self._counter is not None:
            counted = sum(self._count(stratum) for stratum in self._strata.values())
        total = self._marks + sum(one.ratio * one.guessed for one in self._strata.values())
        if self._counter is None:
            factor = math.exp(Z90 * log_sd)
            interval, how = Quantiles(total / factor, total, total * factor), "guessed"
        else:
            half = Z90 * math.sqrt(sum(one.variance for one in self._strata.values()))
            interval = Quantiles(max(total - half, 0.0), total, total + half)
            how = "counted" if counted == self.records else "sampled"
        return TokenCount(interval, self._length_distribution(), how, counted)

    def _count(self, stratum: _Stratum) -> int:
        """Ratio of counted to guessed tokens in the sample, and the variance of the stratum's total by it."""
        if not stratum.sample or self._counter is None:
            return 0
        tokens = self._counter([text for text, _ in stratum.sample])
        guessed = sum(guess for _, guess in stratum.sample)
        stratum.ratio = sum(tokens) / guessed if guessed > 0 else 1.0
        size, seen = len(stratum.sample), stratum.seen
        if size < seen:
            rests = (
                count - stratum.ratio * guess
                for count, (_, guess) in zip(tokens, stratum.sample, strict=True)
            )
            spread = sum(rest * rest for rest in rests) / max(size - 1, 1)
            small = 1 + (Z90**2 + 1) / (2 * max(size - 1, 1))  # Student's t against the normal, squared
            stratum.variance = seen * seen * (1 - size / seen) * spread / size * small
        return size

    def _length_distribution(self) -> Lengths:
        rows = self._lengths if self._longest in self._lengths else [*self._lengths, self._longest]
        return lengths_of([self._strata[key].ratio * guess + marks for key, guess, marks in rows])


def _sample_size(key: int) -> int:
    """Texts to sample of a stratum whose texts have about 2^key tokens."""
    return min(max(_STRATUM_TOKENS >> key, _LEAST_SAMPLE), _MOST_SAMPLE)
