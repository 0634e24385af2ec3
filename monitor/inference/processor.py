"""What ONNX Runtime has to be told of this processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort

_VNNI = frozenset({"avx512_vnni", "avx_vnni"})
"""Flags of processors that add products of 8 bits in 32; the others add two in 16 bits and saturate."""


def cpu_options(threads: int, cpuinfo: Path = Path("/proc/cpuinfo")) -> Any:
    """Options of a session on the CPU, under which int8 products are exact.

    `session.x64quantprecision` takes a kernel that cannot saturate. ONNX Runtime takes it with VNNI too, where the plain one is
    exact and 1.8 times as fast over the whole model (1.32, measured), so it is set only where it is needed or nothing is known.

    Args:
        threads: Of one run; 0 takes all cores.
        cpuinfo: As Linux tells of its processors.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    if not _VNNI & _flags(cpuinfo):
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _flags(cpuinfo: Path) -> frozenset[str]:
    try:
        lines = cpuinfo.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())
