"""One pass over training data: its tokens, its faults, and what of it is there twice."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.data_files import JSON_HINT, TEXT_HINT, files_of
from planner.inspect.duplicates import HashSet, MinHash, NearIndex, hash_of, shingles
from planner.inspect.findings import Finding, personal
from planner.inspect.records import DataFormat, Record, read_records
from planner.inspect.tally import Counter, Tally, TokenCount
from planner.token_guess import features, guess_tokens, script_of
from providers.errors import UsageError

#: A script that fewer records than this share are written in is odd.
_TELLING_WORDS = 8
_ODD_SHARE = 0.02
#: Near leaks are looked for among this many training records.
_MOST_NEAR_LEAKS = 200_000
_MOST_LABELS = 1000
_TABLES = frozenset({".csv", ".tsv", ".parquet"})
#: What helps against a line of a kind that `records` names.
_HINTS = {"not UTF-8": TEXT_HINT, "not JSON": JSON_HINT, "not a JSON object": JSON_HINT}


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found.

    Attributes:
        files: As given.
        records: Examples, without broken lines.
        tokens: Of all examples.
        answer_share: Share of the tokens that are learned from, by characters.
        findings: By kind, only those with records.
        labels: Label -> records; empty without labels.
        near_compared: Records compared for near duplicates.
    """

    files: tuple[str, ...]
    records: int
    tokens: TokenCount
    answer_share: float
    findings: dict[str, Finding]
    labels: dict[str, int]
    near_compared: int


@dataclass(slots=True)
class _HeldOut:
    """Held-out records to look for in the training data."""

    hashes: dict[int, str] = field(default_factory=dict)
    near: NearIndex = field(default_factory=NearIndex)
    places: list[str] = field(default_factory=list)


def inspect_files(
    files: Sequence[Path],
    *,
    held_out: Path | None = None,
    wanted: DataFormat | None = None,
    sequence_tokens: int = 2048,
    vocab: int = 128_000,
    counter: Counter | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> Inspection:
    """Inspect training files as one data set.

    Args:
        files: Training data; a directory stands for its data files.
        held_out: Evaluation data that must not be in it.
        wanted: Format of all records, None to go by the first one's keys.
        sequence_tokens: Longer examples are cut.
        vocab: Of the model, for guesses.
        counter: The model's tokenizer, None to guess.
        told: Called with the number of records now and then.

    Raises:
        UsageError: A file cannot be read, or none holds an example.
        MissingExtraError: A Parquet file, and pyarrow is not installed.
    """
    passage = _Passage(_read_held_out(held_out, wanted), sequence_tokens, vocab, counter)
    for path in (file for given in files for file in _files(given)):
        for record in read_records(path, wanted):
            wanted = wanted or record.kind
            passage.see(f"{path.name}:{record.line}", record)
            if passage.number % 1000 == 0:
                told(passage.number)
    return passage.result(files)


def _files(path: Path) -> list[Path]:
    """A directory's data files, read as the worker reads them; what is no directory is itself."""
    return files_of(path) if path.is_dir() else [path]


def _read_held_out(path: Path | None, wanted: DataFormat | None) -> _HeldOut | None:
    if path is None:
        return None
    found, minhash = _HeldOut(), MinHash()
    read = ((file.name, record) for file in _files(path) for record in read_records(file, wanted))
    for name, record in read:
        if record.problem is None and record.text.strip():
            where = f"{name}:{record.line}"
            found.hashes.setdefault(hash_of(record.text), where)
            if values := shingles(record.own_text):
                found.near.add(minhash.signature(values))
                found.places.append(where)
    return found


class _Passage:
    """State of the pass."""

    def __init__(self, held_out: _HeldOut | None, longest: int, vocab: int, counter: Counter | None) -> None:
        self.number = 0
        self._held_out, self._longest, self._vocab = held_out, longest, vocab
        self._tally = Tally(counter)
        self._findings: dict[str, Finding] = {}
        self._scripts: dict[str, Finding] = {}
        self._features: Counts[str] = Counts()
        self._characters = self._answer_characters = 0
        self._labels: Counts[str] = Counts()
        self._hashes, self._near, self._minhash = HashSet(), NearIndex(), MinHash()
        self._near_places: list[str] = []
        self._compared = 0

    def see(self, where: str, record: Record) -> None:
        self.number += 1
        if record.problem is not None:
            self._find("broken", where, 0.0, record.problem)
            return
        text = record.text
        counts = features(text)
        guess = guess_tokens(counts, self._vocab).tokens
        tokens = guess + record.marks
        self._features.update(counts)
        self._characters += len(text)
        self._answer_characters += len(record.answer)
        self._tally.add(text, guess, record.marks)
        if record.label is not None and (record.label in self._labels or len(self._labels) < _MOST_LABELS):
            self._labels[record.label] += 1
        for kind, said in self._faults(record, text, tokens):
            self._find(kind, where, tokens, said)
        script = script_of(counts)
        if script != "latin" or counts["words"] >= _TELLING_WORDS:  # short texts tell no language
            self._scripts.setdefault(script, Finding()).add(where, tokens)
        if text.strip():
            self._compare(where, record, tokens)

    def _faults(self, record: Record, text: str, tokens: float) -> Iterator[tuple[str, str]]:
        if not (record.answer or record.prompt).strip() or (record.parts > 1 and not record.answer.strip()):
            yield "empty", "nothing to learn from"
        if tokens > self._longest:
            yield "too_long", ""
        for kind in personal(text):
            yield kind, ""

    def _compare(self, where: str, record: Record, tokens: float) -> None:
        value = hash_of(record.text)
        leaked = self._held_out is not None and value in self._held_out.hashes
        if leaked and self._held_out is not None:
            self._find("leaked", where, tokens, f"{where} = {self._held_out.hashes[value]}")
        first = self._hashes.first_of(value, self.number)
        if first is not None:
            self._find("duplicate", where, tokens, "")
        elif not self._near.full or (self._held_out is not None and self.number <= _MOST_NEAR_LEAKS):
            self._compare_nearly(where, record.own_text, tokens, leaked=leaked)

    def _compare_nearly(self, where: str, text: str, tokens: float, *, leaked: bool) -> None:
        values = shingles(text)
        if not values:
            return
        signature = self._minhash.signature(values)
        if self._held_out is not None and not leaked:
            twin = self._held_out.near.nearest(signature)
            if twin is not None:
                self._find("nearly_leaked", where, tokens, f"{where} ~ {self._held_out.places[twin]}")
        if self._near.full:
            return
        self._compared += 1
        same = self._near.nearest(signature)
        if same is None:
            self._near.add(signature)
            self._near_places.append(where)
        else:
            self._find("near_duplicate", where, tokens, f"{where} ~ {self._near_places[same]}")

    def _find(self, kind: str, where: str, tokens: float, said: str) -> None:
        self._findings.setdefault(kind, Finding()).add(where, tokens, said)

    def result(self, files: Sequence[Path]) -> Inspection:
        if not self._tally.records:
            raise _no_example(files[0], self._findings.get("broken"))
        sd = guess_tokens(self._features, self._vocab).log_sd
        findings = {**self._findings, **self._odd_scripts()}
        duplicate = findings.get("duplicate")
        if duplicate is not None:
            duplicate.records *= self._hashes.scale
            duplicate.tokens *= self._hashes.scale
        return Inspection(
            files=tuple(str(path) for path in files),
            records=self._tally.records,
            tokens=self._tally.result(sd),
            answer_share=min(self._answer_characters / max(self._characters, 1), 1.0),
            findings=findings,
            labels=dict(self._labels.most_common()),
            near_compared=self._compared,
        )

    def _odd_scripts(self) -> dict[str, Finding]:
        return {
            f"odd_script_{name}": found
            for name, found in self._scripts.items()
            if found.records < _ODD_SHARE * self._tally.records
        }


def _no_example(path: Path, broken: Finding | None) -> UsageError:
    """Says why, of the first line that is none."""
    if broken is None or not broken.examples:
        why = "it has no row" if path.suffix.lower() in _TABLES else "every line is empty"
        return UsageError(f"{path} holds no example: {why}", path=str(path))
    why = broken.examples[0]
    hint = _HINTS.get(why, "keys: messages, prompt and completion, chosen and rejected, or text (and label)")
    where = broken.lines[0] if broken.lines else path.name
    return UsageError(f"{path} holds no example; {where}: {why}", path=str(path), hint=hint)
