"""A folder takes its name only when it is whole."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from training.errors import TrainingError
from training.files import recover, whole_folder


def fill(target: Path, error: BaseException) -> None:
    with whole_folder(target) as draft:
        (draft / "file").write_text("half")
        raise error


def test_a_folder_is_replaced_only_once_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with whole_folder(target) as draft:
        (draft / "inner").mkdir()
        (draft / "inner" / "file").write_text("old")
    with pytest.raises(KeyError):
        fill(target, KeyError())
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "inner", "file"]
    with whole_folder(target) as draft:
        (draft / "file").write_text("new")
    assert (target / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_full_disk_is_one_clear_line_and_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "made"
    target.mkdir()
    (target / "file").write_text("old")
    with pytest.raises(TrainingError, match="no space left on the disk") as caught:
        fill(target, OSError(errno.ENOSPC, "No space left on device"))
    assert str(target) in str(caught.value)
    assert (target / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_crash_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / ".made.old").mkdir()
    recover(tmp_path / "made")
    assert (tmp_path / "made").is_dir()
