"""Serialized chains: warm solves, each from what the solves before it found (PAPER 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from deqcert.models import solve_rows
from deqcert.smoothing.classifier import ReferenceClassifier
from deqcert.smoothing.spent import Spent
from deqcert.smoothing.starts import make_start
from deqcert.solvers import SolverSpec


@dataclass(frozen=True, kw_only=True)
class Serialization:
    """How serialized labels are made (PAPER 1).

    Attributes:
        serial: Warm solver of every batch but the first.
        warmup: Solver of the first batch (of the fit rows, for ``linear``), from the model's own
            start.
        start: A name of `starts.STARTS`: ``previous``: each row goes on from its own last fixed
            point; ``clean``: every row starts from the fixed point of the image without noise;
            ``linear``: a linear prediction from the injection, solved on only where the lead is
            not clear (`settling.Settling`); nothing then depends on `chains`.
        chains: Rows followed side by side. Part of the method, unlike the hardware batch size.
    """

    serial: SolverSpec
    warmup: SolverSpec
    start: str
    chains: int


class Chains:
    """Some chains of one image: solves draw after draw of each and counts what that cost.

    Args:
        classifier: The reference classifier.
        image: The clean image.
        how: How labels are made.
        chains: Which of the image's chains these are; here they are numbered from 0.
        spent: Where costs are counted.
    """

    def __init__(
        self,
        classifier: ReferenceClassifier,
        image: Tensor,  # (C, H, W)
        how: Serialization,
        chains: range,
        spent: Spent,
    ) -> None:
        self.classifier = classifier
        self.how = how
        self.spent = spent
        self.start = make_start(how.start, len(chains))
        if self.start.needs_clean:
            moved = image[None].to(device=classifier.device, dtype=classifier.dtype)
            _, solution = solve_rows(classifier.model, moved, how.warmup)
            if chains.start == 0:  # counted once, however the chains are spread
                spent.add(solution, how.warmup)
            self.start.clean(solution.state)

    def advance(
        self,
        images: Tensor,  # (high - low, C, H, W)
        low: int,
        high: int,
    ) -> np.ndarray:  # (high - low,) int16
        """Solve one draw of the chains low..high-1, keep their states, return their labels."""
        state0 = self.start.state0(low, high)
        spec = self.how.warmup if state0 is None or self.start.batches == 0 else self.how.serial
        labels, solution = self.classifier.labelled(images, spec=spec, state0=state0)
        self.start.keep(solution.state, solution.status, low, high)
        self.spent.add(solution, spec)  # last: until here memory may run out, and all be repeated
        return labels.label.astype(np.int16)

    def end_batch(self) -> None:
        """Close one batch of chains."""
        self.start.end_batch()
