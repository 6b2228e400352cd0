"""What must hold of fast labels beside plain ones, on any device."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from deqcert.models.fast_part import plain_parts
from deqcert.models.fused_cell import FusedCell
from deqcert.smoothing.classifier import ReferenceClassifier


def assert_fast_labels_are_plain(
    classifier: ReferenceClassifier,
    images: Tensor,  # (count, C, H, W)
) -> None:
    """Fast leads are others, by less than the numeric margin; clear labels are the same."""
    assert isinstance(classifier.model.f, FusedCell)
    fast = classifier.labelled(images)[0]
    with plain_parts(classifier.model):
        plain = classifier.labelled(images)[0]
    assert not np.array_equal(fast.lead, plain.lead)
    assert float(np.abs(fast.lead - plain.lead).max()) < classifier.margin < 1e-3
    clear = fast.lead > classifier.margin
    assert np.array_equal(fast.label[clear], plain.label[clear])
