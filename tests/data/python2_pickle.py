"""A batch pickled as Python 2 and its NumPy wrote CIFAR-10's: opcode by opcode, since no Python 3
pickler writes those byte strings.
"""

from __future__ import annotations

import struct

import numpy as np


def _text(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value  # SHORT_BINSTRING


def _integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)  # BININT


def _array(data: np.ndarray) -> bytes:
    content = np.ascontiguousarray(data).tobytes()
    shape = _integer(data.shape[0]) + _integer(data.shape[1]) + b"\x86"  # TUPLE2
    empty = b"cnumpy\nndarray\n" + _integer(0) + b"\x85" + _text(b"b") + b"\x87"
    kind = b"cnumpy\ndtype\n" + _text(b"u1") + _integer(0) + _integer(1) + b"\x87R"
    kind_state = _integer(3) + _text(b"|") + b"NNN" + _integer(-1) + _integer(-1) + _integer(0)
    kind += b"(" + kind_state + b"tb"
    values = b"T" + struct.pack("<i", len(content)) + content  # BINSTRING
    state = b"(" + _integer(1) + shape + kind + b"\x89" + values + b"tb"
    return b"cnumpy.core.multiarray\n_reconstruct\n" + empty + b"R" + state


def batch_pickle(records: np.ndarray) -> bytes:  # records: uint8, shape (N, 3073)
    """The batch as a protocol 2 pickle of Python 2: keys, labels, data, file names."""
    labels = b"](" + b"".join(_integer(int(label)) for label in records[:, 0]) + b"e"
    names = b"](" + b"".join(_text(b"image.png") for _ in records) + b"e"
    pairs = [
        _text(b"batch_label") + _text(b"made by a test"),
        _text(b"labels") + labels,
        _text(b"data") + _array(records[:, 1:]),
        _text(b"filenames") + names,
    ]
    return b"\x80\x02}(" + b"".join(pairs) + b"u."
