"""A command that was told to end gives back what it has rented."""

from __future__ import annotations

import os
import signal

import pytest

from planner.cli.interrupting import sigterm_interrupts


def test_the_first_sigterm_interrupts_and_the_second_leaves_the_cleaning_up_alone() -> None:
    before, cleaned = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(KeyboardInterrupt), sigterm_interrupts():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned.append(True)
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) is before
