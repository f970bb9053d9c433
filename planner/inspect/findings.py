"""Records that a person should look at: broken, empty, too long, another script, personal data, keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

#: Lines kept as examples of each kind.
_MOST_LINES = 20

_EMAIL = re.compile(
    r"\b[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.[A-Za-z]{2,24}\b", re.ASCII
)
_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){6,12}"
    r"|\(\d{3}\) ?\d{3}-\d{4}|\d{3}-\d{3}-\d{4})(?![\w-])"
)
_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])")
# United States social security numbers in the form that is written; areas 000, 666 and 900 to 999 are never given out.
_SOCIAL_SECURITY = re.compile(r"(?<![\w.-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,}\b"
    r"|\bhf_[A-Za-z0-9]{30,}\b|\bsk-[A-Za-z0-9_-]{32,}\b|\bxox[abprs]-[A-Za-z0-9-]{20,}\b|\bAIza[0-9A-Za-z_-]{35}\b"
)

_KEY_SIGNS = (
    "PRIVATE KEY",
    "AKIA",
    "ASIA",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "hf_",
    "sk-",
    "xox",
    "AIza",
)


@dataclass(slots=True)
class Finding:
    """Records of one kind.

    Attributes:
        records: How many.
        tokens: Of them all.
        lines: "file:line" of the first ones.
        examples: What the first ones say of themselves, never the data.
    """

    records: int = 0
    tokens: float = 0.0
    lines: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)

    def add(self, where: str, tokens: float = 0.0, said: str = "") -> None:
        """Count a record."""
        self.records += 1
        self.tokens += tokens
        if len(self.lines) < _MOST_LINES:
            self.lines.append(where)
            if said and said not in self.examples:
                self.examples.append(said)


def personal(text: str) -> Iterator[str]:
    """Kinds of personal or secret data that a text seems to hold: email, phone, card, iban, social_security, key.

    Quick tests come first: most texts hold none of the characters that are needed.

    >>> list(personal("write to a.b@example.org or pay with 4111 1111 1111 1111"))
    ['email', 'card']
    """
    if "@" in text and _EMAIL.search(text):
        yield "email"
    if sum(map(text.count, "0123456789")) >= 9:
        cards = [match[0] for match in _CARD.finditer(text) if is_card(match[0])]
        if any(not _is_inside(match, cards) for match in _PHONE.findall(text)):
            yield "phone"
        if cards:
            yield "card"
        if any(is_iban(match[0]) for match in _IBAN.finditer(text)):
            yield "iban"
        if _SOCIAL_SECURITY.search(text):
            yield "social_security"
    if any(sign in text for sign in _KEY_SIGNS) and _KEY.search(text):
        yield "key"


def _is_inside(match: str, cards: list[str]) -> bool:
    return any(match in card for card in cards)


def is_iban(text: str) -> bool:
    """Whether letters and digits look like an account's number: their remainder by 97 is 1 (ISO 13616).

    >>> is_iban("DE89 3704 0044 0532 0130 00"), is_iban("DE89370400440532013001")
    (True, False)
    """
    packed = text.replace(" ", "")
    if not 15 <= len(packed) <= 34:
        return False
    return int("".join(str(int(sign, 36)) for sign in packed[4:] + packed[:4])) % 97 == 1


def is_card(text: str) -> bool:
    """Whether digits look like a payment card: a known first digit, 13 to 19 digits, and the Luhn check.

    >>> is_card("4111-1111-1111-1111"), is_card("4111-1111-1111-1112")
    (True, False)
    """
    digits = [int(sign) for sign in text if sign.isdigit()]
    if not 13 <= len(digits) <= 19 or digits[0] not in (2, 3, 4, 5, 6) or len(set(digits)) < 2:
        return False
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
