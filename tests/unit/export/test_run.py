"""The whole road from a checkpoint to a bundle: complete, reproducible, at parity, or not there at all."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tokenizers import Tokenizer

from export import optimise, quantise
from export import run as export_run
from export.card import model_card
from export.checkpoint import load_checkpoint
from export.corpus import Example
from export.errors import ExportError
from export.parity import LIMITS, Limits
from export.run import ExportOptions, ExportReport, export_bundle
from export.runner import bundle_outputs, onnx_run, session
from export.texts import Texts
from monitor.inference.bundle import Bundle
from tests.unit.export import tiny

LOOSE = Limits(probability=1.0, agreement=0.5, f1_drop=50)
"""For the random weights of the tiny checkpoint, whose texts lie close to the borders."""
TEXTS = Texts(
    lines={"en": tiny.texts(60, 1), "de": tiny.texts(60, 2)},
    words={"fi": [("bada", 0.5), ("du", 0.25)]},
    examples={"sentiment": [Example("en", text, i % 3) for i, text in enumerate(tiny.texts(30, 3))]},
)


def options(**changes: object) -> ExportOptions:
    base = ExportOptions(
        name="tiny",
        vocabulary=1000,
        texts=TEXTS,
        limits={"int8": LOOSE, "int4": LOOSE, "fp16": LOOSE, "fp32": LIMITS["fp32"]},
        trim_limits=LOOSE,
        benchmark=False,
        threads=1,
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def made(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, ExportReport]:
    out = tmp_path_factory.mktemp("out") / "bundle"
    report = export_bundle(checkpoint, out, options=options(variants=("int8", "int4", "fp16", "fp32"), benchmark=True))
    return Bundle.load(out), report


def test_the_bundle_is_what_the_checkpoint_says(made: tuple[Bundle, ExportReport]) -> None:
    bundle, report = made
    manifest = bundle.manifest
    assert [(head.name, list(head.labels)) for head in manifest.heads] == [
        ("sentiment", tiny.SENTIMENT),
        ("topic", tiny.TOPIC),
    ]
    assert (manifest.max_length, manifest.text_prefix, manifest.hidden, manifest.pad_id) == (24, "bada: ", 32, 1)
    assert bundle.calibration("topic", "de").temperature == 2.0
    assert manifest.provenance == {"base": "random", "data": ["made up"], "recipe": "tiny"}
    assert set(manifest.languages) == {"de", "en", "fi"}
    assert report.pieces == Tokenizer.from_file(str(bundle.tokenizer_file)).get_vocab_size() <= 1000
    card = (bundle.path / "MODEL_CARD.md").read_text()
    assert "made up" in card
    assert all(file in card for file in report.sizes)
    assert set(report.texts_per_s) == {"fp32, not fused", "int8", "int4", "fp32"}


def test_the_graph_keeps_its_contract(made: tuple[Bundle, ExportReport]) -> None:
    path = made[0].model_file("int8")
    assert path is not None
    running = session(path, 1)
    assert {entry.name: entry.type for entry in running.get_inputs()} == {
        "input_ids": "tensor(int64)",
        "attention_mask": "tensor(int64)",
    }
    assert [entry.name for entry in running.get_outputs()] == ["sentiment", "topic", "embedding"]
    for batch, tokens in ((1, 1), (3, 24), (2, 7)):
        found = onnx_run(running)(np.full((batch, tokens), 9), np.ones((batch, tokens), np.int64))
        assert [(value.shape, value.dtype.name) for value in found.values()] == [
            ((batch, 3), "float32"),
            ((batch, 2), "float32"),
            ((batch, 32), "float32"),
        ]


def test_the_fp32_file_says_what_pytorch_says(made: tuple[Bundle, ExportReport], checkpoint: Path) -> None:
    # Syllable by syllable, so that the cut vocabulary spells these texts as the whole one does.
    texts = ["bada bida", "ba do", "k"]
    whole = load_checkpoint(checkpoint)
    expected = []
    for text in texts:
        ids = torch.tensor([whole.tokenizer.encode(whole.text_prefix + text).ids])
        expected.append(whole.model(ids, torch.ones_like(ids))[0][0].detach().numpy())
    report = made[1].parity["trim"]["sentiment"]["languages"]
    assert set(report) == {"en", "en (unlabelled)", "de (unlabelled)"}
    found = bundle_outputs(made[0], texts, "fp32")["sentiment"]
    assert found == pytest.approx(np.stack(expected), abs=1e-4)


def test_the_card_shows_the_reports_scores(checkpoint: Path) -> None:
    score = {
        "n": 40, "macro_f1": 0.7, "macro_f1_low": 0.6, "macro_f1_high": 0.8, "accuracy": 0.75, "accuracy_low": 0.65,
        "accuracy_high": 0.85, "ece": 0.04, "ece_low": 0.02, "ece_high": 0.09,
    }  # fmt: skip
    found = {
        "languages": {"yo": score | {"ece_before": 0.2, "zero_shot": True}}, "mean": None, "zero_shot_mean": score,
    }  # fmt: skip
    scored = dataclasses.replace(load_checkpoint(checkpoint), scores={"test": {"sentiment": found}})
    told = model_card(scored, "tiny", {}, {}, {}, 9)
    assert "## Scores of `sentiment` on test texts" in told
    assert "| yo (zero-shot) | 40 | 70.0 (60.0–80.0) | 75.0 (65.0–85.0) | 0.040 | 0.200 |" in told
    assert "on validation texts" not in told


def test_a_text_gets_the_same_logits_in_any_batch(made: tuple[Bundle, ExportReport]) -> None:
    texts = tiny.texts(40, 7)
    together = bundle_outputs(made[0], texts)["sentiment"]
    alone = np.concatenate([bundle_outputs(made[0], [text])["sentiment"] for text in texts[:8]])
    assert alone == pytest.approx(together[:8], abs=1e-4)


def test_the_int8_file_is_smaller_and_near(made: tuple[Bundle, ExportReport]) -> None:
    bundle, report = made
    assert report.sizes["model.int8.onnx"] < 0.6 * report.sizes["model.fp32.onnx"]
    texts = tiny.texts(40, 8)
    wide, narrow = (bundle_outputs(bundle, texts, variant)["embedding"] for variant in ("fp32", "int8"))
    cosines = (wide * narrow).sum(1) / np.linalg.norm(wide, axis=1) / np.linalg.norm(narrow, axis=1)
    assert cosines.min() > 0.9


def test_the_same_checkpoint_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    versions = set()
    for name in ("a", "b"):
        report = export_bundle(checkpoint, tmp_path / name, options=options())
        versions.add(report.manifest.version)
    assert len(versions) == 1
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("damage", ["weights", "nan", "labels"])
def test_a_broken_graph_never_becomes_a_bundle(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    good = export_run._models

    def broken(*args: object) -> dict[str, bytes]:
        models = {}
        for variant, data in good(*args).items():  # type: ignore[arg-type]
            model = onnx.load_from_string(data)
            for tensor in model.graph.initializer:
                if damage == "labels" and list(tensor.dims) == [3, 32]:
                    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))
                elif damage != "labels" and list(tensor.dims) == [32, 64]:
                    value = numpy_helper.to_array(tensor) * np.float32(np.nan if damage == "nan" else 1.5)
                    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
            models[variant] = model.SerializeToString()
        return models

    monkeypatch.setattr(export_run, "_models", broken)
    with pytest.raises(ExportError, match="no bundle was written"):
        export_bundle(checkpoint, tmp_path / "bundle", options=options(variants=("fp32",)))
    assert list(tmp_path.iterdir()) == []


def test_a_cut_that_costs_too_much_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    strict = Limits(probability=0.0, agreement=0, f1_drop=0)
    with pytest.raises(ExportError, match="the cut vocabulary"):
        export_bundle(checkpoint, tmp_path / "bundle", options=options(vocabulary=200, trim_limits=strict))


def test_an_old_bundle_stays_until_the_new_one_is_whole(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    first = export_bundle(checkpoint, out, options=options()).manifest.version

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(out))

    with monkeypatch.context() as patch:
        patch.setattr("export.bundle.write_manifest", full)
        with pytest.raises(ExportError, match=r"no space left on the disk \(no bundle was written\)"):
            export_bundle(checkpoint, out, options=options(name="other"))
    assert Bundle.load(out).version == first
    second = export_bundle(checkpoint, out, options=options(name="other")).manifest.version
    assert Bundle.load(out).version == second != first
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_without_texts_a_checkpoint_is_exported_whole(checkpoint: Path, tmp_path: Path) -> None:
    report = export_bundle(checkpoint, tmp_path / "b", options=ExportOptions(vocabulary=None, threads=1))
    assert report.pieces == tiny.tokenizer().get_vocab_size()
    assert report.parity == {}
    Bundle.load(tmp_path / "b")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "model.json").unlink(), "model.json: is missing"),
        (lambda folder: (folder / "model.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "heads.safetensors").unlink(), "heads.safetensors: is missing"),
        (lambda folder: shutil.rmtree(folder / "encoder"), "encoder: is missing"),
        (lambda folder: (folder / "encoder" / "config.json").write_text('{"model_type": "none"}'), "not an encoder"),
        (lambda folder: edit(folder / "model.json", format=2), "format 2 is not known"),
        (
            lambda folder: edit(folder / "model.json", heads=[{"name": "mood", "labels": ["a"]}]),
            "no tensor 'mood.weight'",
        ),
        (lambda folder: edit(folder / "model.json", heads=[{"name": "topic", "labels": ["a"]}]), "2 rows for 1 labels"),
        (lambda folder: (folder / "calibration.json").write_text("{}"), "has no entry '*'"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(checkpoint: Path, tmp_path: Path, spoil, words: str) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, folder)
    spoil(folder)
    with pytest.raises(ExportError) as caught:
        load_checkpoint(folder)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("attention", [True, False])
def test_fusion_keeps_products_apart_from_attention(checkpoint: Path, attention: bool) -> None:
    """What int8 rests on: attention fused or not, every projection is a product with a constant matrix."""
    whole = load_checkpoint(checkpoint)
    from export.onnx import to_onnx

    fused = optimise.fuse(to_onnx(whole.model, ["sentiment", "topic"]), "bert", 4, 32, attention=attention)
    kinds = [node.op_type for node in fused.graph.node]
    assert kinds.count("MultiHeadAttention") == 2 * attention
    assert len(quantise.int8_matmuls(fused)) == 12
