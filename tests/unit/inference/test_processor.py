"""The options under which int8 products are exact, and fast where the processor can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from monitor.inference.processor import cpu_options

KEY = "session.x64quantprecision"


@pytest.mark.parametrize(
    ("cpuinfo", "precise"),
    [
        ("flags\t\t: fpu avx2 fma\n", True),
        ("flags\t\t: fpu avx512f avx512bw avx512_vnni\nbugs\t: x\n", False),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx_vnni\n", False),
        ("Features\t: fp asimd i8mm\n", True),  # no x86: without effect
        (None, True),
    ],
)
def test_the_exact_kernel_is_asked_for_where_the_fast_one_saturates_or_nothing_is_known(
    tmp_path: Path, cpuinfo: str | None, precise: bool
) -> None:
    file = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        file.write_text(cpuinfo)
    options = cpu_options(3, file)
    assert options.intra_op_num_threads == 3
    if precise:
        assert options.get_session_config_entry(KEY) == "1"
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry(KEY)


def test_products_that_would_not_fit_into_16_bits_are_exact_here() -> None:
    rng = np.random.default_rng(0)
    weight = rng.choice(np.array([-127, 127], np.int8), (384, 64))
    rows = rng.choice(np.array([1, 255], np.uint8), (40, 384))
    weight[:, 0], rows[0] = 127, 255  # the largest sum of all
    node = helper.make_node("MatMulInteger", ["x", "w", "middle"], ["y"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", 384])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["rows", 64])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.uint8(128), "middle")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), cpu_options(1), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": rows})
    assert np.array_equal(found, (rows.astype(np.int64) - 128) @ weight.astype(np.int64))
