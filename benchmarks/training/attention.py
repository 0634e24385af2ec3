"""Attention on a CPU, forward and backward: torch's fused kernel against plain products, by length and type; which one `training.loop` takes.

python benchmarks/training/attention.py
"""

from __future__ import annotations

import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

TOKENS = 2048
HEADS, WIDTH = 12, 32
ROUNDS = 15


def milliseconds(backend: SDPBackend, dtype: torch.dtype, length: int) -> float:
    """Median of some rounds, for `TOKENS` tokens in texts of this length."""
    shape = (TOKENS // length, HEADS, length, WIDTH)
    query, key, value = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3))
    mask = torch.zeros(TOKENS // length, 1, length, length, dtype=dtype)
    spent = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        with sdpa_kernel(backend):
            scaled_dot_product_attention(query, key, value, attn_mask=mask).sum().backward()  # type: ignore[no-untyped-call]
        spent.append(1000 * (time.perf_counter() - started))
    return sorted(spent)[ROUNDS // 2]


def main() -> None:
    """Print the table."""
    print("| type | tokens a text | fused, ms | plain, ms | plain is faster by |\n| --- | --- | --- | --- | --- |")
    for dtype in (torch.bfloat16, torch.float32):
        for length in (16, 32, 64, 128, 256, 512):
            fused, plain = (milliseconds(b, dtype, length) for b in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH))
            print(f"| {str(dtype)[6:]} | {length} | {fused:.1f} | {plain:.1f} | {fused / plain:.2f} times |")


if __name__ == "__main__":
    main()
