"""Products of bfloat16 numbers where the processor has no instructions for them.

PyTorch and oneDNN multiply bfloat16 matrices and images on processors with AVX-512; elsewhere their
plain loops take ten to forty times as long as the same product in float32. There the factors are
widened, which loses nothing, and the result is rounded once: what the instructions do too, which
sum in float32. So the classifier is the same, up to the order of its sums.
"""

from __future__ import annotations

from functools import lru_cache

import torch

_WITHOUT = ("AVX2", "DEFAULT", "NO AVX", "VSX", "Z VECTOR", "ZVECTOR")
"""Instruction sets, by PyTorch's names, for which oneDNN has no bfloat16 products."""


@lru_cache(maxsize=1)
def has_bfloat16_products() -> bool:
    """Return whether this processor's instructions multiply bfloat16 numbers.

    PyTorch's word for its instructions decides, which runs record (`run.json`), not a clock: the
    same machine always rounds alike.
    """
    return torch.backends.cpu.get_cpu_capability() not in _WITHOUT


def product_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which numbers of `dtype` are multiplied on this processor."""
    widened = dtype == torch.bfloat16 and not has_bfloat16_products()
    return torch.float32 if widened else dtype
