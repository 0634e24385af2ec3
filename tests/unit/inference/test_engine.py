"""The engine: token ids as in training, padding that changes nothing, and errors that say what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monitor.errors import BundleError, ConfigError
from monitor.inference.batching import Grid
from monitor.inference.bundle import Bundle
from monitor.inference.engine import Engine, InferenceError, usable_cpus
from monitor.inference.settings import InferenceSettings
from tests.support.tiny_bundle import CRASH_WORD, MAX_LENGTH, NAN_WORD, make_tiny_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.load(make_tiny_bundle(tmp_path))


@pytest.fixture
def engine(bundle: Bundle) -> Engine:
    return Engine(bundle, InferenceSettings(device="cpu", threads=1))


def reason(error: pytest.ExceptionInfo[InferenceError]) -> str:
    return error.value.reason


def test_texts_get_the_prefix_and_are_cut_at_max_length(engine: Engine) -> None:
    plain, empty, endless = engine.encode(["good", "", "good " * 1_000_000])
    start, end = 0, 2
    assert plain[0] == start
    assert plain[-1] == end
    assert plain[:-2].tolist() == empty[:-1].tolist()  # the prefix stands before every text
    assert len(endless) == MAX_LENGTH
    assert endless[-1] == end


def test_neighbours_and_padding_change_nothing(engine: Engine) -> None:
    ids = engine.encode(["good day", "an awful and very long day", "x"])
    alone = [engine.infer([text], len(text)) for text in ids]
    together = engine.infer([*ids, *ids[:2]], MAX_LENGTH)  # 5 rows: not on the grid
    assert together.embedding is not None
    assert together.embedding.shape == (5, 8)
    for head, values in together.logits.items():
        np.testing.assert_allclose(values[:3], [output.logits[head][0] for output in alone], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("made", [True, False])
def test_a_model_without_embedding_or_one_that_is_not_wanted_has_none(tmp_path: Path, made: bool) -> None:
    settings = InferenceSettings(device="cpu", embeddings=not made)
    engine = Engine(Bundle.load(make_tiny_bundle(tmp_path, embedding=made)), settings)
    outputs = engine.infer(engine.encode(["good"]), MAX_LENGTH)
    assert outputs.embedding is None
    assert set(outputs.logits) == {"sentiment", "topic"}


def test_bad_texts_are_told_apart_by_reason(engine: Engine) -> None:
    with pytest.raises(InferenceError) as error:
        engine.encode(["fine", "a lone \ud800 surrogate"])
    assert reason(error) == "not_encodable"
    for word, expected in [(NAN_WORD, "not_finite"), (CRASH_WORD, "inference")]:
        with pytest.raises(InferenceError) as error:
            engine.infer(engine.encode(["fine", word]), MAX_LENGTH)
        assert reason(error) == expected


def test_warm_up_runs_and_abort_ends_all_runs(engine: Engine) -> None:
    engine.warm_up()
    engine.abort()
    with pytest.raises(InferenceError):
        engine.warm_up()


def test_a_gpu_that_is_not_there_is_a_clear_error(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match=r"inference\.device: no CUDA device"):
        Engine(bundle, InferenceSettings(device="cuda"))
    assert Engine(bundle, InferenceSettings(device="auto")).device == "cpu"


@pytest.mark.parametrize("name", ["tokenizer.json", "model.int8.onnx"])
def test_an_unreadable_file_is_named(bundle: Bundle, name: str) -> None:
    (bundle.path / name).write_bytes(b"not what it says")
    with pytest.raises(BundleError, match=name):
        Engine(bundle, InferenceSettings(device="cpu"))


def test_a_model_without_a_promised_output_is_refused(bundle: Bundle) -> None:
    import onnx

    file = bundle.path / "model.int8.onnx"
    model = onnx.load(file)
    del model.graph.output[0]
    onnx.save(model, file)
    with pytest.raises(BundleError, match="no output 'sentiment'"):
        Engine(bundle, InferenceSettings(device="cpu"))


@pytest.mark.parametrize(("quota", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None)])
def test_a_containers_quota_limits_the_cores(tmp_path: Path, quota: str, expected: int | None) -> None:
    without = usable_cpus(tmp_path)
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cpus(tmp_path) == (expected or without)


def test_halves_of_a_full_batch_stay_on_the_grid() -> None:
    grid = Grid.up_to(512, budget_tokens=16384, steps_per_octave=4, multiple=8)
    for length in grid.lengths:
        rows = grid.rows_within(length, 10_000)
        assert rows * length <= 16384
        while rows % 2 == 0:
            rows //= 2
            assert grid.rows_for(rows) == rows
        assert rows in (1, 3)
