"""US dollars as text and as whole micro-dollars; the ledger holds the latter, so that sums are exact."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Decimal

_MICRO_USD = Decimal("0.000001")


def usd_text(value: float | int | Decimal | None) -> str | None:
    """A US dollar amount as a decimal string: at most 6 decimals, no exponent, no idle zeros.

    Raises:
        ValueError: If it is not finite.

    >>> usd_text(12.5), usd_text(1e-7), usd_text(3), usd_text(0.1 + 0.2), usd_text(None)
    ('12.5', '0', '3', '0.3', None)
    """
    if value is None:
        return None
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is not an amount of money")
    amount = Decimal(str(value)).quantize(_MICRO_USD, rounding=ROUND_HALF_EVEN)
    text = f"{amount:f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def micro_usd(value: float | Decimal) -> int:
    """Whole micro-dollars, rounded half to even.

    >>> micro_usd(1.1604)
    1160400
    """
    return int((Decimal(str(value)) * 1_000_000).to_integral_value(rounding=ROUND_HALF_EVEN))


def usd_text_of_micro(micro: int) -> str:
    """The decimal string of whole micro-dollars.

    >>> usd_text_of_micro(1160400), usd_text_of_micro(0)
    ('1.1604', '0')
    """
    return usd_text(Decimal(micro).scaleb(-6)) or "0"
