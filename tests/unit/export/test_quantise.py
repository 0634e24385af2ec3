"""Quantised graphs compute what they stand for, and a text's class does not depend on its batch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from export import optimise, quantise
from export.ranges import overflowing
from export.runner import session

weights = hnp.arrays(np.float32, (7, 64), elements=st.floats(-4, 4, width=32))


@given(weights=weights)
def test_channel_scales_keep_every_weight_within_half_a_step(weights: np.ndarray) -> None:
    values, scales = quantise.quantise_channels(weights)
    assert np.all(np.abs(values * scales - weights) <= scales / 2 * 1.001 + 1e-40)  # subnormal numbers are coarse


@given(
    steps=hnp.arrays(np.int8, (4, 64), elements=st.integers(-8, 7)),
    scales=hnp.arrays(np.float16, (4, 2), elements=st.floats(2**-10, 1, width=16)),
)
def test_weights_on_the_grid_of_q4_0_come_back_exactly(steps: np.ndarray, scales: np.ndarray) -> None:
    steps[:, ::32] = -8  # Q4_0 puts each block's largest weight there
    weights = steps * np.repeat(scales.astype(np.float32), 32, axis=1)
    values, found = quantise.quantise_blocks(weights)
    assert np.array_equal(values * np.repeat(found.astype(np.float32), 32, axis=1), weights)


@given(weights=weights)
def test_other_weights_are_no_worse_than_the_plain_grid(weights: np.ndarray) -> None:
    values, scales = quantise.quantise_blocks(weights)
    found = values * np.repeat(scales.astype(np.float32), 32, axis=1)
    peak = np.abs(weights.reshape(-1, 32)).max(axis=1)
    error = np.abs(found - weights).reshape(-1, 32).max(axis=1)
    # A step is peak / 8; the far end of the range, +8 steps, is cut to +7; a fifth of the peak may be clipped besides.
    assert np.all(error <= peak * (1 / 8 + 0.2) + 1e-6)


@given(values=hnp.arrays(np.int8, (3, 8), elements=st.integers(-8, 7)))
def test_four_bit_packing_is_what_onnx_reads(values: np.ndarray) -> None:
    tensor = helper.make_tensor("x", TensorProto.INT4, values.shape, quantise.pack_int4(values).tobytes(), raw=True)
    assert np.array_equal(numpy_helper.to_array(tensor).astype(np.int8), values)


def graph(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], kind: int, width: int) -> onnx.ModelProto:
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", kind, None)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", "tokens", width])],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
    )
    model.ir_version = 8
    return model


def product(weight: np.ndarray) -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="m")
    return graph([node], {"w": weight}, TensorProto.FLOAT, weight.shape[1])


def test_an_int8_product_is_close_even_beside_an_outlier() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 16)).astype(np.float32)
    rows = rng.normal(size=(1, 3, 64)).astype(np.float32)
    rows[0, 2] *= 1000  # one token of another size: with one scale for all, the others would be lost
    rows[0, 1] = 0
    model = product(weight)
    assert quantise.int8_matmuls(model) == ["m"]
    (found,) = session(model.SerializeToString()).run(None, {"x": rows})
    expected = rows @ weight
    spread = np.abs(expected).max(axis=-1, keepdims=True)
    assert np.all(np.abs(found - expected) <= 0.02 * spread)


def test_a_row_gives_the_same_bits_alone_and_among_others() -> None:
    rng = np.random.default_rng(1)
    model = product(rng.normal(size=(64, 16)).astype(np.float32))
    quantise.int8_matmuls(model)
    running = session(model.SerializeToString())
    rows = rng.normal(size=(5, 9, 64)).astype(np.float32) * np.exp(rng.normal(size=(5, 9, 1)).astype(np.float32))
    (together,) = running.run(None, {"x": rows})
    for i in range(5):
        (alone,) = running.run(None, {"x": rows[i : i + 1, :4]})
        assert np.array_equal(alone[0], together[i, :4])


@given(
    rows=hnp.arrays(np.float32, (2, 3, 8), elements=st.floats(-(2.0**60), 2.0**60, width=32)),
    places=st.sets(st.integers(0, 5)),
)
def test_rows_are_rounded_to_the_nearest_even_step_of_their_largest_value(rows: np.ndarray, places: set[int]) -> None:
    rows.reshape(6, 8)[sorted(places)] = 0
    model = product(np.eye(8, dtype=np.float32))
    quantise.int8_matmuls(model)
    (found,) = session(model.SerializeToString()).run(None, {"x": rows})
    scales = np.abs(rows).max(axis=-1, keepdims=True) * np.float32(1 / 127) + quantise._TINY
    step = np.float32(1) / np.float32(127)  # of the weights, which are 127 of them
    assert np.array_equal(found, np.rint(rows / scales) * 127 * step * scales)


def test_nodes_can_be_kept_wide() -> None:
    model = product(np.ones((64, 16), np.float32))
    assert quantise.int8_matmuls(model, keep={"m"}) == []
    assert [node.op_type for node in model.graph.node] == ["MatMul"]


@pytest.mark.parametrize("rows", [quantise._MIN_EMBEDDING_ROWS, 999])
def test_a_large_table_is_stored_in_four_bits_and_a_small_one_is_not(rows: int) -> None:
    table = np.random.default_rng(2).normal(size=(rows, 64)).astype(np.float32)
    model = graph([helper.make_node("Gather", ["e", "x"], ["y"], name="g")], {"e": table}, TensorProto.INT64, 64)
    before = model.ByteSize()
    quantise.int4_embeddings(model)
    ids = np.array([[0, 5, rows - 1]])
    (found,) = session(model.SerializeToString()).run(None, {"x": ids})
    if rows == 999:
        assert np.array_equal(found, table[ids])
    else:
        assert model.ByteSize() < before / 6.5
        assert np.abs(found - table[ids]).max() < np.abs(table).max() / 4
        assert "e" not in optimise.initializers(model)


def test_a_four_bit_product_is_what_its_stored_weights_say_in_any_batch() -> None:
    rng = np.random.default_rng(3)
    steps = rng.integers(-8, 8, (16, 64)).astype(np.int8)
    steps[:, ::32] = -8
    scales = rng.uniform(0.01, 0.1, (16, 2)).astype(np.float16).astype(np.float32)
    weight = (steps * np.repeat(scales, 32, axis=1)).T.copy()  # on the grid, so only the activations are rounded
    model = product(weight)
    assert quantise.int4_matmuls(model) == ["m"]
    assert "w" not in optimise.initializers(model)
    running = session(model.SerializeToString())
    rows = rng.normal(size=(5, 9, 64)).astype(np.float32)
    (together,) = running.run(None, {"x": rows})
    expected = rows @ weight
    assert np.abs(together - expected).max() < 0.02 * np.abs(expected).max()
    for i in range(5):
        (alone,) = running.run(None, {"x": rows[i : i + 1, :4]})
        assert np.allclose(alone[0], together[i, :4], atol=1e-5)  # single rows take a kernel that adds in another order


def test_nodes_beyond_half_precision_are_found_and_kept_wide() -> None:
    weight = np.eye(64, dtype=np.float32)
    big = np.float32(3000)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="small"),
        helper.make_node("Mul", ["a", "big"], ["b"], name="grows"),
        helper.make_node("Mul", ["b", "tiny"], ["y"], name="shrinks"),
    ]
    constants = {"w": weight, "big": np.array(big), "tiny": np.array(np.float32(1 / big))}
    model = graph(nodes, constants, TensorProto.FLOAT, 64)
    rows = np.full((1, 2, 64), 50, np.float32)
    assert overflowing(model, [{"x": rows}]) == ["grows", "shrinks"]
    assert overflowing(model, [{"x": rows / 1000}]) == []
    assert overflowing(model, [{"x": rows * np.nan}]) == ["small", "grows", "shrinks"]

    def constant(keep: list[str]) -> int:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return int(optimise.initializers(quantise.to_fp16(copy, keep))["big"].data_type)

    # A CPU computes fp16 nodes in fp32, so what would overflow on a GPU shows in the stored types only.
    assert constant([]) == TensorProto.FLOAT16
    assert constant(["grows", "shrinks"]) == TensorProto.FLOAT
