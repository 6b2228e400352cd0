"""Reading pickled batches of bytes without running anything in them.

A pickle may name any function and have it called, so a downloaded one is a program. This reader
knows four names, the ones NumPy writes for an array of bytes, and puts its own harmless objects in
their place; any other name is refused. It also spares us NumPy's private module paths, which moved.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deqcert.errors import DataError


class _Type:
    """Stands in for ``numpy.dtype``: unsigned bytes and nothing else."""

    def __init__(self, code: str | bytes, *_flags: int) -> None:
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"array of type {code!r}, expected unsigned bytes")

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment mean nothing for bytes."""


class _Array:
    """Stands in for ``numpy.ndarray``; its content arrives by `__setstate__`."""

    def __init__(self) -> None:
        self.values: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Type, bool, bytes]) -> None:
        _version, shape, kind, columns_first, content = state
        if not isinstance(kind, _Type) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("array content is not bytes")
        self.values = np.frombuffer(content, dtype=np.uint8).reshape(
            shape, order="F" if columns_first else "C"
        )


def _reconstruct(kind: object, _shape: object, _code: object) -> _Array:
    """Stands in for the function of that name by which NumPy begins an array."""
    if kind is not _Array:
        raise pickle.UnpicklingError("only plain arrays are read")
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """Stands in for ``_codecs.encode``, by which Python 3 writes bytes in old protocols."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"text encoded as {encoding!r}")
    return text.encode("latin-1")


ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):
    """An unpickler that knows the names in `ALLOWED` and no others."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is refused") from None


def read_table(content: bytes, *, what: str) -> dict[str, Any]:
    """Return a pickled dict with string keys; arrays of bytes become NumPy arrays.

    Args:
        content: The pickle, of Python 2 or 3.
        what: Names it in errors.

    Raises:
        DataError: Truncated, not a pickled dict, or naming anything but arrays of bytes.
    """
    try:
        table = _Reader(io.BytesIO(content), encoding="bytes").load()
        items = [(str(_as_text(key)), _as_array(value)) for key, value in table.items()]
    except Exception as error:  # a damaged pickle may raise anything at all
        raise DataError(
            f"{what} is not a pickled batch of images ({error}); delete it and download it again"
        ) from error
    return dict(items)


def _as_text(key: str | bytes) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else key


def _as_array(value: Any) -> Any:
    return value.values if isinstance(value, _Array) else value
