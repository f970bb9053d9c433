"""Tokens of a text without its tokenizer, from counts of its words, marks, digits and characters by script. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: Vocabularies below this have a token a character or two.
CHARACTER_VOCAB = 512
#: From this size on, vocabularies were trained on many scripts.
_LARGE_VOCAB = 100_000

#: A text is of another script than Latin if this share of its letters is.
_SCRIPT_SHARE = 0.4

#: Tokens for each unit counted: (vocabulary of 100k and more, smaller one, sigma of the logarithm).
#: Fitted to 634 files (prose, code, tables, markup) through one byte-level BPE of 131k tokens and one
#: SentencePiece BPE of 32k: median error 3 %, p90 11 %. The sigmas hold what is beyond that, other tokenizers of the
#: same size: they differ little on words, much on digits (one to three a token) and on scripts seldom trained on.
_TOKENS_PER: dict[str, tuple[float, float, float]] = {
    "words": (0.606, 0.634, 0.08),
    "letters": (0.093, 0.095, 0.08),
    "marks": (0.315, 0.224, 0.15),
    "mark_runs": (0.401, 0.955, 0.15),
    "foreign_words": (0.82, 0.86, 0.3),
    "foreign_letters": (0.125, 0.128, 0.3),
    "digits": (0.9, 1.1, 0.4),
    "spaces": (1.6, 2.0, 0.25),
    "accented": (0.3, 0.6, 0.5),
    "cjk": (0.85, 1.25, 0.33),
    "cyrillic": (0.36, 0.44, 0.42),
    "greek": (0.62, 0.8, 0.45),
    "other": (0.8, 1.4, 0.55),
}
#: Words that other languages in Latin letters use all the time and neither English nor code does: their words take a
#: third more tokens, by the Universal Declaration of Human Rights in 18 of them through cl100k and o200k (1.0 to 2.0).
_FUNCTION_WORDS = (
    "der das und den von zu mit des auf ist eine dem nicht ein sich auch oder wird werden einer "  # German
    "les et une du est dans que pour qui sur pas au avec ce il sont aux cette "  # French
    "el los las del una para como al sus esta su "  # Spanish
    "da das dos em uma ao pelo pela seu sua ou "  # Portuguese
    "di che della dei delle nel alla sono gli ogni "  # Italian
    "het een te op dat voor zijn niet heeft aan om ook wordt naar "  # Dutch
    "og det af til som har ikke ved och att av inte med ett skall eller "  # Danish, Norwegian, Swedish
    "nie na jest przez oraz lub ze od dla prawo jego "  # Polish
    "nebo jeho jako aby je "  # Czech
    "ja ei tai olla kuin sen ovat joka "  # Finnish
    "az egy nem hogy minden vagy joga "  # Hungarian
    "sau este orice dreptul din ca fie "  # Romanian
    "ve bir bu ile olan "  # Turkish
    "dan yang dengan untuk atau dari tidak pada setiap dalam "  # Indonesian, Malay
    "trong theo cho hay khi ng nh"  # Vietnamese, whose letters with marks end a word here
)
_OF_OTHER_LANGUAGES = frozenset(_FUNCTION_WORDS.split())
_FEWEST_WORDS = 5  # that tell a language
_FOREIGN_SHARE = 0.06  # of all words, from which a text is of such a language
_WORDS = re.compile(r"[A-Za-z]+")
_DIGITS = re.compile(r"[0-9]+")
_MARKS = re.compile(r"[!-/:-@\[-`{-~]+")
_SPACES = re.compile(r"[ \t]*\n\s*|[ \t]{2,}")
_FOREIGN = {
    "accented": re.compile("[\u00a0-\u024f]+"),
    "cjk": re.compile("[\u3000-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]+"),
    "cyrillic": re.compile("[\u0400-\u052f]+"),
    "greek": re.compile("[\u0370-\u03ff]+"),
}
_NOT_ASCII = re.compile("[^\x00-\x7f]+")


class Guess(NamedTuple):
    """Tokens of a text.

    Attributes:
        tokens: Expected number.
        log_sd: Standard deviation of its logarithm: how far the model's own tokenizer may be from this.
    """

    tokens: float
    log_sd: float


def features(text: str) -> dict[str, int]:
    """What is counted of a text.

    >>> features("ab cd, 12")
    {'words': 2, 'letters': 4, 'marks': 1, 'mark_runs': 1, 'digits': 2, 'spaces': 0}
    """
    words, marks = _WORDS.findall(text), _MARKS.findall(text)
    kind = "foreign_" if _is_foreign(words) else ""
    found = {
        f"{kind}words": len(words),
        f"{kind}letters": len("".join(words)),
        "marks": len("".join(marks)),
        "mark_runs": len(marks),
        "digits": len("".join(_DIGITS.findall(text))),
        "spaces": len(_SPACES.findall(text)),
    }
    if not text.isascii():
        rest = len("".join(_NOT_ASCII.findall(text)))
        for name, pattern in _FOREIGN.items():
            found[name] = len("".join(pattern.findall(text)))
            rest -= found[name]
        found["other"] = max(rest, 0)
    return found


def _is_foreign(words: Sequence[str]) -> bool:
    """Whether words are of another language than English in the same letters.

    >>> _is_foreign("Alle Menschen sind frei und gleich an der Geburt".split()), _is_foreign("return x if y".split())
    (True, False)
    """
    return len(words) >= _FEWEST_WORDS and sum(
        word in _OF_OTHER_LANGUAGES for word in words
    ) > _FOREIGN_SHARE * len(words)


def guess_tokens(counts: Mapping[str, int], vocab: int) -> Guess:
    """Tokens from what was counted, of one text or of many.

    Args:
        counts: As of `features`, added up.
        vocab: Size of the model's vocabulary.

    >>> round(guess_tokens(features("The quick brown fox jumps over the lazy dog"), 128_000).tokens)
    9
    """
    if vocab < CHARACTER_VOCAB:
        units = (
            "words",
            "letters",
            "foreign_words",
            "foreign_letters",
            "marks",
            "digits",
            "spaces",
            *_FOREIGN,
            "other",
        )
        return Guess(float(sum(counts.get(name, 0) for name in units)), 0.1)
    column = 0 if vocab >= _LARGE_VOCAB else 1
    tokens = {name: count * _TOKENS_PER[name][column] for name, count in counts.items() if count}
    total = sum(tokens.values())
    if total == 0:
        return Guess(0.0, 0.0)
    variance = sum((part / total * _TOKENS_PER[name][2]) ** 2 for name, part in tokens.items())
    return Guess(total, math.sqrt(variance) + 0.02)


def script_of(counts: Mapping[str, int]) -> str:
    """Script that a text is mostly written in: latin unless enough of its letters are of another, and apart from that
    what is in another language than English in the same letters.

    >>> script_of(features("\u041f\u0440\u0438\u0432\u0435\u0442, world"))
    'cyrillic'
    >>> script_of(features("Alle Menschen sind frei und gleich an der Geburt"))
    'latin_not_english'
    """
    others = {name: counts.get(name, 0) for name in ("cjk", "cyrillic", "greek", "other")}
    name, most = max(others.items(), key=lambda pair: pair[1])
    letters = (
        counts.get("letters", 0)
        + counts.get("foreign_letters", 0)
        + counts.get("accented", 0)
        + sum(others.values())
    )
    if letters and most / letters >= _SCRIPT_SHARE:
        return name
    return "latin_not_english" if counts.get("foreign_words") else "latin"
