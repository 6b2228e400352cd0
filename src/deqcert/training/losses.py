"""What is minimised: cross-entropy at the equilibrium and, for short solves, on the way to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from deqcert.models import EquilibriumModel, equilibrium, iterates, jacobian_penalty
from deqcert.models.bfloat16_products import has_bfloat16_products
from deqcert.solvers import SolverSpec, State, map_state, map_tree, solve
from deqcert.solvers.state import leaves
from deqcert.training.config import TrainConfig
from deqcert.training.interval import worst_logits


@dataclass(frozen=True)
class Terms:
    """A loss and what it is made of.

    Attributes:
        loss: What to differentiate. shape: ()
        parts: Its terms before weighting, by name, detached. Each shape: ()
    """

    loss: Tensor
    parts: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one training step sees.

    Attributes:
        images: Noisy images. shape: (B, C, H, W)
        targets: Class probabilities to be learnt. shape: (B, classes)
        other: The same images under other noise, from which warm starts come; needed by the
            short-solve objective with a warm weight above 0. shape: (B, C, H, W)
        probes: Source of the Jacobian penalty's vectors; None leaves the penalty out.
        jacobian_weight: Weight of the penalty.
        more_steps: Steps the solver takes beyond its own number; may be negative.
        ramp: Share of the interval objective's radius and weight, in [0, 1].
    """

    images: Tensor
    targets: Tensor
    other: Tensor | None = None
    probes: torch.Generator | None = None
    jacobian_weight: float = 0.0
    more_steps: int = 0
    ramp: float = 1.0


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """Return the context in which a model is evaluated at `config.precision`."""
    low = config.precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=low)


def slow_products(config: TrainConfig, device: str | None) -> str | None:
    """Return what to tell somebody whose processor multiplies this precision slowly, or None."""
    elsewhere = not (device or "cpu").startswith("cpu")
    if config.precision != "bfloat16" or elsewhere or has_bfloat16_products():
        return None
    return (
        "this processor has no instructions for bfloat16 products, which take ten times as long as "
        "float32 ones here; --precision float32 trains other weights, faster"
    )


def objective(model: EquilibriumModel, batch: Batch, config: TrainConfig) -> Terms:
    """Return the loss of `config.objective`, with the Jacobian penalty where the batch asks."""
    return _OBJECTIVES[config.objective](model, batch, config)


def unrolled_loss(model: EquilibriumModel, batch: Batch, config: TrainConfig) -> Terms:
    """Return the cross-entropy after `config.pretrain_steps` unrolled steps (PAPER 4)."""
    injection = model.inject(batch.images)
    state = iterates(model, injection, config.pretrain_steps)[-1]
    loss = _cross_entropy(model.classify(state), batch.targets, config)
    return _with_penalty(Terms(loss, {"unrolled": loss.detach()}), model, state, injection, batch)


def equilibrium_loss(model: EquilibriumModel, batch: Batch, config: TrainConfig) -> Terms:
    """Return the cross-entropy at the equilibrium."""
    injection = model.inject(batch.images)
    state = equilibrium(model, injection, solver=_solver(batch, config), gradient=config.gradient)
    loss = _cross_entropy(model.classify(state), batch.targets, config)
    terms = Terms(loss, {"equilibrium": loss.detach()})
    return _with_penalty(terms, model, state, injection, batch)


def short_solve_loss(model: EquilibriumModel, batch: Batch, config: TrainConfig) -> Terms:
    """Return the loss that makes a few Picard steps as good as the equilibrium.

    Cross-entropies after the steps of `config.short`, at the equilibrium and (with a warm weight)
    after a warm start from another noisy copy, averaged with their weights; plus the distances of
    the last short state and of the warm one to the equilibrium, and the divergences of the class
    probabilities from those there. The equilibrium counts as given in both: the short solve is to
    follow it, not the other way round.
    """
    short = config.short
    injection = model.inject(batch.images)
    states = iterates(model, injection, short.steps[-1])
    # The solve goes on where the short one ends: fewer steps to the same fixed point.
    end = equilibrium(
        model,
        injection,
        state0=_detached(states[-1]),
        solver=_solver(batch, config),
        gradient=config.gradient,
    )
    target = _detached(end)
    named = {
        f"step {k}": (states[k - 1], w) for k, w in zip(short.steps, short.weights, strict=True)
    }
    named["equilibrium"] = (end, short.equilibrium_weight)
    close = {"closeness": (relative_distance(states[-1], target), short.closeness_weight)}
    if short.warm_weight > 0.0:
        warm = _warm_state(model, batch, injection, target, config)
        named["warm"] = (warm, short.warm_weight)
        close["warm closeness"] = (relative_distance(warm, target), short.warm_weight)
    logits = _classify_together(model, [state for state, _ in named.values()])
    losses = [_cross_entropy(part, batch.targets, config) for part in logits]
    weights = [weight for _, weight in named.values()]
    loss = sum(w * part for w, part in zip(weights, losses, strict=True)) / sum(weights)
    loss = loss + sum(weight * distance for distance, weight in close.values())
    assert isinstance(loss, Tensor)
    agreement = _disagreement(logits, place=list(named).index("equilibrium"))
    loss = loss + short.agreement_weight * agreement
    parts = (
        {"disagreement": agreement}
        | dict(zip(named, losses, strict=True))
        | {name: part for name, (part, _) in close.items()}
    )
    terms = Terms(loss, {name: part.detach() for name, part in parts.items()})
    return _with_penalty(terms, model, end, injection, batch)


def relative_distance(
    state: State,  # (B, ...) or a tuple of such
    target: State,  # built alike
) -> Tensor:  # ()
    """Return the mean over rows of ||state - target||^2 / ||target||^2, over all resolutions."""
    gap = _row_norms(map_state(torch.sub, state, target))
    return (gap / _row_norms(target).clamp_min(1e-12)).mean()


def interval_loss(model: EquilibriumModel, batch: Batch, config: TrainConfig) -> Terms:
    """Return the cross-entropy at the equilibrium mixed with that of the worst logits in a box."""
    spec = config.interval
    terms = equilibrium_loss(model, batch, config)
    label = batch.targets.argmax(dim=1)
    radius, weight = spec.radius * batch.ramp, spec.weight * batch.ramp
    worst = worst_logits(model, batch.images, label, radius=radius, steps=spec.steps)
    loss = _cross_entropy(worst, batch.targets, config)
    parts = terms.parts | {"interval": loss.detach()}
    return Terms((1.0 - weight) * terms.loss + weight * loss, parts)


_OBJECTIVES: dict[str, Callable[[EquilibriumModel, Batch, TrainConfig], Terms]] = {
    "equilibrium": equilibrium_loss,
    "interval": interval_loss,
    "short-solve": short_solve_loss,
}


def _warm_state(
    model: EquilibriumModel, batch: Batch, injection: Any, start: State, config: TrainConfig
) -> State:
    """Return the state after the warm steps from the equilibrium of the other noisy copy."""
    assert batch.other is not None, "the loop draws it whenever the warm weight is above 0"
    with torch.no_grad():
        # Warm starts themselves: the copies share the image, so this one is near already.
        other = model.inject(batch.other)
        spec = SolverSpec("picard", config.short.steps[-1])
        start = solve(model.cell, start, other, spec=spec).state
    return iterates(model, injection, config.short.warm_steps, state0=start)[-1]


def _classify_together(
    model: EquilibriumModel, states: Sequence[State]
) -> list[Tensor]:  # (B, classes) for each state
    """Classify all states in one batch, so that BatchNorm in a head sees one distribution."""
    joined = map_state(lambda *parts: torch.cat(parts), *states)
    return list(model.classify(joined).chunk(len(states)))


def _cross_entropy(
    logits: Tensor,  # (B, classes)
    targets: Tensor,  # (B, classes)
    config: TrainConfig,
) -> Tensor:  # ()
    return F.cross_entropy(logits.float(), targets, label_smoothing=config.label_smoothing)


def _disagreement(
    logits: Sequence[Tensor],  # each (B, classes)
    *,
    place: int,
) -> Tensor:  # ()
    """Return the sum over the others of KL(p* || p), p* the detached probabilities at `place`."""
    target = logits[place].detach().float().log_softmax(dim=1)
    total = target.new_zeros(())
    for index, part in enumerate(logits):
        if index != place:
            found = part.float().log_softmax(dim=1)
            total = total + F.kl_div(found, target, log_target=True, reduction="batchmean")
    return total


def _with_penalty(
    terms: Terms, model: EquilibriumModel, state: State, injection: Any, batch: Batch
) -> Terms:
    if batch.probes is None or batch.jacobian_weight == 0.0:
        return terms
    device = batch.images.device.type
    # Products of Jacobians, differentiated once more: not a place for eight bits of precision.
    with torch.autocast(device, enabled=False):
        # In the usual memory order: second derivatives have no fast GroupNorm in the other.
        full = map_tree(lambda part: part.float().contiguous(), (state, injection))
        penalty = jacobian_penalty(model, *full, generator=batch.probes)
    parts = terms.parts | {"jacobian": penalty.detach()}
    return Terms(terms.loss + batch.jacobian_weight * penalty, parts)


def _solver(batch: Batch, config: TrainConfig) -> SolverSpec:
    spec = SolverSpec.parse(config.solver)
    return dataclasses.replace(spec, max_steps=spec.max_steps + batch.more_steps)


def _row_norms(state: State) -> Tensor:  # (B,), squared
    return sum(
        (part.float().flatten(1).square().sum(dim=1) for part in leaves(state)), torch.zeros(())
    )


def _detached(state: State) -> State:
    return map_tree(torch.Tensor.detach, state)
