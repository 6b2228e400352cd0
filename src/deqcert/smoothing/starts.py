"""Where a serialized solve starts. Theorem A holds for any labels, so any start is sound."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from deqcert.errors import unknown_name
from deqcert.solvers import State, Status, select_rows


class Start(ABC):
    """The starts of the serialized solves of one image, learned from the solves before.

    Nothing it gives may depend on how the chains are cut into hardware batches: what is learned
    from a batch of chains is learned when all of them are solved.
    """

    needs_clean = False
    """Whether the fixed point of the image without noise is handed to `clean` first."""

    def __init__(self, chains: int) -> None:
        self.chains = chains
        self.batches = 0

    def clean(self, state: State) -> None:  # tensors of shape (1, ...)
        """Take the fixed point of the clean image; called once, before the first batch."""
        del state

    @abstractmethod
    def state0(self, low: int, high: int) -> State | None:  # tensors of shape (high - low, ...)
        """Return the starts of the chains low..high-1; None is the model's own."""

    def keep(self, state: State, status: Tensor, low: int, high: int) -> None:
        """Take what the chains low..high-1 ended with."""
        del state, status, low, high

    def end_batch(self) -> None:
        """Close one batch of chains: all of them have been solved."""
        self.batches += 1


class CleanStart(Start):
    """Every row starts from the fixed point of the image without noise."""

    needs_clean = True

    def __init__(self, chains: int) -> None:
        super().__init__(chains)
        self._state: State | None = None

    def clean(self, state: State) -> None:
        """Take the fixed point of the clean image; one that is not finite is of no use."""
        if all(bool(torch.isfinite(part).all()) for part in parts_of(state)):
            self._state = state

    def state0(self, low: int, high: int) -> State | None:
        """Return the one start, once per row."""
        return None if self._state is None else repeated(self._state, high - low)


class PreviousStart(Start):
    """Each chain goes on from its own last state."""

    def __init__(self, chains: int) -> None:
        super().__init__(chains)
        self._kept: tuple[Tensor, ...] | None = None  # one (chains, ...) tensor per resolution
        self._single = False

    def state0(self, low: int, high: int) -> State | None:
        """Return the last states of these chains; None in the first batch."""
        if self.batches == 0 or self._kept is None:
            return None
        return self._built(tuple(part[low:high] for part in self._kept))

    def keep(self, state: State, status: Tensor, low: int, high: int) -> None:
        """Keep the states of these chains; zeros where a solve failed.

        A failed chain starts again from zero instead of staying broken for ever.
        """
        self._single = isinstance(state, Tensor)
        parts = parts_of(state)
        failed = status == int(Status.NONFINITE)
        broken = bool(failed.any())
        if high - low == self.chains and not broken:
            self._kept = parts  # as they are: a copy would cost as much as the residual
            return
        if self._kept is None:
            self._kept = parts_of(repeated(tuple(part[:1] for part in parts), self.chains))
        for kept, part in zip(self._kept, parts, strict=True):
            kept[low:high] = part
            if broken:
                kept[low:high][failed] = 0.0

    def _built(self, parts: tuple[Tensor, ...]) -> State:
        return parts[0] if self._single else parts


def parts_of(state: State) -> tuple[Tensor, ...]:
    """Return the tensors of a state."""
    return (state,) if isinstance(state, Tensor) else state


def repeated(state: State, rows: int) -> State:  # tensors of shape (1, ...) -> (rows, ...)
    """Return a one-row state once per row, in the memory order that the cell gave it."""
    same = torch.zeros(rows, dtype=torch.int64, device=parts_of(state)[0].device)
    return select_rows(state, same)


_RULES: dict[str, type[Start]] = {"previous": PreviousStart, "clean": CleanStart}

STARTS = (*_RULES, "linear")
"""Names of all starts; ``linear`` is not a chain's rule but `settling.Settling`."""


def make_start(name: str, chains: int) -> Start:
    """Return the start rule of chains called `name`.

    Raises:
        UnknownNameError: No rule of chains is called that.
    """
    if name not in _RULES:
        raise unknown_name("start of chains", name, _RULES)
    return _RULES[name](chains)
