"""Files that a person named are replaced whole; what is no file of a disk is written into."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from planner.whole_file import whole_file
from providers.errors import UsageError


def written(path: Path, text: str = "new") -> None:
    with whole_file(path) as beside:
        assert beside.suffix == path.suffix
        beside.write_text(text)


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as beside:
        beside.write_text("half")
        assert path.read_text() == "old"
        _ = 1 / 0
    assert path.read_text() == "old"
    written(path)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    target, link = tmp_path / "plans/today.json", tmp_path / "plan.json"
    link.symlink_to(target)
    for text in ("first", "second"):
        written(link, text)
        assert link.is_symlink() and target.read_text() == text
    assert list(target.parent.iterdir()) == [target]


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    writer = threading.Thread(target=written, args=(pipe,))
    writer.start()
    assert pipe.read_text() == "new"
    writer.join()
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_stays_a_device_and_is_heard() -> None:
    """Root may put a file in its place: nothing is renamed in /dev, whoever asks."""
    written(Path("/dev/null"))
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(UsageError, match="No space left"):
        written(Path("/dev/full"))
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    directory = tmp_path / "plan.json"
    directory.mkdir()
    with pytest.raises(UsageError, match="Is a directory"):
        written(directory)
