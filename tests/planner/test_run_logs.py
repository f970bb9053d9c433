"""Where the lines of a run come from, and that a log that broke off does not look whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.run_logs import lines_of
from providers.directory_store import DirectoryStore
from providers.errors import LaunchError
from tests.planner.run_factories import attempt_of, run_of, terms_of


class _Breaks:
    """A backend whose log breaks off after so many lines."""

    def __init__(self, lines: int) -> None:
        self.lines = lines

    def logs(self, run_id: str, *, follow: bool = False) -> Iterator[str]:
        yield from (f"line {number}" for number in range(self.lines))
        raise LaunchError("the connection is gone")


@pytest.mark.parametrize("lines", [0, 2])
def test_a_log_that_breaks_off_is_told_and_one_that_never_came_is_read_from_the_store(
    tmp_path: Path, lines: int
) -> None:
    DirectoryStore(tmp_path).put("logs/000001-000000.log", b"stored\n")
    run = run_of("running", attempt_of(), terms=terms_of(checkpoint_uri=tmp_path.as_uri()))
    found = lines_of(run, _Breaks(lines), lambda: True)  # type: ignore[arg-type]
    if not lines:
        assert list(found) == ["stored"]
        return
    assert [next(found) for _ in range(lines)] == ["line 0", "line 1"]
    with pytest.raises(LaunchError, match="connection is gone"):
        next(found)
