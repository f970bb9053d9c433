from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.money import micro_usd, usd_text, usd_text_of_micro


@given(st.integers(0, 10**15))
def test_text_of_micro_dollars_is_exact(micro: int) -> None:
    text = usd_text_of_micro(micro)
    assert Decimal(text) * 1_000_000 == micro
    assert "E" not in text and len(text.partition(".")[2]) <= 6


@given(st.decimals(0, 10**9, places=6))
def test_micro_dollars_of_six_decimals_are_exact(amount: Decimal) -> None:
    assert micro_usd(amount) == amount * 1_000_000


def test_unknown_stays_unknown() -> None:
    assert usd_text(None) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_amount_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        usd_text(value)
