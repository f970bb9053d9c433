"""Secrets in two shares: together they are the secrets, alone they say nothing."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import UsageError
from providers.sealed import DIRECTORY, main, seal, unseal

NAMES = st.from_regex(r"[A-Z_]{1,20}", fullmatch=True)


def share_file(bundle: Path) -> Path:
    (path,) = (bundle / DIRECTORY).iterdir()
    return path


@given(st.dictionaries(NAMES, st.text(max_size=400), min_size=1, max_size=5))
def test_both_shares_together_are_the_secrets(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, str]
) -> None:
    bundle = tmp_path_factory.mktemp("bundle")
    assert unseal(seal(values, bundle), bundle) == values


def test_neither_share_shows_the_secret_or_its_length(tmp_path: Path) -> None:
    short, long = seal({"A": "canary"}, tmp_path), seal({"A": "canary" * 20}, tmp_path)
    assert len(short) == len(long)
    assert "canary" not in short + long
    for path in (tmp_path / DIRECTORY).iterdir():
        assert b"canary" not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_same_secrets_never_make_the_same_share(tmp_path: Path) -> None:
    shares = {seal({"A": "canary"}, tmp_path).partition(".")[2] for _ in range(20)}
    assert len(shares) == 20


@pytest.mark.parametrize("wrong", ["", "x", "../../etc/passwd.AAAA", "0123456789abcdef.AAAA", "{name}.!!!"])
def test_shares_that_do_not_fit_are_refused_and_not_repeated(tmp_path: Path, wrong: str) -> None:
    seal({"A": "canary"}, tmp_path)
    with pytest.raises(UsageError, match="cannot be joined") as refused:
        unseal(wrong.format(name=share_file(tmp_path).name), tmp_path)
    assert refused.value.__cause__ is None


def test_a_share_that_was_changed_is_refused(tmp_path: Path) -> None:
    sealed = seal({"A": "canary"}, tmp_path)
    path = share_file(tmp_path)
    path.write_bytes(bytes(byte ^ 255 for byte in path.read_bytes()))
    with pytest.raises(UsageError):
        unseal(sealed, tmp_path)


def test_a_command_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no-such-command"):
        main([str(tmp_path / "no-such-command")])
