"""The bundle format: what loads, what is refused and with which words, and that its bytes are reproducible."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from monitor.errors import BundleError
from monitor.inference.bundle import Bundle, Calibration, Head, Manifest, write_manifest

EVEN = Calibration(temperature=1.0, bias=(0.0, 0.0), confusion=((0.9, 0.1), (0.2, 0.8)), n=10)
THAI = Calibration(temperature=2.0, bias=(0.5, 0.0), confusion=((1.0, 0.0), (0.0, 1.0)), n=4)
HEADS = (Head(name="mood", labels=("bad", "good")),)


def make(folder: Path, optional: tuple[str, ...] = ()) -> Manifest:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.int8.onnx").write_bytes(b"int8 weights")
    (folder / "model.fp16.onnx").write_bytes(b"fp16 weights")
    return write_manifest(
        folder,
        name="tiny",
        heads=HEADS,
        max_length=16,
        text_prefix="query: ",
        pad_id=1,
        hidden=8,
        calibration={"mood": {"*": EVEN, "th": THAI}},
        provenance={"base": "none"},
        optional=optional,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(tmp_path / "bundle", optional=("model.fp16.onnx",))
    return tmp_path / "bundle"


def edit(folder: Path, **changes: object) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_was_written_is_read_back(folder: Path) -> None:
    bundle = Bundle.load(str(folder))
    assert bundle.manifest.heads == HEADS
    assert bundle.manifest.head("topic") is None
    assert bundle.version == bundle.manifest.version != ""
    assert bundle.tokenizer_file == folder / "tokenizer.json"
    assert bundle.model_file("int8") == folder / "model.int8.onnx"
    assert bundle.model_file("fp32") is None


def test_a_language_without_calibration_gets_the_general_one(folder: Path) -> None:
    bundle = Bundle.load(folder)
    assert bundle.calibration("mood", "th") == THAI
    assert bundle.calibration("mood", "th-Latn") == THAI
    assert bundle.calibration("mood", "sw") == EVEN


def test_calibrated_probabilities_use_temperature_and_bias() -> None:
    # softmax([2/2 + 0.5, 0/2]) = sigmoid(1.5)
    found = THAI.probabilities(np.array([[2.0, 0.0], [1000.0, 0.0]], dtype=np.float32))
    assert found == pytest.approx(np.array([[0.8175745, 0.1824255], [1.0, 0.0]]), abs=1e-6)


def test_equal_content_gives_equal_bytes_and_any_change_another_version(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    assert (tmp_path / "a" / "bundle.json").read_bytes() == (tmp_path / "b" / "bundle.json").read_bytes()
    assert first.version == second.version
    assert make(tmp_path / "b", optional=("model.fp16.onnx",)).version != first.version


def test_an_optional_file_may_be_absent_but_not_different(folder: Path) -> None:
    (folder / "model.fp16.onnx").unlink()
    assert Bundle.load(folder).model_file("fp16") is None
    (folder / "model.fp16.onnx").write_bytes(b"fp16 weighty")
    assert "model.fp16.onnx: is damaged" in refusal(folder)


def test_missing_things_are_named(folder: Path) -> None:
    assert "no such bundle folder" in refusal(folder / "nowhere")
    (folder / "model.int8.onnx").unlink()
    assert "model.int8.onnx: is missing" in refusal(folder)
    (folder / "bundle.json").unlink()
    assert "no bundle.json in this folder" in refusal(folder)


@pytest.mark.parametrize("content", [b"int8 weightz", b"int8", b""])
def test_a_damaged_file_is_refused(folder: Path, content: bytes) -> None:
    (folder / "model.int8.onnx").write_bytes(content)
    assert "model.int8.onnx: is damaged" in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"heads": 3}', b'{"format": 1}', b"\xff\xfe"])
def test_a_manifest_that_is_none_is_refused(folder: Path, content: bytes) -> None:
    (folder / "bundle.json").write_bytes(content)
    assert "is not a bundle manifest" in refusal(folder)


def test_an_unknown_format_version_says_what_to_do(folder: Path) -> None:
    edit(folder, format=2, heads="other")
    assert "format version 2 is not known" in refusal(folder)
    assert "upgrade" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_length": 32}, "changed after it was written"),
        ({"heads": []}, "no heads"),
        ({"heads": [{"name": "mood", "labels": ["a", "b", "c"]}]}, "does not fit its 3 labels"),
        ({"calibration": {}}, "no calibration for '*'"),
        ({"files": {"../x": {"sha256": "", "size_bytes": 0}}}, "outside the bundle"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(folder: Path, changes: dict[str, object], words: str) -> None:
    edit(folder, **changes)
    assert words in refusal(folder)


def test_a_folder_without_a_model_is_refused(folder: Path) -> None:
    for path in folder.glob("*.onnx"):
        path.unlink()
    write_manifest(
        folder,
        name="tiny",
        heads=HEADS,
        max_length=16,
        text_prefix="",
        pad_id=1,
        hidden=8,
        calibration={"mood": {"*": EVEN}},
    )
    assert "holds no model" in refusal(folder)
