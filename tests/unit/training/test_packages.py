"""Labelled words and texts out of packages of npm and PyPI."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

import pyarrow
import pyarrow.parquet

from training.data.packages import read_package
from training.errors import TrainingError


def package(cache: Path, **files: str) -> None:
    """An archive as npm leaves it in the cache."""
    target = cache / "npm" / "@some-words-1.2.3.tgz"
    target.parent.mkdir(exist_ok=True)
    with tarfile.open(target, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content.encode())
            archive.addfile(member, io.BytesIO(content.encode()))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of one wheel in place of the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tweets-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("labels.csv", b'text,label\n"so, good",3\ncaf\xe9,1\n')
        wheel.writestr("labels.txt", "so good")
        table = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table({"text": ["so good"], "label": [3]}), table)
        wheel.writestr("labels.parquet", table.getvalue())
        wheel.writestr("tweets-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tweets\nVersion: 1.0\n")
        wheel.writestr("tweets-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tweets-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


@pytest.mark.usefixtures("index")
def test_a_file_out_of_a_wheel_is_fetched_once_and_read_as_far_as_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(2, {"text": "so, good", "label": "3"}), (3, {"text": "caf\ufffd", "label": "1"})]
    assert list(read_package("pypi:tweets@1.0/labels.csv", tmp_path)) == rows
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert list(read_package("pypi:tweets@1.0/labels.csv", tmp_path)) == rows


def test_the_star_is_the_language_and_folders_below_are_left_alone(tmp_path: Path) -> None:
    words = {"good": 3, "bad": -3}
    package(
        tmp_path,
        **{
            "lists/W-en.json": json.dumps(words),
            "lists/W-pt-BR.json": '{"mau": -2}',
            "lists/old/W-de.json": '{"x": 1}',
            "lists/W.txt": "-",
        },
    )
    found = list(read_package("npm:@some/words@1.2.3/lists/W-*.json", tmp_path))
    assert found == [
        (1, {"language": "en", "text": "good", "label": "3"}),
        (2, {"language": "en", "text": "bad", "label": "-3"}),
        (3, {"language": "pt-BR", "text": "mau", "label": "-2"}),
    ]


@pytest.mark.usefixtures("index")
def test_parquet_out_of_a_wheel_is_left_as_it_is(tmp_path: Path) -> None:
    assert list(read_package("pypi:tweets@1.0/labels.parquet", tmp_path)) == [(0, {"text": "so good", "label": "3"})]


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("npm:@some/words@1.2.3/other/W-*.json", "holds no such file"),
        ("npm:@some/words@1.2.3/lists/W-*.csv", "is not JSON"),
        ("npm:@some/words@1.2.3/lists/L-*.json", "is no object of texts and labels"),
        ("npm:@some/words/lists/W-*.json", "is no file of a package"),
        ("npm:@some/words@1.2.3/lists/W-en.json", "is no file of a package"),
        ("npm:other@1.0.0/W-*.json", "npm is needed to fetch it"),
        ("pypi:tweets/labels.csv", "is no file of a package"),
        ("pypi:tweets@1.0/other.csv", "holds no other.csv"),
        ("pypi:tweets@1.0/labels.txt", "no known kind of data"),
        ("pypi:tweets@2.0/labels.csv", "cannot be fetched with pip"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(
    path: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    package(tmp_path, **{"lists/W-en.csv": "a,b", "lists/L-en.json": "[1]"})
    with pytest.raises(TrainingError, match=said):
        list(read_package(path, tmp_path))
