"""Write ``digits.npz`` beside this file from scikit-learn's copy of the UCI digits.

Run once: ``python -m deqcert.data._make_digits`` (needs scikit-learn, a development dependency).
The permutation that splits train from test is stored in the file, so that no later change of a
random generator can move an image from one side to the other.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

SEED = 1797  # the number of images: any constant would do, chosen before looking at any result
TRAIN = 1400


def main() -> None:
    """Write images (uint8, 0..16), labels and the split's permutation, compressed."""
    from sklearn.datasets import load_digits

    flat, labels = load_digits(return_X_y=True)
    order = np.random.Generator(np.random.PCG64(SEED)).permutation(len(labels))
    np.savez_compressed(
        Path(__file__).with_name("digits.npz"),
        pixels=np.asarray(flat).reshape(-1, 1, 8, 8).astype(np.uint8),
        labels=np.asarray(labels).astype(np.uint8),
        order=order.astype(np.uint16),
        train=np.uint16(TRAIN),
    )


if __name__ == "__main__":
    main()
